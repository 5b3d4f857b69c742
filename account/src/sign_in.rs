//! The person's part: from the challenge's address to the sign-in, and from the sign-in back to the device.
//!
//! Where a browser is sent is never taken from a request (TH-56): to our own sign-in pages, and at the end to the address that
//! Apple fixes for the method.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use enroll::door::account::{Account, Method};
use mdm_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use signin::{Begin, Person};
use store::Tx;
use store::account_tokens::{self, Row};
use store::events::NewEvent;
use url::form_urlencoded;

use crate::challenge::{AS_WEB_REDIRECT, OAUTH2_REDIRECT};
use crate::http::{Door, failed, no_such_page, page};
use crate::oauth2::{self, AuthorizationRequest, Refused};
use crate::presented::{UNBOUND_LIFE, hash};
use crate::refusal::Refusal;
use crate::{Error, Mode};

/// How long an authorization code waits to be exchanged (RFC 6749, section 4.1.2: ten minutes at most).
const CODE_LIFE: Duration = Duration::from_mins(2);

/// What a sign-in is for, kept with it. Not a secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "method")]
enum Subject {
    #[serde(rename = "apple-as-web")]
    AsWeb,
    #[serde(rename = "apple-oauth2")]
    OAuth2(AuthorizationRequest),
}

/// `url` of apple-as-web. The device adds `user-identifier`.
pub(crate) async fn as_web(
    State(door): State<Arc<Door>>,
    Path(mode): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(mode) = Mode::from_text(&mode) else { return no_such_page(&door) };
    let query = query.unwrap_or_default();
    let hint = form_urlencoded::parse(query.as_bytes())
        .find(|(name, value)| name == "user-identifier" && value.len() <= 320)
        .map(|(_, value)| value.into_owned());
    match door.sign_in_settings(mode).await {
        Ok(Some(settings)) if settings.method == Method::AsWeb => {
            begin(&door, mode, &Subject::AsWeb, hint.as_deref()).await
        }
        Ok(Some(_)) => no_such_page(&door),
        Ok(None) => closed(&door, mode).await,
        Err(error) => failed(&door, &error),
    }
}

/// `authorization-url` of apple-oauth2 (RFC 6749, section 4.1.1).
pub(crate) async fn authorize(
    State(door): State<Arc<Door>>,
    Path(mode): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(mode) = Mode::from_text(&mode) else { return no_such_page(&door) };
    let settings = match door.sign_in_settings(mode).await {
        Ok(Some(settings)) if settings.method == Method::OAuth2 => settings,
        Ok(Some(_)) => return no_such_page(&door),
        Ok(None) => return closed(&door, mode).await,
        Err(error) => return failed(&door, &error),
    };
    match oauth2::authorization(&query.unwrap_or_default(), &settings) {
        Ok((request, hint)) => begin(&door, mode, &Subject::OAuth2(request), hint.as_deref()).await,
        Err(Refused::Here(why)) => {
            tracing::info!(mode = mode.as_str(), why, "an authorization request was refused");
            door.refuse(Refusal::new(mode, "authorize", "authorization_request")).await;
            let text = "This page is for devices that enroll, and something about the request is not right. Begin again in Settings.";
            page(&door, StatusCode::BAD_REQUEST, "This request is not right", text)
        }
        Err(Refused::There(code, state)) => {
            door.refuse(Refusal::new(mode, "authorize", code.as_str())).await;
            to_device(&oauth2::redirect(&[("error", code.as_str())], state.as_deref()))
        }
    }
}

async fn closed(door: &Door, mode: Mode) -> Response {
    door.refuse(Refusal::new(mode, "sign_in", "door_closed")).await;
    page(door, StatusCode::FORBIDDEN, "Not possible here", "This way to enroll a device is closed.")
}

async fn begin(door: &Door, mode: Mode, subject: &Subject, hint: Option<&str>) -> Response {
    let begun = store::retry(|| async {
        let now = door.shared.clock.now();
        let begin = Begin {
            purpose: mode.purpose(),
            subject_of: serde_json::to_value(subject).expect("texts are JSON"),
            login_hint: hint,
        };
        let mut tx = door.shared.store.begin().await?;
        let begun = signin::begin(&mut tx, &door.shared.sign_in, &begin, now).await?;
        tx.commit().await?;
        Ok::<_, Error>(begun)
    });
    match begun.await {
        Ok(begun) => {
            let headers = [(header::LOCATION, begun.location), (header::SET_COOKIE, begun.cookie)];
            (StatusCode::FOUND, headers).into_response()
        }
        Err(error) => failed(door, &error),
    }
}

