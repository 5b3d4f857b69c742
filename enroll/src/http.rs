//! The routes for people: the page of a link, its profile, and the page about the server's own CA.
//!
//! Nothing here is said to an enrolled device, so the usual status codes may be used. A code never gets into a log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mdm_core::ids::{IssuanceId, Label, LinkId, Udid};
use mdm_core::profile::mdm::Mode;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Tx;
use store::events::NewEvent;
use store::links::Row;

use crate::link::{self, Standing};
use crate::profile::{self, Particulars};
use crate::{Error, Shared, page};

/// What a device takes a configuration profile by.
const PROFILE_TYPE: &str = "application/x-apple-aspen-config";

/// The routes below `/enroll` and `/trust`, for the device listener. Expects `ConnectInfo<SocketAddr>` with the client's own
/// address on each request; without it all clients share one limit.
pub fn router(shared: Shared) -> Router {
    // HEAD must not be answered by the handler of GET: it would use the link up.
    let fetch = get(fetch_profile).post(fetch_profile).head(head_profile);
    let limited = Router::new()
        .route("/enroll/{code}", get(show_link))
        .route("/enroll/{code}/profile", fetch)
        .route("/trust", get(show_trust))
        .route("/trust/profile", get(trust_profile))
        .layer(middleware::from_fn_with_state(shared.clone(), limit));
    Router::new()
        .route("/enroll/style.css", get(style))
        .merge(limited)
        .layer(middleware::map_response(safe_headers))
        .with_state(shared)
}

async fn show_link(State(shared): State<Shared>, Path(code): Path<String>) -> Response {
    match look(&shared, &code).await {
        Ok(Some((row, Standing::Ready | Standing::Again))) => {
            let url = link::url(&shared.settings.public_url, &code);
            page::link(&shared.settings, &row, &format!("/enroll/{code}/profile"), &url).into_response()
        }
        Ok(found) => gone(&shared, found.map(|(_, standing)| standing)),
        Err(e) => failed(&shared, &e),
    }
}

async fn look(shared: &Shared, code: &str) -> Result<Option<(Row, Standing)>, Error> {
    let mut tx = shared.store.read().await?;
    link::look(&mut tx, code, shared.clock.now()).await
}

async fn head_profile(State(shared): State<Shared>, Path(code): Path<String>) -> Response {
    match look(&shared, &code).await {
        Ok(Some((_, Standing::Ready | Standing::Again))) => [(header::CONTENT_TYPE, PROFILE_TYPE)].into_response(),
        Ok(found) => gone(&shared, found.map(|(_, standing)| standing)),
        Err(e) => failed(&shared, &e),
    }
}

async fn fetch_profile(State(shared): State<Shared>, Path(code): Path<String>, headers: HeaderMap) -> Response {
    if is_preview(&headers) {
        return (StatusCode::FORBIDDEN, page::preview(&shared.settings)).into_response();
    }
    match store::retry(|| issue_profile(&shared, &code)).await {
        Ok(Fetched::Profile(bytes)) => download(bytes, "enroll.mobileconfig"),
        Ok(Fetched::Gone(standing)) => gone(&shared, standing),
        Err(e) => failed(&shared, &e),
    }
}

/// A browser or a mail scanner that loads ahead says so; it must not use the link up.
fn is_preview(headers: &HeaderMap) -> bool {
    let names = ["sec-purpose", "purpose", "x-purpose", "x-moz"];
    names.iter().filter_map(|name| headers.get(*name)).any(|value| {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        ["prefetch", "preview", "prerender"].iter().any(|word| value.contains(word))
    })
}

/// What became of a wish for a profile.
enum Fetched {
    Profile(Vec<u8>),
    /// There is no such link (`None`), or it is over.
    Gone(Option<Standing>),
}

/// Takes one use of the link, opens the issuance record and builds the profile, in one transaction.
async fn issue_profile(shared: &Shared, code: &str) -> Result<Fetched, Error> {
    let now = shared.clock.now();
    let settings = &shared.settings;
    let mut tx = shared.store.begin().await?;
    let (row, standing) = match link::take(&mut tx, code, now).await? {
        Some((row, standing @ (Standing::Ready | Standing::Again))) => (row, standing),
        found => return Ok(Fetched::Gone(found.map(|(_, standing)| standing))),
    };
    let topic = topic(&mut tx, now).await?;
    let (id, challenge) = open_record(&mut tx, shared, &row, now).await?;
    let mode = match &row.managed_apple_account {
        Some(account) if row.kind == "user" => Mode::User { managed_apple_id: account.clone() },
        _ => Mode::Device,
    };
    let particulars = Particulars { topic, issuance: id, challenge, mode };
    let plain = profile::enrollment(settings, particulars, &shared.random).encode();
    let bytes = sign(shared, plain, now)?;
    record(&mut tx, &row, standing, id, now).await?;
    tx.commit().await?;
    tracing::info!(link.id = %LinkId(row.id), issuance.id = %id, "an enrollment profile was fetched");
    Ok(Fetched::Profile(bytes))
}

