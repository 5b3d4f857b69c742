//! The TLS certificate that the server makes for itself where none is configured, under a CA of its own.
//!
//! Good for a pilot: devices do not trust that CA by themselves. It signs nothing else, least of all device identities.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::crypto::issue::{CaUse, LeafUse, NewCa, NewLeaf, issue_ca, issue_leaf};
use mdm_core::crypto::key::{PrivateKey, PublicKey};
use mdm_core::crypto::seal::Sealer;
use mdm_core::random::Random;
use mdm_core::time::Timestamp;
use store::Tx;

use crate::Error;
use crate::vault::{KeyPair, Vault};

const CA: &str = "server-tls-ca";
const LEAF: &str = "server-tls";
const CA_VALID_FOR: Duration = Duration::from_secs(3650 * 86_400);
/// Below the 825 days that Apple devices allow under a private CA.
const LEAF_VALID_FOR: Duration = Duration::from_secs(397 * 86_400);
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 86_400);

/// A TLS server certificate with its key and its CA.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// The key of the certificate.
    pub key: PrivateKey,
    /// The certificate.
    pub certificate: Certificate,
    /// What a client must trust.
    pub ca: Certificate,
}

/// Opens the stored server certificate for `host` (a DNS name or an IP address); makes one where there is none, where less
/// than 60 days are left, or where the host is another. `localhost` also gets the loopback addresses.
pub async fn load_or_create(
    tx: &mut Tx,
    sealer: &Sealer,
    random: &Random,
    now: Timestamp,
    host: &str,
) -> Result<ServerIdentity, Error> {
    let vault = Vault { sealer, random, now };
    let ca = if let Some(ca) = vault.load(tx, CA).await? {
        ca
    } else {
        let key = PrivateKey::generate_p256()?;
        let new = NewCa { common_name: "Assay Server CA", ca_use: CaUse::Servers, now, valid_for: CA_VALID_FOR };
        let certificate = Certificate::from_der(&issue_ca(&key, &new, random)?)?;
        vault.keep(tx, CA, KeyPair { key, certificate, created_at: now }, None).await?
    };
    let common_name = host.get(..64).unwrap_or(host);
    let stored = vault.load(tx, LEAF).await?;
    let replaces = stored.as_ref().map(|stored| stored.created_at);
    let fits = |leaf: &Certificate| {
        leaf.not_after() > now.plus(RENEW_BEFORE) && leaf.common_name().as_deref() == Some(common_name)
    };
    let leaf = match stored {
        Some(stored) if fits(&stored.certificate) => stored,
        _ => vault.keep(tx, LEAF, make(&ca, host, common_name, random, now)?, replaces).await?,
    };
    Ok(ServerIdentity { key: leaf.key, certificate: leaf.certificate, ca: ca.certificate })
}

fn make(ca: &KeyPair, host: &str, common_name: &str, random: &Random, now: Timestamp) -> Result<KeyPair, Error> {
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    let (dns_names, ip_addresses) = match host.parse::<IpAddr>() {
        Ok(address) => (vec![], vec![address]),
        Err(_) if host == "localhost" => (vec![host], loopback.to_vec()),
        Err(_) => (vec![host], vec![]),
    };
    let key = PrivateKey::generate_p256()?;
    let public = PublicKey::from_spki_der(&key.public_spki_der()?)?;
    let leaf = NewLeaf {
        common_name,
        leaf_use: LeafUse::TlsServer,
        dns_names: &dns_names,
        ip_addresses: &ip_addresses,
        now,
        valid_for: LEAF_VALID_FOR,
    };
    let certificate = Certificate::from_der(&issue_leaf(ca.issuer(), &public, &leaf, random)?)?;
    Ok(KeyPair { key, certificate, created_at: now })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuance::tests::{NOW, World};

    #[tokio::test]
    async fn one_is_made_kept_and_replaced_when_the_host_changes() {
        let world = World::new().await;
        let mut tx = world.store.begin().await.unwrap();
        let first = load_or_create(&mut tx, &world.sealer, &Random::System, NOW, "localhost").await.unwrap();
        let again = load_or_create(&mut tx, &world.sealer, &Random::System, NOW, "localhost").await.unwrap();
        assert_eq!(first.certificate, again.certificate);
        let moved = load_or_create(&mut tx, &world.sealer, &Random::System, NOW, "mdm.example.com").await.unwrap();
        assert_ne!(first.certificate, moved.certificate);
        assert_eq!(first.ca, moved.ca);
        let late = NOW.plus(LEAF_VALID_FOR);
        let renewed = load_or_create(&mut tx, &world.sealer, &Random::System, late, "mdm.example.com").await.unwrap();
        assert_ne!(moved.certificate, renewed.certificate);
    }
}
