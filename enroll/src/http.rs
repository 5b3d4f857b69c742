//! The routes for people and for devices that are not enrolled yet.
//!
//! Nothing here is said to an enrolled device, so the usual status codes may be used. A code never gets into a log.

mod ade;
mod link;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use signin::web;

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
    web::later(StatusCode::SERVICE_UNAVAILABLE, "30", page::failed(&shared.settings))
}

/// A layer that lets one address ask only so often ([`crate::Settings::per_ip`]).
pub async fn limit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let address = web::address(request.extensions());
    if shared.asked.take(address, shared.settings.per_ip, shared.clock.now()) {
        return next.run(request).await;
    }
    web::later(StatusCode::TOO_MANY_REQUESTS, "60", page::too_many(&shared.settings))
}

/// A layer: no page here is kept, framed, indexed or told to others, and none runs a script.
pub async fn safe_headers(response: Response) -> Response {
    web::safe_headers(response, web::FORMS_HERE)
}
