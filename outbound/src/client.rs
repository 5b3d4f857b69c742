//! One request, on one connection, to one judged address.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Error, Roots, Settings, is_public};

/// How long one address of several may take to answer.
const PER_ADDRESS: Duration = Duration::from_secs(5);

/// Sends requests under one set of [`Settings`]; clones share them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    tls: TlsConnector,
    settings: Settings,
    agent: HeaderValue,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.inner.settings.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// A client; refuses authorities and a `User-Agent` that cannot be read.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let agent = HeaderValue::from_str(&settings.user_agent)
            .map_err(|_| Error::Settings("the User-Agent cannot be a header".to_owned()))?;
        let tls = TlsConnector::from(Arc::new(tls(&settings.roots)?));
        Ok(Self { inner: Arc::new(Inner { tls, settings: settings.clone(), agent }) })
    }

    /// Sends a request with an absolute `https` URL. Any status is an answer, a redirect too. `Host`, `Content-Length` and
    /// a missing `User-Agent` are filled in.
    pub async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Error> {
        let host = host(request.uri())?;
        tokio::time::timeout(self.inner.settings.timeout, self.exchange(&host, request))
            .await
            .map_err(|_| Error::TimedOut(host.clone()))?
    }

    async fn exchange(&self, host: &str, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Error> {
        let connection = |source| Error::Connection { host: host.to_owned(), source };
        let broken = |source| Error::Http { host: host.to_owned(), source };
        let stream = self.connect(host, request.uri().port_u16().unwrap_or(443)).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Unknown(host.to_owned()))?;
        let stream = self.inner.tls.connect(name, stream).await.map_err(connection)?;
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // The connection moves only while this request waits for it, so nothing is left behind when time is over.
        let mut driver = std::pin::pin!(driver);
        let mut driven = false;
        let answer = sender.send_request(self.prepare(request)?);
        let mut answer = std::pin::pin!(answer);
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer.map_err(broken)?,
                _ = &mut driver, if !driven => driven = true,
            }
        };
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.inner.settings.largest_answer).collect();
        let mut body = std::pin::pin!(body);
        let body = loop {
            tokio::select! {
                body = &mut body => break body,
                _ = &mut driver, if !driven => driven = true,
            }
        };
        let body = body.map_err(|e| match e.downcast::<hyper::Error>() {
            Ok(e) => broken(*e),
            Err(e) if e.is::<LengthLimitError>() => Error::TooLarge(host.to_owned()),
            Err(e) => connection(io::Error::other(e)),
        })?;
        Ok(Response::from_parts(head, body.to_bytes().to_vec()))
    }

    fn prepare(&self, request: Request<Vec<u8>>) -> Result<Request<Full<hyper::body::Bytes>>, Error> {
        let (mut head, body) = request.into_parts();
        let authority = head.uri.authority().ok_or(Error::NotHttps)?.as_str();
        let authority = HeaderValue::from_str(authority).map_err(|_| Error::NotHttps)?;
        head.headers.insert(HOST, authority);
        head.headers.entry(USER_AGENT).or_insert_with(|| self.inner.agent.clone());
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        head.uri = path.parse().map_err(|_| Error::NotHttps)?;
        head.version = http::Version::HTTP_11;
        Ok(Request::from_parts(head, Full::from(body)))
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Error> {
        let mut last = None;
        for address in self.addresses(host, port).await? {
            let connecting = tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await;
            match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(e) => last = Some(e),
            }
        }
        let source = last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        Err(Error::Connection { host: host.to_owned(), source })
    }

    /// The addresses that may be connected to; what was judged here is what is connected to.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let all: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => match tokio::net::lookup_host((host, port)).await {
                Ok(found) => found.collect(),
                Err(_) => Vec::new(),
            },
        };
        if all.is_empty() {
            return Err(Error::Unknown(host.to_owned()));
        }
        let allowed = |a: &SocketAddr| self.inner.settings.private_addresses || is_public(a.ip());
        let good: Vec<SocketAddr> = all.into_iter().filter(allowed).collect();
        if good.is_empty() { Err(Error::PrivateAddress(host.to_owned())) } else { Ok(good) }
    }
}

fn host(uri: &Uri) -> Result<String, Error> {
    let authority = uri.authority().ok_or(Error::NotHttps)?;
    if uri.scheme_str() != Some("https") || authority.as_str().contains('@') {
        return Err(Error::NotHttps);
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(Error::NotHttps) } else { Ok(host.to_ascii_lowercase()) }
}

fn tls(roots: &Roots) -> Result<ClientConfig, Error> {
    let mut trusted = RootCertStore::empty();
    let own = match roots {
        Roots::Public => [].as_slice(),
        Roots::PublicAnd(own) | Roots::Only(own) => own.as_slice(),
    };
    if !matches!(roots, Roots::Only(_)) {
        trusted.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for der in own {
        trusted
            .add(CertificateDer::from(der.clone()))
            .map_err(|e| Error::Settings(format!("a certificate authority cannot be read: {e}")))?;
    }
    if trusted.is_empty() {
        return Err(Error::Settings("no certificate authority is trusted".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Settings(e.to_string()))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    Ok(config)
}
