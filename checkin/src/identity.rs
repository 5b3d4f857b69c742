//! Which certificate proves a request: of the TLS connection, of a trusted proxy's header, or of `Mdm-Signature`.
//!
//! What comes out is a certificate that a trusted authority issued for a device's identity and that is valid now.
//! Whose it is, and whether it was revoked, `authorize` reads from the database at each request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::request::Parts;
use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_verify::{CmsError, Rules, Sha1Rule, verify_detached};
use mdm_core::crypto::trust::{Purpose, Trust, TrustError};
use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;

use crate::checkin::is_stale;
use crate::{Door, PeerAddress, PeerCertificate, Sha1};

/// The longest header that is looked at: `Mdm-Signature` with a chain is 2 to 8 KiB.
const MAX_HEADER: usize = 32 * 1024;
/// How far from now a signature may have been made to be the device's own word of this moment.
const FRESH: Duration = Duration::from_mins(15);

/// The client certificate that proved a request.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) certificate: Arc<Certificate>,
    /// Its SHA-256.
    pub(crate) fingerprint: Fingerprint,
    /// `signingTime` of the request's signature, where it has one, but never later than now: tells old messages from new ones
    /// (TH-17).
    pub(crate) signed_at: Option<Timestamp>,
    /// It came with the connection, or in a signature that was made a short while ago: a recorded message has neither.
    pub(crate) fresh: bool,
    /// It has ended, but not longer ago than the grace setting says: it may fetch a new identity, and nothing else.
    pub(crate) ended: bool,
}

impl Identity {
    /// Whether it is valid now, the grace aside.
    pub(crate) fn must_be_valid(&self) -> Result<(), IdentityError> {
        if self.ended { Err(IdentityError::Ended) } else { Ok(()) }
    }

    /// Whether the device itself speaks now, as far as can be told: whoever sends a recorded message again is given no secret
    /// (TH-17). `last` is the newest signing time that was accepted of it.
    pub(crate) fn is_fresh(&self, last: Option<Timestamp>) -> bool {
        self.fresh && !is_stale(self.signed_at, last)
    }
}

/// Why a request proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentityError {
    /// No certificate by any of the ways that are open.
    #[error("no client certificate and no Mdm-Signature")]
    Missing,
    /// The header is there twice, too long, or not in its form.
    #[error("the header with the certificate or the signature cannot be read")]
    Header,
    /// The signature is not accepted.
    #[error("Mdm-Signature: {0}")]
    Signature(#[from] CmsError),
    /// The `signingTime` is missing or too far away, and the setting is strict.
    #[error("Mdm-Signature: the signing time is missing or too far from now")]
    Skew,
    /// The certificate is not valid now.
    #[error("{error}")]
    NotValid {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// Too early or too late.
        error: TrustError,
    },
    /// The certificate has ended; within its grace it can only fetch a new one.
    #[error("the certificate has ended: it can fetch a new one, and do nothing else")]
    Ended,
    /// The certificate is not believed.
    #[error("{0}")]
    Trust(#[from] TrustError),
}

/// Finds out who sent a request with this body.
pub(crate) fn identify(door: &Door, parts: &Parts, body: &[u8]) -> Result<Identity, IdentityError> {
    let now = door.clock.now();
    let (certificate, others, signed) = if let Some(certificate) = of_connection(parts) {
        (certificate, Vec::new(), None)
    } else if let Some(name) = &door.settings.certificate_header {
        let header = single(&parts.headers, name.as_str())?.ok_or(IdentityError::Missing)?;
        if !is_trusted_peer(door, parts) {
            metrics::counter!("proxy_certificate_header_untrusted_total").increment(1);
            return Err(IdentityError::Missing);
        }
        (Arc::new(of_header(header)?), Vec::new(), None)
    } else {
        let (certificate, others, signing_time) = signed(door, &parts.headers, body, now)?;
        (certificate, others, Some(signing_time))
    };
    let fingerprint = certificate.fingerprint();
    let ended = match door.chains.check(&door.trust, &certificate, fingerprint, &others, now) {
        Ok(()) => false,
        Err(TrustError::Expired) if has_grace(door, &certificate, &others, now) => true,
        Err(error @ (TrustError::Expired | TrustError::NotYetValid)) => {
            return Err(IdentityError::NotValid { fingerprint, error });
        }
        Err(error) => return Err(IdentityError::Trust(error)),
    };
    let fresh = signed.is_none_or(|at| at.is_some_and(|at| at <= now.plus(FRESH) && now.minus(FRESH) <= at));
    // A clock that runs ahead must not make the device's later messages look old (TH-17).
    let signed_at = signed.flatten().map(|at| at.min(now));
    Ok(Identity { certificate, fingerprint, signed_at, fresh, ended })
}

/// Whether a certificate that has ended is within its grace, and was believed until its end.
fn has_grace(door: &Door, certificate: &Certificate, others: &[Certificate], now: Timestamp) -> bool {
    let end = certificate.not_after();
    now <= end.plus(door.renewal.settings.expired_grace)
        && door.trust.verify(certificate, others, end, Purpose::DeviceIdentity).is_ok()
}

fn of_connection(parts: &Parts) -> Option<Arc<Certificate>> {
    parts.extensions.get::<PeerCertificate>()?.0.clone()
}

fn is_trusted_peer(door: &Door, parts: &Parts) -> bool {
    let peer = parts.extensions.get::<PeerAddress>();
    peer.is_some_and(|peer| door.settings.trusted_peers.contains(&peer.0.ip()))
}

/// The value of a header that may occur once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, IdentityError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() || value.len() > MAX_HEADER {
        return Err(IdentityError::Header);
    }
    value.to_str().map(Some).map_err(|_| IdentityError::Header)
}

