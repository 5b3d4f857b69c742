//! SCEP (RFC 8894) over HTTP: `GetCACaps`, `GetCACert`, and `PKIOperation` with `PKCSReq` and `RenewalReq`, by POST and by GET.
//!
//! - `PKCSReq` needs a one-time challenge; `RenewalReq` needs the current identity of an enrollment as its signer (TH-30). Every
//!   other message type is refused, by a `match` without a wildcard on a closed enum (TH-27).
//! - A client hears one of two fixed failures: `badAlg` for algorithms, which are no secret, and `badRequest` for all else.
//!   Why is in the log only (TH-31, TH-32).
//! - DES, triple DES and SHA-1 are for [`Settings::legacy`] alone, and answered in kind.

mod limit;
mod message;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, RwLock};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderValue, Method, StatusCode, header};
use mdm_core::certificate::Certificate;
use mdm_core::crypto::csr::{Csr, CsrError};
use mdm_core::crypto::enveloped::{Envelope, EnvelopeError};
use mdm_core::ids::IssuanceId;
use mdm_core::random::Random;
use mdm_core::time::Clock;
use store::Store;

use self::limit::{Limiter, WAIT};
use self::message::{FailInfo, MessageType, PkiMessage};
use crate::issuance::{self, Grant};
use crate::{Authority, Error};

/// The longest message that is read, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// What operators can set.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Accept DES, triple DES and SHA-1, and a message that is signed with another key than the requested one; answer in kind.
    pub legacy: bool,
    /// Serve `RenewalReq`.
    pub renewal: bool,
    /// `PKIOperation`s per minute from one address.
    pub per_ip_per_minute: u32,
    /// `PKIOperation`s per minute from all addresses together.
    pub per_minute: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { legacy: false, renewal: true, per_ip_per_minute: 30, per_minute: 1200 }
    }
}

/// The authority in use, replaced as a whole when it was renewed. Clones share it.
#[derive(Debug, Clone)]
pub struct CurrentAuthority(Arc<RwLock<Arc<Authority>>>);

impl CurrentAuthority {
    /// Holds this one.
    pub fn new(authority: Authority) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(authority))))
    }

    /// The one in use.
    pub fn get(&self) -> Arc<Authority> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Uses another one from now on.
    pub fn replace(&self, authority: Authority) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(authority);
    }
}

/// What the routes need. Clones share it.
#[derive(Debug, Clone)]
pub struct Shared {
    store: Store,
    authority: CurrentAuthority,
    clock: Clock,
    random: Random,
    settings: Settings,
    limiter: Arc<Limiter>,
}

impl Shared {
    /// Puts it together.
    pub fn new(store: Store, authority: CurrentAuthority, clock: Clock, random: Random, settings: Settings) -> Self {
        let limiter = Arc::new(Limiter::new(settings.per_ip_per_minute, settings.per_minute));
        Self { store, authority, clock, random, settings, limiter }
    }
}

/// `/scep` and `/scep/{issuance}`. The second names the record that the challenge must belong to.
///
/// The client's address is the `ConnectInfo<SocketAddr>` extension of the request, where there is one.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/scep", get(plain).post(plain))
        .route("/scep/{issuance}", get(of_record).post(of_record))
        .with_state(shared)
}

async fn plain(State(shared): State<Shared>, request: Request) -> Response {
    answer(&shared, None, request).await
}

async fn of_record(State(shared): State<Shared>, Path(issuance): Path<String>, request: Request) -> Response {
    match issuance.parse() {
        Ok(id) => answer(&shared, Some(id), request).await,
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn answer(shared: &Shared, route: Option<IssuanceId>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    match parameter(&query, "operation").as_deref() {
        Some(b"GetCACaps") => typed("text/plain", capabilities(shared.settings).into()),
        Some(b"GetCACert") => match message::certificates(&shared.authority.get()) {
            Ok(certificates) => typed("application/x-x509-ca-ra-cert", certificates),
            Err(e) => unavailable(&e),
        },
        Some(b"PKIOperation") => {
            let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
            if !shared.limiter.allows(from, shared.clock.now()) {
                tracing::warn!(from = from.map(|ip| ip.to_string()), "SCEP: too many requests");
                return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, WAIT.to_string())]).into_response();
            }
            match body(request, &query).await {
                Ok(message) => pki_operation(shared, route, from, &message).await,
                Err(status) => status.into_response(),
            }
        }
        _ => (StatusCode::BAD_REQUEST, "operation must be GetCACaps, GetCACert or PKIOperation").into_response(),
    }
}

