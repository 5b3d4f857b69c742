//! The device's HTTPS client.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::{Error, Result};
use crate::signature::Identity;

/// Longer than any answer a device waits for.
const TIME_OUT: Duration = Duration::from_secs(30);
/// Larger than any profile that a device takes.
const LARGEST_ANSWER: usize = 16 << 20;

/// What the device trusts besides the public certificate authorities.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    anchors: Vec<Vec<u8>>,
    /// Nothing but the anchors.
    only: bool,
}

impl Trust {
    /// Only the public certificate authorities.
    pub fn public() -> Self {
        Self::default()
    }

    /// Only these certificates, DER: `anchor_certs` of a profile of Apple's service, or what an MDM payload pins.
    pub fn only(anchors: &[Vec<u8>]) -> Self {
        Self { anchors: anchors.to_vec(), only: true }
    }

    /// Adds every certificate of a PEM text, for example a server's own CA.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self> {
        for certificate in openssl::x509::X509::stack_from_pem(pem)? {
            self.anchors.push(certificate.to_der()?);
        }
        Ok(self)
    }

    /// Adds one certificate, as a certificate payload of an installed profile does.
    #[must_use]
    pub fn with_der(mut self, der: Vec<u8>) -> Self {
        self.anchors.push(der);
        self
    }

    /// The client side of TLS with these anchors; `identity` is offered where the server asks.
    pub(crate) fn tls(&self, identity: Option<&Identity>) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        if !self.only {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for anchor in &self.anchors {
            roots
                .add(CertificateDer::from(anchor.clone()))
                .map_err(|error| Error::Options(format!("a CA certificate is not usable: {error}")))?;
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Options(error.to_string()))?
            .with_root_certificates(roots);
        match identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => {
                let chain = vec![CertificateDer::from(identity.certificate.to_der()?)];
                let key = PrivatePkcs8KeyDer::from(identity.key.private_key_to_pkcs8()?);
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from(key))
                    .map_err(|error| Error::Options(format!("client certificate: {error}")))
            }
        }
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The Content-Type without parameters, lower case.
    pub fn content_type(&self) -> String {
        let value = self.headers.get(http::header::CONTENT_TYPE);
        let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let value = value.split(';').next().unwrap_or_default();
        value.trim().to_ascii_lowercase()
    }

    /// `Set-Cookie`, `Location` and the like: a header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What a 403 says to the device: a JSON or property list with `code`, by its Content-Type (Apple, "ErrorCode…").
    pub fn code(&self) -> Option<Code> {
        if self.status != 403 {
            return None;
        }
        match self.content_type().as_str() {
            "application/json" => {
                let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
                let text = |value: Option<&serde_json::Value>| value.and_then(|text| text.as_str()).map(str::to_owned);
                let details = body.get("details").and_then(|details| details.as_object());
                let details = details.into_iter().flatten();
                Some(Code {
                    code: text(body.get("code"))?,
                    description: text(body.get("description")),
                    message: text(body.get("message")),
                    details: details.filter_map(|(key, value)| Some((key.clone(), text(Some(value))?))).collect(),
                })
            }
            "application/xml" | "text/xml" | "application/x-plist" => {
                let body = crate::plist::parse(&self.body).ok()?;
                let details = body.get("details").into_iter().flat_map(crate::plist::Value::entries);
                Some(Code {
                    code: body.text("code")?.to_owned(),
                    description: body.text("description").map(str::to_owned),
                    message: body.text("message").map(str::to_owned),
                    details: details
                        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                        .collect(),
                })
            }
            _ => None,
        }
    }

    /// An error that says what the server answered.
    pub fn refused(&self, url: &str) -> Error {
        let start = self.body.get(..self.body.len().min(300)).unwrap_or_default();
        Error::Status {
            url: without_query(url).into(),
            status: self.status,
            text: String::from_utf8_lossy(start).into_owned(),
        }
    }
}

/// The keys of a 403 that devices understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// `code`, such as `com.apple.softwareupdate.required`.
    pub code: String,
    /// `description`, for the log.
    pub description: Option<String>,
    /// `message`, for the person.
    pub message: Option<String>,
    /// The strings of `details`.
    pub details: std::collections::BTreeMap<String, String>,
}

fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// One device's client: keeps its connections open and offers its identity in TLS.
#[derive(Clone, Debug)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Client {
    /// A client with these anchors and, after enrollment, an identity.
    pub fn new(trust: &Trust, identity: Option<&Identity>) -> Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIME_OUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(trust.tls(identity)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new()).build(connector);
        Ok(Self { pool })
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Result<Answer> {
        let lost = |why: String| Error::Unreachable { url: without_query(url).into(), why };
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|error| lost(error.to_string()))?;
        let exchange = async {
            let answer = self.pool.request(request).await.map_err(|error| lost(causes(&error)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|error| lost(error.to_string()))?;
            Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(TIME_OUT, exchange).await.map_err(|_| lost("no answer in 30 seconds".into()))?
    }

    /// GET, and the answer only where its status is 200.
    pub async fn get(&self, url: &str) -> Result<Answer> {
        let answer = self.send(Method::GET, url, &[], Vec::new()).await?;
        if answer.status == 200 { Ok(answer) } else { Err(answer.refused(url)) }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
