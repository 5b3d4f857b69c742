//! The server's own TLS certificate, read from files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use mdm_core::certificate::{Certificate, pem_chain};
use mdm_core::crypto::key::PrivateKey;

use crate::config::Config;

/// A certificate chain, leaf first, and its key.
#[derive(Debug)]
pub struct TlsIdentity {
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key.
    pub key: PrivateKey,
}

impl TlsIdentity {
    /// The chain, parsed.
    pub fn certificates(&self) -> Result<Vec<Certificate>> {
        self.chain.iter().map(|der| Certificate::from_der(der).map_err(anyhow::Error::from)).collect()
    }
}

/// Where the server's certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM: the certificate, then its intermediates.
    pub certificate: PathBuf,
    /// PEM: the key.
    pub key: PathBuf,
}

impl Files {
    /// The configured ones.
    pub fn of(config: &Config) -> Option<Self> {
        let (certificate, key) = config.tls.certificate_file.clone().zip(config.tls.key_file.clone())?;
        Some(Self { certificate, key })
    }

    /// Both files' contents, after a check that they belong together.
    pub fn read(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        files(&self.certificate, &self.key)?;
        let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        Ok((read(&self.certificate)?, read(&self.key)?))
    }
}

/// Reads a certificate chain and its key, and checks that they belong together.
pub fn files(certificate: &Path, key: &Path) -> Result<TlsIdentity> {
    let text =
        std::fs::read_to_string(certificate).with_context(|| format!("cannot read {}", certificate.display()))?;
    let chain = pem_chain(&text).map_err(|e| anyhow!("{}: {e}", certificate.display()))?;
    let key_pem = std::fs::read(key).with_context(|| format!("cannot read {}", key.display()))?;
    let key_of = PrivateKey::from_pem(&key_pem).map_err(|e| anyhow!("{}: {e}", key.display()))?;
    let Some(leaf) = chain.first() else { bail!("{} holds no certificate", certificate.display()) };
    let public = leaf.public_key().map_err(|e| anyhow!("{}: {e}", certificate.display()))?;
    if public.spki_der() != key_of.public_spki_der()? {
        bail!("{} is not the key of {}", key.display(), certificate.display());
    }
    Ok(TlsIdentity { chain: chain.iter().map(|c| c.der().to_vec()).collect(), key: key_of })
}

/// The certificates of a PEM file.
pub fn read_anchors(file: &Path) -> Result<Vec<Certificate>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    pem_chain(&text).map_err(|e| anyhow!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_not_the_certificates_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] =
            [0, 1].map(|_| rcgen::generate_simple_self_signed(vec!["mdm.example.com".to_owned()]).unwrap());
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, one.cert.pem()).unwrap();
        std::fs::write(&key, one.signing_key.serialize_pem()).unwrap();
        files(&certificate, &key).unwrap();
        std::fs::write(&key, two.signing_key.serialize_pem()).unwrap();
        let said = files(&certificate, &key).unwrap_err().to_string();
        assert!(said.contains("key.pem is not the key of"), "{said}");
    }
}
