//! When a certificate is renewed, when a renewal that failed is tried again, and when its end is an alarm. Pure.
//!
//! Apple's documentation knows no renewal of an ACME certificate by the device (acme.md section 8): the profile is installed again,
//! with the same `PayloadIdentifier`, and the device gets a new certificate.

use std::time::Duration;

use mdm_core::ids::{EnrollmentId, Fingerprint};
use mdm_core::time::Timestamp;

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The longest that the renewals of a fleet are spread over.
const WIDEST_SPREAD: Duration = Duration::from_hours(14 * 24);

/// From how long before its end a certificate that was not renewed is an alarm, at most.
pub const WORRY_LONGEST: Duration = Duration::from_hours(30 * 24);

/// One in so many parts of its life before its end, a certificate that was not renewed is an alarm.
pub use store::certificates::WORRY_SHARE;

/// When a certificate that is valid from `not_before` until `not_after` is renewed: once `percent` of its life are over, and at most
/// a quarter of what is left then (14 days at most) later, by the enrollment, so that a fleet that got its certificates in one
/// hour does not renew them in one hour.
pub fn renew_at(enrollment: EnrollmentId, not_before: Timestamp, not_after: Timestamp, percent: u8) -> Timestamp {
    let life = not_after.since(not_before);
    let share = f64::from(percent.min(100)) / 100.0;
    let opens = not_before.plus(life.mul_f64(share));
    let width = (not_after.since(opens) / 4).min(WIDEST_SPREAD);
    opens.plus(width.mul_f64(fraction(enrollment, not_after)))
}

/// When a renewal is tried again after its `failures`th failure in a row, of a certificate that ends at `not_after`: an hour later at
/// first, then twice as long each time, a day at most, and near the end a quarter of what is left; never within an hour. It does
/// not end: a device whose certificate has ended is tried once a day.
pub fn next_renewal_try(failures: i64, not_after: Timestamp, now: Timestamp) -> Timestamp {
    let doublings = u32::try_from(failures.saturating_sub(1).clamp(0, 5)).unwrap_or_default();
    let wish = (HOUR * 2u32.pow(doublings)).min(DAY);
    let left = not_after.since(now);
    let wait = if left.is_zero() { DAY } else { wish.min(left / 4) };
    now.plus(wait.max(HOUR))
}

/// What is wrong with a certificate that should have been renewed by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Alarm {
    /// It ends within the last fifteenth of its life (30 days at most).
    EndsSoon,
    /// It has ended.
    Ended,
}

impl Alarm {
    /// The word in the database, in events and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndsSoon => "ends_soon",
            Self::Ended => "ended",
        }
    }
}

/// Whether the end of a certificate in use, with a life of `life`, is an alarm at `now`.
pub fn alarm(not_after: Timestamp, life: Duration, now: Timestamp) -> Option<Alarm> {
    if now >= not_after {
        return Some(Alarm::Ended);
    }
    let worry = (life / WORRY_SHARE).min(WORRY_LONGEST);
    (not_after.since(now) <= worry).then_some(Alarm::EndsSoon)
}

/// A number from 0 to 1 that is the same for the same enrollment and certificate.
fn fraction(enrollment: EnrollmentId, not_after: Timestamp) -> f64 {
    let digest = Fingerprint::of(&[&enrollment.0.as_bytes()[..], &not_after.0.to_be_bytes()].concat()).0;
    let [a, b, c, d, ..] = digest;
    f64::from(u32::from_be_bytes([a, b, c, d])) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const START: Timestamp = Timestamp(1_800_000_000_000);
    const YEAR: Duration = Duration::from_hours(365 * 24);

    fn id(n: u128) -> EnrollmentId {
        EnrollmentId(Uuid::from_u128(n))
    }

    #[test]
    fn a_fleet_that_got_its_certificates_at_once_is_renewed_over_two_weeks() {
        let times: Vec<i64> = (0..1_000).map(|n| renew_at(id(n), START, START.plus(YEAR), 66).0).collect();
        let opens = START.plus(YEAR.mul_f64(0.66));
        let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        assert!(first >= opens.0 && last <= opens.plus(WIDEST_SPREAD).0);
        let busiest = (0..14).map(|day| {
            let from = opens.plus(DAY * day);
            times.iter().filter(|t| (from.0..from.plus(DAY).0).contains(t)).count()
        });
        assert!(busiest.max().unwrap() < 120, "a fourteenth of a thousand is 71");
    }

    #[test]
    fn a_certificate_of_a_day_is_renewed_in_time_too() {
        let at = renew_at(id(7), START, START.plus(DAY), 66);
        assert!(at >= START.plus(DAY.mul_f64(0.66)) && at <= START.plus(DAY.mul_f64(0.75)));
    }

    #[test]
    fn failures_are_tried_again_rarely_and_for_ever() {
        let end = START.plus(YEAR);
        let hours = |failures| next_renewal_try(failures, end, START).since(START).as_secs() / 3600;
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 1_000_000].map(hours), [1, 1, 2, 4, 8, 16, 24, 24, 24]);
        assert_eq!(next_renewal_try(9, START.plus(HOUR * 8), START), START.plus(HOUR * 2), "a quarter of what is left");
        assert_eq!(next_renewal_try(9, START.plus(HOUR), START), START.plus(HOUR), "never within an hour");
        assert_eq!(next_renewal_try(1, START, START.plus(DAY)), START.plus(DAY * 2), "after its end, once a day");
    }

    #[test]
    fn the_end_is_an_alarm_before_it_comes() {
        let end = START.plus(YEAR);
        let at = |before: Duration| alarm(end, YEAR, end.minus(before));
        assert_eq!(at(DAY * 25), None);
        assert_eq!(at(DAY * 24), Some(Alarm::EndsSoon));
        assert_eq!(at(Duration::ZERO), Some(Alarm::Ended));
        assert_eq!(alarm(end, YEAR * 10, end.minus(DAY * 31)), None, "30 days at most");
        assert_eq!(alarm(end, DAY, end.minus(HOUR)), Some(Alarm::EndsSoon), "certificates of a day");
    }

    proptest! {
        #[test]
        fn a_renewal_lies_between_its_share_and_the_end(
            n: u128, start in 0i64..2_000_000_000_000, minutes in 5u64..10_000_000, percent in 10u8..=90,
        ) {
            let (from, life) = (Timestamp(start), Duration::from_secs(minutes * 60));
            let until = from.plus(life);
            let at = renew_at(id(n), from, until, percent);
            prop_assert_eq!(at, renew_at(id(n), from, until, percent));
            let opens = from.plus(life.mul_f64(f64::from(percent) / 100.0));
            prop_assert!(at >= opens && at < until);
            prop_assert!(at.since(opens) <= until.since(opens) / 4 + Duration::from_millis(1));
            // It is not an alarm before there was time to renew it.
            prop_assert_eq!(alarm(until, life, at), None);
        }

        #[test]
        fn tries_are_an_hour_apart_at_least_and_a_day_at_most(failures: i64, end in -1_000_000_000_000i64..1_000_000_000_000) {
            let next = next_renewal_try(failures, Timestamp(end), Timestamp(0)).since(Timestamp(0));
            prop_assert!((HOUR..=DAY).contains(&next));
        }
    }
}