async fn open_record(
    tx: &mut Tx,
    shared: &Shared,
    row: &Row,
    now: Timestamp,
) -> Result<(IssuanceId, Secret<String>), Error> {
    // What was checked when the link was made is checked again by its type when it is read.
    let corrupt = || store::Error::Corrupt("enrollment_link");
    let udid = row.expected_udid.as_deref().map(str::parse::<Udid>).transpose().map_err(|_| corrupt())?;
    let label = row.label.as_deref().map(str::parse::<Label>).transpose().map_err(|_| corrupt())?;
    let wanted = issuer::issuance::OpenIssuance {
        flow: issuer::issuance::Flow::Link,
        purpose: issuer::issuance::Purpose::Enrollment,
        kind: link::enrollment_kind(row),
        enrollment_id: None,
        link_id: Some(LinkId(row.id)),
        expected_serial: row.expected_serial.as_deref(),
        expected_udid: udid.as_ref(),
        label: label.as_ref(),
        ttl: shared.settings.challenge_life,
    };
    Ok(issuer::issuance::open(tx, &shared.random, now, &wanted).await?)
}

/// The push topic of new enrollments: of the certificate that was uploaded last and still works.
async fn topic(tx: &mut Tx, now: Timestamp) -> Result<String, Error> {
    let certs = store::push::certs(tx).await?;
    let usable = certs.into_iter().filter(|c| c.stopped_at.is_none() && c.not_after > now.0);
    usable.max_by_key(|c| c.uploaded_at).map(|c| c.topic).ok_or(Error::NoPushCertificate)
}

async fn record(tx: &mut Tx, row: &Row, standing: Standing, id: IssuanceId, now: Timestamp) -> Result<(), Error> {
    let again = standing == Standing::Again;
    let event = NewEvent {
        at: now,
        kind: "link.fetched",
        enrollment: None,
        command: None,
        actor: "device",
        summary: if again {
            "The profile of an enrollment link was fetched once more; the earlier challenge is void."
        } else {
            "The profile of an enrollment link was fetched."
        },
        data: &json!({ "link": LinkId(row.id), "issuance": id, "again": again }),
    };
    Ok(store::events::record(tx, &event).await?)
}

fn sign(shared: &Shared, plain: Vec<u8>, now: Timestamp) -> Result<Vec<u8>, Error> {
    match &shared.signer {
        Some(signer) => Ok(signer.sign(&plain, now)?),
        None => Ok(plain),
    }
}

async fn show_trust(State(shared): State<Shared>) -> Response {
    if shared.settings.anchors.is_empty() {
        return (StatusCode::NOT_FOUND, page::no_trust(&shared.settings)).into_response();
    }
    page::trust(&shared.settings).into_response()
}

async fn trust_profile(State(shared): State<Shared>) -> Response {
    if shared.settings.anchors.is_empty() {
        return (StatusCode::NOT_FOUND, page::no_trust(&shared.settings)).into_response();
    }
    let plain = profile::trust(&shared.settings, &shared.random).encode();
    match sign(&shared, plain, shared.clock.now()) {
        Ok(bytes) => download(bytes, "trust.mobileconfig"),
        Err(e) => failed(&shared, &e),
    }
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (headers, include_str!("style.css")).into_response()
}

fn download(bytes: Vec<u8>, name: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, PROFILE_TYPE.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, bytes).into_response()
}

fn gone(shared: &Shared, standing: Option<Standing>) -> Response {
    let status = if standing.is_some() { StatusCode::GONE } else { StatusCode::NOT_FOUND };
    (status, page::gone(&shared.settings, standing)).into_response()
}

fn failed(shared: &Shared, error: &Error) -> Response {
    tracing::error!(error = %error, "an enrollment page or profile could not be given out");
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, page::failed(&shared.settings)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    response
}

async fn limit(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|c| c.0.ip());
    let key = network(address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    if shared.asked.take(key, shared.settings.per_ip, shared.clock.now()) {
        return next.run(request).await;
    }
    let mut response = (StatusCode::TOO_MANY_REQUESTS, page::too_many(&shared.settings)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// Whom a limit is for: an IPv4 address, or the /64 network that one IPv6 client has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// No page here is kept, framed, indexed or told to others, and none runs a script.
async fn safe_headers(mut response: Response) -> Response {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_limited_by_its_network() {
        let a: IpAddr = "2001:db8:1:2:3::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        let c: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(network(a), network(b));
        assert_ne!(network(a), network(c));
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), v4);
    }

    #[test]
    fn what_loads_ahead_is_recognized() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            headers
        };
        assert!(is_preview(&with("sec-purpose", "prefetch;prerender")));
        assert!(is_preview(&with("purpose", "Prefetch")));
        assert!(is_preview(&with("x-purpose", "preview")));
        assert!(!is_preview(&with("user-agent", "Profile Preview")));
        assert!(!is_preview(&HeaderMap::new()));
    }
}
