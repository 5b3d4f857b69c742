//! `/v1/pushcert`

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::{IntoParams, ToSchema};

use super::reply::{ErrorBody, error, go_json, status_of};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{self, Query};
use crate::problem::Problem;
use crate::when::When;

/// A push certificate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NanoMdmPushCert)]
pub(crate) struct PushCert {
    topic: String,
    not_after: When,
}

/// Which one.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Topic {
    /// Its topic.
    topic: Option<String>,
}

/// How to store it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Force {
    /// Any value: take a certificate whose topic is none of the stored ones.
    force: Option<String>,
}

/// Stores a push certificate: PEM of the certificate and of its unencrypted key, in either order.
#[utoipa::path(
    put, path = "/v1/pushcert", tag = "nanomdm", params(Force),
    request_body(content = String, content_type = "application/x-pem-file"),
    responses(
        (status = 200, description = "Stored", body = PushCert),
        (status = 400, description = "Refused, and why", body = ErrorBody),
    ),
)]
pub(crate) async fn put_pushcert(
    State(shared): State<Shared>,
    caller: Caller,
    Query(query): Query<Force>,
    request: Request,
) -> Response {
    let force = query.force.is_some_and(|v| !v.is_empty());
    match upload(&shared, &caller, request, force).await {
        Ok(cert) => go_json(StatusCode::OK, &cert),
        Err(problem) => error(status_of(&problem), problem.line()),
    }
}

async fn upload(shared: &Shared, caller: &Caller, request: Request, force: bool) -> Result<PushCert, Problem> {
    let body = extract::body(request, shared).await?;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let cert = push::cert::upload(&mut tx, shared.push_context(), &body, None, force, now).await?;
    let event = NewEvent {
        summary: &format!("push certificate for {} was stored; it ends at {}", cert.topic, cert.not_after),
        data: &json!({ "topic": cert.topic, "not_after": cert.not_after, "sha256": cert.sha256 }),
        ..caller.event(now, "push_cert.stored")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(PushCert { topic: cert.topic, not_after: cert.not_after.into() })
}

/// The stored push certificate of a topic. An unknown topic is 500, as at NanoMDM.
#[utoipa::path(
    get, path = "/v1/pushcert", tag = "nanomdm", params(Topic),
    responses(
        (status = 200, description = "The certificate", body = PushCert),
        (status = 400, description = "No topic named", body = ErrorBody),
        (status = 500, description = "No such topic", body = ErrorBody),
    ),
)]
pub(crate) async fn get_pushcert(State(shared): State<Shared>, Query(query): Query<Topic>) -> Response {
    let Some(topic) = query.topic.filter(|topic| !topic.is_empty()) else {
        return error(StatusCode::BAD_REQUEST, "missing required query parameter: topic");
    };
    match find(&shared, &topic).await {
        Ok(Some(cert)) => go_json(StatusCode::OK, &cert),
        Ok(None) => error(StatusCode::INTERNAL_SERVER_ERROR, format!("no push certificate for topic {topic}")),
        Err(problem) => error(status_of(&problem), problem.line()),
    }
}

async fn find(shared: &Shared, topic: &str) -> Result<Option<PushCert>, Problem> {
    let certs = store::push::certs(&mut shared.store.read().await?).await?;
    let cert = certs.into_iter().find(|cert| cert.topic == topic);
    Ok(cert.map(|cert| PushCert { topic: cert.topic, not_after: When::ms(cert.not_after) }))
}
