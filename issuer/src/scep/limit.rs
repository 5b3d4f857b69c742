//! How many requests are looked at: a bucket for each address, and one for all.

use std::net::IpAddr;

use mdm_core::rate::{Buckets, Rate, network};
use mdm_core::time::Timestamp;

/// What a client is told to wait, in seconds.
pub(super) const WAIT: u64 = 10;

/// Counts requests.
#[derive(Debug)]
pub(super) struct Limiter {
    per_address: Rate,
    together: Rate,
    addresses: Buckets<IpAddr>,
    all: Buckets<()>,
}

fn per_minute(requests: u32) -> Rate {
    Rate { burst: requests.max(1), per_second: f64::from(requests.max(1)) / 60.0 }
}

impl Limiter {
    pub(super) fn new(per_address: u32, together: u32) -> Self {
        Self {
            per_address: per_minute(per_address),
            together: per_minute(together),
            addresses: Buckets::default(),
            all: Buckets::default(),
        }
    }

    /// Whether this request may be looked at. Somebody who is refused for himself takes nothing from the others.
    pub(super) fn allows(&self, from: Option<IpAddr>, now: Timestamp) -> bool {
        from.is_none_or(|ip| self.addresses.take(network(ip), self.per_address, now))
            && self.all.take((), self.together, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn passed(limiter: &Limiter, from: &str, times: usize, now: Timestamp) -> usize {
        (0..times).filter(|_| limiter.allows(Some(from.parse().unwrap()), now)).count()
    }

    #[test]
    fn th_31_one_address_gets_its_share_and_then_waits() {
        let limiter = Limiter::new(30, 1200);
        assert_eq!(passed(&limiter, "192.0.2.1", 100, NOW), 30);
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
}
