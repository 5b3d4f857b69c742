//! The OpenAPI 3.1 description, made from the table of routes.

use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, PathItem, Ref, RefOr, ResponseBuilder};

use crate::auth::Access;
use crate::{Row, routed};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Assay",
        description = "Apple MDM that pushes ACME profiles. Errors are RFC 9457 `application/problem+json`; lists are in pages.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "enrollments", description = "MDM relationships: devices, and their users on the user channel"),
        (name = "commands", description = "The queue"),
        (name = "acme-policies", description = "Which ACME payload, for whom, under which attestation rule"),
        (name = "certificate-authorities", description = "Who issues what ACME policies ask for, and the webhooks by which it asks back"),
        (name = "label-rules", description = "Labels that follow from what is known of a device"),
        (name = "push-certs", description = "APNs certificates"),
        (name = "enrollment-doors", description = "The ways into management, and how each is set"),
        (name = "enrollment-links", description = "One-time permissions to enroll"),
        (name = "ade", description = "Automated Device Enrollment: Apple's servers, profiles and devices"),
        (name = "invitations", description = "Codes that stand in for a sign-in"),
        (name = "account-tokens", description = "What devices of account-driven enrollment show with each request"),
        (name = "identities", description = "Identity certificates, their ends and their renewals"),
        (name = "issuance", description = "Who got which identity certificate"),
        (name = "api-tokens", description = "Who may use this API"),
        (name = "events", description = "What happened"),
        (name = "server", description = "The server itself"),
        (name = "nanomdm", description = "NanoMDM's API"),
    ),
)]
struct Description;

/// What stands around the routes.
pub(crate) fn frame() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

/// The OpenAPI 3.1 description of the whole table, as indented JSON.
///
/// # Panics
/// Never: a description made of strings and maps is JSON.
pub fn openapi() -> String {
    let mut description = routed(|_| None).into_openapi();
    let bearer = SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("assay_…").build());
    let basic = "User `nanomdm`, password an API token; at NanoMDM's addresses only.";
    let basic = SecurityScheme::Http(Http::builder().scheme(HttpAuthScheme::Basic).description(Some(basic)).build());
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("token", bearer);
    components.add_security_scheme("nanomdm", basic);
    let mut text = description.to_pretty_json().expect("a description made of strings and maps is JSON");
    text.push('\n');
    text
}

impl Row {
    /// The line with what all lines have in common written into its description: who may use it, and how it refuses.
    pub(crate) fn described(mut self) -> Self {
        let (access, is_nanomdm) = (self.access, self.is_nanomdm());
        for item in self.route.1.paths.values_mut() {
            operations(item).for_each(|operation| {
                operation.security = Some(security(access, is_nanomdm));
                if !is_nanomdm {
                    refusals(operation);
                }
            });
            name_methods(item);
        }
        self
    }

    /// The same line at `/api/v1/nanomdm/…` for `/v1/…`, where NanoHUB has it.
    pub(crate) fn at_nanohub(mut self) -> Self {
        let paths = std::mem::take(&mut self.route.1.paths);
        for (path, mut item) in paths {
            for operation in operations(&mut item) {
                operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_at_nanohub"));
            }
            self.route.1.paths.insert(path.replacen("/v1", "/api/v1/nanomdm", 1), item);
        }
        self
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().flatten()
}

/// OpenAPI 3.1 lets a requirement on a bearer token list what the token must carry.
fn security(access: Access, is_nanomdm: bool) -> Vec<SecurityRequirement> {
    let Access::Needs(scope) = access else { return vec![SecurityRequirement::default()] };
    let scopes: Vec<&str> = scope.iter().map(|scope| scope.as_str()).collect();
    let schemes: &[&str] = if is_nanomdm { &["token", "nanomdm"] } else { &["token"] };
    schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, scopes.clone())).collect()
}

/// Every refusal that is not listed has the same form.
fn refusals(operation: &mut Operation) {
    let content = Content::builder().schema(Some(Ref::from_schema_name("Problem"))).build();
    let refusal = ResponseBuilder::new()
        .description("A refusal; see docs/errors.md")
        .content("application/problem+json", content);
    operation.responses.responses.insert("default".to_owned(), RefOr::T(refusal.build()));
}

/// One handler for several methods gives them one operationId, which must be unique: the method is added to it.
fn name_methods(item: &mut PathItem) {
    let mut seen = Vec::new();
    let methods =
        [("get", &mut item.get), ("put", &mut item.put), ("post", &mut item.post), ("delete", &mut item.delete)];
    for (method, operation) in methods {
        let Some(id) = operation.as_mut().and_then(|o| o.operation_id.as_mut()) else { continue };
        if seen.contains(id) {
            *id = format!("{id}_by_{method}");
        }
        seen.push(id.clone());
    }
}