/// RFC 8894 §3.5.2.
fn capabilities(settings: Settings) -> String {
    let algorithms = if settings.legacy { "AES\nDES3\nSHA-256\nSHA-512\nSHA-1\n" } else { "AES\nSHA-256\nSHA-512\n" };
    let renewal = if settings.renewal { "Renewal\n" } else { "" };
    format!("{algorithms}POSTPKIOperation\n{renewal}SCEPStandard\n")
}

/// The message of a `PKIOperation`: the body of a POST (whatever its query repeats), or the query of a GET.
async fn body(request: Request, query: &str) -> Result<Bytes, StatusCode> {
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    if request.method() == Method::POST {
        return to_bytes(request.into_body(), MAX_MESSAGE).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE);
    }
    let message = parameter(query, "message").ok_or(StatusCode::BAD_REQUEST)?;
    if message.len() > MAX_MESSAGE * 4 / 3 + 4 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    // Base64 or base64url, with or without padding, and with the blanks that some clients make of `+` and of line ends.
    let text: Vec<u8> = message
        .into_iter()
        .filter(|octet| !matches!(octet, b'\r' | b'\n'))
        .map(|octet| match octet {
            b'-' | b' ' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, config).decode(text).map(Bytes::from).map_err(|_| StatusCode::BAD_REQUEST)
}

/// A query parameter as octets: a client may put raw DER there, which is no UTF-8.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| percent_encoding::percent_decode_str(value).collect())
}

/// Why there is no certificate.
enum Declined {
    /// The client is told `FailInfo`; the log is told why.
    Refused(FailInfo, &'static str),
    /// The server could not do it now.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Declined {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

impl store::Busy for Declined {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Failed(e) if e.is_busy())
    }
}

async fn pki_operation(shared: &Shared, route: Option<IssuanceId>, from: Option<IpAddr>, message: &[u8]) -> Response {
    let from = from.map(|ip| ip.to_string());
    let message = match PkiMessage::parse(message) {
        Ok(message) => message,
        // There is no transaction that an answer could name.
        Err(reason) => {
            tracing::warn!(from, reason = %reason, "SCEP: the message is not a signed pkiMessage");
            return StatusCode::BAD_REQUEST.into_response();
        }
    };
    let authority = shared.authority.get();
    let outcome = match message.message_type {
        MessageType::PkcsReq => request(shared, &authority, Proof::Challenge(route), &message).await,
        MessageType::RenewalReq if !shared.settings.renewal => {
            Err(Declined::Refused(FailInfo::BadRequest, "renewal_off"))
        }
        MessageType::RenewalReq => request(shared, &authority, Proof::Signer, &message).await,
        MessageType::CertRep
        | MessageType::UpdateReq
        | MessageType::CertPoll
        | MessageType::GetCert
        | MessageType::GetCrl
        | MessageType::Unknown => Err(Declined::Refused(FailInfo::BadRequest, "message_type")),
    };
    let now = shared.clock.now();
    let reply = match &outcome {
        Ok((certificate, cipher)) => message::success(&authority, &message, certificate, *cipher, &shared.random, now),
        Err(Declined::Refused(fail_info, reason)) => {
            tracing::warn!(from, reason, message_type = ?message.message_type, "SCEP: the request is refused");
            message::failure(&authority, &message, *fail_info, &shared.random, now)
        }
        Err(Declined::Failed(e)) => return unavailable(e),
    };
    match reply {
        Ok(reply) => typed("application/x-pki-message", reply),
        Err(e) => unavailable(&e),
    }
}

/// By what a request is entitled to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// `PKCSReq`: a one-time challenge in the request, of the record that the called address names.
    Challenge(Option<IssuanceId>),
    /// `RenewalReq`: the certificate that the message is signed with.
    Signer,
}

