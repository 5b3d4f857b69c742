//! The listener against clients that are slow, many, or hold a certificate.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::Extension;
use axum::routing::{get, post};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

const SHORT: Duration = Duration::from_millis(300);

fn short() -> Limits {
    Limits {
        handshake: SHORT,
        header: SHORT,
        body_idle: SHORT,
        body_per_kib: SHORT,
        keep_alive: 3 * SHORT,
        drain: 4 * SHORT,
        ..Limits::default()
    }
}

fn router() -> Router {
    async fn who(Extension(PeerCertificate(certificate)): Extension<PeerCertificate>) -> String {
        certificate.and_then(|certificate| certificate.common_name()).unwrap_or_else(|| "nobody".to_owned())
    }
    async fn client(ConnectInfo(client): ConnectInfo<SocketAddr>) -> String {
        client.ip().to_string()
    }
    async fn slow() -> &'static str {
        tokio::time::sleep(2 * SHORT).await;
        "slow"
    }
    async fn trip() {
        panic!("a defect")
    }
    Router::new()
        .route("/who", get(who))
        .route("/client", get(client))
        .route("/slow", get(slow))
        .route("/trip", get(trip))
        .route("/echo", post(|body: String| async { body }))
}

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(limits: Limits, tls: Option<Arc<rustls::ServerConfig>>, proxies: TrustedProxies) -> Server {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or_default() };
    let task = tokio::spawn(serve(Listener { tcp, tls, limits, proxies }, router(), shutdown));
    Server { address, stop, task }
}

async fn plain(limits: Limits) -> Server {
    start(limits, None, TrustedProxies::default()).await
}

/// Sends these bytes and reads until the server closes; how long that took, and what came.
async fn told<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, bytes: &[u8]) -> (Duration, String) {
    let begin = Instant::now();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection was never closed");
    (begin.elapsed(), String::from_utf8_lossy(&answer).into_owned())
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// One request on a connection that stays open.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.unwrap();
        answer.push(byte[0]);
    }
    let head = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    format!("{head}{}", String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn th_25_a_client_that_says_nothing_or_half_a_header_is_cut() {
    let server = plain(short()).await;
    for bytes in [&b""[..], b"GET /who HT", b"GET /who HTTP/1.1\r\nHost: a\r\nX: "] {
        let (took, answer) = told(connect(&server).await, bytes).await;
        assert!(took < 10 * SHORT, "{took:?}");
        assert!(!answer.contains("200"), "{answer}");
    }
}

#[tokio::test]
async fn th_25_headers_that_trickle_in_are_cut() {
    let server = plain(short()).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /who HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let begin = Instant::now();
    loop {
        tokio::time::sleep(SHORT / 10).await;
        if stream.write_all(b"X: y\r\n").await.is_err() {
            break;
        }
        assert!(begin.elapsed() < 20 * SHORT, "a trickle kept the connection open");
    }
}

#[tokio::test]
async fn th_25_a_connection_may_be_silent_between_requests_but_not_for_ever() {
    let server = plain(short()).await;
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        // Longer than headers may take, shorter than the time between requests.
        tokio::time::sleep(SHORT / 2).await;
        assert!(ask(&mut stream, "/who").await.contains("nobody"));
        tokio::time::sleep(SHORT + SHORT / 2).await;
        assert!(ask(&mut stream, "/who").await.contains("nobody"));
    }
    let (took, _) = told(stream, b"").await;
    assert!(took >= 2 * SHORT && took < 15 * SHORT, "{took:?}");
}

#[tokio::test]
async fn th_25_a_request_that_takes_long_is_not_cut() {
    let server = plain(Limits { keep_alive: SHORT, ..short() }).await;
    let mut stream = connect(&server).await;
    assert!(ask(&mut stream, "/slow").await.ends_with("slow"));
}

#[tokio::test]
async fn th_25_a_body_must_keep_coming() {
    let server = plain(short()).await;
    let head = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
    let (took, answer) = told(connect(&server).await, &[&head[..], b"ab"].concat()).await;
    assert!(took < 10 * SHORT && answer.starts_with("HTTP/1.1 400"), "{took:?} {answer}");
    let (_, answer) = told(connect(&server).await, &[&head[..], b"abcd"].concat()).await;
    assert!(answer.ends_with("abcd"));

    // Never silent, but far too slow over all.
    let mut stream = connect(&server).await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n").await.unwrap();
    let begin = Instant::now();
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(SHORT / 6).await;
        assert!(begin.elapsed() < 30 * SHORT, "a trickle kept the connection open");
    }
}

#[tokio::test]
async fn th_25_connections_are_counted_in_all_and_by_address() {
    for limits in
        [Limits { connections: 3, ..Limits::default() }, Limits { connections_per_ip: 3, ..Limits::default() }]
    {
        let server = plain(limits).await;
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut stream = connect(&server).await;
            assert!(ask(&mut stream, "/who").await.contains("nobody"));
            open.push(stream);
        }
        let mut refused = connect(&server).await;
        assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or(0), 0);
        open.pop();
        tokio::time::sleep(SHORT).await;
        assert!(ask(&mut connect(&server).await, "/who").await.contains("nobody"), "a place is given back");
    }
}

