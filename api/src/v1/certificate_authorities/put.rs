//! `PUT /api/v1/certificate-authorities/{name}`

use axum::extract::State;
use ca::{Document, Put};
use http::StatusCode;
use policy::UniqueKeys;

use super::{CertificateAuthorityView, find, view};
use crate::Shared;
use crate::auth::Caller;
use crate::extract::{Json, Path, value};
use crate::problem::{Problem, ProblemBody};

/// Creates a certificate authority, or replaces what is said of it.
///
/// Devices whose policies name it are decided for again; what they have stays until it is renewed. The same again changes nothing.
/// `name` may be left out of the body.
#[utoipa::path(
    put, path = "/api/v1/certificate-authorities/{name}", tag = "certificate-authorities", request_body = Document,
    params(("name" = String, Path, description = "1 to 64 letters, digits, '.', '_' or '-'")),
    responses(
        (status = 201, description = "Created", body = CertificateAuthorityView),
        (status = 200, description = "Replaced, or the same as before", body = CertificateAuthorityView),
        (status = 422, description = "Every field that is wrong", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_certificate_authority(
    State(shared): State<Shared>,
    caller: Caller,
    Path(name): Path<String>,
    Json(UniqueKeys(mut body)): Json<UniqueKeys>,
) -> Result<(StatusCode, axum::Json<CertificateAuthorityView>), Problem> {
    let Some(fields) = body.as_object_mut() else {
        return Err(Problem::field("body", "must be an object: the certificate authority"));
    };
    let inside = fields.entry("name").or_insert_with(|| name.as_str().into());
    if inside != name.as_str() {
        return Err(Problem::field("name", "must be the name in the path, or absent"));
    }
    let document: Document = value(body)?;
    let now = shared.clock.now();
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        let put = ca::put(&mut tx, &shared.random, &document, &caller.actor, now).await?;
        if put == Put::Changed {
            policy::authority_changed(&mut tx, &name, now).await?;
        }
        let row = find(&mut tx, &name).await?;
        tx.commit().await?;
        let status = if put == Put::Created { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, axum::Json(view(&shared, row)?)))
    })
    .await
}
