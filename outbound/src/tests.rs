//! A service on this machine answers by a script; the client is judged by what reaches it and by what comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;

use super::*;

struct Service {
    address: SocketAddr,
    root: Vec<u8>,
    heads: UnboundedReceiver<String>,
}

async fn service(answer: &'static str) -> Service {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let root = made.cert.der().to_vec();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, heads) = unbounded_channel();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            tell.send(String::from_utf8(head).unwrap()).unwrap();
            let _ = stream.write_all(answer.as_bytes()).await;
            if answer.is_empty() {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            let _ = stream.shutdown().await;
        }
    });
    Service { address, root, heads }
}

fn settings(service: &Service) -> Settings {
    Settings {
        roots: Roots::Only(vec![service.root.clone()]),
        private_addresses: true,
        largest_answer: 100,
        timeout: Duration::from_secs(5),
        ..Settings::new("tests/1")
    }
}

fn get(url: &str) -> Request<Vec<u8>> {
    Request::get(url).body(Vec::new()).unwrap()
}

#[tokio::test]
async fn a_request_has_its_path_its_host_and_its_agent() {
    let mut service = service("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let client = Client::new(&settings(&service)).unwrap();
    let answer = client.send(get(&format!("https://localhost:{}/a?b=c", service.address.port()))).await.unwrap();
    assert_eq!((answer.status(), answer.body().as_slice()), (StatusCode::OK, b"hi".as_slice()));
    let head = service.heads.recv().await.unwrap();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: localhost:{}\r\n", service.address.port())), "{head}");
    assert!(head.contains("user-agent: tests/1\r\n"), "{head}");
}

#[tokio::test]
async fn th_63_a_redirect_is_not_followed() {
    let mut service = service("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n").await;
    let client = Client::new(&settings(&service)).unwrap();
    let answer = client.send(get(&format!("https://127.0.0.1:{}/", service.address.port()))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert!(service.heads.recv().await.unwrap().starts_with("GET / "));
    assert!(service.heads.try_recv().is_err(), "one request and no other");
}

#[tokio::test]
async fn th_63_a_private_address_is_refused_before_anything_is_sent() {
    let mut service = service("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let client = Client::new(&Settings { private_addresses: false, ..settings(&service) }).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let refused = client.send(get(&format!("https://{host}:{}/", service.address.port()))).await.unwrap_err();
        assert!(matches!(refused, Error::PrivateAddress(_)), "{refused}");
    }
    assert!(matches!(client.send(get("https://[::1]/")).await, Err(Error::PrivateAddress(_))));
    assert!(matches!(client.send(get("https://169.254.169.254/")).await, Err(Error::PrivateAddress(_))));
    assert!(service.heads.try_recv().is_err());
}

#[tokio::test]
async fn only_https_without_a_login_is_requested() {
    let client = Client::new(&Settings::new("tests/1")).unwrap();
    for bad in ["http://example.com/", "/path", "https://user:word@example.com/", "ftp://example.com/"] {
        assert!(matches!(client.send(get(bad)).await, Err(Error::NotHttps)), "{bad}");
    }
}

#[tokio::test]
async fn an_answer_has_a_largest_size_and_an_end_in_time() {
    let large = service(
        "HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n\
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    )
    .await;
    let client = Client::new(&settings(&large)).unwrap();
    let url = format!("https://127.0.0.1:{}/", large.address.port());
    assert!(matches!(client.send(get(&url)).await, Err(Error::TooLarge(_))));

    let slow = service("").await;
    let client = Client::new(&Settings { timeout: Duration::from_millis(200), ..settings(&slow) }).unwrap();
    let url = format!("https://127.0.0.1:{}/", slow.address.port());
    assert!(matches!(client.send(get(&url)).await, Err(Error::TimedOut(_))));
}

#[tokio::test]
async fn a_certificate_of_somebody_else_ends_it() {
    let (one, other) = (service("").await, service("").await);
    let client = Client::new(&settings(&one)).unwrap();
    let refused = client.send(get(&format!("https://127.0.0.1:{}/", other.address.port()))).await;
    assert!(matches!(refused, Err(Error::Connection { .. })), "{refused:?}");
}
