//! Setup Assistant: a device that says `AwaitingConfiguration` waits until it is told to go on (Apple, `TokenUpdate`,
//! `DeviceConfigured`, `UserConfigured`; ADE profile key `await_device_configured`).
//!
//! It is told so last, when the commands and policies of its set-up are done; or when the door's time for that is over. A
//! device must never be left waiting: what was told and did not reach it is told again. `decide` is pure.

use std::time::Duration;

use commands::{Done, Lane, New, Outcome, Rendering};
use mdm_core::command::{Command, DeviceConfigured, UserConfigured};
use mdm_core::enrollment::{EnrollmentState, UserKey};
use mdm_core::ids::{CommandUuid, EnrollmentId};
use mdm_core::time::Timestamp;
use serde_json::json;
use store::enrollments::{self, Enrollment};
use store::events::NewEvent;
use store::set_up::{self, Queue};
use store::{Busy, Store, Tx};

/// How long after a device was told to go on it is looked at again, at first; then as long again as it has been waiting.
const AGAIN: Duration = Duration::from_mins(5);
/// At most that long.
const AGAIN_AT_MOST: Duration = Duration::from_hours(24);

/// Why a device could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue failed.
    #[error(transparent)]
    Commands(#[from] commands::Error),
    /// The settings of its door cannot be read.
    #[error(transparent)]
    Door(#[from] enroll::Error),
}

impl Busy for Error {
    fn is_busy(&self) -> bool {
        match self {
            Self::Store(e) => e.is_busy(),
            Self::Commands(e) => e.is_busy(),
            Self::Door(e) => e.is_busy(),
        }
    }
}

/// A device in Setup Assistant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    /// Whether it waits.
    waits: bool,
    /// When it is let go on at the latest, or, once it was told, looked at again.
    until: Option<Timestamp>,
    /// When it was first told to go on.
    released_at: Option<Timestamp>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: it does not wait.
    Over,
    /// It waits on.
    Wait,
    /// It was told and has not answered: looked at again then.
    LookAgain(Timestamp),
    /// It is told to go on.
    Release(Lane),
}

/// Decides what to do about a device.
fn decide(hold: Hold, queue: Queue, now: Timestamp) -> Step {
    let Some(until) = hold.until.filter(|_| hold.waits) else {
        return Step::Over;
    };
    if queue.released {
        return if now < until { Step::Wait } else { Step::LookAgain(again(hold.released_at, now)) };
    }
    if now >= until {
        // What stands before it has had its time, or it was told and went on waiting.
        return Step::Release(Lane::Urgent);
    }
    if hold.released_at.is_some() || queue.commands || queue.policies {
        return Step::Wait;
    }
    Step::Release(Lane::Normal)
}

fn again(released_at: Option<Timestamp>, now: Timestamp) -> Timestamp {
    let waited = released_at.map_or(AGAIN, |at| now.since(at));
    now.plus(waited.clamp(AGAIN, AGAIN_AT_MOST))
}

/// The command that lets this enrollment go on.
fn release(enrollment: &Enrollment) -> Command {
    match enrollment.user_key {
        Some(UserKey::SharedIpad(_)) => UserConfigured.into(),
        Some(UserKey::UserId(_)) | None => DeviceConfigured.into(),
    }
}

/// A `TokenUpdate` said whether this enrollment waits.
pub(crate) async fn told(
    tx: &mut Tx,
    queue: &commands::Context,
    enrollment: &Enrollment,
    now: Timestamp,
) -> Result<(), Error> {
    if !enrollment.awaiting_configuration {
        if enrollment.set_up_until.is_some() {
            set_up::over(tx, enrollment.id).await?;
        }
        return Ok(());
    }
    if enrollment.set_up_until.is_none() {
        let settings = enroll::door::load(tx, enrollment.door).await?;
        let until = now.plus(Duration::from_secs(u64::from(settings.set_up_minutes) * 60));
        set_up::until(tx, enrollment.id, until, None).await?;
    }
    look(tx, queue, enrollment.id, now).await.map(drop)
}

/// Looks at an enrollment that may wait; true where it was told to go on just now.
pub(crate) async fn look(
    tx: &mut Tx,
    ctx: &commands::Context,
    id: EnrollmentId,
    now: Timestamp,
) -> Result<bool, Error> {
    enrollments::lock(tx, id).await?;
    let Some(enrollment) = enrollments::get(tx, id).await? else { return Ok(false) };
    let live = matches!(enrollment.state, EnrollmentState::Enrolled { .. });
    let hold = Hold {
        waits: live && enrollment.awaiting_configuration,
        until: enrollment.set_up_until,
        released_at: enrollment.set_up_done_at,
    };
    let command = release(&enrollment);
    let queue = set_up::queue(tx, id, command.request_type()).await?;
    match decide(hold, queue, now) {
        Step::Over if enrollment.set_up_until.is_some() => {
            set_up::over(tx, id).await?;
            Ok(false)
        }
        Step::Over | Step::Wait => Ok(false),
        Step::LookAgain(at) => {
            set_up::until(tx, id, at, None).await?;
            Ok(false)
        }
        Step::Release(lane) => {
            let late = lane == Lane::Urgent;
            let text = ctx.random.uuid_v4().hyphenated().to_string().to_uppercase();
            let uuid: CommandUuid = text.parse().expect("a UUID has the form of a CommandUUID");
            let envelope = command.envelope(uuid);
            let new = New {
                uuid: envelope.uuid.clone(),
                request_type: &envelope.request_type,
                rendering: Rendering::Plain,
                body: &envelope.body,
                lane,
                coalescing_key: None,
                ttl: None,
                created_by: "server",
                push: true,
            };
            commands::enqueue(tx, ctx, &new, &[id], now).await?;
            set_up::until(tx, id, again(hold.released_at, now), Some(now)).await?;
            let event = NewEvent {
                at: now,
                kind: "enrollment.set_up_released",
                enrollment: Some(id),
                command: Some(&envelope.uuid),
                actor: "server",
                summary: if late {
                    "The device is let go on in Setup Assistant: the time for its set-up commands is over"
                } else {
                    "The device is let go on in Setup Assistant: its set-up commands are done"
                },
                data: &json!({ "request_type": envelope.request_type, "late": late }),
            };
            store::events::record(tx, &event).await?;
            Ok(true)
        }
    }
}

