//! Every error that the operator edge answers: RFC 9457 `application/problem+json`, made only here.
//!
//! The `type` is `urn:assay:error:<slug>`; each slug is explained in `docs/errors.md` and never changes its meaning.
//! Internal detail (SQL, file names, library messages) goes to the log, once, and never into an answer.

mod automated;

use axum::extract::rejection::PathRejection;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong, as a word that programs can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slug {
    /// No token, or one that is not valid.
    AuthenticationRequired,
    /// The token was right once; its time is over.
    TokenExpired,
    /// The token was right once; somebody revoked it.
    TokenRevoked,
    /// The token is right but does not carry the scope that this needs.
    ScopeMissing,
    /// There is nothing at this address, or nothing with this id.
    NotFound,
    /// The address exists, but not for this method.
    MethodNotAllowed,
    /// The same CommandUUID was used before for another command.
    CommandUuidTaken,
    /// What is asked for does not fit the present state.
    Conflict,
    /// The new push certificate is for another topic than the stored one.
    PushTopicChanged,
    /// The body is larger than this address takes.
    BodyTooLarge,
    /// `Content-Type` or `Content-Encoding` is not one that this address takes.
    UnsupportedMediaType,
    /// The body is not JSON (or not a property list) at all.
    InvalidBody,
    /// A field of the body, of the query or of the path has a wrong value; `errors` names each.
    InvalidField,
    /// Every kind of device that there is would be refused by the policy.
    PolicyNotHonourable,
    /// A destructive command for many devices must say how many it is for.
    ConfirmationNeeded,
    /// Too many failures, or too many destructive commands, in a short time.
    RateLimited,
    /// A fault of the server; the log has it.
    Internal,
    /// The database cannot be reached just now; the same request may be sent again.
    Unavailable,
}

impl Slug {
    /// Every slug, for the documentation and its test.
    pub const ALL: [Self; 18] = [
        Self::AuthenticationRequired,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::ScopeMissing,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::CommandUuidTaken,
        Self::Conflict,
        Self::PushTopicChanged,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidBody,
        Self::InvalidField,
        Self::PolicyNotHonourable,
        Self::ConfirmationNeeded,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
    ];

    /// The stable text, the HTTP status and the title.
    pub fn parts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::AuthenticationRequired => {
                ("authentication-required", S::UNAUTHORIZED, "A valid API token is required")
            }
            Self::TokenExpired => ("token-expired", S::UNAUTHORIZED, "The API token has expired"),
            Self::TokenRevoked => ("token-revoked", S::UNAUTHORIZED, "The API token was revoked"),
            Self::ScopeMissing => ("scope-missing", S::FORBIDDEN, "The API token may not do this"),
            Self::NotFound => ("not-found", S::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => {
                ("method-not-allowed", S::METHOD_NOT_ALLOWED, "This address does not take this method")
            }
            Self::CommandUuidTaken => {
                ("command-uuid-taken", S::CONFLICT, "This CommandUUID belongs to another command")
            }
            Self::Conflict => ("conflict", S::CONFLICT, "This does not fit the present state"),
            Self::PushTopicChanged => ("push-topic-changed", S::CONFLICT, "The push certificate is for another topic"),
            Self::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "The body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "This kind of body is not taken here")
            }
            Self::InvalidBody => ("invalid-body", S::BAD_REQUEST, "The body cannot be read"),
            Self::InvalidField => {
                ("invalid-field", S::UNPROCESSABLE_ENTITY, "A field has a value that is not accepted")
            }
            Self::PolicyNotHonourable => {
                ("policy-not-honourable", S::UNPROCESSABLE_ENTITY, "No device could honour this policy")
            }
            Self::ConfirmationNeeded => (
                "confirmation-needed",
                S::UNPROCESSABLE_ENTITY,
                "A destructive command for many devices must be confirmed",
            ),
            Self::RateLimited => ("rate-limited", S::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "The server failed"),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "The server cannot do this just now"),
        }
    }

    /// The stable text.
    pub fn as_str(self) -> &'static str {
        self.parts().0
    }
}

