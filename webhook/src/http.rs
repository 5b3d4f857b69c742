//! The routes below `/webhook`, for the device listener: certificate authorities reach it as devices do.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ca::Adapter;
use ca::webhooks::WebhookKind;
use mdm_core::ids::{AuthorityId, Fingerprint};
use mdm_core::rate::{Rate, network};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::authorities;
use store::events::{NewEvent, record_alone};

use crate::answer::{self, Webhook};
use crate::error::{Error, Result};
use crate::{Shared, generic, signature, step_ca};

/// A call of step-ca carries a request and a few names; one with an attestation at most 64 KiB more.
const LIMIT: usize = 256 * 1024;

/// How often an address that signs wrongly is written down.
const WRITTEN_DOWN: Rate = Rate { burst: 5, per_second: 1.0 / 60.0 };

/// `POST /webhook/step-ca/{authority}` and `POST /webhook/acme/{authority}`, with the name of the authority. Expects
/// `ConnectInfo<SocketAddr>` with the caller's address on each request; without it all callers share one limit.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/webhook/step-ca/{authority}", post(from_step_ca))
        .route("/webhook/acme/{authority}", post(from_others))
        .layer(DefaultBodyLimit::max(LIMIT))
        .with_state(shared)
}

/// Which of the two forms a route takes.
#[derive(Clone, Copy)]
struct Form {
    adapter: Adapter,
    id: &'static str,
    signature: &'static str,
}

const STEP_CA: Form =
    Form { adapter: Adapter::StepCa, id: "x-smallstep-webhook-id", signature: "x-smallstep-signature" };
const GENERIC: Form = Form { adapter: Adapter::Generic, id: "x-assay-webhook-id", signature: "x-assay-signature" };

async fn from_step_ca(State(shared): State<Shared>, Path(authority): Path<String>, request: Request) -> Response {
    take(&shared, STEP_CA, &authority, request).await
}

async fn from_others(State(shared): State<Shared>, Path(authority): Path<String>, request: Request) -> Response {
    take(&shared, GENERIC, &authority, request).await
}

async fn take(shared: &Shared, form: Form, authority: &str, request: Request) -> Response {
    let began = Instant::now();
    let caller = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let headers = request.headers().clone();
    let answered = match axum::RequestExt::extract::<Bytes, _>(request).await {
        Ok(body) => store::retry(|| answered(shared, form, authority, &headers, &body)).await,
        Err(BytesRejection::FailedToBufferBody(e)) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Err(Error::TooLarge)
        }
        Err(_) => Err(Error::Malformed("the body ended early")),
    };
    metrics::histogram!("webhook_seconds").record(began.elapsed().as_secs_f64());
    match answered {
        Ok(text) => reply(StatusCode::OK, text),
        Err(error) => turned_away(shared, authority, caller, &error).await,
    }
}

/// Reads a call, and answers it.
async fn answered(shared: &Shared, form: Form, authority: &str, headers: &HeaderMap, body: &Bytes) -> Result<String> {
    let now = shared.clock.now();
    let (webhook, secret) = named(shared, form, authority, headers).await?;
    signature::check(secret.expose(), body, one(headers, form.signature)?)?;
    let request = match webhook.kind {
        WebhookKind::Generic => generic::read(body)?,
        kind => step_ca::read(body, kind)?,
    };
    signature::check_time(request.at, now)?;
    let answer = answer::answer(shared, &webhook, &request, Fingerprint::of(body), now).await?;
    answer.ok_or(Error::Signature)
}

/// The webhook that the headers name, if it is one of this authority, and its secret.
async fn named(
    shared: &Shared,
    form: Form,
    authority: &str,
    headers: &HeaderMap,
) -> Result<(Webhook, mdm_core::secret::Secret<Vec<u8>>)> {
    let id = one(headers, form.id)?;
    let mut tx = shared.store.read().await?;
    let row =
        authorities::webhook(&mut tx, id).await?.filter(|row| row.revoked_at.is_none()).ok_or(Error::Signature)?;
    let owner = authorities::get(&mut tx, AuthorityId(row.authority_id)).await?;
    let owner = owner.filter(|owner| owner.deleted_at.is_none() && owner.name == authority).ok_or(Error::Signature)?;
    let (_, known) = ca::stored(&owner)?;
    let kind = WebhookKind::from_text(&row.kind).ok_or(store::Error::Corrupt("ca_webhook.kind"))?;
    // The authority may have become one of another kind since.
    if known.adapter != form.adapter || (kind == WebhookKind::Generic) != (form.adapter == Adapter::Generic) {
        return Err(Error::Signature);
    }
    let secret = ca::webhooks::secret(&row, &shared.sealer)?;
    Ok((Webhook { id: row.id, kind, authority: known }, secret))
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Error::Signature),
        _ => Err(Error::Signature),
    }
}

/// A call that was not even looked at.
async fn turned_away(shared: &Shared, authority: &str, caller: Option<IpAddr>, error: &Error) -> Response {
    let now = shared.clock.now();
    let code = error.code();
    metrics::counter!("webhook_calls_refused_total", "reason" => code).increment(1);
    let status = match error {
        Error::Signature | Error::Timestamp => StatusCode::FORBIDDEN,
        Error::Malformed(_) => StatusCode::BAD_REQUEST,
        Error::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => {
            tracing::error!(error = %error, "a webhook could not be answered");
            let body = json!({ "allow": false, "error": { "code": code, "message": "the server could not answer" } });
            let mut response = reply(StatusCode::SERVICE_UNAVAILABLE, body.to_string());
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
    };
    let address = caller.map_or(IpAddr::from([0, 0, 0, 0]), network);
    if shared.turned_away.take(address, WRITTEN_DOWN, now) {
        note(shared, authority, caller, error, now).await;
    }
    let message = error.to_string();
    reply(status, json!({ "allow": false, "error": { "code": code, "message": message } }).to_string())
}

/// Writes down that a call was turned away.
async fn note(shared: &Shared, authority: &str, caller: Option<IpAddr>, error: &Error, now: Timestamp) {
    let authority: String = authority.chars().take(64).collect();
    let address = caller.map(|ip| ip.to_string());
    tracing::warn!(client.address = address, authority, error = %error, "a webhook call was turned away");
    let data = json!({ "authority": authority, "reason": error.code(), "address": address });
    let event = NewEvent {
        at: now,
        kind: "webhook.turned_away",
        enrollment: None,
        command: None,
        actor: "server",
        summary: "A call to a certificate authority's webhook was turned away",
        data: &data,
    };
    record_alone(&shared.store, &event).await;
}

fn reply(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, body).into_response()
}
