//! The operator's side of a rehearsal: the REST API over HTTPS, with a token, as any tool uses it.

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use simulator::http::{Client, Trust};

/// A client of the REST API.
#[derive(Debug, Clone)]
pub struct Operator {
    client: Client,
    base: String,
    authorization: String,
}

impl Operator {
    /// A client for the operator listener at `base`, such as `https://localhost:8444`.
    pub fn new(trust: &Trust, base: &str, token: &str) -> Result<Self> {
        Ok(Self { client: Client::new(trust, None)?, base: base.to_owned(), authorization: format!("Bearer {token}") })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, Some(body)).await
    }

    /// PUT.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::PUT, path, Some(body)).await
    }

    /// Enqueues a command given as a property list, for the enrollments with a label, without waking them.
    pub async fn enqueue_plist(&self, label: &str, command: Vec<u8>) -> Result<Value> {
        let path = format!("/api/v1/commands/plist?label={label}&push=false");
        self.send_bytes(Method::POST, &path, Some("application/xml"), command).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        self.send_bytes(method, path, body.map(|_| "application/json"), bytes).await
    }

    async fn send_bytes(&self, method: Method, path: &str, kind: Option<&str>, bytes: Vec<u8>) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let mut headers = vec![("authorization", self.authorization.as_str())];
        headers.extend(kind.map(|kind| ("content-type", kind)));
        let answer = self.client.send(method.clone(), &url, &headers, bytes).await?;
        if !(200..300).contains(&answer.status) {
            bail!("{method} {path} answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer.body).with_context(|| format!("{method} {path} did not answer with JSON"))
    }

    /// All items of a list, page after page.
    pub async fn all(&self, path: &str) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                Some(cursor) => self.get(&format!("{path}{joint}limit=100&cursor={cursor}")).await?,
                None => self.get(&format!("{path}{joint}limit=100")).await?,
            };
            items.extend(page.get("items").and_then(Value::as_array).cloned().unwrap_or_default());
            cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Makes an enrollment link and gives its URL.
    pub async fn link(&self, wish: &Value) -> Result<String> {
        let made = self.post("/api/v1/enrollment-links", wish).await?;
        let url = made.get("url").and_then(Value::as_str).context("the link has no url")?;
        Ok(url.to_owned())
    }

    /// Creates an ACME policy.
    pub async fn create_policy(&self, name: &str, policy: &Value) -> Result<()> {
        self.put(&format!("/api/v1/acme-policies/{name}"), policy).await.map(drop)
    }

    /// Assigns a policy to the enrollments with a label, in place of any scope that it had.
    pub async fn assign_to_label(&self, policy: &str, label: &str) -> Result<()> {
        let path = format!("/api/v1/acme-policies/{policy}/assignments");
        self.put(&path, &json!({ "labels": [label] })).await.map(drop)
    }

    /// The certificates that came by a policy.
    pub async fn certificates(&self, policy: &str) -> Result<Vec<Value>> {
        self.all(&format!("/api/v1/acme-certificates?policy={policy}")).await
    }

    /// The assignments of a policy.
    pub async fn assignments(&self, policy: &str) -> Result<Vec<Value>> {
        self.all(&format!("/api/v1/acme-policies/{policy}/assignments")).await
    }
}
