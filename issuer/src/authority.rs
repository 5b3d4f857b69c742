//! The keys that sign: the built-in identity CA, the SCEP registration authority, and the signer of profiles.
//!
//! They are made on the first start and kept in `sealed_key`, sealed under the server's key (TH-35). The registration
//! authority opens SCEP envelopes, the CA never does, so that a decryption oracle could not touch the CA's key (TH-31).

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::cms_sign::ProfileSigner;
use mdm_core::crypto::issue::{CaUse, LeafUse, NewCa, NewLeaf, issue_ca, issue_leaf};
use mdm_core::crypto::key::{PrivateKey, PublicKey};
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;

use crate::Error;
use crate::vault::{KeyPair, Vault};

const DAY: Duration = Duration::from_hours(24);
const CA_BITS: u32 = 3072;
const RA_BITS: u32 = 2048;
const CA_VALID_FOR: Duration = Duration::from_hours(3650 * 24);
const RA_VALID_FOR: Duration = Duration::from_hours(730 * 24);
const PROFILE_SIGNER_VALID_FOR: Duration = Duration::from_hours(365 * 24);
/// A registration authority or profile signer with less left than this is replaced at the next [`Authority::load_or_create`].
const RENEW_BEFORE: Duration = Duration::from_hours(60 * 24);
/// Device identities live this long at most (TH-35).
pub const MAX_IDENTITY_DAYS: u32 = 365;

const CA: &str = "identity-ca";
const RA: &str = "scep-ra";
const PROFILE_SIGNER: &str = "profile-signer";

/// How the authority is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Common name of the CA, made once on the first start: 1 to 48 characters.
    pub name: String,
    /// How many days a device identity is valid, 1 to [`MAX_IDENTITY_DAYS`].
    pub identity_days: u32,
    /// The operator's own signing identity for profiles; without it, one under the built-in CA is made and renewed.
    pub profile_signer: Option<ProfileSigner>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { name: "Assay Device Identity CA".to_owned(), identity_days: MAX_IDENTITY_DAYS, profile_signer: None }
    }
}

/// The built-in CA with what belongs to it, ready to sign.
#[derive(Debug, Clone)]
pub struct Authority {
    ca: KeyPair,
    ra_key: PrivateKey,
    ra: ProfileSigner,
    profile_signer: ProfileSigner,
    identity_valid_for: Duration,
}

impl Authority {
    /// Opens the stored keys; makes those that are missing, and replaces a registration authority or profile signer that ends
    /// soon. Call it at every start and once a day, in a write transaction that is then committed.
    ///
    /// # Errors
    /// [`Error::Sealed`] where the server's key is not the one that the database was made with.
    pub async fn load_or_create(
        tx: &mut Tx,
        sealer: &Sealer,
        random: &Random,
        now: Timestamp,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let vault = Vault { sealer, random, now };
        let ca = match vault.load(tx, CA).await? {
            Some(ca) => ca,
            None => vault.create_ca(tx, settings).await?,
        };
        let name = ca.certificate.common_name().unwrap_or_default();
        let ra = vault.leaf(tx, RA, &ca, &format!("{name} SCEP RA"), LeafUse::ScepRa, RA_VALID_FOR).await?;
        let profile_signer = if let Some(given) = &settings.profile_signer {
            given.clone()
        } else {
            let common_name = format!("{name} Profiles");
            let made = vault
                .leaf(tx, PROFILE_SIGNER, &ca, &common_name, LeafUse::ProfileSigner, PROFILE_SIGNER_VALID_FOR)
                .await?;
            ProfileSigner::new(made.key, made.certificate, vec![ca.certificate.clone()])?
        };
        let days = settings.identity_days.clamp(1, MAX_IDENTITY_DAYS);
        Ok(Self {
            ca,
            ra_key: ra.key.clone(),
            ra: ProfileSigner::new(ra.key, ra.certificate, Vec::new())?,
            profile_signer,
            identity_valid_for: DAY * days,
        })
    }

    /// The CA's certificate: what device identities are trusted by.
    pub fn certificate(&self) -> &Certificate {
        &self.ca.certificate
    }

    /// The certificate of the SCEP registration authority.
    pub fn ra_certificate(&self) -> &Certificate {
        self.ra.certificate()
    }

    /// Who signs configuration profiles.
    pub fn profile_signer(&self) -> &ProfileSigner {
        &self.profile_signer
    }

    /// Signs SCEP answers.
    pub(crate) fn ra(&self) -> &ProfileSigner {
        &self.ra
    }

    /// Opens SCEP envelopes.
    pub(crate) fn ra_key(&self) -> &PrivateKey {
        &self.ra_key
    }

    /// Signs the list of revoked certificates with the CA's key.
    pub(crate) fn ca_key(&self) -> &PrivateKey {
        &self.ca.key
    }

