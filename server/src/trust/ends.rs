//! The ends of certificates and tokens: one judgement for `assay check`, the readiness page, the log and the API.

use std::time::Duration;

use mdm_core::certificate::Certificate;
use mdm_core::time::Timestamp;

/// A day.
pub const DAY: Duration = Duration::from_secs(86_400);
/// From how long before its end something is warned of.
pub const NOTICE: Duration = Duration::from_secs(30 * 86_400);
/// From how long before its end that is said every hour.
pub const URGENT: Duration = Duration::from_secs(7 * 86_400);

/// How far away an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Not near.
    Far,
    /// Nearer than the notice: so many whole days.
    Soon {
        /// Whole days that are left.
        days: u64,
        /// Less than a week.
        urgent: bool,
    },
    /// It has come.
    Over,
}

/// How far away the end `not_after` is, where it is to be told of from `notice` before.
pub fn of(not_after: Timestamp, now: Timestamp, notice: Duration) -> End {
    let left = not_after.since(now);
    if not_after <= now {
        End::Over
    } else if left < notice {
        End::Soon { days: left.as_secs() / DAY.as_secs(), urgent: left < URGENT }
    } else {
        End::Far
    }
}

/// The end of a certificate. One that lives for a short time only is warned of in the last third of its life.
pub fn of_certificate(certificate: &Certificate, now: Timestamp) -> End {
    let life = certificate.not_after().since(certificate.not_before());
    of(certificate.not_after(), now, NOTICE.min(life / 3))
}

/// `in 5 days`, `today`.
pub fn in_days(days: u64) -> String {
    match days {
        0 => "within a day".to_owned(),
        1 => "in 1 day".to_owned(),
        more => format!("in {more} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_far_soon_or_over() {
        let now = Timestamp(1_800_000_000_000);
        let judge = |ahead: Duration| of(now.plus(ahead), now, NOTICE);
        assert_eq!(judge(NOTICE), End::Far);
        assert_eq!(judge(NOTICE.saturating_sub(Duration::from_secs(1))), End::Soon { days: 29, urgent: false });
        assert_eq!(judge(7 * DAY), End::Soon { days: 7, urgent: false });
        assert_eq!(judge(Duration::from_secs(60)), End::Soon { days: 0, urgent: true });
        assert_eq!(judge(Duration::ZERO), End::Over);
        assert_eq!(of(now.minus(DAY), now, NOTICE), End::Over);
        assert_eq!([in_days(0), in_days(1), in_days(2)], ["within a day", "in 1 day", "in 2 days"]);
    }
}
