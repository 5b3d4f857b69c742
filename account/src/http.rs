//! The routes of account-driven enrollment, for the device listener: service discovery, the device's two requests for its profile,
//! the person's pages, and the token endpoint.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use enroll::door::account::{Account, DeviceSignature, Method};
use enroll::door::{self, Settings};
use enroll::http::PROFILE_TYPE;
use enroll::{DeviceFacts, Shared, Visitor};
use mdm_core::crypto::machine_info::{self, MachineInfo};
use mdm_core::ids::Label;
use mdm_core::rate::{Buckets, Rate, network};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::account_tokens::{self, Row};

use crate::challenge::challenge;
use crate::discovery::{self, Asked};
use crate::grant::{self, Granted};
use crate::oauth2;
use crate::presented::{self, Problem};
use crate::refusal::{Refusal, Written};
use crate::{Error, Mode, sign_in};

/// The largest body: a CMS message of some kilobytes, or a short form.
const BODY_LIMIT: usize = 64 * 1024;
/// How often the devices of one account may ask for a profile (TH-55).
const PROFILES_PER_ACCOUNT: Rate = Rate { burst: 20, per_second: 1.0 / 60.0 };

/// How often one address may ask for tokens. A code or refresh token has 256 bits: this is against noise, not against guessing.
const TOKENS_PER_ADDRESS: Rate = Rate { burst: 200, per_second: 5.0 };

/// What the routes need, and what is remembered between requests.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) shared: Shared,
    written: Written,
    profiles: Buckets<String>,
    tokens: Buckets<IpAddr>,
}

impl Door {
    /// The settings of a mode's door, for whoever wants to sign in: at an open door anybody, at a closed one those who are enrolled and
    /// must sign in again. `None`: nobody.
    pub(crate) async fn sign_in_settings(&self, mode: Mode) -> Result<Option<Account>, Error> {
        enroll::trust::account_driven(&self.shared.settings)?;
        let mut tx = self.shared.store.read().await?;
        let settings = door::load(&mut tx, mode.door()).await?;
        let anybody = settings.enabled || account_tokens::is_mode_in_use(&mut tx, mode.as_str()).await?;
        Ok(anybody.then_some(settings.account))
    }

    /// The settings of a mode's door, open or not: tokens are refreshed as long as an enrollment goes on.
    pub(crate) async fn account_settings(&self, mode: Mode) -> Result<Account, Error> {
        enroll::trust::account_driven(&self.shared.settings)?;
        Ok(door::load(&mut self.shared.store.read().await?, mode.door()).await?.account)
    }

    pub(crate) async fn refuse(&self, refusal: Refusal<'_>) {
        refusal.write(&self.shared.store, &self.written, self.shared.clock.now()).await;
    }
}

/// The routes `/.well-known/com.apple.remotemanagement` and below `/account`, for the device listener. Expects
/// `ConnectInfo<SocketAddr>` with the client's own address on each request; without it all clients share one limit.
pub fn router(shared: Shared) -> Router {
    let door = Arc::new(Door {
        shared: shared.clone(),
        written: Written::default(),
        profiles: Buckets::default(),
        tokens: Buckets::default(),
    });
    let tokens = Router::new()
        .route("/account/{mode}/token", post(token))
        .layer(middleware::from_fn_with_state(Arc::clone(&door), limit_tokens));
    let pages = Router::new()
        .route("/.well-known/com.apple.remotemanagement", get(discover))
        .route("/account/{mode}", post(profile))
        .route("/account/{mode}/sign-in", get(sign_in::as_web))
        .route("/account/{mode}/authorize", get(sign_in::authorize))
        .route("/account/{mode}/signed-in", get(sign_in::signed_in))
        .layer(middleware::from_fn_with_state(shared, enroll::http::limit));
    pages
        .merge(tokens)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::map_response(enroll::http::safe_headers))
        .with_state(door)
}

/// The token endpoint has a limit of its own: the devices behind one address all refresh there, and people who type must not be in
/// their way.
async fn limit_tokens(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|client| client.0.ip());
    let key = network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    if door.tokens.take(key, TOKENS_PER_ADDRESS, door.shared.clock.now()) {
        return next.run(request).await;
    }
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "10")]).into_response()
}

async fn discover(State(door): State<Arc<Door>>, RawQuery(query): RawQuery) -> Response {
    let asked = Asked::from_query(&query.unwrap_or_default());
    let chosen = async {
        enroll::trust::account_driven(&door.shared.settings)?;
        let mut tx = door.shared.store.read().await?;
        let mut doors = Vec::new();
        for mode in Mode::ALL {
            doors.push((mode, door::load(&mut tx, mode.door()).await?));
        }
        Ok::<_, Error>(discovery::choose(&doors, &asked))
    };
    match chosen.await {
        Ok(Some(mode)) => Json(discovery::answer(mode, &door.shared.settings.public_url)).into_response(),
        Ok(None) => {
            // Nothing of an account gets into the log but its domain.
            let (domain, family) = (asked.domain.unwrap_or_default(), asked.family.unwrap_or_default());
            tracing::info!(
                domain,
                family,
                "service discovery was refused: no open door is for this account and device"
            );
            (StatusCode::FORBIDDEN, Json(discovery::refusal())).into_response()
        }
        Err(Error::Enroll(error)) if error.refusal().is_some() => {
            tracing::warn!(%error, "service discovery was refused");
            (StatusCode::FORBIDDEN, Json(discovery::refusal())).into_response()
        }
        Err(error) => failed(&door, &error),
    }
}

