//! What became of one push: APNs' answer as a decision, by status code first.
//!
//! Source: Apple, "Handling notification responses from APNs".

use std::time::Duration;

use mdm_core::time::Timestamp;

/// What APNs made of a push; the loop decides what follows (RG-17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 200: APNs took it and will deliver it.
    Accepted {
        /// The `apns-id` header.
        apns_id: Option<String>,
    },
    /// 410: the token is no longer active for the topic.
    Unregistered {
        /// When APNs last knew the token to be dead (`timestamp` of the body); a later `TokenUpdate` outdoes it.
        since: Option<Timestamp>,
    },
    /// 400 `BadDeviceToken`, `DeviceTokenNotForTopic` or `MissingDeviceToken`: this token will never work.
    BadToken {
        /// Apple's reason.
        reason: String,
    },
    /// 403, or a 400 that speaks of the topic: no push of this topic will work until the certificate is replaced.
    Rejected {
        /// Apple's reason.
        reason: String,
    },
    /// 429: too many pushes to this token.
    Throttled {
        /// How long to wait, where APNs said so.
        after: Option<Duration>,
    },
    /// Anything that may pass: 500, 503, other statuses, a page of HTML, a broken connection, a time-out.
    Retry {
        /// What happened.
        reason: String,
        /// How long to wait, where APNs said so.
        after: Option<Duration>,
    },
}

impl Outcome {
    /// The word for it in metrics, logs and the database.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Unregistered { .. } => "unregistered",
            Self::BadToken { .. } => "bad_token",
            Self::Rejected { .. } => "rejected",
            Self::Throttled { .. } => "throttled",
            Self::Retry { .. } => "retry",
        }
    }

    /// A fault below HTTP.
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self::Retry { reason: reason.into(), after: None }
    }
}

/// APNs' answer to one push, as far as a client could read it.
#[derive(Debug, Default)]
pub(crate) struct Answer<'a> {
    /// HTTP status.
    pub(crate) status: u16,
    /// `apns-id`.
    pub(crate) apns_id: Option<String>,
    /// `reason` of the JSON body; a client may not know all of Apple's words.
    pub(crate) reason: Option<&'a str>,
    /// `timestamp` of the JSON body, milliseconds since 1970.
    pub(crate) timestamp: Option<i64>,
    /// `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

impl From<Answer<'_>> for Outcome {
    fn from(answer: Answer<'_>) -> Self {
        let said = || answer.reason.map_or_else(|| format!("status {}", answer.status), str::to_owned);
        match (answer.status, answer.reason) {
            (200, _) => Self::Accepted { apns_id: answer.apns_id },
            (400, Some("BadDeviceToken" | "DeviceTokenNotForTopic" | "MissingDeviceToken")) => {
                Self::BadToken { reason: said() }
            }
            (403, _) | (400, Some("BadTopic" | "TopicDisallowed" | "MissingTopic")) => {
                Self::Rejected { reason: said() }
            }
            (410, _) => Self::Unregistered { since: answer.timestamp.map(Timestamp) },
            (429, _) => Self::Throttled { after: answer.retry_after },
            _ => Self::Retry { reason: said(), after: answer.retry_after },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, reason: Option<&str>) -> &'static str {
        Outcome::from(Answer { status, reason, ..Answer::default() }).as_str()
    }

    #[test]
    fn rg_17_answers_are_handled_by_code_then_reason() {
        let table = [
            (200, None, "accepted"),
            (400, Some("BadDeviceToken"), "bad_token"),
            (400, Some("DeviceTokenNotForTopic"), "bad_token"),
            (400, Some("TopicDisallowed"), "rejected"),
            (400, Some("IdleTimeout"), "retry"),
            (400, Some("PayloadEmpty"), "retry"),
            (400, None, "retry"),
            (403, Some("BadCertificate"), "rejected"),
            (403, Some("BadCertificateEnvironment"), "rejected"),
            (403, None, "rejected"),
            (404, Some("BadPath"), "retry"),
            (405, Some("MethodNotAllowed"), "retry"),
            (410, Some("Unregistered"), "unregistered"),
            (410, Some("ExpiredToken"), "unregistered"),
            (410, None, "unregistered"),
            (413, Some("PayloadTooLarge"), "retry"),
            (429, Some("TooManyRequests"), "throttled"),
            (429, None, "throttled"),
            (500, Some("InternalServerError"), "retry"),
            (502, None, "retry"),
            (503, Some("ServiceUnavailable"), "retry"),
            (503, Some("Shutdown"), "retry"),
            (302, None, "retry"),
        ];
        for (status, reason, expected) in table {
            assert_eq!(outcome(status, reason), expected, "{status} {reason:?}");
        }
    }

    #[test]
    fn what_apns_says_of_time_is_kept() {
        let after = Some(Duration::from_secs(7));
        let of = |status| Outcome::from(Answer { status, retry_after: after, timestamp: Some(9), ..Answer::default() });
        assert_eq!(of(429), Outcome::Throttled { after });
        assert_eq!(of(503), Outcome::Retry { reason: "status 503".to_owned(), after });
        assert_eq!(of(410), Outcome::Unregistered { since: Some(Timestamp(9)) });
    }
}
