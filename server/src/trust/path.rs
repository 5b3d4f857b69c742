//! Whether a device would believe a chain, and what a chain leads to.

use std::collections::BTreeSet;

use mdm_core::certificate::Certificate;
use mdm_core::ids::Fingerprint;
use mdm_core::time::Timestamp;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::ring;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use url::Url;

/// Where a path ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// At one of the roots.
    Leads,
    /// At none of them.
    Nowhere,
    /// The chain cannot be followed for another reason, in words.
    Broken(String),
}

/// The roots that Apple's systems trust by themselves, as far as Mozilla's list is the same, and `more`.
pub fn public_roots(more: &[Certificate]) -> RootCertStore {
    let mut roots = only(more);
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots
}

/// These certificates as roots; one that cannot be a root is left out.
pub fn only(anchors: &[Certificate]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.iter().map(|anchor| CertificateDer::from(anchor.der().to_vec())));
    roots
}

/// Follows a chain, leaf first, to one of `roots` at `now`. That a certificate on the way has ended is not looked at here:
/// the path is then judged as it was on the leaf's last day.
pub fn follow(chain: &[Certificate], roots: &RootCertStore, now: Timestamp) -> Path {
    let Some((leaf, above)) = chain.split_first() else { return Path::Nowhere };
    let der = CertificateDer::from(leaf.der());
    let Ok(parsed) = ParsedCertificate::try_from(&der) else {
        return Path::Broken("the server's certificate cannot be read".to_owned());
    };
    let above: Vec<CertificateDer<'_>> = above.iter().map(|c| CertificateDer::from(c.der())).collect();
    let algorithms = ring::default_provider().signature_verification_algorithms.all;
    let ends = chain.iter().map(Certificate::not_after).min().unwrap_or(now);
    let begins = chain.iter().map(Certificate::not_before).max().unwrap_or(now);
    let mut result = Path::Nowhere;
    for at in [now, begins.max(now.min(ends))] {
        let seconds = u64::try_from(at.unix_seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        result = match verify_server_cert_signed_by_trust_anchor(&parsed, roots, &above, at, algorithms) {
            Ok(()) => return Path::Leads,
            Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => return Path::Nowhere,
            Err(error) => Path::Broken(error.to_string()),
        };
    }
    result
}

/// Whether a chain leads to one of these certificates.
pub fn leads_to(chain: &[Certificate], anchors: &[Certificate], now: Timestamp) -> bool {
    follow(chain, &only(anchors), now) == Path::Leads
}

/// Whether the certificate names the host of `url`.
pub fn names_host(leaf: &Certificate, url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let der = CertificateDer::from(leaf.der());
    match (ParsedCertificate::try_from(&der), ServerName::try_from(host)) {
        (Ok(parsed), Ok(name)) => verify_server_name(&parsed, &name).is_ok(),
        _ => false,
    }
}

/// The names of a certificate, for a person.
pub fn names(leaf: &Certificate) -> String {
    use mdm_core::certificate::AltName;
    let names: Vec<String> = leaf
        .alt_names()
        .into_iter()
        .filter_map(|name| match name {
            AltName::Dns(name) => Some(name),
            _ => None,
        })
        .collect();
    if names.is_empty() { leaf.subject() } else { names.join(", ") }
}

/// Whether a certificate is its own issuer.
pub fn is_self_issued(certificate: &Certificate) -> bool {
    certificate.names_as_issuer(certificate)
}

/// What a chain can be recognised by: the certificates that it sends, and those of `known` that it leads to.
pub fn reached(chain: &[Certificate], known: &[Certificate], now: Timestamp) -> BTreeSet<Fingerprint> {
    let led_to = known.iter().filter(|anchor| leads_to(chain, std::slice::from_ref(anchor), now));
    // Which of the certificates sent are truly above the leaf is what the device finds out; ours are sent by ourselves.
    chain.iter().chain(led_to).map(Certificate::fingerprint).collect()
}
