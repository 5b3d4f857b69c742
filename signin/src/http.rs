//! The routes for people: to the provider and back, and the form for an invitation code.
//!
//! What a refusal was for is in the log and in the events; a page never says it (TH-55).

use std::net::IpAddr;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mdm_core::ids::Label;
use mdm_core::rate::Rate;
use mdm_core::time::Timestamp;
use serde::Deserialize;
use serde_json::json;
use store::Tx;
use store::events::NewEvent;
use store::sign_ins::{Row, SignedIn};
use uuid::Uuid;

use crate::session::{self, Secrets};
use crate::{Context, Error, Purpose, Refusal, claims, invitation, page, web};

/// The routes below `/sign-in`, for the device listener. Expects `ConnectInfo<SocketAddr>` with the client's own address on
/// each request; without it all clients share one limit.
pub fn router(ctx: Context) -> Router {
    Router::new()
        .route("/sign-in/provider/{id}", get(go_to_provider))
        .route("/sign-in/callback", get(come_back))
        .route("/sign-in/code/{id}", get(show_code).post(take_code))
        .layer(DefaultBodyLimit::max(4096))
        .layer(middleware::from_fn_with_state(ctx.clone(), limit))
        .layer(middleware::map_response(async |response| web::safe_headers(response, web::FORMS_TO_DEVICE)))
        .with_state(ctx)
}

async fn go_to_provider(State(ctx): State<Context>, Path(id): Path<Uuid>, headers: HeaderMap) -> Response {
    match send_to_provider(&ctx, id, &headers).await {
        Ok(url) => see_other(&url),
        Err(e) => no(&ctx, &headers, Some(id), e).await,
    }
}

async fn send_to_provider(ctx: &Context, id: Uuid, headers: &HeaderMap) -> Result<String, Error> {
    let provider = ctx.provider.as_ref().ok_or(Error::NotConfigured)?;
    let now = ctx.clock.now();
    let (state, secrets) = store::retry(|| async {
        let mut tx = ctx.store.begin().await?;
        let row = session::open(&mut tx, id, headers, now).await?;
        session::attempt(&mut tx, &row, now).await?;
        let made = session::visit(&mut tx, ctx, &row).await?;
        tx.commit().await?;
        Ok::<_, Error>(made)
    })
    .await?;
    let url = provider.authorization_url(ctx.settings.redirect_url(), &state, &secrets, now).await?;
    Ok(url.into())
}

async fn come_back(State(ctx): State<Context>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    match finish_at_provider(&ctx, query.as_deref().unwrap_or_default(), &headers).await {
        Ok(purpose) => see_other(purpose.return_path()),
        Err(e) => no(&ctx, &headers, None, e).await,
    }
}

/// An authorization response (RFC 6749, 4.1.2; RFC 9207).
#[derive(Default)]
struct Returned {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl Returned {
    fn read(query: &str) -> Result<Self, Refusal> {
        let mut read = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "state" => &mut read.state,
                "code" => &mut read.code,
                "error" => &mut read.error,
                "iss" => &mut read.iss,
                _ => continue,
            };
            if place.replace(value.into_owned()).is_some() {
                return Err(Refusal::Malformed);
            }
        }
        Ok(read)
    }
}

async fn finish_at_provider(ctx: &Context, query: &str, headers: &HeaderMap) -> Result<Purpose, Error> {
    let provider = ctx.provider.as_ref().ok_or(Error::NotConfigured)?;
    let now = ctx.clock.now();
    let returned = Returned::read(query)?;
    let state = returned.state.ok_or(Refusal::Malformed)?;
    let (row, secrets) = store::retry(|| async {
        let mut tx = ctx.store.begin().await?;
        let found = session::returned(&mut tx, ctx, &state, headers, now).await?;
        tx.commit().await?;
        Ok::<_, Error>(found)
    })
    .await?;
    if returned.iss.is_some_and(|iss| iss != provider.issuer()) {
        return Err(Refusal::OtherIssuer.into());
    }
    if let Some(error) = returned.error {
        tracing::debug!(sign_in.id = %row.id, answer = ?error.chars().take(64).collect::<String>(), "the provider said no");
        return Err(Refusal::ProviderSaidNo.into());
    }
    let code = returned.code.ok_or(Refusal::Malformed)?;
    let named = provider.redeem(ctx.settings.redirect_url(), code, secrets, now).await?;
    let label = named.label.map(Label::into_string);
    let who = SignedIn { person: &named.account, label: label.as_deref(), invitation: None };
    // Time has passed at the provider.
    let now = ctx.clock.now();
    store::retry(|| async {
        let mut tx = ctx.store.begin().await?;
        let purpose = write_down(&mut tx, &row, &who, now).await?;
        tx.commit().await?;
        Ok(purpose)
    })
    .await
}

