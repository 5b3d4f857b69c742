//! An HTTPS client of the REST API, as the subcommands use it.
//!
//! The token comes from a file or from the environment, never from the command line, where every user of the machine could
//! read it. The connection itself is the `outbound` crate's: https only, no redirects, limits on time and size.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use http::{Method, Request, StatusCode, header};
use mdm_core::secret::Secret;
use outbound::Roots;
use serde_json::Value;
use url::Url;

/// Where a token is looked for if no file is named.
const TOKEN_VARIABLE: &str = "ASSAY_TOKEN";
/// Longer than any answer: a dry run over a large fleet.
const TIME_OUT: Duration = Duration::from_secs(120);
/// Larger than any page, report or export.
const LARGEST_ANSWER: usize = 64 << 20;
/// The most entries that a page of a list has.
const PAGE: usize = 500;

/// Which server, and as whom. Flattened into the arguments of a subcommand.
#[derive(Debug, Clone, ClapArgs)]
pub struct Connection {
    /// The operator listener of the server.
    #[arg(long, env = "ASSAY_URL", default_value = "https://localhost:8444")]
    url: Url,
    /// A file with the API token; without it the variable ASSAY_TOKEN is read.
    #[arg(long, env = "ASSAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the CA that the server's certificate comes from, where it is no public one.
    #[arg(long, env = "ASSAY_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl Connection {
    /// A client; the token and the CA are read now, the server is not asked yet.
    pub fn client(&self) -> Result<Client> {
        let token = match &self.token_file {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the token file {}", file.display()))?,
            None => std::env::var(TOKEN_VARIABLE)
                .with_context(|| format!("no API token: name a file with --token-file, or set {TOKEN_VARIABLE}"))?,
        };
        let anchors = match &self.ca_file {
            Some(file) => {
                let pem = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                let chain = mdm_core::certificate::pem_chain(&pem).with_context(|| file.display().to_string())?;
                chain.iter().map(|certificate| certificate.der().to_vec()).collect()
            }
            None => Vec::new(),
        };
        Client::new(&self.url, token.trim(), anchors)
    }
}

/// A client of the REST API.
#[derive(Clone)]
pub struct Client {
    outbound: outbound::Client,
    base: String,
    authorization: Secret<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for the operator listener at `url`, such as `https://localhost:8444`. `anchors` (DER) are trusted besides the
    /// public certificate authorities.
    pub fn new(url: &Url, token: &str, anchors: Vec<Vec<u8>>) -> Result<Self> {
        if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            bail!("the address of the server must begin with https:// and hold no login and no query");
        }
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            bail!("the API token is empty or holds characters that no token has");
        }
        let mut settings = outbound::Settings::new(concat!("assay/", env!("CARGO_PKG_VERSION")));
        if !anchors.is_empty() {
            settings.roots = Roots::PublicAnd(anchors);
        }
        settings.timeout = TIME_OUT;
        settings.largest_answer = LARGEST_ANSWER;
        // The operator names the server; it is rarely on a public address.
        settings.private_addresses = true;
        Ok(Self {
            outbound: outbound::Client::new(&settings)?,
            base: url.as_str().trim_end_matches('/').to_owned(),
            authorization: Secret::new(format!("Bearer {token}")),
        })
    }

    /// GET; `path` begins with `/api/v1/`.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// PUT of a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// All entries of a list, page after page.
    pub async fn all(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut page = self.get(&format!("{path}{joint}limit={PAGE}")).await?;
        loop {
            if let Some(Value::Array(entries)) = page.get_mut("items").map(Value::take) {
                items.extend(entries);
            }
            let Some(cursor) = page.get("next_cursor").and_then(Value::as_str) else { return Ok(items) };
            page = self.get(&format!("{path}{joint}limit={PAGE}&cursor={cursor}")).await?;
        }
    }

    /// Sends one request. An answer that is no success is an error with what the server said; an empty body is `null`.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, self.authorization.expose());
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(bytes).with_context(|| format!("{path} is not the path of a request"))?;
        let answer = self.outbound.send(request).await?;
        let (status, body) = (answer.status(), answer.into_body());
        // The query may hold a cursor: it tells nobody anything.
        let path = path.split('?').next().unwrap_or(path);
        if !status.is_success() {
            bail!("{method} {path}: {}", refusal(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).with_context(|| format!("{method} {path} did not answer with JSON"))
    }
}

