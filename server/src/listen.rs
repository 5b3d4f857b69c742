//! Listening: connections, their time-outs and their number (TH-24 to TH-26), TLS with an optional client certificate.
//!
//! `axum::serve` has no time-outs; this loop has all of them. It hands each request to a router with three extensions:
//! [`ConnectInfo`] (the client, as a trusted proxy names it), [`PeerAddress`] (the TCP peer) and [`PeerCertificate`].

mod pace;
mod pulse;
mod tls;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use checkin::{PeerAddress, PeerCertificate};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use mdm_core::certificate::Certificate;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use self::pace::Paced;
use self::pulse::{Pulse, Timed};
pub use self::tls::{ServerCertificate, client_certificates_optional, without_client_certificates};

/// How long and how many. The defaults are those of threats-and-guarantees (e).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address; addresses of trusted proxies are not counted.
    pub connections_per_ip: usize,
    /// The TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request (or the begin of the connection) to the end of its headers.
    pub header: Duration,
    /// Silence within a request body.
    pub body_idle: Duration,
    /// A request body may take this long for each KiB, beyond `body_idle`.
    pub body_per_kib: Duration,
    /// Silence between requests.
    pub keep_alive: Duration,
    /// A client that does not take its response.
    pub write: Duration,
    /// Open requests at the end of the server.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_ip: 512,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body_idle: Duration::from_secs(15),
            body_per_kib: Duration::from_secs(5),
            keep_alive: Duration::from_mins(1),
            write: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

/// Proxies in front that are believed about the client's address.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    /// Their addresses.
    pub peers: Vec<IpAddr>,
    /// The header whose last entry is the client's address.
    pub address_header: Option<HeaderName>,
}

/// One listener.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub tcp: TcpListener,
    /// TLS; without it the listener speaks plain HTTP, for use behind a proxy.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// How long and how many.
    pub limits: Limits,
    /// Proxies in front.
    pub proxies: TrustedProxies,
}

/// The most bytes of a request's headers together.
const HEADER_BYTES: u32 = 64 * 1024;

/// What every connection of a listener shares.
struct Shared {
    router: Router,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    proxies: TrustedProxies,
    total: Arc<Semaphore>,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// Serves `router` until `shutdown` resolves; then takes no more connections, lets open requests end (at most
/// [`Limits::drain`], RG-15) and returns.
pub async fn serve(listener: Listener, router: Router, shutdown: impl Future<Output = ()>) {
    let Listener { tcp, tls, limits, proxies } = listener;
    let shared = Arc::new(Shared {
        router,
        tls: tls.map(TlsAcceptor::from),
        limits,
        proxies,
        total: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
        per_ip: Mutex::default(),
    });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = tcp.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(slot) = Slot::take(&shared, peer.ip()) {
                    connections.spawn(connection(stream, peer, slot, graceful.watcher()));
                } else {
                    metrics::counter!("http_connections_refused_total").increment(1);
                    tracing::debug!(%peer, "connection refused: there are too many");
                }
            }
            // Out of file descriptors, or a connection that was gone before it was taken: wait for better times.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(tcp);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still open after the drain time and were cut");
    }
    connections.shutdown().await;
}

/// A place among the connections that are allowed; given back when dropped.
struct Slot {
    shared: Arc<Shared>,
    counted: Option<IpAddr>,
    _total: tokio::sync::OwnedSemaphorePermit,
}

impl Slot {
    fn take(shared: &Arc<Shared>, ip: IpAddr) -> Option<Self> {
        let total = Arc::clone(&shared.total).try_acquire_owned().ok()?;
        let mut counted = None;
        if !shared.proxies.peers.contains(&ip) {
            let mut per_ip = shared.per_ip.lock().expect("no holder of this lock panics");
            let open = per_ip.entry(ip).or_default();
            if *open >= shared.limits.connections_per_ip {
                return None;
            }
            *open += 1;
            counted = Some(ip);
        }
        Some(Self { shared: Arc::clone(shared), counted, _total: total })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(ip) = self.counted else { return };
        let mut per_ip = self.shared.per_ip.lock().expect("no holder of this lock panics");
        if let Some(open) = per_ip.get_mut(&ip) {
            *open -= 1;
            if *open == 0 {
                per_ip.remove(&ip);
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, slot: Slot, watcher: Watcher) {
    let shared = Arc::clone(&slot.shared);
    // Small answers must not wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = &shared.tls else {
        return requests(stream, peer, PeerCertificate(None), false, &shared, watcher).await;
    };
    let stream = match tokio::time::timeout(shared.limits.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
    };
    let (_, session) = stream.get_ref();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    // A certificate that cannot be read is as good as none: the request is then refused for the lack of one.
    let certificate = PeerCertificate(leaf.and_then(|der| Certificate::from_der(der).ok()).map(Arc::new));
    requests(stream, peer, certificate, is_h2, &shared, watcher).await;
}

async fn requests<S>(
    stream: S,
    peer: SocketAddr,
    certificate: PeerCertificate,
    is_h2: bool,
    shared: &Arc<Shared>,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = Arc::new(Pulse::default());
    let io = TokioIo::new(Timed::new(stream, Arc::clone(&pulse), shared.limits, is_h2));
    let service = service_fn(|request: Request<Incoming>| {
        let (pulse, shared, certificate) = (Arc::clone(&pulse), Arc::clone(shared), certificate.clone());
        async move {
            let _busy = pulse.busy();
            Ok::<_, Infallible>(answer(request, peer, certificate, &shared).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    if let Err(error) = watcher.watch(builder.serve_connection(io, service)).await {
        tracing::debug!(%peer, %error, "connection ended with an error");
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    certificate: PeerCertificate,
    shared: &Shared,
) -> Response {
    let limits = shared.limits;
    // RFC 9112 §6.1: a length may have stood beside the chunks. hyper takes the chunks; whatever follows on this connection is
    // not read, so that nothing can be smuggled past a proxy that took the length (TH-26).
    let is_chunked = request.version() == Version::HTTP_11 && request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut request = request.map(|body| Body::new(Paced::new(body, limits.body_idle, limits.body_per_kib)));
    let client = client_address(&request, peer, &shared.proxies);
    let extensions = request.extensions_mut();
    extensions.insert(ConnectInfo(client));
    extensions.insert(PeerAddress(peer));
    extensions.insert(certificate);
    let answered = AssertUnwindSafe(shared.router.clone().oneshot(request)).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => after_panic(),
    };
    if is_chunked {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// One message that trips over a defect must neither stop the process nor unenroll a device (TH-12, TH-23).
fn after_panic() -> Response {
    metrics::counter!("http_panics_total").increment(1);
    tracing::error!("a request ended in a panic; this is a defect of the server");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    response
}

/// The client, as the last entry of a trusted proxy's header names it, else the TCP peer.
fn client_address<B>(request: &Request<B>, peer: SocketAddr, proxies: &TrustedProxies) -> SocketAddr {
    let named = proxies.address_header.as_ref().filter(|_| proxies.peers.contains(&peer.ip())).and_then(|name| {
        let last = request.headers().get_all(name).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim();
        last.parse::<IpAddr>().ok().or_else(|| last.parse::<SocketAddr>().ok().map(|address| address.ip()))
    });
    named.map_or(peer, |ip| SocketAddr::new(ip, 0))
}

#[cfg(test)]
mod tests;
