//! A small HTTPS server on the loopback, for stand-ins of what is not this project's: a handler answers each request.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::error::{Error, Result};

/// Larger than any request of a test.
const LARGEST_REQUEST: usize = 16 << 20;

/// A request, read to its end.
pub type Request = http::Request<Bytes>;
/// What the handler answers.
pub type Response = http::Response<Vec<u8>>;

/// A running server; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    /// Listens on a free port of the loopback with a certificate for `localhost` from this authority.
    pub async fn start<H, F>(authority: &Authority, handler: H) -> Result<Self>
    where
        H: Fn(Request) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let tls = TlsAcceptor::from(Arc::new(tls(authority)?));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| Error::Options(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| Error::Options(error.to_string()))?;
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                let (tls, handler) = (tls.clone(), handler.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(tcp).await else { return };
                    let service = hyper::service::service_fn(move |request| answer(handler.clone(), request));
                    // A client that goes away ends its connection and nothing else.
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, accepting })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The URL of a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }
}

async fn answer<H, F>(
    handler: H,
    request: http::Request<hyper::body::Incoming>,
) -> std::result::Result<http::Response<Full<Bytes>>, std::convert::Infallible>
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LARGEST_REQUEST).collect().await else {
        let mut refused = http::Response::new(Full::default());
        *refused.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        return Ok(refused);
    };
    let answer = handler(http::Request::from_parts(parts, body.to_bytes())).await;
    Ok(answer.map(|body| Full::new(Bytes::from(body))))
}

fn tls(authority: &Authority) -> Result<rustls::ServerConfig> {
    let wrong = |why: String| Error::Options(format!("TLS: {why}"));
    let pair = authority.server()?;
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(error.to_string()))
}
