//! What is written where somebody is refused: the reason, for operators. The device hears only what Apple's format carries.

use mdm_core::ids::EnrollmentId;
use mdm_core::rate::{Buckets, Rate};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::Store;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Mode;

/// How often one reason is written as an event for one mode: the log has them all, the database must not be filled by strangers.
const EVENTS: Rate = Rate { burst: 20, per_second: 1.0 / 60.0 };

/// How full the bucket of each mode and reason is.
pub(crate) type Written = Buckets<(&'static str, &'static str)>;

/// A refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refusal<'a> {
    pub(crate) mode: Mode,
    /// At which step: `profile`, `sign_in`, `authorize`, `token`.
    pub(crate) step: &'static str,
    /// A stable word.
    pub(crate) why: &'static str,
    /// Whose token or sign-in it was, where that is known.
    pub(crate) account: Option<&'a str>,
    /// The token's key.
    pub(crate) token: Option<Uuid>,
    /// The enrollment that the token belongs to.
    pub(crate) enrollment: Option<EnrollmentId>,
}

impl<'a> Refusal<'a> {
    /// One of which nothing else is known.
    pub(crate) fn new(mode: Mode, step: &'static str, why: &'static str) -> Self {
        Self { mode, step, why, account: None, token: None, enrollment: None }
    }

    /// One that concerns this token.
    pub(crate) fn of(self, row: &'a store::account_tokens::Row) -> Self {
        Self {
            account: Some(&row.managed_apple_account),
            token: Some(row.id),
            enrollment: row.enrollment_id.map(EnrollmentId),
            ..self
        }
    }

    /// Writes the log line, and the event in a transaction of its own: that of the request was given up, or changes nothing.
    pub(crate) async fn write(&self, store: &Store, written: &Written, now: Timestamp) {
        let (mode, step, why) = (self.mode.as_str(), self.step, self.why);
        metrics::counter!("account_requests_refused_total", "mode" => mode, "why" => why).increment(1);
        tracing::info!(mode, step, why, "a request of account-driven enrollment was refused");
        if !written.take((mode, why), EVENTS, now) {
            return;
        }
        let event = NewEvent {
            at: now,
            kind: "account.refused",
            enrollment: self.enrollment,
            command: None,
            actor: "device",
            summary: "A request of account-driven enrollment was refused",
            data: &json!({
                "mode": self.mode.as_str(),
                "step": self.step,
                "why": self.why,
                "managed_apple_account": self.account,
                "token": self.token,
            }),
        };
        store::events::record_alone(store, &event).await;
    }
}
