//! The pace of pushes: so many a second, so that devices that were all woken do not all come at once (RG-20).

use std::time::{Duration, Instant};

/// How much may be saved up: after a pause, a burst of at most this long.
const BURST: Duration = Duration::from_secs(1);

/// An allowance that fills with time: monotonic time, whatever the clock of the server does.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    /// `per_second` pushes a second, at least one.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self { every: Duration::from_secs(1) / per_second.max(1), next: now }
    }

    /// Takes what is allowed at `now`, at most `most`.
    pub(crate) fn take(&mut self, most: usize, now: Instant) -> usize {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.next = self.next.max(earliest);
        let saved = now.saturating_duration_since(self.next).as_nanos() / self.every.as_nanos().max(1);
        let taken = usize::try_from(saved).unwrap_or(usize::MAX).min(most);
        self.next += self.every * u32::try_from(taken).unwrap_or(u32::MAX);
        taken
    }

    /// Gives back what was taken and not used.
    pub(crate) fn give_back(&mut self, unused: usize) {
        let back = self.every * u32::try_from(unused).unwrap_or(u32::MAX);
        self.next = self.next.checked_sub(back).unwrap_or(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rg_20_no_more_than_the_pace_allows() {
        let mut now = Instant::now();
        let mut pace = Pace::new(200, now);
        let mut sent = 0;
        for _ in 0..100 {
            now += Duration::from_millis(100);
            sent += pace.take(1000, now);
        }
        assert_eq!(sent, 2000);
        now += Duration::from_hours(1);
        assert_eq!(pace.take(1000, now), 200, "a pause does not make a burst longer than a second's worth");
        assert_eq!(pace.take(1000, now), 0);
        pace.give_back(5);
        assert_eq!(pace.take(1000, now), 5);
    }
}