#[tokio::test]
async fn th_26_headers_are_limited() {
    let server = plain(Limits::default()).await;
    let huge = format!("GET /who HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(80_000));
    let (_, answer) = told(connect(&server).await, huge.as_bytes()).await;
    assert!(!answer.contains(" 200 "), "{answer}");
    let signature = format!("GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(30_000));
    let (_, answer) = told(connect(&server).await, signature.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "a long Mdm-Signature fits");
}

#[tokio::test]
async fn th_26_nothing_is_read_behind_a_body_of_two_lengths() {
    let server = plain(short()).await;
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let smuggled =
            format!("POST /echo HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\nGET /who HTTP/1.1\r\nHost: a\r\n\r\n");
        let (_, answer) = told(connect(&server).await, smuggled.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(!answer.contains("nobody"));
    }
    let twice = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde";
    assert!(!told(connect(&server).await, twice).await.1.contains(" 200 "));
}

#[tokio::test]
async fn th_23_a_panic_costs_one_request_and_is_answered_with_503() {
    let server = plain(Limits::default()).await;
    let mut stream = connect(&server).await;
    let answer = ask(&mut stream, "/trip").await;
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after"), "{answer}");
    assert!(ask(&mut stream, "/who").await.contains("nobody"));
}

#[tokio::test]
async fn the_clients_address_is_believed_from_a_trusted_proxy_only() {
    let proxies = |peers| TrustedProxies { peers, address_header: Some("x-forwarded-for".parse().unwrap()) };
    let request = b"GET /client HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2, 203.0.113.7\r\n\r\n";
    let trusting = start(Limits::default(), None, proxies(vec!["127.0.0.1".parse().unwrap()])).await;
    assert!(told(connect(&trusting).await, request).await.1.ends_with("203.0.113.7"));
    let wary = start(Limits::default(), None, proxies(vec![])).await;
    assert!(told(connect(&wary).await, request).await.1.ends_with("127.0.0.1"));
}

#[tokio::test]
async fn rg_15_open_requests_end_before_the_server_does() {
    let server = plain(short()).await;
    let mut busy = connect(&server).await;
    let mut idle = connect(&server).await;
    assert!(ask(&mut idle, "/who").await.contains("nobody"));
    let request = tokio::spawn(async move { ask(&mut busy, "/slow").await });
    tokio::time::sleep(SHORT / 2).await;
    server.stop.send(()).unwrap();
    assert!(request.await.unwrap().ends_with("slow"));
    tokio::time::timeout(10 * SHORT, server.task).await.expect("the server ends").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

struct Made {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn made(name: &str) -> Made {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    Made { certificate: params.self_signed(&key).unwrap(), key }
}

fn served(made: &Made) -> Arc<ServerCertificate> {
    let (chain, key) = (made.certificate.pem(), made.key.serialize_pem());
    Arc::new(ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap())
}

fn client(trusts: &Made, identity: Option<&Made>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusts.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain: Vec<CertificateDer<'static>> = vec![identity.certificate.der().clone()];
            let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

async fn tls(server: &Server, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    client.connect(ServerName::try_from("localhost").unwrap(), connect(server).await).await
}

#[tokio::test]
async fn a_client_certificate_is_handed_on_also_when_the_session_is_resumed() {
    let identity = made("server");
    let tls_config = client_certificates_optional(served(&identity)).unwrap();
    let server = start(Limits::default(), Some(tls_config), TrustedProxies::default()).await;
    let device = made("device");
    let connector = client(&identity, Some(&device));
    for round in 0..3 {
        let mut stream = tls(&server, &connector).await.unwrap();
        assert!(ask(&mut stream, "/who").await.ends_with("device"));
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind == rustls::HandshakeKind::Resumed, round > 0, "{kind:?}");
    }
    let mut stream = tls(&server, &client(&identity, None)).await.unwrap();
    assert!(ask(&mut stream, "/who").await.ends_with("nobody"), "a certificate is asked for, not demanded");
}

#[tokio::test]
async fn th_25_a_handshake_that_does_not_go_on_is_cut() {
    let identity = made("server");
    let tls_config = client_certificates_optional(served(&identity)).unwrap();
    let server = start(short(), Some(tls_config), TrustedProxies::default()).await;
    let (took, _) = told(connect(&server).await, b"\x16\x03\x01").await;
    assert!(took >= SHORT / 2 && took < 10 * SHORT, "{took:?}");
}

#[tokio::test]
async fn a_certificate_is_replaced_while_the_server_runs() {
    let (old, new) = (made("old"), made("new"));
    let certificate = served(&old);
    let tls_config = without_client_certificates(Arc::clone(&certificate)).unwrap();
    let server = start(Limits::default(), Some(tls_config), TrustedProxies::default()).await;
    let mut open = tls(&server, &client(&old, None)).await.unwrap();
    let (chain, key) = (new.certificate.pem(), new.key.serialize_pem());
    assert!(certificate.replace(chain.as_bytes(), old.key.serialize_pem().as_bytes()).is_err(), "they do not fit");
    assert!(tls(&server, &client(&old, None)).await.is_ok(), "the old one stays");
    certificate.replace(chain.as_bytes(), key.as_bytes()).unwrap();
    assert!(tls(&server, &client(&new, None)).await.is_ok());
    assert!(tls(&server, &client(&old, None)).await.is_err());
    assert!(ask(&mut open, "/who").await.contains("nobody"), "open connections go on");
}

#[tokio::test]
async fn http_2_is_served_and_an_idle_connection_is_closed() {
    let identity = made("server");
    let tls_config = client_certificates_optional(served(&identity)).unwrap();
    let server = start(short(), Some(tls_config), TrustedProxies::default()).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http2().build();
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build::<_, Body>(https);
    let url = format!("https://localhost:{}/who", server.address.port());
    let answered = AtomicUsize::new(0);
    for _ in 0..3 {
        let response = http.get(url.parse().unwrap()).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
        answered.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(SHORT * 2).await;
    }
    assert_eq!(answered.into_inner(), 3);
}
