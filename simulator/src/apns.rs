//! Pretend APNs: an HTTP/2 server that checks what Apple checks and answers by a script.
//!
//! It speaks HTTP/2 frames itself (through h2) because the faults that matter – GOAWAY, REFUSED_STREAM, a connection
//! cut in the middle – are below what an HTTP server lets its handlers do.
//!
//! Sources: Apple, "Sending notification requests to APNs" and "Handling notification responses from APNs"; RFC 9113.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Response, StatusCode};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};

/// The attribute of a push certificate's subject that holds its topic: userId (RFC 4519, 2.39).
const USER_ID: const_oid::ObjectIdentifier = const_oid::ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.1");

/// What the stand-in does with one push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 with an `apns-id`.
    Accept,
    /// An error as Apple writes it: a JSON body with `reason` and perhaps `timestamp`.
    Refuse {
        /// HTTP status.
        code: u16,
        /// `reason`, such as `BadDeviceToken`.
        reason: String,
        /// `timestamp` in milliseconds since 1970, which Apple sends with 410.
        timestamp: Option<u64>,
        /// `Retry-After` in seconds.
        retry_after: Option<u64>,
    },
    /// A page of HTML, as a proxy between would answer.
    Html {
        /// HTTP status.
        code: u16,
    },
    /// GOAWAY at once: the streams in flight get no answer.
    GoAway,
    /// 200, and a GOAWAY that lets the streams in flight finish.
    Drain,
    /// RST_STREAM with REFUSED_STREAM.
    RefuseStream,
    /// The TCP connection is cut.
    Kill,
    /// No answer, ever.
    Hang,
}

impl Answer {
    /// An error with only a reason.
    pub fn refuse(code: u16, reason: &str) -> Self {
        Self::Refuse { code, reason: reason.to_owned(), timestamp: None, retry_after: None }
    }

    /// 410 `Unregistered`, dead since `timestamp` (milliseconds since 1970).
    pub fn unregistered(timestamp: u64) -> Self {
        Self::Refuse { code: 410, reason: "Unregistered".to_owned(), timestamp: Some(timestamp), retry_after: None }
    }
}

/// A push as it came in.
#[derive(Debug, Clone)]
pub struct Received {
    /// The device token: the last part of the path.
    pub token: String,
    /// The headers as sent.
    pub headers: HeaderMap,
    /// The body as sent.
    pub body: Bytes,
    /// What was done with it.
    pub answer: Answer,
}

/// How to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Certificate chain of the server, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: String,
    /// The CAs that push certificates must come from, PEM.
    pub client_ca_pem: String,
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub max_concurrent_streams: u32,
    /// How long each answer takes.
    pub delay: Duration,
    /// Whether to keep what was received; a load test only counts.
    pub keep: bool,
}

impl Settings {
    /// On a free port of the loopback, with Apple's 1,000 streams, at once, keeping what comes in.
    pub fn new(certificate_pem: String, key_pem: String, client_ca_pem: String) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            certificate_pem,
            key_pem,
            client_ca_pem,
            max_concurrent_streams: 1000,
            delay: Duration::ZERO,
            keep: true,
        }
    }
}

#[derive(Default)]
struct Scripts {
    by_token: HashMap<String, VecDeque<Answer>>,
    received: Vec<Received>,
}

struct State {
    scripts: Mutex<Scripts>,
    accepted: AtomicU64,
    requests: AtomicU64,
    connections: AtomicU64,
    down: AtomicBool,
    cut: Notify,
    next_id: AtomicU64,
    delay: Duration,
    keep: bool,
    max_concurrent_streams: u32,
}