/// A value as one segment of a path, or as a value of a query.
pub fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// A text without what a terminal obeys: control characters are shown as replaced.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// What the server said, in words: the title, the detail, and each field that is wrong on a line of its own.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let Ok(problem) = serde_json::from_slice::<Value>(body) else {
        return format!("the server answered {status}; is this the operator listener?");
    };
    let text = |key: &str| problem.get(key).and_then(Value::as_str).map(printable);
    let mut out = match (text("title"), text("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => format!("the server answered {status}"),
    };
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| printable(error.get(key).and_then(Value::as_str).unwrap_or_default());
        let _ = write!(out, "\n  {}: {}", text("field"), text("detail"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, token: &str) -> Result<Client> {
        Client::new(&Url::parse(url).unwrap(), token, Vec::new())
    }

    #[test]
    fn only_https_and_a_token_that_can_be_one() {
        crate::install_crypto();
        assert!(client("https://localhost:8444", "abc").is_ok());
        for (url, token) in
            [("http://localhost", "abc"), ("https://u:p@localhost", "abc"), ("https://a", ""), ("https://a", "a b")]
        {
            assert!(client(url, token).is_err(), "{url} {token}");
        }
    }

    #[test]
    fn the_token_and_the_ca_come_from_files() {
        crate::install_crypto();
        let folder = tempfile::TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let connection = |token_file, ca_file| Connection {
            url: Url::parse("https://localhost:8444").unwrap(),
            token_file,
            ca_file,
        };
        let token = file("token", "assay_abc\n");
        let client = connection(token.clone(), None).client().unwrap();
        assert_eq!(client.authorization.expose(), "Bearer assay_abc");
        let nowhere = Some(folder.path().join("nowhere"));
        for (connection, word) in [
            (connection(nowhere.clone(), None), "nowhere"),
            (connection(file("empty", "\n"), None), "token"),
            (connection(token.clone(), nowhere), "nowhere"),
            (connection(token, file("ca.pem", "")), "no PEM certificate"),
        ] {
            let error = format!("{:#}", connection.client().unwrap_err());
            assert!(error.contains(word) && !error.contains("assay_abc"), "{error}");
        }
    }

    #[test]
    fn the_token_is_not_in_what_is_printed() {
        let shown = format!("{:?}", client("https://localhost:8444", "hunter2").unwrap());
        assert!(shown.contains("localhost") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_refusal_names_every_field() {
        let body = br#"{"type":"urn:assay:error:invalid-field","title":"A field is wrong","status":422,
            "errors":[{"field":"key_size","detail":"must be 256"},{"field":"name","detail":"must be short"}]}"#;
        let text = refusal(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(text, "A field is wrong\n  key_size: must be 256\n  name: must be short");
        assert!(refusal(StatusCode::BAD_GATEWAY, b"<html>").contains("502"));
    }

    #[test]
    fn th_61_a_refusal_holds_nothing_that_a_terminal_obeys() {
        let body = br#"{"title":"No\u001b[2J","errors":[{"field":"a\u0007","detail":"b\u009b31m"}]}"#;
        let text = refusal(StatusCode::CONFLICT, body);
        assert_eq!(text, "No\u{fffd}[2J\n  a\u{fffd}: b\u{fffd}31m");
    }

    #[test]
    fn a_name_in_a_path_is_escaped() {
        assert_eq!(escaped("a b/c?d"), "a%20b%2Fc%3Fd");
    }
}
