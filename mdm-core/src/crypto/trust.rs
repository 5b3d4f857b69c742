//! Whose certificates are believed: path building and checking over a small, configured set of issuers (RFC 5280 §6).
//!
//! The issuers' keys are parsed once. The purpose says what the leaf must be, so that a certificate made for Wi-Fi or for a server
//! is not taken for a device's identity (TH-08), and validity is always checked (TH-09).

use std::collections::HashMap;

use super::key::{Hash, PublicKey, SignatureAlgorithm};
use crate::certificate::Certificate;
use crate::time::Timestamp;

/// CA certificates between the leaf and a trusted issuer, at most.
const MAX_DEPTH: usize = 5;
/// Certificates beside the leaf that are looked at, at most.
const MAX_INTERMEDIATES: usize = 10;

/// What a certificate is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A device's identity on the MDM channel: not a CA, extended key usage clientAuth (TH-08).
    DeviceIdentity,
    /// Something signed: not a CA, any extended key usage.
    Signature,
}

/// Why a certificate is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No path leads to a trusted issuer, or a signature on it is wrong.
    #[error("no trusted authority issued this certificate")]
    Unknown,
    /// The leaf, or a CA above it, is no longer valid.
    #[error("the certificate, or an authority above it, has expired")]
    Expired,
    /// The leaf, or a CA above it, is not valid yet.
    #[error("the certificate, or an authority above it, is not valid yet")]
    NotYetValid,
    /// A CA certificate is used as a leaf.
    #[error("this is an authority's certificate, not one of a device")]
    IsAuthority,
    /// The extended key usage is missing or another one.
    #[error("the certificate is not meant for client authentication")]
    WrongUse,
    /// RSA below 2048 bits, an unusual key or algorithm, or SHA-1.
    #[error("a key or a signature algorithm in the chain is too weak or not supported")]
    Weak,
    /// A critical extension that we do not know, or one extension twice.
    #[error("the certificate has a critical extension that is not understood")]
    Unreadable,
}

#[derive(Debug, Clone)]
struct Authority {
    certificate: Certificate,
    key: PublicKey,
}

/// A set of trusted issuers.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    by_subject: HashMap<Vec<u8>, Vec<Authority>>,
}

impl Trust {
    /// Trusts what these CA certificates sign. Each is trusted by itself, whether it is a root or not.
    ///
    /// # Errors
    /// [`TrustError::WrongUse`] for a certificate that is no CA, [`TrustError::Weak`] for a weak key.
    pub fn new(authorities: Vec<Certificate>) -> Result<Self, TrustError> {
        let mut by_subject: HashMap<Vec<u8>, Vec<Authority>> = HashMap::new();
        for certificate in authorities {
            if !certificate.is_ca() {
                return Err(TrustError::WrongUse);
            }
            let key = certificate.public_key().map_err(|_| TrustError::Weak)?;
            by_subject.entry(certificate.subject_der()).or_default().push(Authority { certificate, key });
        }
        Ok(Self { by_subject })
    }

