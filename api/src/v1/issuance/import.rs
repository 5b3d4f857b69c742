//! `POST /api/v1/issuance`

use axum::extract::State;
use http::StatusCode;
use issuer::issuance::{ImportExternal, Purpose, import_external};
use mdm_core::enrollment::EnrollmentKind;
use mdm_core::ids::{EnrollmentId, Fingerprint, Label, Udid};
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::events::NewEvent;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::extract::Json;
use crate::problem::{Problem, ProblemBody};

/// An identity certificate that another CA issued, and the device that may enroll with it: at least one of
/// `expected_serial`, `expected_udid` and `enrollment_id`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewImport {
    /// SHA-256 over the certificate's DER, 64 hexadecimal digits (colons are ignored).
    certificate_sha256: String,
    /// `device`, `automated`, `user` or `shared_ipad`.
    #[schema(value_type = String)]
    kind: EnrollmentKind,
    /// The enrollment whose identity this renews.
    enrollment_id: Option<Uuid>,
    /// The device's serial number.
    expected_serial: Option<String>,
    /// The device's UDID.
    #[schema(value_type = Option<String>)]
    expected_udid: Option<Udid>,
    /// The person's Managed Apple Account, as the enrollment's profile has it; a must with kind `user`, unless
    /// `enrollment_id` is given.
    managed_apple_account: Option<String>,
    /// Put on the enrollment that comes of it.
    #[schema(value_type = Option<String>)]
    label: Option<Label>,
}

/// A record that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportedIdentity {
    /// The record's key.
    id: Uuid,
}

fn fingerprint(text: &str) -> Result<Fingerprint, Problem> {
    let wrong =
        || Problem::field("certificate_sha256", "must be 64 hexadecimal digits: SHA-256 over the certificate's DER");
    let bytes = hex::decode(text.replace(':', "")).map_err(|_| wrong())?;
    Ok(Fingerprint(bytes.try_into().map_err(|_| wrong())?))
}

/// Admits an identity certificate that another CA issued, for one device (TH-05).
#[utoipa::path(
    post, path = "/api/v1/issuance", tag = "issuance", request_body = NewImport,
    responses(
        (status = 201, description = "Noted", body = ImportedIdentity),
        (status = 409, description = "This certificate is known already", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn import_identity(
    State(shared): State<Shared>,
    caller: Caller,
    Json(new): Json<NewImport>,
) -> Result<(StatusCode, axum::Json<ImportedIdentity>), Problem> {
    let fingerprint = fingerprint(&new.certificate_sha256)?;
    if new.expected_serial.is_none() && new.expected_udid.is_none() && new.enrollment_id.is_none() {
        return Err(Problem::field(
            "expected_udid",
            "name the device by expected_serial, expected_udid or enrollment_id",
        ));
    }
    if new.kind == EnrollmentKind::User && new.enrollment_id.is_none() && new.managed_apple_account.is_none() {
        return Err(Problem::field("managed_apple_account", "is required with kind user: renewals carry it"));
    }
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    if let Some(id) = new.enrollment_id {
        crate::v1::enrollments::find(&mut tx, id).await?;
    }
    let import = ImportExternal {
        fingerprint,
        kind: new.kind,
        enrollment_id: new.enrollment_id.map(EnrollmentId),
        purpose: if new.enrollment_id.is_some() { Purpose::Renewal } else { Purpose::Enrollment },
        expected_serial: new.expected_serial.as_deref(),
        expected_udid: new.expected_udid.as_ref(),
        managed_apple_account: new.managed_apple_account.as_deref(),
        label: new.label.as_ref(),
    };
    let id = import_external(&mut tx, &shared.random, now, &import).await?;
    let event = NewEvent {
        enrollment: import.enrollment_id,
        summary: "an identity certificate of another CA was admitted for one device",
        data: &json!({ "issuance_id": id, "certificate_sha256": fingerprint.to_string() }),
        ..caller.event(now, "issuance.imported")
    };
    store::events::record(&mut tx, &event).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, axum::Json(ImportedIdentity { id: id.0 })))
}