impl State {
    fn scripts(&self) -> MutexGuard<'_, Scripts> {
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running stand-in; it stops when dropped.
pub struct ApnsStandIn {
    addr: SocketAddr,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for ApnsStandIn {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl ApnsStandIn {
    /// Starts listening. Every token is accepted until [`Self::script`] says otherwise.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let tls = TlsAcceptor::from(Arc::new(tls_config(&settings)?));
        let listener = TcpListener::bind(settings.listen).await.context("listening for pushes")?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State {
            scripts: Mutex::default(),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            down: AtomicBool::new(false),
            cut: Notify::new(),
            next_id: AtomicU64::new(1),
            delay: settings.delay,
            keep: settings.keep,
            max_concurrent_streams: settings.max_concurrent_streams,
        });
        let accepting = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Ok(Self { addr, state, accepting })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to answer, in turn, to the next pushes for `token` (lower-case hexadecimal); then they are accepted again.
    pub fn script(&self, token: &str, answers: impl IntoIterator<Item = Answer>) {
        self.state.scripts().by_token.insert(token.to_owned(), answers.into_iter().collect());
    }

    /// Everything received so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.scripts().received.clone()
    }

    /// What was received for `token`.
    pub fn received_for(&self, token: &str) -> Vec<Received> {
        self.state.scripts().received.iter().filter(|r| r.token == token).cloned().collect()
    }

    /// How many pushes were answered with 200.
    pub fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::Relaxed)
    }

    /// How many requests came in, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// How many connections passed the TLS handshake.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Goes down (existing connections are cut, new ones closed at once) or comes back.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
        if down {
            self.cut();
        }
    }

    /// Cuts the connections that are open now.
    pub fn cut(&self) {
        self.state.cut.notify_waiters();
    }
}

fn tls_config(settings: &Settings) -> anyhow::Result<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(settings.client_ca_pem.as_bytes()) {
        roots.add(ca?)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let chain = CertificateDer::pem_slice_iter(settings.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(settings.key_pem.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, state: Arc<State>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            incoming = listener.accept() => {
                let Ok((stream, _)) = incoming else { continue };
                if state.down.load(Ordering::SeqCst) {
                    continue;
                }
                let (tls, state) = (tls.clone(), Arc::clone(&state));
                open.spawn(async move {
                    if let Err(error) = serve(stream, tls, &state).await {
                        tracing::debug!(%error, "a connection for pushes ended");
                    }
                });
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}

/// What a request asks of the connection that it came on.
enum Fault {
    GoAway,
    Drain,
    Kill,
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, state: &Arc<State>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let cut = state.cut.notified();
    tokio::pin!(cut);
    cut.as_mut().enable();
    let stream = tls.accept(stream).await?;
    let topic: Option<Arc<str>> = topic_of(&stream).map(Arc::from);
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(state.max_concurrent_streams)
        .handshake::<_, Bytes>(stream)
        .await?;
    state.connections.fetch_add(1, Ordering::Relaxed);
    let (faults, mut asked) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            () = &mut cut => return Ok(()),
            Some(fault) = asked.recv() => match fault {
                Fault::GoAway => connection.abrupt_shutdown(Reason::NO_ERROR),
                Fault::Drain => connection.graceful_shutdown(),
                Fault::Kill => return Ok(()),
            },
            next = connection.accept() => {
                let Some(request) = next else { return Ok(()) };
                let (request, respond) = request?;
                let (state, topic, faults) = (Arc::clone(state), topic.clone(), faults.clone());
                tokio::spawn(async move {
                    if let Err(error) = answer(&state, topic.as_deref(), request, respond, &faults).await {
                        tracing::debug!(%error, "a push ended early");
                    }
                });
            }
        }
    }
}

/// The topic in the client certificate's subject.
fn topic_of(stream: &TlsStream<TcpStream>) -> Option<String> {
    let der = stream.get_ref().1.peer_certificates()?.first()?;
    let certificate = x509_cert::Certificate::from_der(der).ok()?;
    let value = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|name| name.0.iter())
        .find(|attribute| attribute.oid == USER_ID)
        .map(|attribute| &attribute.value)?;
    Utf8StringRef::try_from(value)
        .map(|s| s.as_str().to_owned())
        .or_else(|_| PrintableStringRef::try_from(value).map(|s| s.as_str().to_owned()))
        .or_else(|_| Ia5StringRef::try_from(value).map(|s| s.as_str().to_owned()))
        .ok()
}