    /// The trusted certificates.
    pub fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        self.by_subject.values().flatten().map(|authority| &authority.certificate)
    }

    /// Checks that `leaf` may be used for `purpose` at `now`, over a path through `intermediates` to a trusted issuer.
    ///
    /// Revocation is not looked at: the caller's database knows which certificates were revoked.
    pub fn verify(
        &self,
        leaf: &Certificate,
        intermediates: &[Certificate],
        now: Timestamp,
        purpose: Purpose,
    ) -> Result<(), TrustError> {
        check_leaf(leaf, now, purpose)?;
        self.climb(leaf, intermediates.get(..MAX_INTERMEDIATES).unwrap_or(intermediates), now, 0)
    }

    /// The trusted authority that itself signed this certificate, where one did.
    pub fn issuer_of(&self, certificate: &Certificate) -> Option<&Certificate> {
        let named = self.by_subject.get(&certificate.issuer_der()).into_iter().flatten();
        named
            .map(|a| (a, is_signed_by(certificate, &a.key)))
            .find(|(_, signed)| signed.is_ok())
            .map(|(a, _)| &a.certificate)
    }

    /// What does not depend on the path: use, validity, critical extensions. A caller that has verified the path of this very
    /// certificate (by its fingerprint) before may call this alone.
    pub fn recheck(&self, leaf: &Certificate, now: Timestamp, purpose: Purpose) -> Result<(), TrustError> {
        check_leaf(leaf, now, purpose)
    }

    fn climb(
        &self,
        below: &Certificate,
        intermediates: &[Certificate],
        now: Timestamp,
        depth: usize,
    ) -> Result<(), TrustError> {
        // The error of the most promising path is the one told: an expired authority rather than "unknown".
        let mut failure = TrustError::Unknown;
        for authority in self.by_subject.get(&below.issuer_der()).into_iter().flatten() {
            match is_signed_by(below, &authority.key).and_then(|()| check_authority(&authority.certificate, now, depth))
            {
                Ok(()) => return Ok(()),
                Err(TrustError::Unknown) => {}
                Err(error) => failure = error,
            }
        }
        if depth >= MAX_DEPTH {
            return Err(failure);
        }
        for (at, candidate) in intermediates.iter().enumerate() {
            if !below.names_as_issuer(candidate) || candidate.der() == below.der() {
                continue;
            }
            let step = || {
                let key = candidate.public_key().map_err(|_| TrustError::Weak)?;
                is_signed_by(below, &key)?;
                check_authority(candidate, now, depth)?;
                check_extensions(candidate)?;
                // Each certificate is used once, so that a ring of them ends.
                let others: Vec<Certificate> =
                    intermediates.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, c)| c.clone()).collect();
                self.climb(candidate, &others, now, depth + 1)
            };
            match step() {
                Ok(()) => return Ok(()),
                Err(TrustError::Unknown) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn check_leaf(leaf: &Certificate, now: Timestamp, purpose: Purpose) -> Result<(), TrustError> {
    check_validity(leaf, now)?;
    check_extensions(leaf)?;
    if leaf.is_ca() {
        return Err(TrustError::IsAuthority);
    }
    if purpose == Purpose::DeviceIdentity && !leaf.allows_client_auth() {
        return Err(TrustError::WrongUse);
    }
    Ok(())
}

fn check_authority(authority: &Certificate, now: Timestamp, cas_below: usize) -> Result<(), TrustError> {
    if !authority.is_ca() || authority.path_length().is_some_and(|most| cas_below > usize::from(most)) {
        return Err(TrustError::WrongUse);
    }
    check_validity(authority, now)
}

fn check_validity(certificate: &Certificate, now: Timestamp) -> Result<(), TrustError> {
    if now < certificate.not_before() {
        return Err(TrustError::NotYetValid);
    }
    if now > certificate.not_after() {
        return Err(TrustError::Expired);
    }
    Ok(())
}

/// The critical extensions that a path may have: key usage, SAN, basic constraints, policies, extended key usage.
fn check_extensions(certificate: &Certificate) -> Result<(), TrustError> {
    const KNOWN: [&str; 5] = ["2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.32", "2.5.29.37"];
    let known = certificate.critical_extensions().iter().all(|oid| KNOWN.contains(&oid.as_str()));
    if known && !certificate.repeats_an_extension() { Ok(()) } else { Err(TrustError::Unreadable) }
}

fn is_signed_by(below: &Certificate, key: &PublicKey) -> Result<(), TrustError> {
    let (algorithm, signature) = below.signature().ok_or(TrustError::Weak)?;
    let hash = match algorithm {
        SignatureAlgorithm::Rsa(hash) | SignatureAlgorithm::Ecdsa(hash) if hash != Hash::Sha1 => hash,
        _ => return Err(TrustError::Weak),
    };
    if !algorithm.suits(key.kind()) {
        return Err(TrustError::Unknown);
    }
    key.verify(hash, below.tbs_der(), signature).map_err(|_| TrustError::Unknown)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        KeyUsagePurpose,
    };

    use super::*;
    use crate::crypto::key::PrivateKey;

    const NOW: Timestamp = Timestamp(1_750_000_000_000);

    struct Ca {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = time::OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        params
    }

    fn ca_params(name: &str) -> CertificateParams {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    fn leaf_params() -> CertificateParams {
        let mut params = named("device");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn root(params: CertificateParams, key: KeyPair) -> Ca {
        let certificate = Certificate::from_der(params.self_signed(&key).unwrap().der()).unwrap();
        Ca { certificate, issuer: Issuer::new(params, key) }
    }

    fn below(ca: &Ca, params: CertificateParams) -> Ca {
        let key = KeyPair::generate().unwrap();
        let certificate = Certificate::from_der(params.signed_by(&key, &ca.issuer).unwrap().der()).unwrap();
        Ca { certificate, issuer: Issuer::new(params, key) }
    }

    fn p256() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    fn rsa() -> KeyPair {
        let pem = PrivateKey::generate_rsa(2048).unwrap().to_pkcs8_pem().unwrap();
        KeyPair::from_pem(pem.expose()).unwrap()
    }

    fn judge(trusted: &Ca, leaf: &Ca, between: &[&Ca]) -> Result<(), TrustError> {
        let trust = Trust::new(vec![trusted.certificate.clone()]).unwrap();
        let between: Vec<Certificate> = between.iter().map(|ca| ca.certificate.clone()).collect();
        trust.verify(&leaf.certificate, &between, NOW, Purpose::DeviceIdentity)
    }

    #[test]
    fn a_leaf_below_a_trusted_issuer_is_believed() {
        for key in [p256(), rsa()] {
            let ca = root(ca_params("root"), key);
            assert_eq!(judge(&ca, &below(&ca, leaf_params()), &[]), Ok(()));
        }
    }

    #[test]
    fn a_path_through_intermediates_is_found_in_any_order() {
        let top = root(ca_params("root"), p256());
        let middle = below(&top, ca_params("middle"));
        let low = below(&middle, ca_params("low"));
        let leaf = below(&low, leaf_params());
        assert_eq!(judge(&top, &leaf, &[&middle, &low]), Ok(()));
        assert_eq!(judge(&top, &leaf, &[&low, &middle]), Ok(()));
        assert_eq!(judge(&top, &leaf, &[&low]), Err(TrustError::Unknown));
    }

    #[test]
    fn th_08_another_use_is_refused() {
        let ca = root(ca_params("root"), p256());
        assert_eq!(judge(&ca, &below(&ca, named("no usage")), &[]), Err(TrustError::WrongUse));
        let mut server = named("server");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        assert_eq!(judge(&ca, &below(&ca, server), &[]), Err(TrustError::WrongUse));
        let mut authority = ca_params("authority");
        authority.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        assert_eq!(judge(&ca, &below(&ca, authority), &[]), Err(TrustError::IsAuthority));
    }

    #[test]
    fn th_08_a_stranger_with_the_same_name_is_refused() {
        let (ours, theirs) = (root(ca_params("root"), p256()), root(ca_params("root"), p256()));
        assert_eq!(judge(&ours, &below(&theirs, leaf_params()), &[]), Err(TrustError::Unknown));
        assert_eq!(judge(&ours, &below(&theirs, leaf_params()), &[&theirs]), Err(TrustError::Unknown));
    }

    #[test]
    fn th_08_a_leaf_is_not_an_authority() {
        let ca = root(ca_params("root"), p256());
        let device = below(&ca, leaf_params());
        let forged = below(&device, leaf_params());
        assert!(judge(&ca, &forged, &[&device]).is_err());
        assert_eq!(Trust::new(vec![device.certificate]).unwrap_err(), TrustError::WrongUse);
    }

    #[test]
    fn a_path_longer_than_its_authority_allows_is_refused() {
        let mut params = ca_params("root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let top = root(params, p256());
        let middle = below(&top, ca_params("middle"));
        let leaf = below(&middle, leaf_params());
        assert_eq!(judge(&top, &leaf, &[&middle]), Err(TrustError::WrongUse));
        assert_eq!(judge(&top, &below(&top, leaf_params()), &[]), Ok(()));
    }

    #[test]
    fn th_09_expired_and_future_certificates_are_refused() {
        let ca = root(ca_params("root"), p256());
        let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut expired = leaf_params();
        expired.not_after = at(1_740_000_000);
        assert_eq!(judge(&ca, &below(&ca, expired), &[]), Err(TrustError::Expired));
        let mut future = leaf_params();
        future.not_before = at(1_760_000_000);
        assert_eq!(judge(&ca, &below(&ca, future), &[]), Err(TrustError::NotYetValid));
        let mut old = ca_params("old");
        old.not_after = at(1_740_000_000);
        let old = root(old, p256());
        assert_eq!(judge(&old, &below(&old, leaf_params()), &[]), Err(TrustError::Expired));
    }

    #[test]
    fn an_unknown_critical_extension_is_refused() {
        let ca = root(ca_params("root"), p256());
        let mut params = leaf_params();
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
        assert_eq!(judge(&ca, &below(&ca, params), &[]), Err(TrustError::Unreadable));
    }

    #[test]
    fn a_ring_of_authorities_ends() {
        let (a_key, b_key) = (p256(), p256());
        let a = ca_params("a");
        let b = ca_params("b");
        let a_by_b = a.clone().signed_by(&a_key, &Issuer::new(b.clone(), &b_key)).unwrap();
        let b_by_a = b.clone().signed_by(&b_key, &Issuer::new(a.clone(), &a_key)).unwrap();
        let ring = [a_by_b, b_by_a].map(|made| Certificate::from_der(made.der()).unwrap());
        let leaf_key = p256();
        let leaf = leaf_params().signed_by(&leaf_key, &Issuer::new(a, &a_key)).unwrap();
        let trust = Trust::new(vec![root(ca_params("root"), p256()).certificate]).unwrap();
        let leaf = Certificate::from_der(leaf.der()).unwrap();
        assert_eq!(trust.verify(&leaf, &ring, NOW, Purpose::DeviceIdentity), Err(TrustError::Unknown));
    }
}
