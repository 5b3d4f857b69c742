//! Servers of Apple Business Manager and Apple School Manager.

pub(crate) mod account_driven_delete;
pub(crate) mod account_driven_put;
pub(crate) mod account_driven_show;
pub(crate) mod create;
pub(crate) mod default_profile;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod show;
pub(crate) mod sync;
pub(crate) mod token;

use mdm_core::certificate::Certificate;
use serde::Serialize;
use serde_json::json;
use store::Tx;
use store::ade::Server;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::problem::Problem;
use crate::when::When;

/// A server of the portal, without its key and its token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdeServer {
    /// Its id here.
    id: Uuid,
    /// Its name here.
    name: String,
    /// How it is: `no_token`, `ok`, `terms_not_signed`, `token_expired`, `token_refused`, `unreachable` or `throttled`.
    health: String,
    /// The same in a sentence, with what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    health_text: Option<String>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    health_at: Option<When>,
    /// The certificate (PEM) to upload to the portal.
    certificate_pem: String,
    /// `consumer_key` of the token: the portal's server.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_key: Option<String>,
    /// When the token ends. Renew it before.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_expires_at: Option<When>,
    /// When it was put.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_at: Option<When>,
    /// The organization, as Apple describes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<serde_json::Value>,
    /// The profile of devices for which nobody wished another.
    #[serde(skip_serializing_if = "Option::is_none")]
    default_profile: Option<String>,
    /// When the list of devices was last read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    synced_at: Option<When>,
    /// When the next visit to Apple is due.
    next_visit_at: When,
    /// How many devices are in which state of assignment.
    devices: Vec<AdeDeviceCount>,
}

/// How many devices of a server are in one state of assignment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdeDeviceCount {
    /// `none`, `due`, `assigned`, `throttled`, `not_accessible` or `failed`.
    assign_state: String,
    /// How many.
    count: i64,
}

/// A server with its counts and the name of its default profile.
async fn shown(tx: &mut Tx, server: Server) -> Result<AdeServer, Problem> {
    let default_profile = match server.default_profile_id {
        Some(id) => store::ade::profiles::get(tx, id).await?.map(|profile| profile.name),
        None => None,
    };
    let counts = store::ade::devices::counts(tx, server.id).await?;
    let count = |c: store::ade::devices::Count| AdeDeviceCount { assign_state: c.assign_state, count: c.devices };
    let certificate = Certificate::from_der(&server.certificate);
    Ok(AdeServer {
        id: server.id,
        name: server.name,
        health: server.health,
        health_text: server.health_text,
        health_at: server.health_at.map(When::ms),
        certificate_pem: certificate.map(|certificate| certificate.to_pem()).unwrap_or_default(),
        consumer_key: server.consumer_key,
        token_expires_at: server.token_expires_at.map(When::ms),
        token_at: server.token_at.map(When::ms),
        account: server.account.and_then(|text| serde_json::from_str(&text).ok()),
        default_profile,
        synced_at: server.synced_at.map(When::ms),
        next_visit_at: When::ms(server.due_at),
        devices: counts.into_iter().map(count).collect(),
    })
}

async fn find(tx: &mut Tx, id: Uuid) -> Result<Server, Problem> {
    store::ade::servers::get(tx, id).await?.ok_or_else(|| Problem::not_found("ADE server", id))
}

/// The data of an event on a server.
fn about(server: &Server) -> serde_json::Value {
    json!({ "ade_server": server.id, "name": server.name })
}