/// The end of the sign-in: the person is somebody, and the device gets the token, or the code for it.
pub(crate) async fn signed_in(State(door): State<Arc<Door>>, Path(mode): Path<String>, headers: HeaderMap) -> Response {
    let Some(mode) = Mode::from_text(&mode) else { return no_such_page(&door) };
    let mut response = match store::retry(|| give(&door, mode, &headers)).await {
        Ok(Given::Location(location)) => to_device(&location),
        Ok(Given::Nobody) => {
            door.refuse(Refusal::new(mode, "sign_in", "nobody_signed_in")).await;
            let text = "Nobody signed in here, or it took too long. Begin again in Settings on your device.";
            return page(&door, StatusCode::BAD_REQUEST, "Please begin again", text);
        }
        Ok(Given::NotThisDomain(account)) => {
            let refusal = Refusal::new(mode, "sign_in", "account_domain");
            door.refuse(Refusal { account: Some(&account), ..refusal }).await;
            let text = "Your organization does not enroll devices with this account. Begin again with another one.";
            page(&door, StatusCode::FORBIDDEN, "Not with this account", text)
        }
        Err(error) => return failed(&door, &error),
    };
    if let Ok(forget) = HeaderValue::from_str(&signin::forget()) {
        response.headers_mut().append(header::SET_COOKIE, forget);
    }
    response
}

enum Given {
    Location(String),
    Nobody,
    NotThisDomain(String),
}

async fn give(door: &Door, mode: Mode, headers: &HeaderMap) -> Result<Given, Error> {
    let shared = &door.shared;
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let Some(person) = signin::take(&mut tx, &door.shared.sign_in, headers, mode.purpose(), now).await? else {
        return Ok(Given::Nobody);
    };
    let settings = enroll::door::load(&mut tx, mode.door()).await?.account;
    if !admits(&settings, &person.account) {
        tx.commit().await?;
        return Ok(Given::NotThisDomain(person.account));
    }
    let subject = Subject::deserialize(&person.subject_of).map_err(|_| store::Error::Corrupt("sign_in.subject_of"))?;
    let secret = shared.random.token();
    let row = row(mode, &person, now);
    let (row, location) = match subject {
        Subject::AsWeb => {
            let expires_at = Some(now.plus(UNBOUND_LIFE).0);
            let row = Row { sha256: hash(&secret).to_vec(), expires_at, ..row };
            (row, format!("{AS_WEB_REDIRECT}?access-token={secret}"))
        }
        Subject::OAuth2(request) => {
            let row = Row {
                // Of what nobody has: the access token is made when the code is exchanged.
                sha256: shared.random.bytes::<32>().to_vec(),
                code_sha256: Some(hash(&secret).to_vec()),
                code_expires_at: Some(now.plus(CODE_LIFE).0),
                code_challenge: request.code_challenge,
                redirect_uri: Some(OAUTH2_REDIRECT.to_owned()),
                method: Method::OAuth2.as_str().to_owned(),
                state: "code".to_owned(),
                ..row
            };
            (row, oauth2::redirect(&[("code", &secret)], request.state.as_deref()))
        }
    };
    account_tokens::insert(&mut tx, &row).await?;
    record(&mut tx, &row, now).await?;
    tx.commit().await?;
    tracing::info!(mode = mode.as_str(), method = row.method, "a person signed in for account-driven enrollment");
    Ok(Given::Location(location))
}

/// Whether the door is for accounts of this domain. What the person typed on the device chose the door; this is who they are.
fn admits(settings: &Account, account: &str) -> bool {
    let domain = crate::discovery::domain(account);
    settings.domains.is_empty() || domain.is_some_and(|domain| settings.domains.contains(&domain))
}

/// A live token of apple-as-web, without its hash.
fn row(mode: Mode, person: &Person, now: Timestamp) -> Row {
    Row {
        id: person.sign_in,
        sha256: Vec::new(),
        refresh_sha256: None,
        code_sha256: None,
        code_expires_at: None,
        code_challenge: None,
        redirect_uri: None,
        method: Method::AsWeb.as_str().to_owned(),
        mode: mode.as_str().to_owned(),
        managed_apple_account: person.account.clone(),
        label: person.label.as_ref().map(ToString::to_string),
        sign_in_id: Some(person.sign_in),
        enrollment_id: None,
        state: "live".to_owned(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        created_at: now.0,
    }
}

async fn record(tx: &mut Tx, row: &Row, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent {
        at: now,
        kind: "account.signed_in",
        enrollment: None,
        command: None,
        actor: "device",
        summary: "A person signed in for account-driven enrollment",
        data: &json!({
            "mode": row.mode,
            "method": row.method,
            "managed_apple_account": row.managed_apple_account,
            "token": row.id,
            "sign_in": row.sign_in_id,
        }),
    };
    Ok(store::events::record(tx, &event).await?)
}

/// Hands over to the device: 308, as Apple's description has it.
fn to_device(location: &str) -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location.to_owned())]).into_response()
}
