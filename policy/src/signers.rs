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
        let signed = match name {
            Some(name) => {
                let signer = self.named.get(name).ok_or_else(|| Error::NoSigningIdentity(name.to_owned()))?;
                signer.sign(profile, now)
            }
            None => {
                let own = self.own.read().unwrap_or_else(PoisonError::into_inner).clone();
                own.sign(profile, now)
            }
        };
        Ok(signed?)
    }
}
