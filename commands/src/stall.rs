//! A command that the queue goes on without (RG-07): the device gives no report for it, or none that can be read.

use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use store::Tx;
use store::commands as rows;
use store::events::NewEvent;

use crate::Error;

/// Why a command is called stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Handed out several times over some time, without any report.
    NoReport,
    /// So many answers came that could not be read.
    Unreadable(i64),
}

impl Why {
    fn column(self) -> &'static str {
        match self {
            Self::NoReport => "no report after repeated deliveries",
            Self::Unreadable(_) => "unreadable result",
        }
    }

    fn summary(self) -> &'static str {
        match self {
            Self::NoReport => "The device gives no report for this command; the queue goes on without it",
            Self::Unreadable(_) => {
                "The device's answers to the command in progress cannot be read; the queue goes on without it"
            }
        }
    }

    fn data(self) -> serde_json::Value {
        match self {
            Self::NoReport => serde_json::json!({}),
            Self::Unreadable(answers) => serde_json::json!({ "unreadable_answers": answers }),
        }
    }
}

/// Ends a target as stalled, and tells the operator.
pub(crate) async fn stall(
    tx: &mut Tx,
    enrollment: EnrollmentId,
    seq: i64,
    uuid: Option<&CommandUuid>,
    why: Why,
    now: Timestamp,
) -> Result<(), Error> {
    rows::end(tx, enrollment, seq, "stalled", why.column(), now).await?;
    tracing::warn!(enrollment.id = %enrollment, command.uuid = ?uuid.map(CommandUuid::as_str), why = why.column(), "command stalled");
    let event = NewEvent {
        at: now,
        kind: "command.stalled",
        enrollment: Some(enrollment),
        command: uuid,
        actor: "server",
        summary: why.summary(),
        data: &why.data(),
    };
    Ok(store::events::record(tx, &event).await?)
}
