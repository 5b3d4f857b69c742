//! Who signs profiles: the server itself, or an identity that the configuration names.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::time::Timestamp;

use crate::error::{Error, Result};

/// The identities that sign profiles. Clones share them.
#[derive(Debug, Clone)]
pub struct Signers {
    own: Arc<RwLock<Arc<ProfileSigner>>>,
    named: Arc<BTreeMap<String, ProfileSigner>>,
}

impl Signers {
    /// The server's own identity alone.
    pub fn new(own: ProfileSigner) -> Self {
        Self::with_named(own, BTreeMap::new())
    }

    /// The server's own identity, and those that policies can name.
    pub fn with_named(own: ProfileSigner, named: BTreeMap<String, ProfileSigner>) -> Self {
        Self { own: Arc::new(RwLock::new(Arc::new(own))), named: Arc::new(named) }
    }

    /// The server's own identity is another one from now on.
    pub fn replace(&self, own: ProfileSigner) {
        *self.own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
    }

    /// Whether a policy can name this one.
    pub fn has(&self, name: &str) -> bool {
        self.named.contains_key(name)
    }

    /// The names that a policy can use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// The identities that policies can name, with the ends of their certificates.
    pub fn ends(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.named.iter().map(|(name, signer)| (name.as_str(), signer.certificate().not_after()))
    }

    /// Signs a profile (XML) with the identity of this name, or with the server's own.
    pub fn sign(&self, name: Option<&str>, profile: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        let Some(name) = name else {
            let own = self.own.read().unwrap_or_else(PoisonError::into_inner).clone();
            return Ok(own.sign(profile, now)?);
        };
        let signer = self.named.get(name).ok_or_else(|| Error::NoSigningIdentity(name.to_owned()))?;
        Ok(signer.sign(profile, now)?)
    }
}

#[cfg(test)]
mod tests {
    use mdm_core::certificate::Certificate;
    use mdm_core::crypto::issue::{CaUse, NewCa, issue_ca};
    use mdm_core::crypto::key::PrivateKey;
    use mdm_core::random::Random;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_320_000_000);

    fn signer(name: &str) -> (ProfileSigner, Certificate) {
        let key = PrivateKey::generate_p256().unwrap();
        let valid_for = std::time::Duration::from_secs(86_400);
        let new = NewCa { common_name: name, ca_use: CaUse::Identities, now: NOW, valid_for };
        let certificate = Certificate::from_der(&issue_ca(&key, &new, &Random::System).unwrap()).unwrap();
        (ProfileSigner::new(key, certificate.clone(), vec![]).unwrap(), certificate)
    }

    #[test]
    fn a_profile_is_signed_by_whom_its_policy_names() {
        let ((own, _), (corporate, certificate), (renewed, _)) =
            (signer("own"), signer("corporate"), signer("renewed"));
        let signers = Signers::with_named(own, BTreeMap::from([("corporate".to_owned(), corporate)]));
        let holds = |signed: &[u8], certificate: &Certificate| {
            signed.windows(certificate.der().len()).any(|part| part == certificate.der())
        };
        assert!(holds(&signers.sign(Some("corporate"), b"<plist/>", NOW).unwrap(), &certificate));
        assert!(!holds(&signers.sign(None, b"<plist/>", NOW).unwrap(), &certificate));
        let unknown = signers.sign(Some("other"), b"<plist/>", NOW).unwrap_err();
        assert!(matches!(&unknown, Error::NoSigningIdentity(name) if name == "other") && unknown.needs_human());
        assert!(signers.has("corporate") && !signers.has("own"));
        // A renewed identity is used at once, by every clone.
        let clone = signers.clone();
        let certificate = renewed.certificate().clone();
        signers.replace(renewed);
        assert!(holds(&clone.sign(None, b"<plist/>", NOW).unwrap(), &certificate));
    }
}