/// What becomes of a device's request for its profile.
enum Asks {
    Profile(Vec<u8>),
    /// 401: it gets a token and comes again.
    Challenge(Box<Settings>, Option<Wrong>),
    Closed,
    TooMany,
}

/// What is wrong with the token that was shown, and whose it is.
type Wrong = (Problem, Option<Box<Row>>);

async fn profile(State(door): State<Arc<Door>>, Path(mode): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(mode) = Mode::from_text(&mode) else { return no_such_page(&door) };
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    match store::retry(|| ask(&door, mode, authorization, &body)).await {
        Ok(Asks::Profile(bytes)) => ([(header::CONTENT_TYPE, PROFILE_TYPE)], bytes).into_response(),
        Ok(Asks::Challenge(settings, problem)) => {
            if let Some((problem, row)) = problem {
                let refusal = Refusal::new(mode, "profile", problem.code());
                door.refuse(row.as_deref().map_or(refusal, |row| refusal.of(row))).await;
            }
            unauthorized(&door, mode, &settings.account)
        }
        Ok(Asks::Closed) => {
            door.refuse(Refusal::new(mode, "profile", "door_closed")).await;
            StatusCode::FORBIDDEN.into_response()
        }
        Ok(Asks::TooMany) => {
            door.refuse(Refusal::new(mode, "profile", "too_many")).await;
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "60")]).into_response()
        }
        Err(Failure::Device(why)) => {
            door.refuse(Refusal::new(mode, "profile", why)).await;
            StatusCode::BAD_REQUEST.into_response()
        }
        Err(Failure::Error(Error::Enroll(error))) if error.refusal().is_some() => {
            enroll::refused(&door.shared, mode.door(), None, &error).await;
            StatusCode::FORBIDDEN.into_response()
        }
        Err(Failure::Error(error)) => failed(&door, &error),
    }
}

/// Why a request for a profile is not served.
enum Failure {
    /// The body does not prove which device asks.
    Device(&'static str),
    Error(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl store::Busy for Failure {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Error(error) if error.is_busy())
    }
}

async fn ask(door: &Door, mode: Mode, authorization: Option<&str>, body: &[u8]) -> Result<Asks, Failure> {
    let shared = &door.shared;
    let now = shared.clock.now();
    enroll::trust::account_driven(&shared.settings)?;
    // Whoever shows nothing good costs a look, and no lock of the database.
    let mut tx = shared.store.read().await?;
    let settings = door::load(&mut tx, mode.door()).await?;
    if !settings.enabled {
        return Ok(Asks::Closed);
    }
    let device = device(shared, mode, &settings.account, body, now)?;
    let token = match good_token(&mut tx, mode, authorization, now).await? {
        Ok(row) => row,
        Err(problem) => return Ok(Asks::Challenge(Box::new(settings), problem)),
    };
    drop(tx);
    if !door.profiles.take(token.managed_apple_account.to_ascii_lowercase(), PROFILES_PER_ACCOUNT, now) {
        return Ok(Asks::TooMany);
    }
    let mut tx = shared.store.begin().await?;
    account_tokens::lock(&mut tx, token.id).await?;
    let token = match good_token(&mut tx, mode, authorization, now).await? {
        Ok(row) => row,
        Err(problem) => return Ok(Asks::Challenge(Box::new(settings), problem)),
    };
    let proven = settings.account.device_signature == DeviceSignature::Apple;
    let offer = offer(&mut tx, shared, mode, &token, &device, proven, now).await?;
    account_tokens::used(&mut tx, token.id, now, now).await?;
    tx.commit().await?;
    Ok(Asks::Profile(offer))
}

/// What the device says of itself, checked as the door wants it.
fn device(
    shared: &Shared,
    mode: Mode,
    settings: &Account,
    body: &[u8],
    now: Timestamp,
) -> Result<MachineInfo, Failure> {
    let device = match settings.device_signature {
        DeviceSignature::Apple => machine_info::verify(body, &shared.device_authorities, now),
        DeviceSignature::Any => machine_info::verify_signature_only(body),
    };
    let device = device.map_err(|error| {
        tracing::info!(mode = mode.as_str(), %error, "what a device says of itself is not believed");
        Failure::Device(error.code())
    })?;
    let skew = shared.settings.machine_info_skew;
    if device.signed_at.is_some_and(|at| at > now.plus(skew) || at < now.minus(skew)) {
        return Err(Failure::Device("machine_info_stale"));
    }
    Ok(device)
}

/// A token by which a profile may be fetched; else what is wrong with it, if one is shown at all.
async fn good_token(
    tx: &mut store::Tx,
    mode: Mode,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Result<Row, Option<Wrong>>, Error> {
    Ok(match presented::look(tx, mode, authorization, now).await? {
        Ok(row) if row.enrollment_id.is_none() => Ok(row),
        // It is an enrolled device's: no second device comes in by it.
        Ok(row) => Err(Some((Problem::OtherEnrollment, Some(Box::new(row))))),
        Err(Problem::Missing) => Err(None),
        Err(problem) => Err(Some((problem, None))),
    })
}

async fn offer(
    tx: &mut store::Tx,
    shared: &Shared,
    mode: Mode,
    token: &Row,
    device: &MachineInfo,
    proven: bool,
    now: Timestamp,
) -> Result<Vec<u8>, Failure> {
    let corrupt = || store::Error::Corrupt("account_token.label");
    let label: Option<Label> = token.label.as_deref().map(str::parse).transpose().map_err(|_| corrupt())?;
    // In User Enrollment a device names neither; where it does elsewhere, and proves it, only that device may use the profile.
    let named = Some(device).filter(|_| mode == Mode::Adde && proven);
    let visitor = Visitor {
        facts: DeviceFacts {
            product_name: Some(&device.product),
            os_version: device.os_version.as_deref(),
            ..DeviceFacts::default()
        },
        expected_serial: named.and_then(|device| device.serial.as_deref()),
        expected_udid: named.and_then(|device| device.udid.as_ref()),
        managed_apple_account: Some(&token.managed_apple_account),
        account_token: Some(token.id),
        label: label.as_ref(),
        ..Visitor::new(mode.flow(), mode.kind())
    };
    Ok(enroll::offer(tx, shared, &visitor, now).await?.profile)
}

/// The only 401 besides that of [`crate::bearer`]: to a device that is not enrolled, with the challenge.
fn unauthorized(door: &Door, mode: Mode, account: &Account) -> Response {
    let value = challenge(&door.shared.settings.public_url, mode, account);
    let Ok(value) = HeaderValue::from_str(&value) else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut response = (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, value)]).into_response();
    if let Some(url) = account.enrollment_sso_url.as_ref().and_then(|url| HeaderValue::from_str(url.as_str()).ok()) {
        response.headers_mut().insert(HeaderName::from_static("x-apple-mdm-esso"), url);
    }
    response
}

