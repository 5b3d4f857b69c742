//! The operator edge: `/api/v1` and NanoMDM's API.
//!
//! The table of routes below is the whole surface: the router, the OpenAPI description and the test that every route
//! asks for a token are made from it, so that a route cannot exist without saying who may use it (TH-57).

mod auth;
mod describe;
mod extract;
mod nanomdm;
mod page;
mod plist_json;
mod problem;
mod v1;
mod when;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use http::{HeaderValue, header};
use mdm_core::ids::{CommandUuid, Fingerprint};
use mdm_core::random::Random;
use mdm_core::time::{Clock, Timestamp};
use store::Store;
use url::Url;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub use auth::{Access, DEFAULT_LIFE, Guard, Minted, Scope, Scopes, mint};
pub use describe::openapi;
pub use problem::{FieldError, Problem, Slug};
pub use v1::trust::{AskTrust, CertificateOf, Devices, TrustFinding, TrustReport};

/// Largest body where nothing else is said.
const JSON_LIMIT: usize = 1024 * 1024;
/// Largest body where a profile is taken: 5 MiB of profile, as base64 in JSON, and the rest of the JSON.
const PROFILE_LIMIT: usize = 7 * 1024 * 1024;

/// What the operator edge works with.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// What is remembered of callers; the server flushes it every few seconds.
    pub guard: Arc<Guard>,
    /// The queue.
    pub commands: commands::Context,
    /// The policy engine.
    pub policy: policy::Context,
    /// Apple's device service.
    pub ade: ade::Context,
    /// How devices trust the server.
    pub trust: AskTrust,
    /// What the server says of itself.
    pub about: Arc<About>,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// How devices reach it; enrollment links begin so.
    pub public_url: Url,
    /// SHA-256 of the certificate of the CA that issues identities.
    pub identity_ca: Fingerprint,
    /// When that certificate ends.
    pub identity_ca_not_after: Timestamp,
    /// Whether invitation codes are taken.
    pub invitations: bool,
}

impl Shared {
    /// What storing a push certificate needs.
    fn push_context(&self) -> push::cert::Context<'_> {
        push::cert::Context { sealer: &self.commands.sealer, random: &self.random }
    }

    /// A new `CommandUUID`.
    fn command_uuid(&self) -> CommandUuid {
        let text = self.random.uuid_v4().hyphenated().to_string().to_uppercase();
        text.parse().expect("a UUID has the form of a CommandUUID")
    }
}

/// One line of the table.
struct Row {
    access: Access,
    limit: usize,
    route: UtoipaMethodRouter<Shared>,
}

fn row(access: impl Into<Access>, route: UtoipaMethodRouter<Shared>) -> Row {
    Row { access: access.into(), limit: JSON_LIMIT, route }
}

