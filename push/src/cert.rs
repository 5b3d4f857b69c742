//! Push certificates: what an operator uploads, checked before it can do harm (TH-68), and kept with its key sealed.
//!
//! Source: Apple, "Setting up push notifications for your MDM customers"; the topic is the subject's UID.

use mdm_core::certificate::Certificate;
use mdm_core::crypto::key::PrivateKey;
use mdm_core::crypto::pkcs12;
use mdm_core::crypto::seal::Sealer;
use mdm_core::ids::Fingerprint;
use mdm_core::random::Random;
use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use serde::Serialize;
use store::Tx;
use store::push::Cert;

use crate::Error;
use crate::direct::{Direct, Endpoint};

/// What every MDM push topic begins with.
pub const TOPIC_PREFIX: &str = "com.apple.mgmt.";

/// No push certificate with key and chain comes near this.
const UPLOAD_LIMIT: usize = 256 * 1024;

/// What an upload needs besides its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Seals the key.
    pub sealer: &'a Sealer,
    /// For the seal.
    pub random: &'a Random,
}

/// A push certificate, without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PushCertInfo {
    /// Its topic.
    pub topic: String,
    /// Its subject, for people.
    pub subject: String,
    /// Its issuer, for people.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER, hexadecimal.
    pub sha256: String,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends: the server's most important date.
    pub not_after: Timestamp,
    /// When it was uploaded.
    pub uploaded_at: Timestamp,
    /// When APNs refused it; pushes of this topic rest.
    pub stopped_at: Option<Timestamp>,
    /// Why APNs refused it.
    pub stopped_why: Option<String>,
}

impl PushCertInfo {
    fn new(certificate: &Certificate, row: &Cert) -> Self {
        Self {
            topic: row.topic.clone(),
            subject: certificate.subject(),
            issuer: certificate.issuer(),
            serial: certificate.serial_hex(),
            sha256: Fingerprint::of(certificate.der()).to_string(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            uploaded_at: Timestamp(row.uploaded_at),
            stopped_at: row.stopped_at.map(Timestamp),
            stopped_why: row.stopped_why.clone(),
        }
    }

    /// Whether pushes can be sent with it at `now`, as far as this server knows.
    pub fn usable(&self, now: Timestamp) -> bool {
        self.stopped_at.is_none() && self.not_before <= now && now < self.not_after
    }
}

/// Stores a push certificate: PEM (certificate and unencrypted key in any order, further certificates are its chain)
/// or PKCS#12 with `password`.
///
/// Refused: a key that is not the certificate's, a topic that is not one of MDM, an expired certificate, and, without
/// `force`, a topic that no stored certificate has, because a renewal with another topic loses every device.
pub async fn upload(
    tx: &mut Tx,
    context: Context<'_>,
    bytes: &[u8],
    password: Option<&str>,
    force: bool,
    now: Timestamp,
) -> Result<PushCertInfo, Error> {
    let parts = read(bytes, password)?;
    let topic = checked_topic(&parts, now)?;
    let stored = store::push::certs(tx).await?;
    if !force && !stored.is_empty() && stored.iter().all(|c| c.topic != topic) {
        let existing = stored.into_iter().map(|c| c.topic).collect::<Vec<_>>().join(", ");
        return Err(Error::OtherTopic { topic, existing });
    }
    // A pair that TLS cannot use is found here, not at the first push.
    let pkcs8 = parts.key.to_pkcs8_pem().map_err(|e| Error::Key(e.to_string()))?;
    Direct::new(&Endpoint::default(), &full_pem(&parts.certificate, &parts.chain), pkcs8.expose())?;

    let der = parts.key.to_pkcs8_der().map_err(|e| Error::Key(e.to_string()))?;
    let row = Cert {
        certificate: parts.certificate.der().to_vec(),
        chain: parts.chain.iter().map(Certificate::to_pem).collect::<String>().into_bytes(),
        key_sealed: context.sealer.seal(&place(&topic), der.expose(), context.random),
        not_after: parts.certificate.not_after().0,
        uploaded_at: now.0,
        stopped_at: None,
        stopped_why: None,
        topic,
    };
    store::push::put_cert(tx, &row).await?;
    tx.wake(store::Wake::Push);
    Ok(PushCertInfo::new(&parts.certificate, &row))
}

/// The stored push certificates, by topic.
pub async fn list(tx: &mut Tx) -> Result<Vec<PushCertInfo>, Error> {
    let rows = store::push::certs(tx).await?;
    rows.iter().map(|row| Ok(PushCertInfo::new(&certificate(row)?, row))).collect()
}

/// A certificate's PEM with its chain, and its key's PKCS#8 PEM, for a client.
pub(crate) fn open(row: &Cert, sealer: &Sealer) -> Result<(String, Secret<String>), Error> {
    let der = sealer.open(&place(&row.topic), &row.key_sealed)?;
    let key = PrivateKey::from_pkcs8_der(der.expose()).map_err(|e| Error::Key(e.to_string()))?;
    let chain = std::str::from_utf8(&row.chain).map_err(|_| store::Error::Corrupt("push_cert.chain"))?;
    let pem = certificate(row)?.to_pem() + chain;
    Ok((pem, key.to_pkcs8_pem().map_err(|e| Error::Key(e.to_string()))?))
}

fn certificate(row: &Cert) -> Result<Certificate, Error> {
    Certificate::from_der(&row.certificate).map_err(|_| store::Error::Corrupt("push_cert.certificate").into())
}

fn place(topic: &str) -> String {
    format!("push_cert.key_sealed:{topic}")
}

fn full_pem(certificate: &Certificate, chain: &[Certificate]) -> String {
    std::iter::once(certificate).chain(chain).map(Certificate::to_pem).collect()
}

struct Parts {
    key: PrivateKey,
    certificate: Certificate,
    chain: Vec<Certificate>,
}

fn read(bytes: &[u8], password: Option<&str>) -> Result<Parts, Error> {
    if bytes.len() > UPLOAD_LIMIT {
        return Err(Error::Upload("it is too large to be a push certificate".to_owned()));
    }
    // PKCS#12 is a DER SEQUENCE; PEM is text.
    let (key, certificates) = if bytes.first() == Some(&0x30) {
        let opened = pkcs12::open(bytes, password.unwrap_or_default()).map_err(|e| Error::Upload(e.to_string()))?;
        let (key, certificate, chain) = opened;
        (key, std::iter::once(certificate).chain(chain).collect())
    } else {
        read_pem(bytes)?
    };
    let spki = key.public_spki_der().map_err(|e| Error::Key(e.to_string()))?;
    let fits = |c: &Certificate| c.public_key().is_ok_and(|k| k.spki_der() == spki);
    let (mut own, chain): (Vec<_>, Vec<_>) = certificates.into_iter().partition(fits);
    match own.pop() {
        Some(certificate) => Ok(Parts { key, certificate, chain }),
        None if chain.is_empty() => Err(Error::Upload("there is no certificate in it".to_owned())),
        None => Err(Error::Mismatch),
    }
}

fn read_pem(bytes: &[u8]) -> Result<(PrivateKey, Vec<Certificate>), Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Upload("it is neither PEM nor PKCS#12".to_owned()))?;
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    for (label, pem) in blocks(text) {
        match label {
            "CERTIFICATE" => {
                certificates.push(Certificate::from_pem(&pem).map_err(|e| Error::Upload(e.to_string()))?);
            }
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                keys.push(PrivateKey::from_pem(pem.as_bytes()).map_err(|e| Error::Key(e.to_string()))?);
            }
            "ENCRYPTED PRIVATE KEY" => {
                return Err(Error::Key(
                    "it is encrypted; decrypt it first, or upload PKCS#12 with its password".to_owned(),
                ));
            }
            _ => {}
        }
    }
    match (keys.pop(), keys.is_empty()) {
        (Some(key), true) => Ok((key, certificates)),
        (None, _) if certificates.is_empty() => Err(Error::Upload("it is neither PEM nor PKCS#12".to_owned())),
        (None, _) => Err(Error::Key("there is none beside the certificate".to_owned())),
        (Some(_), false) => Err(Error::Key("there is more than one".to_owned())),
    }
}

