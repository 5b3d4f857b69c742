//! What handlers take in: JSON bodies, queries and path parameters that name the wrong field when they refuse.

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use crate::problem::{Problem, Slug};

/// A path parameter.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(crate) T);

/// The query, every parameter known and given once.
pub(crate) struct Query<T>(pub(crate) T);

/// A JSON body, every field known.
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        query(parts.uri.query().unwrap_or("")).map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        media_type(request.headers(), &["application/json"])?;
        let body = body(request, state).await?;
        json(&body).map(Self)
    }
}

/// The whole body, within the limit of its route.
pub(crate) async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Problem::new(Slug::UnsupportedMediaType, "send the body without Content-Encoding"));
    }
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
            Problem::new(Slug::BodyTooLarge, "send at most 1 MiB of JSON, or 5 MiB where a profile is taken")
        } else {
            Problem::new(Slug::InvalidBody, "the body ended early")
        }
    })
}

/// The `Content-Type` without its parameters, if it is one of `taken`.
pub(crate) fn media_type(headers: &HeaderMap, taken: &[&'static str]) -> Result<&'static str, Problem> {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let sent = sent.split(';').next().unwrap_or("").trim();
    taken
        .iter()
        .copied()
        .find(|known| sent.eq_ignore_ascii_case(known))
        .ok_or_else(|| Problem::new(Slug::UnsupportedMediaType, format!("send Content-Type: {}", taken.join(" or "))))
}

/// Reads JSON, naming the field that does not fit.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            wrong_field(&path, &inner.to_string())
        } else {
            Problem::new(Slug::InvalidBody, format!("the body is not JSON: {inner}"))
        }
    })?;
    reader
        .end()
        .map_err(|error| Problem::new(Slug::InvalidBody, format!("the body is not one JSON value: {error}")))?;
    Ok(value)
}

/// Reads a JSON value that was looked at before, naming the field that does not fit.
pub(crate) fn value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        wrong_field(&path, &error.into_inner().to_string())
    })
}

/// Reads a query string, naming the parameter that does not fit.
pub(crate) fn query<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let reader = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(text.as_bytes()));
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        wrong_field(&path, &error.into_inner().to_string())
    })
}

/// serde's message with the field taken out of it: `missing field `x`` and `unknown field `x`` speak of x, not of its parent.
fn wrong_field(path: &str, message: &str) -> Problem {
    let message = message.split(" at line ").next().unwrap_or(message);
    let parent = if path == "." { "" } else { path };
    let named = |kind: &str| message.strip_prefix(kind)?.split('`').nth(1);
    let under = |name: &str| match parent {
        "" => name.to_owned(),
        p if p == name || p.ends_with(&format!(".{name}")) => p.to_owned(),
        p => format!("{p}.{name}"),
    };
    if let Some(name) = named("missing field ") {
        Problem::field(under(name), "is required")
    } else if let Some(name) = named("unknown field ") {
        let known = message.split_once(", ").map_or("it is not known here", |(_, known)| known);
        Problem::field(under(name), format!("is not a field: {known}"))
    } else if let Some(name) = named("duplicate field ") {
        Problem::field(under(name), "must be given once")
    } else {
        Problem::field(if parent.is_empty() { "body" } else { parent }, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what refuses is looked at")]
    struct Inner {
        size: u8,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only what refuses is looked at")]
    struct Outer {
        name: String,
        inner: Option<Vec<Inner>>,
    }

    fn line(body: &str) -> String {
        json::<Outer>(body.as_bytes()).unwrap_err().line()
    }

    #[test]
    fn a_refused_body_names_the_field_and_what_would_be_right() {
        assert_eq!(line("{}"), "name: is required");
        assert!(line(r#"{"name":1}"#).starts_with("name: invalid type: integer `1`, expected a string"));
        assert!(line(r#"{"name":"a","inner":[{"size":300}]}"#).starts_with("inner[0].size: invalid value"));
        assert_eq!(line(r#"{"name":"a","inner":[{}]}"#), "inner[0].size: is required");
        assert_eq!(line(r#"{"name":"a","inner":[{"sice":1}]}"#), "inner[0].sice: is not a field: expected `size`");
        assert_eq!(line(r#"{"name":"a","name":"b"}"#), "name: must be given once");
        assert!(line("{").starts_with("the body is not JSON"));
        assert!(line(r#"{"name":"a"} x"#).starts_with("the body is not one JSON value"));
    }

    #[test]
    fn a_refused_query_names_the_parameter() {
        let line = |q: &str| query::<Inner>(q).unwrap_err().line();
        assert_eq!(line(""), "size: is required");
        assert_eq!(line("size=1&size=2"), "size: must be given once");
        assert_eq!(line("size=x"), "size: invalid digit found in string");
        assert_eq!(line("sise=1"), "sise: is not a field: expected `size`");
    }
}
