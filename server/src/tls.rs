//! The server's own TLS certificate: read from files, verified as a device would.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use mdm_core::certificate::{Certificate, pem_chain};
use mdm_core::crypto::key::PrivateKey;
use mdm_core::time::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use url::Url;

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

/// Verifies a chain as a device would: up to a public root, or one of `anchors`, for the host of `url`.
pub fn verify(chain: &[Vec<u8>], url: &Url, anchors: Option<&Path>, now: Timestamp) -> Result<()> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for anchor in anchors.map(read_anchors).transpose()?.unwrap_or_default() {
        roots.add(CertificateDer::from(anchor.der().to_vec())).map_err(|e| anyhow!("an anchor cannot be used: {e}"))?;
    }
    let host = url.host_str().context("the public URL has no host")?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| anyhow!("{host} is no host name"))?;
    let certificates: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let (leaf, intermediates) = certificates.split_first().context("the chain is empty")?;
    let verifier = WebPkiServerVerifier::builder(std::sync::Arc::new(roots)).build()?;
    let seconds = u64::try_from(now.unix_seconds()).unwrap_or(0);
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    match verifier.verify_server_cert(leaf, intermediates, &name, &[], at) {
        Ok(_) => Ok(()),
        Err(e) => Err(anyhow!(explain(&e, host))),
    }
}

fn explain(error: &rustls::Error, host: &str) -> String {
    use rustls::CertificateError as C;
    match error {
        rustls::Error::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            format!("the certificate does not name {host}: devices will refuse it; get one whose Subject Alternative Name does")
        }
        rustls::Error::InvalidCertificate(C::UnknownIssuer) => {
            "the chain leads to no root that devices trust: add the intermediates to tls.certificate_file, or, with a private CA, name its root in tls.anchors_file".to_owned()
        }
        rustls::Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "a certificate of the chain has ended: renew it".to_owned()
        }
        other => format!("devices would refuse the certificate: {other}"),
    }
}

/// The CA certificates that devices do not trust by themselves.
pub fn read_anchors(file: &Path) -> Result<Vec<Certificate>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    pem_chain(&text).map_err(|e| anyhow!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use mdm_core::random::Random;

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    /// A server certificate for `host` under a private CA, and that CA as a file.
    async fn under_private_ca(host: &str) -> (tempfile::TempDir, Vec<Vec<u8>>, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let settings = store::Settings::new(format!("sqlite:{}/a.db", folder.path().display()));
        let store = store::Store::open(&settings).await.unwrap();
        let sealer = mdm_core::crypto::seal::Sealer::new(&[1; 32]);
        let mut tx = store.begin().await.unwrap();
        let made = issuer::server::load_or_create(&mut tx, &sealer, &Random::System, NOW, host).await.unwrap();
        tx.commit().await.unwrap();
        let anchor = folder.path().join("ca.pem");
        std::fs::write(&anchor, made.ca.to_pem()).unwrap();
        (folder, vec![made.certificate.der().to_vec()], anchor)
    }

    fn url(host: &str) -> Url {
        format!("https://{host}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_private_chain_is_right_only_with_its_anchor_its_host_and_in_time() {
        let (_folder, chain, anchor) = under_private_ca("mdm.example.com").await;
        let right = url("mdm.example.com");
        verify(&chain, &right, Some(&anchor), NOW).unwrap();
        for (why, result) in [
            ("tls.anchors_file", verify(&chain, &right, None, NOW)),
            ("does not name other.example.com", verify(&chain, &url("other.example.com"), Some(&anchor), NOW)),
            ("has ended", verify(&chain, &right, Some(&anchor), Timestamp(NOW.0 + 400 * 86_400_000))),
        ] {
            let said = result.unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }

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
