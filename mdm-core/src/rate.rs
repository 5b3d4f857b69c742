//! How often something may be done: token buckets in memory, one for each key. Not shared between servers.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;

use crate::time::Timestamp;

/// How much is allowed.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// In the long run.
    pub per_second: f64,
}

/// Whom a limit is for: an IPv4 address, or the /64 network that one IPv6 client has to itself.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The most keys that are remembered; beyond it the full buckets, which say nothing, are forgotten.
const MOST_KEYS: usize = 10_000;

/// How full each key's bucket is.
#[derive(Debug)]
pub struct Buckets<K>(Mutex<HashMap<K, (f64, Timestamp)>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Takes one from this key's bucket; false where it is empty.
    ///
    /// # Panics
    /// Never: nothing panics while it holds the lock.
    pub fn take(&self, key: K, rate: Rate, now: Timestamp) -> bool {
        let full = f64::from(rate.burst);
        let filled =
            |(left, at): (f64, Timestamp)| full.min(now.since(at).as_secs_f64().mul_add(rate.per_second, left));
        let mut buckets = self.0.lock().expect("no holder of this lock panics");
        if buckets.len() >= MOST_KEYS {
            buckets.retain(|_, bucket| filled(*bucket) < full);
            if buckets.len() >= MOST_KEYS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert((full, now));
        let left = filled(*bucket);
        let allowed = left >= 1.0;
        *bucket = (if allowed { left - 1.0 } else { left }, now);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_empties_fills_again_and_is_its_keys_own() {
        let (buckets, rate, now) = (Buckets::default(), Rate { burst: 2, per_second: 0.5 }, Timestamp(0));
        assert!(buckets.take("a", rate, now) && buckets.take("a", rate, now));
        assert!(!buckets.take("a", rate, now));
        assert!(buckets.take("b", rate, now));
        assert!(!buckets.take("a", rate, now.plus(Duration::from_secs(1))));
        assert!(buckets.take("a", rate, now.plus(Duration::from_secs(2))));
    }

    #[test]
    fn an_ipv6_client_is_limited_by_its_network() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2:3::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    #[test]
    fn memory_is_bounded() {
        let (buckets, rate) = (Buckets::default(), Rate { burst: 1, per_second: 1.0 });
        for key in 0..3 * MOST_KEYS {
            buckets.take(key, rate, Timestamp(0));
        }
        assert!(buckets.0.lock().unwrap().len() <= MOST_KEYS);
    }
}
