//! Putting a label on an enrollment and taking it off: the row, the event, and the policies that it concerns, in one transaction.

use mdm_core::ids::{EnrollmentId, InvalidId, Label};
use serde_json::json;
use store::events::NewEvent;
use uuid::Uuid;

use crate::Shared;
use crate::auth::Caller;
use crate::problem::Problem;

/// Puts a label on; nothing is said where it was on before.
pub(super) async fn put(shared: &Shared, caller: &Caller, id: Uuid, label: &str) -> Result<(), Problem> {
    change(shared, caller, id, label, true).await
}

/// Takes a label off; nothing is said where it was not on.
pub(super) async fn remove(shared: &Shared, caller: &Caller, id: Uuid, label: &str) -> Result<(), Problem> {
    change(shared, caller, id, label, false).await
}

async fn change(shared: &Shared, caller: &Caller, id: Uuid, label: &str, on: bool) -> Result<(), Problem> {
    let label: Label = label.parse().map_err(|e: InvalidId| Problem::field("label", e.why))?;
    let (id, now) = (EnrollmentId(id), shared.clock.now());
    store::retry(async || {
        let mut tx = shared.store.begin().await?;
        super::find(&mut tx, id.0).await?;
        policy::label_rules::refuse_by_hand(&mut tx, &label).await?;
        let (changed, kind, done) = if on {
            (store::labels::put(&mut tx, id, &label).await?, "enrollment.labelled", "put on")
        } else {
            (store::labels::remove(&mut tx, id, &label).await?, "enrollment.unlabelled", "taken off")
        };
        if changed {
            let event = NewEvent {
                enrollment: Some(id),
                summary: &format!("label {label} was {done}"),
                data: &json!({ "label": label }),
                ..caller.event(now, kind)
            };
            store::events::record(&mut tx, &event).await?;
            policy::labels_changed(&mut tx, &shared.policy, &[id], now).await?;
        }
        Ok(tx.commit().await?)
    })
    .await
}
