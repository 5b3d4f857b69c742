//! Where the server's own keys are kept: rows of `sealed_key`, sealed under the server's key (TH-35).

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::issue::Issuer;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;

use crate::Error;

/// A key with its certificate.
#[derive(Debug, Clone)]
pub(crate) struct KeyPair {
    pub(crate) key: PrivateKey,
    pub(crate) certificate: Certificate,
    pub(crate) created_at: Timestamp,
}

impl KeyPair {
    pub(crate) fn issuer(&self) -> Issuer<'_> {
        Issuer { key: &self.key, certificate: self.certificate.der() }
    }
}

/// Where keys are kept.
pub(crate) struct Vault<'a> {
    pub(crate) sealer: &'a Sealer,
    pub(crate) random: &'a Random,
    pub(crate) now: Timestamp,
}

impl Vault<'_> {
    /// The key pair of that name, opened.
    pub(crate) async fn load(&self, tx: &mut Tx, name: &'static str) -> Result<Option<KeyPair>, Error> {
        let Some(row) = store::keys::get(tx, name).await? else { return Ok(None) };
        let key = self.sealer.open(&context(name), &row.key_sealed).map_err(|source| Error::Sealed { name, source })?;
        let key = PrivateKey::from_pkcs8_der(key.expose()).map_err(|_| Error::Unreadable(name))?;
        let certificate = Certificate::from_der(&row.certificate).map_err(|_| Error::Unreadable(name))?;
        // What is read back must be one key pair, whoever wrote it.
        ProfileSigner::new(key.clone(), certificate.clone(), Vec::new()).map_err(|_| Error::Unreadable(name))?;
        Ok(Some(KeyPair { key, certificate, created_at: Timestamp(row.created_at) }))
    }

    /// Stores a new key pair, or gives the one that another server stored in the same moment.
    pub(crate) async fn keep(
        &self,
        tx: &mut Tx,
        name: &'static str,
        made: KeyPair,
        replaces: Option<Timestamp>,
    ) -> Result<KeyPair, Error> {
        let row = store::keys::Row {
            name: name.to_owned(),
            certificate: made.certificate.der().to_vec(),
            chain: Vec::new(),
            key_sealed: self.sealer.seal(&context(name), made.key.to_pkcs8_der()?.expose(), self.random),
            not_after: made.certificate.not_after().0,
            created_at: made.created_at.0,
        };
        let stored = match replaces {
            None => store::keys::insert(tx, &row).await?,
            Some(old) => store::keys::replace(tx, &row, old).await?,
        };
        if stored {
            return Ok(made);
        }
        self.load(tx, name).await?.ok_or(Error::Unreadable(name))
    }
}

fn context(name: &str) -> String {
    format!("sealed_key.key_sealed:{name}")
}
