//! The cheapest HTTP/1.1 client that is still right: ready request bytes go out, the status and the body come back.
//!
//! Only for load: it knows Content-Length and nothing else of HTTP, keeps one connection open and allocates nothing per
//! request beyond its buffer, so that the client takes as little as possible of the machine it shares with the server.

use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::error::{Error, Result};

/// Where requests of one URL go.
#[derive(Clone)]
pub struct Target {
    address: std::net::SocketAddr,
    name: ServerName<'static>,
    tls: Option<Arc<ClientConfig>>,
    host: String,
    path: String,
}

impl Target {
    /// Resolves the URL. A host that is not this machine is refused unless `remote` allows it: load is no toy.
    pub fn new(url: &str, tls: &Arc<ClientConfig>, remote: bool) -> Result<Self> {
        let wrong = |why: &str| Error::Options(format!("{url}: {why}"));
        let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        let host = parsed.host_str().ok_or_else(|| wrong("no host"))?;
        let port = parsed.port_or_known_default().ok_or_else(|| wrong("no port"))?;
        let address = (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map_err(|error| wrong(&error.to_string()))?
            .min_by_key(|address| matches!(address.ip(), IpAddr::V6(_)))
            .ok_or_else(|| wrong("no address"))?;
        if !remote && !address.ip().is_loopback() {
            return Err(wrong("load runs against this machine only; --remote allows another"));
        }
        Ok(Self {
            address,
            name: ServerName::try_from(host.to_owned()).map_err(|error| wrong(&error.to_string()))?,
            tls: (parsed.scheme() == "https").then(|| Arc::clone(tls)),
            host: format!("{host}:{port}"),
            path: parsed[url::Position::BeforePath..].to_owned(),
        })
    }

    /// A PUT as bytes, ready to be written again and again.
    pub fn put(&self, content_type: &str, signature: &str, body: &[u8]) -> Vec<u8> {
        let mut request = format!(
            "PUT {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: MDM/1.0\r\nContent-Type: {content_type}\r\n\
             Content-Length: {}\r\nMdm-Signature: {signature}\r\n\r\n",
            self.path,
            self.host,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        request
    }

    /// Opens a connection.
    pub async fn connect(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(tcp),
            Some(config) => Box::new(TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), tcp).await?),
        };
        Ok(Connection { stream, buffer: Vec::with_capacity(16 << 10) })
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One keep-alive connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends ready bytes and waits for the whole answer: its status and body.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let (status, head, length) = loop {
            if let Some(parsed) = parse_head(&self.buffer)? {
                break parsed;
            }
            self.read_more().await?;
        };
        while self.buffer.len() < head + length {
            self.read_more().await?;
        }
        Ok((status, self.buffer.get(head..head + length).unwrap_or_default()))
    }

    async fn read_more(&mut self) -> io::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Status, length of the head and Content-Length, once the head is there.
fn parse_head(buffer: &[u8]) -> io::Result<Option<(u16, usize, usize)>> {
    let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let head = buffer.get(..end).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| invalid("a head that is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let mut length = 0;
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(|_| invalid("Content-Length"))?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(invalid("chunked answers are not for load"));
        }
    }
    Ok(Some((status.ok_or_else(|| invalid("no status"))?, end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        assert_eq!(parse_head(b"HTTP/1.1 200 OK\r\n").unwrap(), None);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse_head(head).unwrap(), Some((200, head.len() - 5, 5)));
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn another_machine_needs_permission() {
        let tls = Arc::new(crate::http::Trust::public().tls(None).unwrap());
        assert!(Target::new("http://192.0.2.1/mdm", &tls, false).is_err());
        assert!(Target::new("http://192.0.2.1/mdm", &tls, true).is_ok());
        assert!(Target::new("http://127.0.0.1:8080/mdm", &tls, false).is_ok());
    }
}
