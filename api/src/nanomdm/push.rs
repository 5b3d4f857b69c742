//! `/v1/push/{ids}`

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use mdm_core::ids::EnrollmentId;
use mdm_core::time::Timestamp;
use store::Tx;

use super::ids::{self, Found};
use super::reply::{ApiResult, go_json, status_of};
use crate::Shared;
use crate::extract::Path;
use crate::problem::Problem;

/// NanoMDM's words for an enrollment that cannot be pushed.
pub(super) const NO_PUSH_DATA: &str = "push data missing for id";

/// Pushes to enrollments. `status.<id>.push_error` names those that cannot be pushed.
#[utoipa::path(
    method(get, put, post), path = "/v1/push/{ids}", tag = "nanomdm",
    params(("ids" = String, Path, description = "Ids as NanoMDM writes them, separated by commas")),
    responses(
        (status = 200, description = "All are to be pushed", body = ApiResult),
        (status = 207, description = "Some cannot be", body = ApiResult),
        (status = 500, description = "None can be", body = ApiResult),
    ),
)]
pub(crate) async fn nanomdm_push(State(shared): State<Shared>, Path(path): Path<String>) -> Response {
    let ids = ids::split(&path);
    if ids.is_empty() {
        return empty_path().await;
    }
    let mut result = ApiResult::default();
    match store::retry(async || push_all(&shared, &ids).await).await {
        Ok(failed) => {
            for (id, why) in failed {
                result.push_failed(id, why);
            }
            result.response(ids.len())
        }
        Err(problem) => {
            result.push_error = Some(problem.line());
            go_json(status_of(&problem), &result)
        }
    }
}

/// An address without an id, as NanoMDM answers it.
#[utoipa::path(
    method(get, put, post), path = "/v1/push/", tag = "nanomdm",
    responses((status = 500, description = "No id", body = ApiResult)),
)]
pub(crate) async fn empty_path() -> Response {
    let push_error = Some("getting enrollment ids: empty path".to_owned());
    ApiResult { push_error, ..ApiResult::default() }.response(0)
}

/// An address without its slash, as NanoMDM answers it.
#[utoipa::path(
    method(get, put, post), path = "/v1/push", tag = "nanomdm",
    responses((status = 301, description = "To the address with a slash")),
)]
pub(crate) async fn no_slash(uri: http::Uri) -> Response {
    let to = format!("{}/", uri.path());
    let mut response = Redirect::permanent(&to).into_response();
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    response
}

pub(super) async fn push_all<'a>(shared: &Shared, ids: &[&'a str]) -> Result<Vec<(&'a str, String)>, Problem> {
    let (now, mut tx) = (shared.clock.now(), shared.store.begin().await?);
    let mut failed = Vec::new();
    for id in ids {
        match ids::find(&mut tx, id).await? {
            found if ids::refused(&found).is_some() => failed.push((*id, NO_PUSH_DATA.to_owned())),
            Found::Live(enrollment) => {
                wake(&mut tx, enrollment.id, now).await?;
                failed.extend(not_now(&mut tx, enrollment.topic.as_deref(), now).await?.map(|why| (*id, why)));
            }
            Found::Over | Found::Nothing => {}
        }
    }
    tx.commit().await?;
    Ok(failed)
}

async fn wake(tx: &mut Tx, id: EnrollmentId, now: Timestamp) -> Result<(), Problem> {
    store::push::due(tx, id, now).await?;
    tx.wake(store::Wake::Push);
    Ok(())
}

/// Why a push of this topic cannot leave just now, if it cannot. It is sent once it can.
pub(super) async fn not_now(tx: &mut Tx, topic: Option<&str>, now: Timestamp) -> Result<Option<String>, Problem> {
    let Some(topic) = topic else { return Ok(Some(NO_PUSH_DATA.to_owned())) };
    let certs = store::push::certs(tx).await?;
    Ok(match certs.iter().find(|cert| cert.topic == topic) {
        None => Some(format!("no push certificate for topic {topic}; the push waits for one")),
        Some(cert) if cert.not_after <= now.0 => {
            Some(format!("the push certificate of topic {topic} has expired; the push waits for a new one"))
        }
        Some(cert) if cert.stopped_at.is_some() => {
            Some(format!("APNs refused the push certificate of topic {topic}; the push waits for a new one"))
        }
        Some(_) => None,
    })
}
