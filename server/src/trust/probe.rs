//! A look at this server as a device sees it: a TLS handshake with the public URL, and nothing more.

use std::sync::Arc;
use std::time::Duration;

use mdm_core::certificate::Certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::facts::Seen;

/// For everything: name, connection, handshake.
const PATIENCE: Duration = Duration::from_secs(5);

/// The chain that is shown at `url`. Whatever is shown is taken: it is compared, never trusted.
pub(crate) async fn look(url: &Url) -> Seen {
    match tokio::time::timeout(PATIENCE, handshake(url)).await {
        Ok(Ok(chain)) => Seen::Chain(chain),
        Ok(Err(why)) => Seen::Unreachable(why),
        Err(_) => Seen::Unreachable(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

async fn handshake(url: &Url) -> Result<Vec<Certificate>, String> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no host name"))?;
    let provider = Arc::new(ring::default_provider());
    let looker = Arc::new(Looker(provider.signature_verification_algorithms));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(looker)
        .with_no_client_auth();
    let tcp =
        TcpStream::connect((host, url.port_or_known_default().unwrap_or(443))).await.map_err(|e| e.to_string())?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| e.to_string())?;
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    shown.iter().map(|der| Certificate::from_der(der).map_err(|e| e.to_string())).collect()
}

/// Takes any certificate, for a look; nothing is sent over such a connection.
#[derive(Debug)]
struct Looker(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