/// The PEM blocks of a text, each written anew, so that lines that were glued together or wrapped oddly do no harm.
fn blocks(text: &str) -> Vec<(&str, String)> {
    const BEGIN: &str = "-----BEGIN ";
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, from_label)) = rest.split_once(BEGIN) {
        rest = from_label;
        let Some((label, from_body)) = from_label.split_once("-----") else { break };
        let Some((body, after)) = from_body.split_once(&format!("-----END {label}-----")) else { continue };
        rest = after;
        if body.contains("ENCRYPTED") {
            found.push(("ENCRYPTED PRIVATE KEY", String::new()));
            continue;
        }
        let body: String = body.chars().filter(|c| !c.is_whitespace()).collect();
        let mut pem = format!("{BEGIN}{label}-----\n");
        for (i, c) in body.chars().enumerate() {
            if i > 0 && i % 64 == 0 {
                pem.push('\n');
            }
            pem.push(c);
        }
        pem.extend(["\n-----END ", label, "-----\n"]);
        found.push((label, pem));
    }
    found
}

fn checked_topic(parts: &Parts, now: Timestamp) -> Result<String, Error> {
    let topic = parts
        .certificate
        .user_id()
        .ok_or_else(|| Error::Upload("its subject has no UID, so it is not a push certificate for MDM".to_owned()))?;
    if !topic.starts_with(TOPIC_PREFIX) {
        return Err(Error::NotMdm { topic });
    }
    let (not_before, not_after) = (parts.certificate.not_before(), parts.certificate.not_after());
    if now >= not_after {
        return Err(Error::Expired { not_after });
    }
    if now < not_before {
        return Err(Error::NotYet { not_before });
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_however_they_are_glued() {
        let glued = "Bag Attributes\n-----BEGIN CERTIFICATE-----AAAA BB\nBB-----END CERTIFICATE----------BEGIN PRIVATE KEY-----\r\nCCCC\r\n-----END PRIVATE KEY-----";
        let found = blocks(glued);
        assert_eq!(found.iter().map(|(label, _)| *label).collect::<Vec<_>>(), ["CERTIFICATE", "PRIVATE KEY"]);
        assert_eq!(found[0].1, "-----BEGIN CERTIFICATE-----\nAAAABBBB\n-----END CERTIFICATE-----\n");
        assert_eq!(found[1].1, "-----BEGIN PRIVATE KEY-----\nCCCC\n-----END PRIVATE KEY-----\n");
    }

    #[test]
    fn an_encrypted_key_is_named_as_such() {
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: X\n\nAAAA\n-----END RSA PRIVATE KEY-----";
        let refused = read_pem(old.as_bytes()).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("encrypted"), "{refused}");
    }

    #[test]
    fn rubbish_is_refused_without_panicking() {
        for bad in ["", "x", "-----BEGIN ", "-----BEGIN CERTIFICATE-----", "-----BEGIN A-----\n-----END B-----"] {
            assert!(read(bad.as_bytes(), None).is_err(), "{bad}");
        }
        assert!(read(&[0x30, 0x80], Some("x")).is_err());
        assert!(read(&vec![b'x'; UPLOAD_LIMIT + 1], None).is_err());
    }
}