/// One field that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field: a path into the JSON body (`targets.enrollment_ids[2]`), the name of a query parameter, or Apple's
    /// key in a property list.
    #[schema(example = "ttl_seconds")]
    pub field: String,
    /// What would be right.
    #[schema(example = "must be between 60 and 31536000")]
    pub detail: String,
}

/// The body of every error (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// `urn:assay:error:<slug>`, stable; explained in docs/errors.md.
    #[serde(rename = "type")]
    #[schema(example = "urn:assay:error:invalid-field")]
    kind: String,
    /// The slug's meaning, always the same.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The fields that are wrong; absent where no field is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// An error on its way to the caller.
#[derive(Debug)]
pub struct Problem {
    slug: Slug,
    detail: Option<String>,
    errors: Vec<FieldError>,
    retry_after: Option<u64>,
    /// Another transaction was in the way: the whole request may be run again.
    busy: bool,
}

impl Problem {
    /// A problem with its detail for people.
    pub fn new(slug: Slug, detail: impl Into<String>) -> Self {
        Self { slug, detail: Some(detail.into()), errors: Vec::new(), retry_after: None, busy: false }
    }

    /// One field with a wrong value; `right` says what would be right.
    pub fn field(field: impl Into<String>, right: impl Into<String>) -> Self {
        Self::fields(vec![FieldError { field: field.into(), detail: right.into() }])
    }

    /// Several fields with wrong values.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        Self { slug: Slug::InvalidField, detail: None, errors, retry_after: None, busy: false }
    }

    /// Nothing of this kind has this id.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(Slug::NotFound, format!("there is no {what} {id}"))
    }

    /// A fault of the server. The cause is logged here, once, and not shown.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %Causes(cause), "an API request failed");
        Self { slug: Slug::Internal, detail: None, errors: Vec::new(), retry_after: None, busy: false }
    }

    /// The database or another part cannot be reached just now. The cause is logged here, once, and not shown.
    pub fn unavailable(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::warn!(error = %Causes(cause), "an API request could not be served for now");
        Self { slug: Slug::Unavailable, detail: None, errors: Vec::new(), retry_after: Some(2), busy: false }
    }

    /// The fields lie inside another one: `prefix` ends with a dot, or is empty.
    #[must_use]
    pub(crate) fn under(mut self, prefix: &str) -> Self {
        for error in &mut self.errors {
            error.field.insert_str(0, prefix);
        }
        self
    }

    /// Says after how many seconds the caller may try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// What happened, as a word.
    pub fn slug(&self) -> Slug {
        self.slug
    }

    /// One line for people: the detail, or the fields.
    pub fn line(&self) -> String {
        let fields: Vec<String> = self.errors.iter().map(|e| format!("{}: {}", e.field, e.detail)).collect();
        match &self.detail {
            Some(detail) if fields.is_empty() => detail.clone(),
            _ if fields.is_empty() => self.slug.parts().2.to_owned(),
            _ => fields.join("; "),
        }
    }
}

/// An error with its sources, in one line.
struct Causes<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (slug, status, title) = self.slug.parts();
        let body = ProblemBody {
            kind: format!("urn:assay:error:{slug}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"assay\""));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        use axum::extract::path::ErrorKind as E;
        let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
            return Self::internal(&rejection);
        };
        match failed.into_kind() {
            E::ParseErrorAtKey { key, expected_type, .. } => Self::field(key, format!("must be a {expected_type}")),
            E::DeserializeError { key, message, .. } => Self::field(key, message),
            E::InvalidUtf8InPathParam { key } => Self::field(key, "must be UTF-8 once percent-decoded"),
            E::ParseErrorAtIndex { expected_type, .. } | E::ParseError { expected_type, .. } => {
                Self::field("id", format!("must be a {expected_type}"))
            }
            E::Message(message) => Self::field("id", message),
            _ => Self::field("id", "cannot be read"),
        }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Busy(_) => Self { busy: true, ..Self::unavailable(&error) },
            store::Error::Database(_) => Self::unavailable(&error),
            _ => Self::internal(&error),
        }
    }
}