/// Every route of the operator edge, with what it asks for.
fn table() -> Vec<Row> {
    use Scope as S;
    use v1::{
        account_tokens, acme_policies, api_tokens, commands, enrollment_links, enrollments, events, invitations,
        issuance, push_certs,
    };
    use v1::{ade_devices, ade_profiles, ade_servers, certificate_authorities};
    vec![
        row(Access::Public, routes!(v1::openapi::show_openapi)),
        row(Access::Needs(None), routes!(v1::server::show_server)),
        row(Access::Needs(None), routes!(v1::trust::show_trust)),
        row(S::EnrollmentsRead, routes!(enrollments::list::list_enrollments)),
        row(S::EnrollmentsRead, routes!(enrollments::show::show_enrollment)),
        row(S::EnrollmentsRead, routes!(enrollments::attestations::list_attestations)),
        row(S::PoliciesRead, routes!(enrollments::acme_decision::explain_decision)),
        row(S::EnrollmentsWrite, routes!(enrollments::label_put::put_label)),
        row(S::EnrollmentsWrite, routes!(enrollments::label_remove::remove_label)),
        row(S::CommandsWrite, routes!(enrollments::push::push_enrollment)),
        row(S::CommandsDestructive, routes!(enrollments::unenroll::unenroll)),
        row(S::CommandsRead, routes!(commands::list::list_commands)),
        row(S::CommandsRead, routes!(commands::show::show_command)),
        row(Access::Needs(None), routes!(commands::enqueue::enqueue_command)).limit(PROFILE_LIMIT),
        row(Access::Needs(None), routes!(commands::enqueue_plist::enqueue_plist)).limit(PROFILE_LIMIT),
        row(S::CommandsWrite, routes!(commands::cancel::cancel_command)),
        row(S::TokensWrite, routes!(api_tokens::list::list_api_tokens)),
        row(S::TokensWrite, routes!(api_tokens::create::create_api_token)),
        row(S::TokensWrite, routes!(api_tokens::revoke::revoke_api_token)),
        row(S::EnrollmentsRead, routes!(account_tokens::list::list_account_tokens)),
        row(S::EnrollmentsWrite, routes!(account_tokens::revoke::revoke_account_token)),
        row(S::EnrollmentsWrite, routes!(account_tokens::revoke_account::revoke_account)),
        row(S::EventsRead, routes!(events::list::list_events)),
        row(S::PushCertsRead, routes!(push_certs::list::list_push_certs)),
        row(S::PushCertsWrite, routes!(push_certs::put::put_push_cert)),
        row(S::PoliciesRead, routes!(acme_policies::list::list_acme_policies)),
        row(S::PoliciesRead, routes!(acme_policies::show::show_acme_policy)),
        row(S::PoliciesWrite, routes!(acme_policies::put::put_acme_policy)),
        row(S::PoliciesWrite, routes!(acme_policies::delete::delete_acme_policy)),
        row(S::PoliciesRead, routes!(acme_policies::revisions::list_revisions)),
        row(S::PoliciesWrite, routes!(v1::bundle::apply::apply_bundle)).limit(PROFILE_LIMIT),
        row(S::PoliciesRead, routes!(v1::bundle::export::export_bundle)),
        row(S::PoliciesRead, routes!(acme_policies::assignments::list_assignments)),
        row(S::PoliciesWrite, routes!(acme_policies::assign::assign_acme_policy)),
        row(S::PoliciesWrite, routes!(acme_policies::unassign::unassign_acme_policy)),
        row(S::PoliciesRead, routes!(acme_policies::dry_run::dry_run)),
        row(S::PoliciesRead, routes!(v1::label_rules::list::list_label_rules)),
        row(S::PoliciesRead, routes!(v1::label_rules::show::show_label_rule)),
        row(S::PoliciesWrite, routes!(v1::label_rules::put::put_label_rule)),
        row(S::PoliciesWrite, routes!(v1::label_rules::delete::delete_label_rule)),
        row(S::PoliciesRead, routes!(acme_policies::report::report_acme_policy)),
        row(S::PoliciesRead, routes!(acme_policies::rollout::show::show_rollout)),
        row(S::PoliciesWrite, routes!(acme_policies::rollout::pause::pause_rollout)),
        row(S::PoliciesWrite, routes!(acme_policies::rollout::resume::resume_rollout)),
        row(S::PoliciesWrite, routes!(acme_policies::rollout::roll_back::roll_back_rollout)),
        row(S::PoliciesRead, routes!(v1::acme_certificates::list::list_acme_certificates)),
        row(S::PoliciesRead, routes!(v1::acme_certificates::show::show_acme_certificate)),
        row(S::PoliciesRead, routes!(v1::acme_traces::list::list_acme_traces)),
        row(S::PoliciesRead, routes!(v1::acme_traces::show::show_acme_trace)),
        row(S::PoliciesRead, routes!(certificate_authorities::list::list_certificate_authorities)),
        row(S::PoliciesRead, routes!(certificate_authorities::show::show_certificate_authority)),
        row(S::PoliciesWrite, routes!(certificate_authorities::put::put_certificate_authority)),
        row(S::PoliciesWrite, routes!(certificate_authorities::delete::delete_certificate_authority)),
        row(S::PoliciesWrite, routes!(certificate_authorities::webhook_add::add_webhook)),
        row(S::PoliciesWrite, routes!(certificate_authorities::webhook_revoke::revoke_webhook)),
        row(S::DoorsRead, routes!(v1::enrollment_doors::list::list_enrollment_doors)),
        row(S::DoorsRead, routes!(v1::enrollment_doors::show::show_enrollment_door)),
        row(S::DoorsWrite, routes!(v1::enrollment_doors::put::put_enrollment_door)),
        row(S::LinksWrite, routes!(enrollment_links::list::list_enrollment_links)),
        row(S::LinksWrite, routes!(enrollment_links::create::create_enrollment_link)),
        row(S::LinksWrite, routes!(enrollment_links::revoke::revoke_enrollment_link)),
        row(S::LinksWrite, routes!(invitations::list::list_invitations)),
        row(S::LinksWrite, routes!(invitations::show::show_invitation)),
        row(S::LinksWrite, routes!(invitations::create::create_invitation)),
        row(S::LinksWrite, routes!(invitations::revoke::revoke_invitation)),
        row(S::IssuanceRead, routes!(v1::identities::list::list_identities)),
        row(S::CommandsDestructive, routes!(v1::identities::revoke::revoke_identity)),
        row(S::CommandsWrite, routes!(enrollments::renew::renew_identity)),
        row(S::AdeRead, routes!(ade_servers::list::list_ade_servers)),
        row(S::AdeRead, routes!(ade_servers::show::show_ade_server)),
        row(S::AdeWrite, routes!(ade_servers::create::create_ade_server)),
        row(S::AdeWrite, routes!(ade_servers::delete::delete_ade_server)),
        row(S::AdeWrite, routes!(ade_servers::token::put_ade_token)),
        row(S::AdeWrite, routes!(ade_servers::sync::sync_ade_server)),
        row(S::AdeWrite, routes!(ade_servers::default_profile::put_default_profile)),
        row(S::AdeRead, routes!(ade_servers::account_driven_show::show_discovery)),
        row(S::AdeWrite, routes!(ade_servers::account_driven_put::put_discovery)),
        row(S::AdeWrite, routes!(ade_servers::account_driven_delete::delete_discovery)),
        row(S::AdeRead, routes!(ade_profiles::list::list_ade_profiles)),
        row(S::AdeRead, routes!(ade_profiles::show::show_ade_profile)),
        row(S::AdeWrite, routes!(ade_profiles::put::put_ade_profile)),
        row(S::AdeWrite, routes!(ade_profiles::delete::delete_ade_profile)),
        row(S::AdeRead, routes!(ade_devices::list::list_ade_devices)),
        row(S::AdeRead, routes!(ade_devices::show::show_ade_device)),
        row(S::AdeWrite, routes!(ade_devices::assign::assign_ade_profile)),
        row(S::AdeWrite, routes!(ade_devices::approve::approve_ade_devices)),
        row(S::AdeWrite, routes!(ade_devices::label::label_ade_devices)),
        row(S::IssuanceRead, routes!(issuance::list::list_issuance)),
        row(S::IssuanceWrite, routes!(issuance::import::import_identity)),
        row(S::CommandsDestructive, routes!(issuance::revoke::revoke_issuance)),
        row(S::IssuanceRead, routes!(v1::quarantine::list::list_quarantine)),
        row(S::IssuanceRead, routes!(v1::quarantine::show::show_quarantined)),
        row(S::IssuanceWrite, routes!(v1::quarantine::approve::approve_quarantined)),
        row(S::IssuanceWrite, routes!(v1::quarantine::refuse::refuse_quarantined)),
        row(S::NetworkUsersWrite, routes!(v1::network_users::list::list_network_users)),
        row(S::NetworkUsersWrite, routes!(v1::network_users::put::put_network_user)),
        row(S::NetworkUsersWrite, routes!(v1::network_users::delete::delete_network_user)),
        row(Access::Public, routes!(nanomdm::version::version)),
    ]
}

