//! How many requests are looked at: a bucket for each address, and one for all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mdm_core::time::Timestamp;

const MINUTE_MS: u64 = 60_000;
/// Addresses that are remembered; beyond that, those with a full bucket are forgotten, which changes nothing for them.
const MAX_ADDRESSES: usize = 20_000;

/// A bucket that fills evenly, up to what one minute allows.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Milliseconds' worth of requests that are left.
    left: u64,
    at: Timestamp,
}

impl Bucket {
    fn full(now: Timestamp) -> Self {
        Self { left: MINUTE_MS, at: now }
    }

    fn fill(&mut self, now: Timestamp) {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_add(passed).min(MINUTE_MS);
        self.at = now;
    }

    /// Takes one request out; how long to wait where there is none left.
    fn take(&mut self, per_minute: u32, now: Timestamp) -> Result<(), Duration> {
        self.fill(now);
        let cost = MINUTE_MS / u64::from(per_minute.max(1));
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Duration::from_millis(cost - self.left)),
        }
    }
}

/// Counts requests.
#[derive(Debug)]
pub(super) struct Limiter {
    per_address: u32,
    together: u32,
    buckets: Mutex<(Option<Bucket>, HashMap<IpAddr, Bucket>)>,
}

impl Limiter {
    pub(super) fn new(per_address: u32, together: u32) -> Self {
        Self { per_address, together, buckets: Mutex::default() }
    }

    /// Whole seconds to wait, where this request is one too many.
    pub(super) fn refuse(&self, from: Option<IpAddr>, now: Timestamp) -> Option<u64> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, each) = &mut *buckets;
        if each.len() >= MAX_ADDRESSES {
            each.retain(|_, bucket| {
                bucket.fill(now);
                bucket.left < MINUTE_MS
            });
        }
        let own =
            from.map_or(Ok(()), |ip| each.entry(network(ip)).or_insert(Bucket::full(now)).take(self.per_address, now));
        // Somebody who is refused for himself takes nothing from the others.
        let waited = own.and_then(|()| all.get_or_insert(Bucket::full(now)).take(self.together, now));
        waited.err().map(|wait| wait.as_secs() + 1)
    }
}

/// One customer is one IPv4 address, or one IPv6 network of 64 bits.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn passed(limiter: &Limiter, from: &str, times: usize, now: Timestamp) -> usize {
        (0..times).filter(|_| limiter.refuse(Some(from.parse().unwrap()), now).is_none()).count()
    }

    #[test]
    fn th_31_one_address_gets_its_share_and_then_waits() {
        let limiter = Limiter::new(30, 1200);
        assert_eq!(passed(&limiter, "192.0.2.1", 100, NOW), 30);
        assert_eq!(limiter.refuse(Some("192.0.2.1".parse().unwrap()), NOW), Some(3));
        assert_eq!(passed(&limiter, "192.0.2.2", 10, NOW), 10);
        assert_eq!(passed(&limiter, "192.0.2.1", 100, NOW.plus(Duration::from_secs(20))), 10);
    }

    #[test]
    fn one_ipv6_network_is_one_customer_and_all_together_are_bounded() {
        let limiter = Limiter::new(30, 50);
        assert_eq!(passed(&limiter, "2001:db8::1", 20, NOW) + passed(&limiter, "2001:db8::2", 20, NOW), 30);
        let others: usize = (1..=9).map(|n| passed(&limiter, &format!("192.0.2.{n}"), 10, NOW)).sum();
        assert_eq!(others, 20);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_takes_nothing() {
        let limiter = Limiter::new(2, 100);
        assert_eq!(passed(&limiter, "192.0.2.1", 5, NOW), 2);
        assert_eq!(passed(&limiter, "192.0.2.1", 5, NOW.minus(Duration::from_mins(10))), 0);
    }
}