async fn show_code(State(ctx): State<Context>, Path(id): Path<Uuid>, headers: HeaderMap) -> Response {
    let look = async {
        let mut tx = ctx.store.read().await?;
        let row = session::open(&mut tx, id, &headers, ctx.clock.now()).await?;
        takes_codes(&ctx, &row)
    };
    match look.await {
        Ok(()) => form(&ctx, id, false),
        Err(e) => no(&ctx, &headers, Some(id), e).await,
    }
}

fn takes_codes(ctx: &Context, row: &Row) -> Result<(), Error> {
    let purpose = Purpose::from_word(&row.purpose).ok_or_else(session::corrupt)?;
    if ctx.takes_codes(purpose) { Ok(()) } else { Err(Error::NotConfigured) }
}

fn form(ctx: &Context, id: Uuid, again: bool) -> Response {
    let provider = ctx.provider.is_some().then(|| format!("/sign-in/provider/{id}"));
    page::code(&ctx.settings, &format!("/sign-in/code/{id}"), provider.as_deref(), again).into_response()
}

/// The form, as the browser sends it.
#[derive(Deserialize)]
struct Typed {
    code: String,
}

async fn take_code(
    State(ctx): State<Context>,
    Path(id): Path<Uuid>,
    ConnectedFrom(address): ConnectedFrom,
    headers: HeaderMap,
    Form(typed): Form<Typed>,
) -> Response {
    match redeem_code(&ctx, id, address, &headers, &typed.code).await {
        Ok(purpose) => see_other(purpose.return_path()),
        // The same form for whatever is wrong with the code. Not an error status: the device would end the sign-in.
        Err(Error::Refused(
            why @ (Refusal::UnknownCode | Refusal::InvitationOver | Refusal::OtherMode | Refusal::OtherAccount),
        )) => {
            refuse(&ctx, &headers, Some(id), why).await;
            form(&ctx, id, true)
        }
        Err(e) => no(&ctx, &headers, Some(id), e).await,
    }
}

async fn redeem_code(
    ctx: &Context,
    id: Uuid,
    address: IpAddr,
    headers: &HeaderMap,
    code: &str,
) -> Result<Purpose, Error> {
    let now = ctx.clock.now();
    // The try is counted whatever becomes of it, so in a transaction of its own.
    let (row, secrets) = store::retry(|| async {
        let mut tx = ctx.store.begin().await?;
        let row = session::open(&mut tx, id, headers, now).await?;
        takes_codes(ctx, &row)?;
        session::attempt(&mut tx, &row, now).await?;
        tx.commit().await?;
        let secrets = Secrets::open(ctx, &row)?;
        Ok::<_, Error>((row, secrets))
    })
    .await?;
    let (limits, settings) = (&ctx.limits, &ctx.settings);
    let named = secrets.login_hint.as_deref().and_then(claims::normal).map(|name| name.to_ascii_lowercase());
    let allowed = limits.codes.take(address, settings.codes_per_ip, now)
        && named.is_none_or(|name| limits.accounts.take(name, settings.codes_per_account, now))
        && limits.together.take((), settings.codes_together, now);
    if !allowed {
        return Err(Refusal::TooMany.into());
    }
    let purpose = Purpose::from_word(&row.purpose).ok_or_else(session::corrupt)?;
    store::retry(|| async {
        let mut tx = ctx.store.begin().await?;
        let invitation = invitation::take(&mut tx, code, purpose, secrets.login_hint.as_deref(), now).await?;
        let who = SignedIn {
            person: &invitation.managed_apple_account,
            label: invitation.label.as_deref(),
            invitation: Some(invitation.id),
        };
        let purpose = write_down(&mut tx, &row, &who, now).await?;
        tx.commit().await?;
        Ok(purpose)
    })
    .await
}

