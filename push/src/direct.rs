//! The client for any host, port and CA: hyper over rustls, one HTTP/2 connection.
//!
//! Unlike [`crate::a2`] it keeps `Retry-After` and every reason, sends without Nagle's delay, notices a dead
//! connection by PING, and opens a fresh connection with one stream until the peer has said how many it allows
//! (else a burst meets REFUSED_STREAM).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::outcome::Answer;
use crate::tunnel::{Proxy, Road};
use crate::{Apns, Error, Outcome, Payload, TIME_OUT, Target};

/// How often an HTTP/2 PING asks whether the connection still stands, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_mins(1);
const PING_ANSWER: Duration = Duration::from_secs(10);
/// More than any error of APNs; less than a page that a proxy might send.
const ANSWER_LIMIT: usize = 4096;

/// Where the push service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name, checked against the server's certificate.
    pub host: String,
    /// Port: 443, or 2197 where 443 is closed.
    pub port: u16,
    /// PEM of the CAs to trust instead of the public ones.
    pub ca_pem: Option<String>,
    /// An HTTP proxy to go through.
    pub proxy: Option<Proxy>,
}

impl Default for Endpoint {
    /// Apple's production service.
    fn default() -> Self {
        Self { host: "api.push.apple.com".to_owned(), port: 443, ca_pem: None, proxy: None }
    }
}

/// A client for one push certificate.
pub struct Direct {
    client: Client<HttpsConnector<Road>, Full<Bytes>>,
    base: String,
}

/// The body of an error.
#[derive(Deserialize)]
struct Complaint {
    reason: String,
    timestamp: Option<i64>,
}

impl Direct {
    /// For the push certificate (PEM, with its chain) and key (PKCS#8 PEM). Connects at the first push.
    pub fn new(endpoint: &Endpoint, certificate_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let tls = tls(endpoint, certificate_pem, key_pem)?;
        let road = Road::new(endpoint.proxy.clone());
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http2().wrap_connector(road);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(None)
            .http2_only(true)
            .http2_initial_max_send_streams(1)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_ANSWER)
            .http2_keep_alive_while_idle(true)
            .build(connector);
        let base = format!("https://{}:{}/3/device/", endpoint.host, endpoint.port);
        base.parse::<http::Uri>().map_err(|e| Error::Endpoint(e.to_string()))?;
        Ok(Self { client, base })
    }

    async fn exchange(&self, target: &Target) -> Result<Outcome, Outcome> {
        let request = self.request(target).map_err(|e| Outcome::broken(format!("request: {e}")))?;
        let response = self.client.request(request).await.map_err(|e| broken(&e))?;
        let (head, body) = response.into_parts();
        let mut answer = Answer {
            status: head.status.as_u16(),
            apns_id: text(&head.headers, "apns-id").map(str::to_owned),
            retry_after: retry_after(&head.headers),
            ..Answer::default()
        };
        // The body only explains; a status is an answer even where the body is cut off or is not Apple's.
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map(http_body_util::Collected::to_bytes);
        let complaint: Option<Complaint> = body.ok().and_then(|b| serde_json::from_slice(&b).ok());
        if let Some(complaint) = &complaint {
            answer.reason = Some(&complaint.reason);
            answer.timestamp = complaint.timestamp;
        }
        Ok(answer.into())
    }

    fn request(&self, target: &Target) -> Result<Request<Full<Bytes>>, Box<dyn std::error::Error>> {
        let body = serde_json::to_vec(&Payload { mdm: target.push_magic.expose() })?;
        let request = Request::post(format!("{}{}", self.base, hex::encode(&target.token)))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("apns-topic", &target.topic)
            .header("apns-push-type", HeaderValue::from_static("mdm"))
            .header("apns-priority", HeaderValue::from_static("10"))
            .header("apns-expiration", target.expiration.unix_seconds())
            .body(Full::from(body))?;
        Ok(request)
    }
}

#[async_trait]
impl Apns for Direct {
    async fn send(&self, target: &Target) -> Outcome {
        match tokio::time::timeout(TIME_OUT, self.exchange(target)).await {
            Ok(Ok(outcome) | Err(outcome)) => outcome,
            Err(_) => Outcome::broken("no answer in time"),
        }
    }
}

fn tls(endpoint: &Endpoint, certificate_pem: &str, key_pem: &str) -> Result<ClientConfig, Error> {
    let unusable = |e: &dyn std::error::Error| Error::Client(e.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable(&e))?;
    let builder = match &endpoint.ca_pem {
        None => builder.with_webpki_roots(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for ca in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let ca = ca.map_err(|e| Error::Endpoint(e.to_string()))?;
                roots.add(ca).map_err(|e| Error::Endpoint(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(Error::Endpoint("no certificate in the CA file".to_owned()));
            }
            builder.with_root_certificates(roots)
        }
    };
    let chain = CertificateDer::pem_slice_iter(certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable(&e))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|e| unusable(&e))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| unusable(&e))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3); APNs does not use its date form.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, RETRY_AFTER.as_str())?.trim().parse().ok().map(Duration::from_secs)
}

/// A request without an answer. A TLS alert about our certificate is APNs refusing it, as a 403 would.
fn broken(error: &hyper_util::client::legacy::Error) -> Outcome {
    let mut reason = error.to_string();
    let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(source) = next {
        if let Some(alert) = certificate_alert(source) {
            return Outcome::Rejected { reason: format!("TLS alert {alert:?}") };
        }
        reason = format!("{reason}: {source}");
        next = source.source();
    }
    Outcome::broken(reason)
}

fn certificate_alert(error: &(dyn std::error::Error + 'static)) -> Option<rustls::AlertDescription> {
    use rustls::AlertDescription as Alert;
    let tls = error
        .downcast_ref::<rustls::Error>()
        .or_else(|| error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>())?;
    match tls {
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired),
        ) => Some(*alert),
        _ => None,
    }
}