/// Issues, or finds what was issued for the same request before.
async fn request(
    shared: &Shared,
    authority: &Authority,
    proof: Proof,
    message: &PkiMessage,
) -> Result<(Certificate, mdm_core::crypto::enveloped::ContentCipher), Declined> {
    if message.is_sha1() {
        check_legacy(shared.settings, "SHA-1")?;
    }
    let refused = |reason| Declined::Refused(FailInfo::BadRequest, reason);
    let envelope = Envelope::parse(&message.content).map_err(|e| match e {
        EnvelopeError::Cipher => Declined::Refused(FailInfo::BadAlg, "content_cipher"),
        EnvelopeError::Malformed | EnvelopeError::Recipient | EnvelopeError::Library => refused("envelope"),
    })?;
    if envelope.cipher().is_legacy() {
        check_legacy(shared.settings, envelope.cipher().name())?;
    }
    // From here to the parsed request, whatever goes wrong has one outcome and one word in the log (TH-31).
    let request = envelope
        .open(authority.ra_key(), authority.ra_certificate().der(), &shared.random)
        .map_err(|_| refused("does_not_open"))?;
    let csr = Csr::from_der(request.expose()).map_err(|e| match e {
        CsrError::Malformed => refused("does_not_open"),
        CsrError::Key(_) => refused("weak_key"),
        CsrError::NotPossessed => refused("csr_signature"),
        CsrError::Challenge => refused("challenge_form"),
    })?;
    let signed_by_its_key = message.signer.public_key().is_ok_and(|key| key.spki_der() == csr.public_key().spki_der());
    if proof != Proof::Signer && !signed_by_its_key && !shared.settings.legacy {
        tracing::error!(
            "SCEP: the message is signed with another key than the one it asks a certificate for; \
             old clients that do so need scep.legacy = true"
        );
        return Err(refused("signer_key"));
    }
    if !message.signer.public_key().is_ok_and(|key| key.kind().is_rsa()) {
        // The answer is encrypted to the signer, which only RSA can read.
        return Err(refused("signer_key_kind"));
    }
    let certificate = store::retry(|| grant(shared, authority, proof, &csr, message)).await?;
    Ok((certificate, envelope.cipher()))
}

/// One transaction: the permission is used up, the certificate signed and kept. The answer comes after its commit.
async fn grant(
    shared: &Shared,
    authority: &Authority,
    proof: Proof,
    csr: &Csr,
    message: &PkiMessage,
) -> Result<Certificate, Declined> {
    let now = shared.clock.now();
    let mut tx = shared.store.begin().await?;
    let transaction_id = &message.transaction_id;
    let granted = match proof {
        Proof::Challenge(route) => {
            issuance::authorize(&mut tx, route, csr, transaction_id, now).await?.map_err(issuance::Refusal::code)
        }
        Proof::Signer => {
            let signer = &message.signer;
            issuance::authorize_renewal(&mut tx, authority, &shared.random, signer, csr, transaction_id, now)
                .await?
                .map_err(issuance::RenewalRefusal::code)
        }
    };
    match granted.map_err(|code| Declined::Refused(FailInfo::BadRequest, code))? {
        Grant::Again(certificate) => Ok(*certificate),
        Grant::Issue(authorized) => {
            let certificate = issuance::issue(&mut tx, authorized, authority, &shared.random, now).await?;
            tx.commit().await?;
            // TH-29: what the client wished for is for the log alone.
            tracing::info!(subject = certificate.subject(), wished = csr.wished_subject(), "SCEP: certificate issued");
            Ok(certificate)
        }
    }
}

fn check_legacy(settings: Settings, algorithm: &str) -> Result<(), Declined> {
    if settings.legacy {
        return Ok(());
    }
    tracing::error!(algorithm, "SCEP: the client uses an algorithm that is refused unless scep.legacy = true");
    Err(Declined::Refused(FailInfo::BadAlg, "legacy_algorithm"))
}

fn typed(content_type: &'static str, body: Body) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body).into_response()
}

fn unavailable(error: &Error) -> Response {
    tracing::error!(%error, "SCEP: the request could not be answered");
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")]).into_response()
}

#[cfg(test)]
mod tests;