/// A command of this enrollment has ended: perhaps the one that let it go on.
pub(crate) async fn answered(tx: &mut Tx, id: EnrollmentId, done: &Done) -> Result<(), Error> {
    let releases = ["DeviceConfigured", "UserConfigured"].contains(&done.request_type.as_str());
    if releases && done.outcome == Outcome::Acknowledged {
        set_up::over(tx, id).await?;
    }
    Ok(())
}

/// Looks at the enrollments that are due, each in a transaction of its own; gives how many there were.
///
/// # Errors
/// The database failed. One enrollment that cannot be looked at holds up no other.
pub async fn run_once(
    store: &Store,
    ctx: &commands::Context,
    now: Timestamp,
    limit: i64,
) -> Result<usize, store::Error> {
    let due = set_up::due(&mut store.read().await?, now, limit).await?;
    for id in &due {
        let looked = store::retry(|| async {
            let mut tx = store.begin().await?;
            look(&mut tx, ctx, *id, now).await?;
            tx.commit().await?;
            Ok::<_, Error>(())
        });
        if let Err(error) = looked.await {
            tracing::error!(enrollment.id = %id, %error, "a device in Setup Assistant could not be looked at; tried again");
        }
    }
    Ok(due.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp(1_795_320_000_000);

    #[test]
    fn a_device_is_let_go_on_last() {
        let until = START.plus(Duration::from_mins(30));
        let hold = Hold { waits: true, until: Some(until), released_at: None };
        let idle = Queue { commands: false, policies: false, released: false };
        assert_eq!(decide(hold, idle, START), Step::Release(Lane::Normal));
        assert_eq!(decide(hold, Queue { commands: true, ..idle }, START), Step::Wait);
        assert_eq!(decide(hold, Queue { policies: true, ..idle }, START), Step::Wait);
        assert_eq!(decide(hold, Queue { commands: true, policies: true, ..idle }, until), Step::Release(Lane::Urgent));
        assert_eq!(decide(Hold { waits: false, ..hold }, idle, START), Step::Over);
        let told = Hold { released_at: Some(START), until: Some(START.plus(AGAIN)), ..hold };
        assert_eq!(decide(told, idle, START), Step::Wait, "it answered with an error: not at once again");
        assert_eq!(decide(told, idle, START.plus(AGAIN)), Step::Release(Lane::Urgent));
    }

    /// What happens while a device is in Setup Assistant.
    #[derive(Debug, Clone, Copy)]
    enum Happening {
        /// An operator queues something.
        Enqueued,
        /// What was queued has ended.
        Drained,
        /// A policy is assigned, or done.
        Policy(bool),
        /// The command that lets it go on ended without success: an error, a cancel, a stall.
        Lost,
        /// It was carried out.
        Done,
        /// So many minutes go by.
        Later(u64),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            Just(Happening::Enqueued),
            Just(Happening::Drained),
            any::<bool>().prop_map(Happening::Policy),
            Just(Happening::Lost),
            Just(Happening::Done),
            (1_u64..90).prop_map(Happening::Later),
        ]
    }

    proptest! {
        /// Whatever happens in whichever order: a device that waits is told to go on by its time at the latest, never twice at
        /// a time, never before its set-up is done while there is time, and again where it did not hear of it.
        #[test]
        fn no_device_is_left_waiting(happenings in prop::collection::vec(happening(), 0..40)) {
            let deadline = START.plus(Duration::from_mins(30));
            let mut now = START;
            let mut hold = Hold { waits: true, until: Some(deadline), released_at: None };
            let mut queue = Queue { commands: false, policies: true, released: false };
            for happening in happenings.into_iter().chain([Happening::Later(60 * 48)]) {
                match happening {
                    Happening::Enqueued => queue.commands = true,
                    Happening::Drained => queue.commands = false,
                    Happening::Policy(on) => queue.policies = on,
                    Happening::Lost => queue.released = false,
                    Happening::Done if queue.released => {
                        queue.released = false;
                        hold = Hold { waits: false, until: None, ..hold };
                    }
                    Happening::Done => {}
                    Happening::Later(minutes) => now = now.plus(Duration::from_secs(minutes * 60)),
                }
                match decide(hold, queue, now) {
                    Step::Over => prop_assert!(!hold.waits),
                    Step::Wait => {}
                    Step::LookAgain(at) => {
                        prop_assert!(queue.released && at > now && at <= now.plus(AGAIN_AT_MOST));
                        hold.until = Some(at);
                    }
                    Step::Release(lane) => {
                        prop_assert!(hold.waits && !queue.released, "never twice at a time");
                        let done = !queue.commands && !queue.policies;
                        prop_assert!(done || now >= deadline || hold.released_at.is_some());
                        prop_assert_eq!(lane == Lane::Normal, now < deadline && hold.released_at.is_none());
                        queue.released = true;
                        hold.until = Some(again(hold.released_at, now));
                        hold.released_at = hold.released_at.or(Some(now));
                    }
                }
                if hold.waits && now >= deadline && hold.released_at.is_none() {
                    prop_assert!(false, "left waiting");
                }
            }
            prop_assert!(!hold.waits || queue.released, "two days later every device that waits has been told");
        }
    }
}