/// NanoMDM's API; each line also stands under `/api/v1/nanomdm`.
fn nanomdm_table() -> Vec<Row> {
    use Scope as S;
    use nanomdm::{enqueue, push, pushcert, query, queue};
    vec![
        row(Access::Needs(None), routes!(enqueue::nanomdm_enqueue)).limit(PROFILE_LIMIT),
        row(Access::Needs(None), routes!(enqueue::empty_enqueue_path)),
        row(S::CommandsWrite, routes!(push::nanomdm_push)),
        row(S::CommandsWrite, routes!(push::empty_path)),
        row(S::CommandsWrite, routes!(push::no_slash)),
        row(S::PushCertsRead, routes!(pushcert::get_pushcert)),
        row(S::PushCertsWrite, routes!(pushcert::put_pushcert)),
        row(S::CommandsRead, routes!(queue::show_queue)),
        row(S::CommandsWrite, routes!(queue::clear_queues)),
        row(S::EnrollmentsRead, routes!(query::query_enrollments)),
    ]
}

/// All lines: ours, NanoMDM's at its own addresses, and NanoMDM's at NanoHUB's.
fn all_rows() -> Vec<Row> {
    let (ours, theirs) = (table().into_iter(), nanomdm_table().into_iter());
    ours.chain(theirs).chain(nanomdm_table().into_iter().map(Row::at_nanohub)).collect()
}