/// RFC 9440 §2.1 (`:base64 of the DER:`), or a PEM certificate with percent-encoding, as nginx writes it.
fn of_header(value: &str) -> Result<Certificate, IdentityError> {
    let unreadable = |_| IdentityError::Header;
    if let Some(base64) = value.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')) {
        let der = STANDARD.decode(base64).map_err(|_| IdentityError::Header)?;
        return Certificate::from_der(&der).map_err(unreadable);
    }
    let pem = percent_encoding::percent_decode_str(value).decode_utf8().map_err(|_| IdentityError::Header)?;
    Certificate::from_pem(&pem).map_err(unreadable)
}

type Signed = (Arc<Certificate>, Vec<Certificate>, Option<Timestamp>);

/// `Mdm-Signature`: base64 of a detached CMS signature over the body (Apple, `SignMessage` of the MDM payload).
fn signed(door: &Door, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Signed, IdentityError> {
    let header = single(headers, "mdm-signature")?.ok_or(IdentityError::Missing)?;
    let cms = STANDARD.decode(header.trim()).map_err(|_| IdentityError::Header)?;
    let rule = if door.settings.sha1 == Sha1::Refuse { Sha1Rule::Refuse } else { Sha1Rule::Accept };
    let by = verify_detached(&cms, body, Rules { sha1: rule })?;
    if by.sha1 && door.settings.sha1 == Sha1::Log {
        metrics::counter!("mdm_signature_sha1_total").increment(1);
        tracing::debug!(certificate = %by.certificate.fingerprint(), "Mdm-Signature with SHA-1");
    }
    let skew = door.settings.skew;
    let near = |at: Timestamp| at <= now.plus(skew) && now.minus(skew) <= at;
    if !by.signing_time.is_some_and(near) {
        metrics::counter!("mdm_signature_skew_total").increment(1);
        if door.settings.strict_skew {
            return Err(IdentityError::Skew);
        }
        tracing::debug!(signing_time = ?by.signing_time, "the signing time is missing or far from now");
    }
    Ok((Arc::new(by.certificate), by.others, by.signing_time))
}

/// How long the path of a certificate counts as verified. Its own validity, use and revocation are checked at each request.
const PATH_HOLDS: Duration = Duration::from_mins(10);
/// Certificates whose path is remembered.
const MOST_PATHS: usize = 200_000;

/// Certificates whose path to a trusted authority was verified a short time ago.
#[derive(Debug, Default)]
pub(crate) struct VerifiedChains(Mutex<HashMap<Fingerprint, Timestamp>>);

impl VerifiedChains {
    fn check(
        &self,
        trust: &Trust,
        certificate: &Certificate,
        fingerprint: Fingerprint,
        others: &[Certificate],
        now: Timestamp,
    ) -> Result<(), TrustError> {
        let known = self.0.lock().expect("no holder of this lock panics").get(&fingerprint).copied();
        if known.is_some_and(|at| at <= now && now.since(at) < PATH_HOLDS) {
            return trust.recheck(certificate, now, Purpose::DeviceIdentity);
        }
        trust.verify(certificate, others, now, Purpose::DeviceIdentity)?;
        let mut verified = self.0.lock().expect("no holder of this lock panics");
        if verified.len() >= MOST_PATHS {
            verified.clear();
        }
        verified.insert(fingerprint, now);
        Ok(())
    }
}