impl From<commands::Error> for Problem {
    fn from(error: commands::Error) -> Self {
        match error {
            commands::Error::Store(error) => error.into(),
            commands::Error::OtherBody(uuid) => {
                let detail = format!("the CommandUUID {uuid} was used before with another body; take a new one");
                Self::new(Slug::CommandUuidTaken, detail)
            }
            _ => Self::internal(&error),
        }
    }
}

impl From<push::Error> for Problem {
    fn from(error: push::Error) -> Self {
        use push::Error as E;
        let message = error.to_string();
        match error {
            E::Store(error) => error.into(),
            E::OtherTopic { .. } => Self::new(Slug::PushTopicChanged, message),
            E::Upload(_) | E::NotMdm { .. } | E::Expired { .. } | E::NotYet { .. } => {
                Self::field("certificate", message)
            }
            E::Key(_) | E::Mismatch | E::Client(_) => Self::field("key", message),
            _ => Self::internal(&error),
        }
    }
}

impl From<enroll::Error> for Problem {
    fn from(error: enroll::Error) -> Self {
        match error {
            enroll::Error::Store(error) => error.into(),
            enroll::Error::Field { field: "ttl", why } => Self::field("ttl_seconds", why),
            enroll::Error::Field { field, why } => Self::field(field, why),
            enroll::Error::NoPushCertificate => Self::new(Slug::Conflict, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<signin::Error> for Problem {
    fn from(error: signin::Error) -> Self {
        match error {
            signin::Error::Store(error) => error.into(),
            signin::Error::Field { field, why } => Self::field(field, why),
            _ => Self::internal(&error),
        }
    }
}

impl From<renewal::Error> for Problem {
    fn from(error: renewal::Error) -> Self {
        match error {
            renewal::Error::Store(error) => error.into(),
            renewal::Error::Commands(error) => error.into(),
            renewal::Error::Enroll(error) => error.into(),
            renewal::Error::NothingToRenew(why) => Self::new(Slug::Conflict, why),
            _ => Self::internal(&error),
        }
    }
}

impl From<issuer::Error> for Problem {
    fn from(error: issuer::Error) -> Self {
        match error {
            issuer::Error::Store(store::Error::Duplicate(_)) => {
                Self::new(Slug::Conflict, "this certificate has an issuance record already")
            }
            issuer::Error::Store(error) => error.into(),
            issuer::Error::Record(why) => Self::field("body", why),
            _ => Self::internal(&error),
        }
    }
}

impl From<policy::InvalidPolicy> for Problem {
    fn from(invalid: policy::InvalidPolicy) -> Self {
        let field = |e: policy::FieldError| FieldError { detail: format!("must be {}", e.expected), field: e.field };
        Self::fields(invalid.0.into_iter().map(field).collect())
    }
}

impl From<policy::Error> for Problem {
    fn from(error: policy::Error) -> Self {
        match error {
            policy::Error::Store(error) => error.into(),
            policy::Error::Commands(error) => error.into(),
            policy::Error::NoPolicy(_) => Self::new(Slug::NotFound, error.to_string()),
            policy::Error::NameTaken(_) | policy::Error::RuledLabel(_) => Self::new(Slug::Conflict, error.to_string()),
            policy::Error::Invalid(invalid) => invalid.into(),
            policy::Error::NoAuthority(_) => {
                Self::field("certificate_authority", "must be the name of a certificate authority that exists")
            }
            policy::Error::NeedsCommands(_) => Self::new(Slug::ScopeMissing, error.to_string()),
            policy::Error::NobodyCould(_) => Self::new(Slug::PolicyNotHonourable, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl From<ca::Error> for Problem {
    fn from(error: ca::Error) -> Self {
        let field = |e: ca::FieldError| FieldError { detail: format!("must be {}", e.expected), field: e.field };
        match error {
            ca::Error::Store(error) => error.into(),
            ca::Error::Invalid(wrong) => Self::fields(wrong.into_iter().map(field).collect()),
            ca::Error::NoAuthority(name) => Self::not_found("certificate authority", name),
            ca::Error::WebhookKnown(_) => Self::new(Slug::Conflict, error.to_string()),
            _ => Self::internal(&error),
        }
    }
}

impl store::Busy for Problem {
    fn is_busy(&self) -> bool {
        self.busy
    }
}