/// The token endpoint of apple-oauth2.
async fn token(State(door): State<Arc<Door>>, Path(mode): Path<String>, body: Bytes) -> Response {
    let Some(mode) = Mode::from_text(&mode) else { return no_such_page(&door) };
    let settings = match door.account_settings(mode).await {
        Ok(settings) if settings.method == Method::OAuth2 => settings,
        Ok(_) => return no_such_page(&door),
        Err(error) => return failed(&door, &error),
    };
    let request = match oauth2::token_request(&body, &settings) {
        Ok(request) => request,
        Err((code, why)) => {
            tracing::info!(mode = mode.as_str(), why, "a request to the token endpoint was refused");
            door.refuse(Refusal::new(mode, "token", code.as_str())).await;
            return oauth2_error(code);
        }
    };
    let shared = &door.shared;
    let granted = store::retry(|| async {
        let mut tx = shared.store.begin().await?;
        let granted = grant::grant(&mut tx, &shared.random, &settings, mode, &request, shared.clock.now()).await?;
        tx.commit().await?;
        Ok::<_, Error>(granted)
    });
    match granted.await {
        Ok(Granted::Tokens(answer)) => Json(answer.json()).into_response(),
        Ok(Granted::Refused(code, why, row)) => {
            let refusal = Refusal::new(mode, "token", why);
            door.refuse(row.as_deref().map_or(refusal, |row| refusal.of(row))).await;
            oauth2_error(code)
        }
        Err(error) => failed(&door, &error),
    }
}

/// RFC 6749, section 5.2. `invalid_client` is answered 400 too: 401 is for challenges that a device can meet.
fn oauth2_error(code: oauth2::ErrorCode) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": code.as_str() }))).into_response()
}

pub(crate) fn page(door: &Door, status: StatusCode, title: &str, text: &str) -> Response {
    (status, enroll::page::message(&door.shared.settings, title, text)).into_response()
}

pub(crate) fn no_such_page(door: &Door) -> Response {
    page(
        door,
        StatusCode::NOT_FOUND,
        "There is no such page",
        "Begin in Settings on the device that you want to enroll.",
    )
}

/// Something is wrong on our side, or enrollment is not possible as the server is set up.
pub(crate) fn failed(door: &Door, error: &Error) -> Response {
    if let Error::Enroll(refused) = error
        && refused.refusal().is_some()
    {
        tracing::warn!(error = %refused, "account-driven enrollment was refused");
        return page(door, StatusCode::FORBIDDEN, "Not possible here", &refused.to_string());
    }
    tracing::error!(%error, "a request of account-driven enrollment could not be served");
    let text = "Something is wrong on our side, not with your device. Try again in some minutes.";
    let mut response = page(door, StatusCode::SERVICE_UNAVAILABLE, "The server is not ready", text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    response
}
