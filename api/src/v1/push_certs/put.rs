//! `PUT /api/v1/push-certs`

use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::secret::Secret;
use serde::Deserialize;
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;

use super::PushCert;
use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// A push certificate with its key: either `pem`, or `pkcs12` with its `password`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPushCert {
    /// PEM of the certificate and of its unencrypted key, in any order.
    pem: Option<String>,
    /// PKCS#12 in base64.
    #[schema(format = Byte)]
    pkcs12: Option<String>,
    /// Password of the PKCS#12.
    password: Option<String>,
    /// Take a certificate whose topic is none of the stored ones. Devices enrolled with another topic do not follow.
    #[serde(default)]
    force: bool,
}

impl NewPushCert {
    fn bytes(&mut self) -> Result<Secret<Vec<u8>>, Problem> {
        match (self.pem.take(), self.pkcs12.take()) {
            (Some(pem), None) if self.password.is_none() => Ok(Secret::new(pem.into_bytes())),
            (Some(_), None) => {
                Err(Problem::field("password", "belongs to pkcs12; the key in pem must not be encrypted"))
            }
            (None, Some(text)) => STANDARD
                .decode(text)
                .map(Secret::new)
                .map_err(|_| Problem::field("pkcs12", "must be base64 (RFC 4648 section 4)")),
            _ => Err(Problem::field("pem", "give either pem or pkcs12")),
        }
    }
}

/// Stores a push certificate. A renewal must have the topic of the stored one, or say `force`.
#[utoipa::path(
    put, path = "/api/v1/push-certs", tag = "push-certs", request_body = NewPushCert,
    responses(
        (status = 200, description = "Stored", body = PushCert),
        (status = 409, description = "Another topic than the stored ones", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not usable, and why", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_push_cert(
    State(shared): State<Shared>,
    caller: Caller,
    Json(mut new): Json<NewPushCert>,
) -> Result<axum::Json<PushCert>, Problem> {
    let bytes = new.bytes()?;
    let password = new.password.map(Secret::new);
    let password = password.as_ref().map(|p| p.expose().as_str());
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let cert = push::cert::upload(&mut tx, shared.push_context(), bytes.expose(), password, new.force, now).await?;
    let event = NewEvent {
        summary: &format!("push certificate for {} was stored; it ends at {}", cert.topic, cert.not_after),
        data: &json!({ "topic": cert.topic, "not_after": cert.not_after, "sha256": cert.sha256 }),
        ..caller.event(now, "push_cert.stored")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok(axum::Json(cert.into()))
}