/// The table as a router whose routes each ask for what their line says.
fn routed(gate: impl Fn(&Row) -> Option<(Shared, Access, bool)>) -> OpenApiRouter<Shared> {
    all_rows().into_iter().fold(OpenApiRouter::with_openapi(describe::frame()), |router, line| {
        let state = gate(&line);
        let Row { limit, route, .. } = line.described();
        router.routes(route.map(|methods| {
            let methods = methods.route_layer(DefaultBodyLimit::max(limit));
            match state {
                Some(state) => methods.route_layer(from_fn_with_state(state, auth::gate)),
                None => methods,
            }
        }))
    })
}

/// One route, for tests of the whole surface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its method.
    pub method: http::Method,
    /// Its path, with `{name}` for each parameter.
    pub path: String,
    /// What it asks for.
    pub access: Access,
}

/// Every route of the operator edge.
pub fn surface() -> Vec<Route> {
    let route = |access, path: &String, method| Route { method, path: path.clone(), access };
    let mut all = Vec::new();
    for row in all_rows() {
        for (path, item) in &row.route.1.paths {
            use http::Method as M;
            let methods = [(&item.get, M::GET), (&item.put, M::PUT), (&item.post, M::POST), (&item.delete, M::DELETE)];
            all.extend(methods.into_iter().filter(|(o, _)| o.is_some()).map(|(_, m)| route(row.access, path, m)));
        }
    }
    all
}

/// The operator edge.
pub fn router(shared: Shared) -> Router {
    let gated = shared.clone();
    let (router, _) = routed(|line| Some((gated.clone(), line.access, line.is_nanomdm()))).split_for_parts();
    router
        .fallback(async || {
            Problem::new(Slug::NotFound, "there is nothing at this address; /api/v1/openapi.json lists all")
        })
        .method_not_allowed_fallback(async || {
            Problem::new(Slug::MethodNotAllowed, "/api/v1/openapi.json lists the methods")
        })
        .layer(map_response(fixed_headers))
        .with_state(shared)
}

impl Row {
    fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Whether this route is one of NanoMDM's, which also takes Basic and answers as NanoMDM does.
    fn is_nanomdm(&self) -> bool {
        self.route.1.paths.keys().any(|path| !path.starts_with("/api/v1/") || path.starts_with("/api/v1/nanomdm/"))
    }
}

/// What every answer carries: nothing of it may be kept by a cache or guessed at by a browser.
async fn fixed_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
