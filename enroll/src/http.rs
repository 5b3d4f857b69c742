//! The routes for people and for devices that are not enrolled yet.
//!
//! Nothing here is said to an enrolled device, so the usual status codes may be used. A code never gets into a log.

mod ade;
mod link;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::{Error, Shared, page, trust};

/// What a device takes a configuration profile by.
pub const PROFILE_TYPE: &str = "application/x-apple-aspen-config";

/// The routes below `/enroll`, `/ade` and `/trust`, for the device listener. Expects `ConnectInfo<SocketAddr>` with the client's own
/// address on each request; without it all clients share one limit.
pub fn router(shared: Shared) -> Router {
    // HEAD must not be answered by the handler of GET: it would use the link up.
    let fetch = get(link::fetch_profile).post(link::fetch_profile).head(link::head_profile);
    let limited = Router::new()
        .route("/enroll/{code}", get(link::show_link))
        .route("/enroll/{code}/profile", fetch)
        .route("/enroll/{code}/sign-in", get(link::sign_in))
        .route("/enroll/signed-in", get(link::signed_in))
        .route("/ade/enroll", post(ade::enroll))
        .route("/ade/web", get(ade::web))
        .route("/ade/signed-in", get(ade::signed_in))
        .route("/trust", get(trust::show_trust))
        .route("/trust/profile", get(trust::trust_profile))
        .route("/trust/anchors", get(trust::anchor_certificates))
        .route("/MDMServiceConfig", get(trust::service_config))
        .layer(middleware::from_fn_with_state(shared.clone(), limit));
    Router::new()
        .route("/enroll/style.css", get(style))
        .merge(limited)
        .layer(middleware::map_response(safe_headers))
        .with_state(shared)
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (headers, include_str!("style.css")).into_response()
}

/// 303 to a page of ours, with a cookie.
pub(crate) fn see_other(location: &str, set_cookie: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, cookie(location));
    headers.append(header::SET_COOKIE, cookie(set_cookie));
    response
}

/// The value of a header that was made here, of visible ASCII.
fn cookie(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a URL or a cookie of ours is visible ASCII")
}

pub(crate) fn download(bytes: Vec<u8>, name: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, PROFILE_TYPE.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, bytes).into_response()
}

pub(crate) fn failed(shared: &Shared, error: &Error) -> Response {
    tracing::error!(error = %error, "an enrollment page or profile could not be given out");
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, page::failed(&shared.settings)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    response
}

/// A layer that lets one address ask only so often ([`crate::Settings::per_ip`]).
pub async fn limit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let key = mdm_core::rate::network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    if shared.asked.take(key, shared.settings.per_ip, shared.clock.now()) {
        return next.run(request).await;
    }
    let mut response = (StatusCode::TOO_MANY_REQUESTS, page::too_many(&shared.settings)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// A layer: no page here is kept, framed, indexed or told to others, and none runs a script.
pub async fn safe_headers(mut response: Response) -> Response {
    let fixed = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