async fn answer(
    state: &State,
    topic: Option<&str>,
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    faults: &mpsc::UnboundedSender<Fault>,
) -> anyhow::Result<()> {
    let (head, mut body) = request.into_parts();
    let mut content = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        content.extend_from_slice(&chunk);
    }
    state.requests.fetch_add(1, Ordering::Relaxed);
    let token = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let answer = match complaint(&head, &content, topic) {
        Some((code, reason)) => Answer::refuse(code, reason),
        None => state.scripts().by_token.get_mut(&token).and_then(VecDeque::pop_front).unwrap_or(Answer::Accept),
    };
    if state.keep {
        state.scripts().received.push(Received {
            token,
            headers: head.headers,
            body: content.freeze(),
            answer: answer.clone(),
        });
    }
    if !state.delay.is_zero() {
        tokio::time::sleep(state.delay).await;
    }
    match answer {
        Answer::Accept | Answer::Drain => {
            let id = state.next_id.fetch_add(1, Ordering::Relaxed);
            let response =
                Response::builder().header("apns-id", format!("00000000-0000-4000-8000-{id:012X}")).body(())?;
            respond.send_response(response, true)?;
            state.accepted.fetch_add(1, Ordering::Relaxed);
            if answer == Answer::Drain {
                faults.send(Fault::Drain)?;
            }
        }
        Answer::Refuse { code, reason, timestamp, retry_after } => {
            let mut response = Response::builder().status(StatusCode::from_u16(code)?);
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            let mut body = serde_json::json!({ "reason": reason });
            if let (Some(at), Some(fields)) = (timestamp, body.as_object_mut()) {
                fields.insert("timestamp".to_owned(), at.into());
            }
            let mut send =
                respond.send_response(response.header("content-type", "application/json").body(())?, false)?;
            send.send_data(Bytes::from(body.to_string()), true)?;
        }
        Answer::Html { code } => {
            let response = Response::builder().status(StatusCode::from_u16(code)?).header("content-type", "text/html");
            let mut send = respond.send_response(response.body(())?, false)?;
            send.send_data(Bytes::from_static(b"<html><body><h1>Bad Gateway</h1></body></html>"), true)?;
        }
        Answer::GoAway => faults.send(Fault::GoAway)?,
        Answer::RefuseStream => respond.send_reset(Reason::REFUSED_STREAM),
        Answer::Kill => faults.send(Fault::Kill)?,
        Answer::Hang => {
            // Holding the stream open until the client gives up on it.
            std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
        }
    }
    Ok(())
}

/// What Apple would find wrong with a push of type `mdm`, in the order in which it is looked at.
fn complaint(head: &http::request::Parts, body: &[u8], topic: Option<&str>) -> Option<(u16, &'static str)> {
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok());
    let Some(token) = head.uri.path().strip_prefix("/3/device/") else { return Some((404, "BadPath")) };
    if head.method != http::Method::POST {
        return Some((405, "MethodNotAllowed"));
    }
    if token.is_empty() {
        return Some((400, "MissingDeviceToken"));
    }
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if !token.bytes().all(lower_hex) || token.len() % 2 != 0 {
        return Some((400, "BadDeviceToken"));
    }
    let Some(asked) = header("apns-topic") else { return Some((400, "MissingTopic")) };
    if topic != Some(asked) {
        return Some((400, "TopicDisallowed"));
    }
    if header("apns-push-type") != Some("mdm") {
        return Some((400, "InvalidPushType"));
    }
    if header("apns-priority") != Some("10") {
        return Some((400, "BadPriority"));
    }
    if header("apns-expiration").and_then(|v| v.parse::<u64>().ok()).is_none() {
        return Some((400, "BadExpirationDate"));
    }
    if body.is_empty() {
        return Some((400, "PayloadEmpty"));
    }
    if body.len() > 4096 {
        return Some((413, "PayloadTooLarge"));
    }
    let only_mdm = serde_json::from_slice::<HashMap<String, String>>(body)
        .is_ok_and(|fields| fields.len() == 1 && fields.contains_key("mdm"));
    if only_mdm { None } else { Some((400, "BadMessageId")) }
}
