//! Answers in NanoMDM's form.

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use utoipa::ToSchema;

use crate::problem::{Problem, Slug};

/// The answer to a request without a valid token, as NanoMDM gives it.
pub(crate) fn unauthorized() -> Response {
    let headers =
        [(header::WWW_AUTHENTICATE, "Basic realm=\"nanomdm\""), (header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::UNAUTHORIZED, headers, "Unauthorized\n").into_response()
}

/// JSON as Go writes it: indented with a tab, one newline at the end, `<`, `>` and `&` escaped.
pub(super) fn go_json(status: StatusCode, body: &impl Serialize) -> Response {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    if let Err(error) = body.serialize(&mut writer) {
        return Problem::internal(&error).into_response();
    }
    let text = String::from_utf8(text).unwrap_or_default();
    // Outside of strings JSON has none of these characters.
    let text = text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026") + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// `{"error": …}`, as the other end-points of NanoMDM answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NanoMdmError)]
pub(crate) struct ErrorBody {
    error: String,
}

/// An error of a NanoMDM end-point that answers `{"error": …}`.
pub(super) fn error(status: StatusCode, error: impl Into<String>) -> Response {
    go_json(status, &ErrorBody { error: error.into() })
}

/// What became of one id.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = NanoMdmIdResult)]
pub(crate) struct IdResult {
    /// Why it will not be pushed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) push_error: Option<String>,
    /// Why it did not get the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_error: Option<String>,
}

/// NanoMDM's `APIResult`. Every key is left out when it is empty; an id without an error is left out of `status`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = NanoMdmResult)]
pub(crate) struct ApiResult {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) status: BTreeMap<String, IdResult>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) no_push: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) push_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command_uuid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_type: Option<String>,
}

impl ApiResult {
    /// Notes that this id did not get the command.
    pub(super) fn command_failed(&mut self, id: &str, why: impl Into<String>) {
        self.status.entry(id.to_owned()).or_default().command_error = Some(why.into());
    }

    /// Notes that this id will not be pushed.
    pub(super) fn push_failed(&mut self, id: &str, why: impl Into<String>) {
        self.status.entry(id.to_owned()).or_default().push_error = Some(why.into());
    }

    /// 200 where nothing failed, 207 where some ids failed, 500 where all did or the whole request did.
    pub(super) fn response(&self, asked: usize) -> Response {
        let whole = self.push_error.is_some() || self.command_error.is_some();
        let status = match self.status.len() {
            _ if whole => StatusCode::INTERNAL_SERVER_ERROR,
            0 => StatusCode::OK,
            failed if failed >= asked => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::MULTI_STATUS,
        };
        go_json(status, self)
    }
}

/// The status that a problem has here: what the caller did wrong keeps its own, everything else is 500.
pub(super) fn status_of(problem: &Problem) -> StatusCode {
    match problem.slug() {
        Slug::ScopeMissing => StatusCode::FORBIDDEN,
        Slug::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Slug::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Slug::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Slug::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Slug::InvalidBody | Slug::InvalidField | Slug::ConfirmationNeeded | Slug::PushTopicChanged => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> (StatusCode, String) {
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn json_is_written_as_go_writes_it() {
        let mut result = ApiResult { command_uuid: Some("a<b>&c".into()), no_push: true, ..ApiResult::default() };
        result.command_failed("U", "no");
        let (status, body) = text(result.response(2)).await;
        assert_eq!(status, StatusCode::MULTI_STATUS);
        let wanted = "{\n\t\"status\": {\n\t\t\"U\": {\n\t\t\t\"command_error\": \"no\"\n\t\t}\n\t},\n\t\"no_push\": true,\n\t\"command_uuid\": \"a\\u003cb\\u003e\\u0026c\"\n}\n";
        assert_eq!(body, wanted);
    }

    #[tokio::test]
    async fn the_status_is_nanomdms() {
        let mut result = ApiResult::default();
        assert_eq!(text(result.response(1)).await, (StatusCode::OK, "{}\n".to_owned()));
        result.push_failed("U", "no");
        assert_eq!(result.response(1).status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(result.response(2).status(), StatusCode::MULTI_STATUS);
        result.command_error = Some("all".into());
        assert_eq!(result.response(2).status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn without_a_token_the_answer_is_nanomdms() {
        let response = unauthorized();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Basic realm=\"nanomdm\"");
        assert_eq!(text(response).await, (StatusCode::UNAUTHORIZED, "Unauthorized\n".to_owned()));
    }
}