/// Writes down who signed in, with its event.
async fn write_down(tx: &mut Tx, row: &Row, who: &SignedIn<'_>, now: Timestamp) -> Result<Purpose, Error> {
    let purpose = Purpose::from_word(&row.purpose).ok_or_else(session::corrupt)?;
    if !store::sign_ins::signed_in(tx, row.id, who, now).await? {
        return Err(Refusal::Over.into());
    }
    let event = NewEvent {
        at: now,
        kind: "sign_in.done",
        enrollment: None,
        command: None,
        actor: "device",
        summary: "a person signed in to enroll",
        data: &json!({
            "sign_in": row.id, "purpose": row.purpose, "account": who.person, "label": who.label, "invitation": who.invitation,
        }),
    };
    store::events::record(tx, &event).await?;
    tracing::info!(sign_in.id = %row.id, purpose = purpose.as_str(), by_code = who.invitation.is_some(), "a person signed in");
    Ok(purpose)
}

/// The page for an error, once its reason is written down.
async fn no(ctx: &Context, headers: &HeaderMap, id: Option<Uuid>, error: Error) -> Response {
    match error {
        Error::Refused(why) => {
            refuse(ctx, headers, id, why).await;
            match why {
                Refusal::TooMany => too_many(ctx),
                _ => (StatusCode::FORBIDDEN, page::refused(&ctx.settings)).into_response(),
            }
        }
        // Anybody may ask for it; begin has told the door before.
        Error::NotConfigured => (StatusCode::NOT_FOUND, page::refused(&ctx.settings)).into_response(),
        other => {
            tracing::error!(error = %other, "nobody can sign in");
            web::later(StatusCode::SERVICE_UNAVAILABLE, "30", page::failed(&ctx.settings))
        }
    }
}

/// How often one reason is written as an event: the log has them all, the database must not be filled by strangers.
const EVENTS: Rate = Rate { burst: 20, per_second: 1.0 / 60.0 };

/// Writes down why somebody is not signed in. An event only where the browser has a sign-in of ours.
async fn refuse(ctx: &Context, headers: &HeaderMap, id: Option<Uuid>, why: Refusal) {
    tracing::warn!(reason = why.code(), "a sign-in was refused: {why}");
    let row = async { session::own(&mut ctx.store.read().await?, headers).await };
    let row = match row.await {
        Ok(Some(row)) => row,
        Ok(None) => return,
        Err(e) => return tracing::error!(error = %e, "a refused sign-in could not be looked up"),
    };
    let now = ctx.clock.now();
    if !ctx.limits.refusals.take(why.code(), EVENTS, now) {
        return;
    }
    let event = NewEvent {
        at: now,
        kind: "sign_in.refused",
        enrollment: None,
        command: None,
        actor: "device",
        summary: "a person could not sign in to enroll",
        data: &json!({ "sign_in": row.id, "asked_for": id, "purpose": row.purpose, "reason": why.code() }),
    };
    store::events::record_alone(&ctx.store, &event).await;
}

fn see_other(location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

fn too_many(ctx: &Context) -> Response {
    web::later(StatusCode::TOO_MANY_REQUESTS, "60", page::too_many(&ctx.settings))
}

/// The client's own address, as the listener learned it.
struct ConnectedFrom(IpAddr);

impl<S: Sync> axum::extract::FromRequestParts<S> for ConnectedFrom {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(web::address(&parts.extensions)))
    }
}

async fn limit(
    State(ctx): State<Context>,
    ConnectedFrom(address): ConnectedFrom,
    request: Request,
    next: Next,
) -> Response {
    if ctx.limits.pages.take(address, ctx.settings.per_ip, ctx.clock.now()) {
        next.run(request).await
    } else {
        too_many(&ctx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_comes_twice_is_refused() {
        let read = Returned::read("code=a&state=b%20c&other=1&other=2").unwrap();
        assert_eq!((read.code.as_deref(), read.state.as_deref()), (Some("a"), Some("b c")));
        assert_eq!(Returned::read("state=a&state=b").err(), Some(Refusal::Malformed));
    }
}
