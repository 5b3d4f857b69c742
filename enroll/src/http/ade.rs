//! The device's call in Automated Device Enrollment: `url` and `configuration_web_url` of its profile at Apple.
//!
//! Source: Apple, "Authenticating through web views", "MachineInfo". A device that is turned away hears a status code and nothing
//! more; why is in the log and in an event.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mdm_core::enrollment::Door;
use signin::{Begin, Purpose};

use super::{PROFILE_TYPE, see_other};
use crate::ade::{Answer, Caller, answer, caller, update_required};
use crate::offer::refused;
use crate::{Error, Shared, page};

/// The header of a web view, with the MachineInfo in base64.
const DEVICE_INFO: &str = "x-apple-aspen-deviceinfo";
/// The longest message that is read, in bytes.
const LONGEST: usize = 64 * 1024;

/// `POST /ade/enroll`.
pub(super) async fn enroll(State(shared): State<Shared>, request: Request) -> Response {
    let Ok(cms) = read(request.into_body()).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    match call(&shared, &cms).await {
        Ok(Reply::SignIn(caller)) => turn_away(&shared, Some(&caller.serial), &Error::SignInNeeded).await,
        Ok(Reply::Answer(response)) => response,
        Err((serial, error)) => turn_away(&shared, serial.as_deref(), &error).await,
    }
}

async fn read(body: Body) -> Result<Vec<u8>, axum::Error> {
    Ok(to_bytes(body, LONGEST).await?.to_vec())
}

/// `GET /ade/web`: the first page of the web view.
pub(super) async fn web(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let mut values = headers.get_all(DEVICE_INFO).iter();
    let cms = match (values.next(), values.next()) {
        (Some(value), None) if value.len() <= LONGEST * 4 / 3 + 4 => STANDARD.decode(value.as_bytes()).ok(),
        _ => None,
    };
    let Some(cms) = cms else { return page_away(&shared, None, &Error::NoDeviceInfo).await };
    let caller = match call(&shared, &cms).await {
        Ok(Reply::SignIn(caller)) => caller,
        Ok(Reply::Answer(response)) => return response,
        Err((serial, error)) => return page_away(&shared, serial.as_deref(), &error).await,
    };
    match store::retry(|| begin(&shared, &caller)).await {
        Ok(response) => response,
        Err(error) => page_away(&shared, Some(&caller.serial), &error).await,
    }
}

async fn begin(shared: &Shared, caller: &Caller) -> Result<Response, Error> {
    let subject_of = serde_json::to_value(caller).expect("texts are JSON");
    let begin = Begin { purpose: Purpose::Ade, subject_of, login_hint: None };
    let mut tx = shared.store.begin().await?;
    let begun = signin::begin(&mut tx, &shared.sign_in, &begin, shared.clock.now()).await?;
    tx.commit().await?;
    Ok(see_other(&begun.location, &begun.cookie))
}

/// `GET /ade/signed-in`: the web view comes back, and ends with the profile.
pub(super) async fn signed_in(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    match store::retry(|| finish(&shared, &headers)).await {
        Ok(response) => response,
        Err(error) => page_away(&shared, None, &error).await,
    }
}

async fn finish(shared: &Shared, headers: &HeaderMap) -> Result<Response, Error> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let person = signin::take(&mut tx, &shared.sign_in, headers, Purpose::Ade, now).await?;
    let person = person.ok_or(Error::NotSignedIn)?;
    let caller: Caller =
        serde_json::from_value(person.subject_of.clone()).map_err(|_| store::Error::Corrupt("sign_in.subject_of"))?;
    // What was true when the person began is asked again: the device may have left the list since.
    let answered = answer(&mut tx, shared, &caller, Some(&person), now).await?;
    tx.commit().await?;
    let mut response = respond(answered).ok_or(Error::NotSignedIn)?;
    response.headers_mut().append(header::SET_COOKIE, super::cookie(&signin::forget()));
    Ok(response)
}

enum Reply {
    Answer(Response),
    SignIn(Caller),
}

/// Checks the message and answers it; the serial number is told only where the signature is good.
async fn call(shared: &Shared, cms: &[u8]) -> Result<Reply, (Option<String>, Error)> {
    let caller = caller(shared, cms, shared.clock.now()).map_err(|error| (None, error))?;
    let answered = store::retry(|| async {
        let mut tx = shared.store.begin().await?;
        let answered = answer(&mut tx, shared, &caller, None, shared.clock.now()).await?;
        tx.commit().await?;
        Ok::<_, Error>(answered)
    })
    .await
    .map_err(|error| (Some(caller.serial.clone()), error))?;
    Ok(match respond(answered) {
        Some(response) => Reply::Answer(response),
        None => Reply::SignIn(caller),
    })
}

fn respond(answer: Answer) -> Option<Response> {
    match answer {
        Answer::Profile(profile) => Some(([(header::CONTENT_TYPE, PROFILE_TYPE)], profile).into_response()),
        Answer::Update { os_version, build_version } => {
            let body = update_required(&os_version, build_version.as_deref());
            Some((StatusCode::FORBIDDEN, axum::Json(body)).into_response())
        }
        Answer::SignIn => None,
    }
}

async fn turn_away(shared: &Shared, serial: Option<&str>, error: &Error) -> Response {
    status(shared, serial, error).await.into_response()
}

async fn page_away(shared: &Shared, serial: Option<&str>, error: &Error) -> Response {
    let status = status(shared, serial, error).await;
    let page = if status == StatusCode::SERVICE_UNAVAILABLE {
        page::failed(&shared.settings)
    } else {
        page::turned_away(&shared.settings)
    };
    (status, page).into_response()
}

async fn status(shared: &Shared, serial: Option<&str>, error: &Error) -> StatusCode {
    if error.refusal().is_none() {
        tracing::error!(error = %error, "a device's call for its enrollment profile could not be answered");
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    refused(shared, Door::Ade, serial, error).await;
    if matches!(error, Error::TooOften) { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::FORBIDDEN }
}
