//! When to push again: pure, from what happened so far and a random draw.
//!
//! Apple gives no figures. It says that several pushes are coalesced, that daily pushes are not needed, and that a
//! device may sleep for days; APNs keeps the last push until [`crate::KEEP`] has passed. So a device that does not
//! answer is tried a few times with growing gaps, and after that just often enough that APNs never lets go of the push.

use std::time::Duration;

/// Gaps after the first, second and third accepted push that the device did not answer.
const UNANSWERED: [Duration; 3] = [Duration::from_mins(10), Duration::from_hours(1), Duration::from_hours(8)];
/// The gap from then on: before APNs drops the push that it keeps, whatever the jitter adds.
const KEPT_BY_APNS: Duration = Duration::from_hours(6 * 24);

/// The first gap after a session that ended with `NotNow`, and the longest; the device also polls by itself.
const NOT_NOW_FIRST: Duration = Duration::from_mins(15);
const NOT_NOW_LONGEST: Duration = Duration::from_hours(24);

/// The first gap after a failure on the way to APNs, and the longest: an outage that ends is noticed within it.
const FAILURE_FIRST: Duration = Duration::from_secs(1);
const FAILURE_LONGEST: Duration = Duration::from_mins(5);

/// The first gap after a 429 without `Retry-After`, and the longest gap that APNs can ask for.
const THROTTLED_FIRST: Duration = Duration::from_mins(1);
const THROTTLED_LONGEST: Duration = Duration::from_hours(24);

/// How long a topic rests after APNs refused its certificate, until one more try shows whether that still holds.
pub const TOPIC_RESTS: Duration = Duration::from_hours(1);

/// A draw between 0 (none) and [`Draw::FULL`] (all of the jitter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(u32);

impl Draw {
    /// The number of steps that jitter has.
    pub const FULL: u32 = 1 << 16;

    /// A draw out of [`Self::FULL`]; more counts as all.
    pub fn new(steps: u64) -> Self {
        Self(u32::try_from(steps).unwrap_or(Self::FULL).min(Self::FULL))
    }

    fn of(self, most: Duration) -> Duration {
        most.saturating_mul(self.0) / Self::FULL
    }
}

/// After an accepted push, the `attempt`-th (from 1) since the wish to push: when to push again if nothing is heard.
/// Up to a tenth more by jitter.
pub fn unanswered(attempt: u32, draw: Draw) -> Duration {
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let gap = UNANSWERED.get(index).copied().unwrap_or(KEPT_BY_APNS);
    gap + draw.of(gap / 10)
}

/// After the `times`-th session (from 1) in a row that ended with `NotNow`: 15 minutes, doubling to a day.
/// Up to a tenth more by jitter, but never more than a day.
pub fn not_now(times: u32, draw: Draw) -> Duration {
    let gap = doubled(NOT_NOW_FIRST, times, NOT_NOW_LONGEST);
    (gap + draw.of(gap / 10)).min(NOT_NOW_LONGEST)
}

/// After the `times`-th failure (from 1) in a row on the way to APNs: a second, doubling to five minutes, of which
/// half is jitter; `asked` (Retry-After) is the least.
pub fn failure(times: u32, asked: Option<Duration>, draw: Draw) -> Duration {
    let gap = doubled(FAILURE_FIRST, times, FAILURE_LONGEST);
    at_least(gap / 2 + draw.of(gap / 2), asked, draw)
}

/// After the `times`-th 429 (from 1) in a row for one device: a minute, doubling to a day; `asked` (Retry-After) is
/// the least.
pub fn throttled(times: u32, asked: Option<Duration>, draw: Draw) -> Duration {
    let gap = doubled(THROTTLED_FIRST, times, THROTTLED_LONGEST);
    at_least(gap / 2 + draw.of(gap / 2), asked, draw)
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1_u32.checked_shl(times.saturating_sub(1).min(31)).unwrap_or(u32::MAX)).min(longest)
}

/// What APNs asked for, at most a day, and up to a tenth more so that not all come back at once (RG-20).
fn at_least(gap: Duration, asked: Option<Duration>, draw: Draw) -> Duration {
    match asked.map(|a| a.min(THROTTLED_LONGEST)) {
        Some(asked) => gap.max(asked + draw.of(asked / 10)),
        None => gap,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::KEEP;

    const NONE: Draw = Draw(0);

    #[test]
    fn the_table_without_jitter() {
        let minutes = |d: Duration| d.as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 9].map(|n| minutes(unanswered(n, NONE))), [10, 60, 480, 8640, 8640]);
        assert_eq!([1, 2, 3, 7, 8, 40].map(|n| minutes(not_now(n, NONE))), [15, 30, 60, 960, 1440, 1440]);
        let full = |n| failure(n, None, Draw(Draw::FULL)).as_secs();
        assert_eq!([1, 2, 3, 4, 8, 9, 10, 60].map(full), [1, 2, 4, 8, 128, 256, 300, 300]);
        let full = |n| throttled(n, None, Draw(Draw::FULL)).as_secs();
        assert_eq!([1, 2, 3, 60].map(full), [60, 120, 240, 86_400]);
    }

    #[test]
    fn rg_20_retry_after_is_the_least_and_is_spread() {
        let asked = Some(Duration::from_secs(100));
        assert_eq!(throttled(1, asked, NONE).as_secs(), 100);
        assert_eq!(throttled(1, asked, Draw(Draw::FULL)).as_secs(), 110);
        assert_eq!(failure(1, asked, NONE).as_secs(), 100);
        assert_eq!(failure(1, Some(Duration::MAX), NONE), THROTTLED_LONGEST);
    }

    proptest! {
        #[test]
        fn gaps_grow_are_bounded_and_never_zero(times in 0_u32.., draw in 0..=Draw::FULL, asked in any::<Option<u32>>()) {
            let draw = Draw(draw);
            let asked = asked.map(|s| Duration::from_secs(s.into()));
            for gap in [unanswered(times, draw), not_now(times, draw), failure(times, asked, draw), throttled(times, asked, draw)] {
                prop_assert!(gap >= FAILURE_FIRST / 2);
            }
            prop_assert!(unanswered(times, draw) < KEEP);
            prop_assert!(not_now(times, draw) <= NOT_NOW_LONGEST);
            prop_assert!(failure(times, None, draw) <= FAILURE_LONGEST);
            prop_assert!(throttled(times, None, draw) <= THROTTLED_LONGEST);
            prop_assert!(throttled(times, asked, draw) >= asked.unwrap_or_default().min(THROTTLED_LONGEST));
            let next = times.saturating_add(1);
            prop_assert!(unanswered(next, draw) >= unanswered(times, draw));
            prop_assert!(not_now(next, draw) >= not_now(times, draw));
            prop_assert!(failure(next, asked, draw) >= failure(times, asked, draw));
            prop_assert!(throttled(next, asked, draw) >= throttled(times, asked, draw));
        }
    }
}
