//! The server's certificate, replaced while it runs, and client certificates that are asked for but not demanded.

use std::sync::{Arc, RwLock};

use anyhow::{Context, Result, ensure};
use mdm_core::certificate::Certificate;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// The certificate that is served; replacing it needs no restart and closes no connection.
#[derive(Debug)]
pub struct ServerCertificate(RwLock<Arc<CertifiedKey>>);

impl ServerCertificate {
    /// From PEM: the certificate and its intermediates, and the key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        Ok(Self(RwLock::new(Arc::new(certified(chain, key)?))))
    }

    /// Serves this certificate from the next handshake on. The old one stays where the new one is not right.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<()> {
        let new = Arc::new(certified(chain, key)?);
        *self.0.write().expect("no holder of this lock panics") = new;
        Ok(())
    }

    /// The chain that is served, leaf first. A certificate that cannot be read is left out.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn chain(&self) -> Vec<Certificate> {
        let served = Arc::clone(&self.0.read().expect("no holder of this lock panics"));
        served.cert.iter().filter_map(|der| Certificate::from_der(der).ok()).collect()
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().ok().map(|key| Arc::clone(&key))
    }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .context("the certificate file holds something that is not a PEM certificate")?;
    ensure!(!chain.is_empty(), "the certificate file holds no PEM certificate");
    let key = PrivateKeyDer::from_pem_slice(key).context("the key file holds no readable PEM private key")?;
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .context("the certificate and the key do not go together")
}

/// TLS for the device listener: a client certificate is asked for, taken from whatever issuer, and judged later (Q28).
///
/// The handshake proves that the client has the certificate's key; whether the certificate is believed is for `checkin`.
pub fn client_certificates_optional(certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyIssuer(provider.signature_verification_algorithms));
    let builder = versions(provider)?.with_client_cert_verifier(verifier);
    settle(builder.with_cert_resolver(certificate))
}

/// TLS for the operator listener.
pub fn without_client_certificates(certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>> {
    let builder = versions(Arc::new(ring::default_provider()))?.with_no_client_auth();
    settle(builder.with_cert_resolver(certificate))
}

type Versions = rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>;

fn versions(provider: Arc<CryptoProvider>) -> Result<Versions> {
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS could not be set up")
}

fn settle(mut config: ServerConfig) -> Result<Arc<ServerConfig>> {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(10_000);
    config.ticketer = ring::Ticketer::new().context("TLS could not be set up")?;
    Ok(Arc::new(config))
}

/// Accepts a client certificate of any issuer, and checks only that the client holds its key.
#[derive(Debug)]
struct AnyIssuer(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyIssuer {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: a device then offers the identity of its MDM payload.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