    /// Signs a device identity. Reached only through [`crate::issuance::issue`].
    pub(crate) fn sign_identity(
        &self,
        common_name: &str,
        key: &PublicKey,
        random: &Random,
        now: Timestamp,
    ) -> Result<Certificate, Error> {
        let leaf = NewLeaf {
            common_name,
            leaf_use: LeafUse::ClientIdentity,
            dns_names: &[],
            ip_addresses: &[],
            now,
            valid_for: self.identity_valid_for,
        };
        let der = issue_leaf(self.ca.issuer(), key, &leaf, random)?;
        Ok(Certificate::from_der(&der)?)
    }
}

impl Vault<'_> {
    async fn create_ca(&self, tx: &mut Tx, settings: &Settings) -> Result<KeyPair, Error> {
        let key = PrivateKey::generate_rsa(CA_BITS)?;
        let ca =
            NewCa { common_name: &settings.name, ca_use: CaUse::Identities, now: self.now, valid_for: CA_VALID_FOR };
        let certificate = Certificate::from_der(&issue_ca(&key, &ca, self.random)?)?;
        self.keep(tx, CA, KeyPair { key, certificate, created_at: self.now }, None).await
    }

    /// The stored leaf of that name, or a new one where it is missing, ends soon, or belongs to another CA.
    async fn leaf(
        &self,
        tx: &mut Tx,
        name: &'static str,
        ca: &KeyPair,
        common_name: &str,
        leaf_use: LeafUse,
        valid_for: Duration,
    ) -> Result<KeyPair, Error> {
        let stored = self.load(tx, name).await?;
        let replaces = stored.as_ref().map(|stored| stored.created_at);
        if let Some(stored) = stored {
            let lasts = stored.certificate.not_after() > self.now.plus(RENEW_BEFORE);
            let ends_with_ca = stored.certificate.not_after() >= ca.certificate.not_after();
            if stored.certificate.names_as_issuer(&ca.certificate) && (lasts || ends_with_ca) {
                return Ok(stored);
            }
        }
        let key = PrivateKey::generate_rsa(RA_BITS)?;
        let public = PublicKey::from_spki_der(&key.public_spki_der()?)?;
        let leaf = NewLeaf { common_name, leaf_use, dns_names: &[], ip_addresses: &[], now: self.now, valid_for };
        let certificate = Certificate::from_der(&issue_leaf(ca.issuer(), &public, &leaf, self.random)?)?;
        self.keep(tx, name, KeyPair { key, certificate, created_at: self.now }, replaces).await
    }
}

#[cfg(test)]
mod tests {
    use mdm_core::crypto::trust::{Purpose, Trust};

    use super::*;
    use crate::issuance::tests::{NOW, World};

    #[tokio::test]
    async fn th_35_the_keys_are_sealed_and_come_back_the_same() {
        let world = World::new().await;
        let first = world.authority.clone();
        let mut tx = world.store.begin().await.unwrap();
        let again = Authority::load_or_create(&mut tx, &world.sealer, &Random::System, NOW, &Settings::default())
            .await
            .unwrap();
        assert_eq!(again.certificate(), first.certificate());
        assert_eq!(again.ra_certificate(), first.ra_certificate());
        assert_eq!(again.profile_signer().certificate(), first.profile_signer().certificate());
        assert_eq!(first.certificate().path_length(), Some(0));

        for name in [CA, RA, PROFILE_SIGNER] {
            let row = store::keys::get(&mut tx, name).await.unwrap().unwrap();
            assert!(PrivateKey::from_pkcs8_der(&row.key_sealed).is_err(), "{name} is stored in clear");
        }
        let other = Sealer::new(&[8; 32]);
        let refused = Authority::load_or_create(&mut tx, &other, &Random::System, NOW, &Settings::default()).await;
        assert!(matches!(refused, Err(Error::Sealed { name: CA, .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn an_ending_registration_authority_is_replaced_and_the_ca_is_not() {
        let world = World::new().await;
        let mut tx = world.store.begin().await.unwrap();
        let later = NOW.plus(DAY * 700);
        let renewed = Authority::load_or_create(&mut tx, &world.sealer, &Random::System, later, &Settings::default())
            .await
            .unwrap();
        assert_eq!(renewed.certificate(), world.authority.certificate());
        assert_ne!(renewed.ra_certificate(), world.authority.ra_certificate());
        assert!(renewed.ra_certificate().not_after() > later.plus(DAY * 700));
    }

    #[tokio::test]
    async fn th_08_registration_authority_and_profile_signer_are_no_device_identities() {
        let world = World::new().await;
        let trust = Trust::new(vec![world.authority.certificate().clone()]).unwrap();
        for certificate in [world.authority.ra_certificate(), world.authority.profile_signer().certificate()] {
            assert!(trust.verify(certificate, &[], NOW, Purpose::DeviceIdentity).is_err());
        }
        let key = PrivateKey::generate_p256().unwrap();
        let public = PublicKey::from_spki_der(&key.public_spki_der().unwrap()).unwrap();
        let identity = world.authority.sign_identity("device", &public, &Random::System, NOW).unwrap();
        trust.verify(&identity, &[], NOW, Purpose::DeviceIdentity).unwrap();
        assert!(identity.not_after() <= NOW.plus(DAY * 365));
    }
}
