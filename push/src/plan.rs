//! What to do with a wish that was taken, and what follows from the outcome: pure, so that it is tested as a table.

use std::time::Duration;

use mdm_core::secret::Secret;
use mdm_core::time::Timestamp;
use store::push::{Leased, PARKED};

use crate::schedule::{self, Draw};
use crate::{KEEP, Outcome, Target};

/// Wishes that come within this time after a push wait for its end, so that a burst of commands makes few pushes.
const COALESCE: Duration = Duration::from_secs(2);

/// Whether a topic can be pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    /// It can.
    Open,
    /// It cannot, and waits until then at the latest.
    Closed(Timestamp),
}

/// What to do with a wish.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Push now.
    Send(Target),
    /// Wait until then, and look again.
    Wait(Timestamp, &'static str),
    /// Wait for a `TokenUpdate`.
    Park,
    /// The enrollment is over.
    Drop,
}

/// Plans for one wish at `now`; `road` knows the topics.
pub(crate) fn plan(row: &Leased, now: Timestamp, draw: Draw, road: impl FnOnce(&str) -> Road) -> Plan {
    if row.state == "unenrolled" {
        return Plan::Drop;
    }
    let (Some(topic), Some(token), Some(magic), None) =
        (&row.topic, &row.push_token, &row.push_magic, row.push_dead_at)
    else {
        return Plan::Park;
    };
    if let Some(at) = row.not_now_at {
        let again = Timestamp(at).plus(schedule::not_now(count(row.not_now_times), draw));
        if again > now {
            return Plan::Wait(again, "not_now");
        }
    }
    match road(topic) {
        Road::Closed(until) => Plan::Wait(until, "held"),
        Road::Open => Plan::Send(Target {
            token: token.clone(),
            push_magic: Secret::new(magic.clone()),
            topic: topic.clone(),
            expiration: now.plus(KEEP),
        }),
    }
}

/// When a wish is due again, and its counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) due_at: Timestamp,
    pub(crate) not_before: Timestamp,
    pub(crate) attempt: i64,
    pub(crate) failures: i64,
}

impl Next {
    /// Unchanged, but due at `at`; a new wish does not wait.
    pub(crate) fn at(row: &Leased, at: Timestamp) -> Self {
        Self { due_at: at, not_before: Timestamp(0), attempt: row.attempt, failures: row.failures }
    }

    /// Due when a `TokenUpdate` comes.
    pub(crate) fn parked() -> Self {
        Self { due_at: PARKED, not_before: PARKED, attempt: 0, failures: 0 }
    }
}

/// What follows from an outcome at `now`; `dead` says whether the token was found dead by it.
pub(crate) fn after(row: &Leased, outcome: &Outcome, dead: bool, now: Timestamp, draw: Draw) -> Next {
    let failed = |gap: Duration| {
        let again = now.plus(gap);
        Next { due_at: again, not_before: again, attempt: row.attempt, failures: row.failures + 1 }
    };
    let failures = count(row.failures + 1);
    match outcome {
        Outcome::Accepted { .. } => Next {
            due_at: now.plus(schedule::unanswered(count(row.attempt + 1), draw)),
            not_before: now.plus(COALESCE),
            attempt: row.attempt + 1,
            failures: 0,
        },
        Outcome::Unregistered { .. } | Outcome::BadToken { .. } if dead => Next::parked(),
        // APNs speaks of a token that a later TokenUpdate has outdone: try again, ever more rarely.
        Outcome::Unregistered { .. } | Outcome::BadToken { .. } => failed(schedule::throttled(failures, None, draw)),
        Outcome::Rejected { .. } => Next::at(row, now.plus(schedule::TOPIC_RESTS)),
        Outcome::Throttled { after } => failed(schedule::throttled(failures, *after, draw)),
        Outcome::Retry { after, .. } => failed(schedule::failure(failures, *after, draw)),
    }
}

fn count(n: i64) -> u32 {
    u32::try_from(n.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn row() -> Leased {
        Leased {
            enrollment_id: uuid::Uuid::nil(),
            state: "enrolled".to_owned(),
            topic: Some("com.apple.mgmt.External.x".to_owned()),
            push_token: Some(vec![1; 32]),
            push_magic: Some("magic".to_owned()),
            push_dead_at: None,
            version: 1,
            attempt: 0,
            failures: 0,
            not_now_at: None,
            not_now_times: 0,
        }
    }

    fn planned(row: &Leased, road: Road) -> String {
        match plan(row, NOW, Draw::new(0), |_| road) {
            Plan::Send(target) => format!("send until {}", target.expiration.since(NOW).as_secs()),
            Plan::Wait(until, why) => format!("{why} {}", until.since(NOW).as_secs()),
            Plan::Park => "park".to_owned(),
            Plan::Drop => "drop".to_owned(),
        }
    }

    #[test]
    fn rg_18_a_push_is_kept_for_seven_days() {
        assert_eq!(planned(&row(), Road::Open), format!("send until {}", 7 * 24 * 3600));
    }

    #[test]
    fn what_cannot_be_sent_waits_for_what_it_lacks() {
        assert_eq!(planned(&row(), Road::Closed(NOW.plus(Duration::from_secs(9)))), "held 9");
        assert_eq!(planned(&Leased { state: "unenrolled".to_owned(), ..row() }, Road::Open), "drop");
        assert_eq!(planned(&Leased { push_token: None, ..row() }, Road::Open), "park");
        assert_eq!(planned(&Leased { push_dead_at: Some(1), ..row() }, Road::Open), "park");
        let said_not_now = Leased { not_now_at: Some(NOW.0), not_now_times: 2, ..row() };
        assert_eq!(planned(&said_not_now, Road::Open), format!("not_now {}", 30 * 60));
        let long_ago = Leased { not_now_at: Some(NOW.0 - 86_400_000), not_now_times: 2, ..row() };
        assert!(planned(&long_ago, Road::Open).starts_with("send"));
    }

    #[test]
    fn rg_17_what_follows_from_an_outcome() {
        let next = |outcome: Outcome, dead| {
            let next = after(&row(), &outcome, dead, NOW, Draw::new(0));
            let due = next.due_at.since(NOW).as_millis();
            (if next.due_at == PARKED { 0 } else { due }, next.not_before > NOW, next.attempt, next.failures)
        };
        let unregistered = || Outcome::Unregistered { since: None };
        assert_eq!(next(Outcome::Accepted { apns_id: None }, false), (600_000, true, 1, 0));
        assert_eq!(next(unregistered(), true), (0, true, 0, 0));
        assert_eq!(next(unregistered(), false), (30_000, true, 0, 1));
        assert_eq!(next(Outcome::BadToken { reason: String::new() }, true), (0, true, 0, 0));
        assert_eq!(next(Outcome::Rejected { reason: String::new() }, false), (3_600_000, false, 0, 0));
        let asked = Some(Duration::from_secs(90));
        assert_eq!(next(Outcome::Throttled { after: asked }, false), (90_000, true, 0, 1));
        assert_eq!(next(Outcome::broken("x"), false), (500, true, 0, 1));
    }
}
