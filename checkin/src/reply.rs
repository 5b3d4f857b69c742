//! All answers that a device can get. The only file that makes one.
//!
//! 403 only where an operator asked for the device to unenroll (Apple, `unrecognized.device`; TH-12), and 401 only, and always
//! with its challenge, where an account-driven enrollment has no token that is good: its person is asked to sign in again.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use mdm_core::checkin::MessageError;
use mdm_core::ids::EnrollmentId;
use mdm_core::random::Random;
use store::Busy;

use crate::identity::IdentityError;

/// Why a request is not answered as the device hoped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeviceError {
    /// Neither PUT nor POST.
    #[error("only PUT and POST are served here")]
    Method,
    /// The body is longer than is allowed.
    #[error("the body is too long")]
    TooLarge,
    /// The body came too slowly, or the connection broke.
    #[error("the body did not arrive")]
    Body,
    /// The body is compressed.
    #[error("Content-Encoding is not accepted")]
    ContentEncoding,
    /// Not a message that is accepted.
    #[error("the message is not accepted: {0}")]
    Message(#[source] MessageError),
    /// The request does not prove who sent it.
    #[error("the identity is not accepted: {0}")]
    Identity(#[from] IdentityError),
    /// The certificate is not pinned to what the body says, or to nothing.
    #[error("not authorized: {0}")]
    Denied(&'static str),
    /// The message does not fit what was stored before.
    #[error("the message does not fit: {0}")]
    Refused(String),
    /// Something of the declarative protocol that is not there.
    #[error("there is no such declaration")]
    NoDeclaration,
    /// `UserAuthenticate` for a user that is not managed.
    #[error("network users are not managed")]
    UserNotManaged,
    /// An operator asked for the device to unenroll.
    #[error("the device is told to unenroll, as an operator asked")]
    Unenroll,
    /// The bearer token of an account-driven enrollment is missing or not good any more.
    #[error("the person must sign in again: {why}")]
    SignInAgain {
        /// Whose; absent where the enrollment has not begun.
        enrollment: Option<EnrollmentId>,
        /// The challenge.
        www_authenticate: String,
        /// What is wrong with the token.
        why: &'static str,
    },
    /// Too much is going on.
    #[error("too many large bodies at a time")]
    Busy,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue failed.
    #[error(transparent)]
    Commands(#[from] commands::Error),
    /// The policy engine failed.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// The renewal failed.
    #[error(transparent)]
    Renewal(#[from] renewal::Error),
    /// Admission failed.
    #[error(transparent)]
    Enroll(#[from] enroll::Error),
    /// An account-driven enrollment's token could not be looked at.
    #[error(transparent)]
    Account(#[from] account::Error),
    /// A device in Setup Assistant could not be looked at.
    #[error(transparent)]
    SetUp(#[from] crate::set_up::Error),
    /// A stored secret does not open.
    #[error("a stored secret does not open: {0}")]
    Seal(#[from] mdm_core::crypto::seal::SealError),
}

impl Busy for DeviceError {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Commands(e) => e.is_busy(),
            Self::Policy(e) => e.is_busy(),
            Self::Enroll(e) => e.is_busy(),
            Self::Renewal(e) => e.is_busy(),
            Self::Account(e) => e.is_busy(),
            Self::SetUp(e) => e.is_busy(),
            _ => false,
        }
    }
}

impl DeviceError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoDeclaration => StatusCode::NOT_FOUND,
            Self::UserNotManaged => StatusCode::GONE,
            Self::Unenroll => StatusCode::FORBIDDEN,
            Self::SignInAgain { .. } => StatusCode::UNAUTHORIZED,
            Self::Enroll(e) if e.refusal().is_some() => StatusCode::BAD_REQUEST,
            Self::Body | Self::Message(_) | Self::Identity(_) | Self::Denied(_) | Self::Refused(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Busy
            | Self::Store(_)
            | Self::Commands(_)
            | Self::Policy(_)
            | Self::Renewal(_)
            | Self::Enroll(_)
            | Self::Account(_)
            | Self::SetUp(_)
            | Self::Seal(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Writes the one log line of this error.
    pub(crate) fn log(&self) {
        let status = self.status().as_u16();
        metrics::counter!("device_requests_refused_total", "status" => status.to_string()).increment(1);
        if status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            tracing::error!(status, error = %self, "a device's request could not be served");
        } else {
            tracing::info!(status, error = %self, "a device's request was refused");
        }
    }
}

/// The answer to an error.
pub(crate) fn error(error: &DeviceError, random: &Random) -> Response {
    if matches!(error, DeviceError::Unenroll) {
        let body = r#"{"code":"com.apple.unrecognized.device","description":"The administrator removed this device"}"#;
        return response(StatusCode::FORBIDDEN, Some("application/json"), body.into());
    }
    if let DeviceError::SignInAgain { www_authenticate, .. } = error {
        // Without its challenge a 401 would unenroll the device: then rather refuse.
        let Ok(challenge) = HeaderValue::from_str(www_authenticate) else {
            return response(StatusCode::BAD_REQUEST, None, Body::empty());
        };
        let mut response = response(StatusCode::UNAUTHORIZED, None, Body::empty());
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let mut response = response(error.status(), None, Body::empty());
    match error.status() {
        StatusCode::SERVICE_UNAVAILABLE => {
            // Spread, so that a fleet does not come back as one (RG-20).
            let seconds = 10 + random.below(50);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("PUT, POST"));
        }
        _ => {}
    }
    response
}

/// "Taken": an accepted check-in message, or the end of a session.
pub(crate) fn empty() -> Response {
    response(StatusCode::OK, None, Body::empty())
}

/// The next command, as it was stored.
pub(crate) fn command(body: Vec<u8>) -> Response {
    response(StatusCode::OK, Some("application/xml; charset=UTF-8"), body.into())
}

/// A property list that answers a check-in message.
pub(crate) fn plist(body: Vec<u8>) -> Response {
    response(StatusCode::OK, Some("application/xml; charset=UTF-8"), body.into())
}

/// JSON of the declarative protocol.
pub(crate) fn json(body: &serde_json::Value) -> Response {
    response(StatusCode::OK, Some("application/json"), body.to_string().into())
}

fn response(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}
