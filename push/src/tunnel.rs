//! The TCP way to APNs: straight, or through an HTTP proxy by CONNECT (RFC 9110, 9.3.6). TLS goes through it end to end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use mdm_core::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::Service;

use crate::Error;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the TCP connection may take to open.
const CONNECT_TIME_OUT: Duration = Duration::from_secs(10);
/// The most that a proxy may say before the tunnel is open.
const ANSWER_LIMIT: usize = 8192;

/// A proxy that opens tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<Secret<String>>,
}

impl Proxy {
    /// At a URL such as `http://proxy.example.com:3128`, with a login such as `user:password` where it asks for one.
    pub fn new(url: &str, login: Option<&str>) -> Result<Self, Error> {
        let bad = |why: &str| Error::Endpoint(format!("the proxy's URL {why}"));
        let rest = url.strip_prefix("http://").ok_or_else(|| bad("must begin with http://"))?;
        if rest.contains('@') {
            return Err(bad("must not hold a login"));
        }
        let uri: Uri = format!("http://{}/", rest.trim_end_matches('/')).parse().map_err(|_| bad("cannot be read"))?;
        uri.host().filter(|h| !h.is_empty()).ok_or_else(|| bad("has no host"))?;
        let encode = |login: &str| Secret::new(base64::engine::general_purpose::STANDARD.encode(login));
        Ok(Self { uri, authorization: login.map(encode) })
    }

    async fn open(&self, stream: &mut TcpStream, to: &Uri) -> Result<(), BoxError> {
        let authority = format!("{}:{}", to.host().ok_or("no host")?, to.port_u16().unwrap_or(443));
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(login) = &self.authorization {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(login.expose());
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        // One byte at a time: what follows the blank line is APNs' and must stay unread.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == ANSWER_LIMIT {
                return Err("the proxy says too much".into());
            }
            answer.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(&answer);
        let status = line.split(' ').nth(1).unwrap_or_default();
        if status.starts_with('2') { Ok(()) } else { Err(format!("the proxy answers {status}").into()) }
    }
}

/// Opens TCP connections, through a proxy if there is one.
#[derive(Debug, Clone)]
pub(crate) struct Road {
    tcp: HttpConnector,
    proxy: Option<Arc<Proxy>>,
}

impl Road {
    pub(crate) fn new(proxy: Option<Proxy>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIME_OUT));
        Self { tcp, proxy: proxy.map(Arc::new) }
    }
}

impl Service<Uri> for Road {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let proxy = self.proxy.clone();
        let connecting = self.tcp.call(proxy.as_ref().map_or_else(|| to.clone(), |proxy| proxy.uri.clone()));
        Box::pin(async move {
            let mut stream = connecting.await?.into_inner();
            if let Some(proxy) = proxy {
                proxy.open(&mut stream, &to).await?;
            }
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_and_its_password_does_not_show() {
        let proxy = Proxy::new("http://proxy.example.com:3128/", Some("ann:hunter2")).unwrap();
        assert_eq!(proxy.uri, "http://proxy.example.com:3128/");
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), "YW5uOmh1bnRlcjI=");
        assert!(!format!("{proxy:?}").contains("YW5u"));
        assert!(Proxy::new("http://proxy", None).is_ok_and(|p| p.authorization.is_none()));
        for bad in ["", "proxy:3128", "https://proxy", "http://", "http://a b", "socks5://proxy", "http://a:b@proxy"] {
            assert!(Proxy::new(bad, None).is_err(), "{bad}");
        }
    }
}
