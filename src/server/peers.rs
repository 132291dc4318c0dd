//! Connection limits per address, for live connections and connection attempts, and the permit that releases them.
//!
//! Independent of protocols. IPv6 addresses count by their /64, which is the assignment of one household or machine.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;

use super::Gateway;

/// Burst as a multiple of the rate per second.
const BURST: u32 = 10;
/// Number of connection attempts between two removals of idle addresses from the limiter.
const SWEEP: u32 = 4096;

/// Counters per address.
#[derive(Default)]
pub(super) struct Peers {
    live: Mutex<HashMap<IpAddr, usize, ahash::RandomState>>,
    /// `None` without a limit.
    rate: ArcSwapOption<Rate>,
    checks: AtomicU32,
}

struct Rate {
    connects_per_ip: u32,
    limiter: DefaultKeyedRateLimiter<IpAddr>,
}

impl Peers {
    /// Counts one connection attempt of the address; `false` if it exceeds `limit` attempts per second. 0 = no limit. A
    /// changed limit starts with empty counters.
    pub(super) fn may_connect(&self, ip: IpAddr, limit: u32) -> bool {
        let mut rate = self.rate.load();
        if rate.as_ref().map_or(0, |rate| rate.connects_per_ip) != limit {
            self.rate.store(Rate::new(limit));
            rate = self.rate.load();
        }
        let Some(rate) = rate.as_ref() else { return true };
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            rate.limiter.retain_recent();
        }
        rate.limiter.check_key(&limit_key(ip)).is_ok()
    }

    /// Counts one live connection of the address; `false` if the limit is reached. 0 = no limit.
    fn acquire(&self, ip: IpAddr, limit: usize) -> bool {
        let mut live = self.live.lock();
        let count = live.entry(ip).or_insert(0);
        if limit != 0 && *count >= limit {
            return false;
        }
        *count += 1;
        true
    }

    fn release(&self, ip: IpAddr) {
        let mut live = self.live.lock();
        if let Some(count) = live.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                live.remove(&ip);
            }
        }
    }
}

impl Rate {
    fn new(connects_per_ip: u32) -> Option<Arc<Self>> {
        let a_second = NonZeroU32::new(connects_per_ip)?;
        let quota = Quota::per_second(a_second).allow_burst(a_second.saturating_mul(NonZeroU32::new(BURST)?));
        Some(Arc::new(Self { connects_per_ip, limiter: RateLimiter::keyed(quota) }))
    }
}

/// Connection permit: counts toward the limits of its address and of open tasks, from accept to the end.
pub(super) struct ConnectionPermit {
    gateway: Arc<Gateway>,
    ip: IpAddr,
    /// Descriptors are short: the connection may make one request and cannot become a client.
    pub(super) one_request: bool,
}

impl ConnectionPermit {
    /// Creates the permit; `None` if the address has reached its limit.
    pub(super) fn acquire(gateway: &Arc<Gateway>, ip: IpAddr) -> Option<Self> {
        let ip = limit_key(ip);
        let limit = gateway.config.load().limits.connections_per_ip;
        gateway.peers.acquire(ip, limit).then(|| {
            gateway.tasks.begin();
            Self { gateway: Arc::clone(gateway), ip, one_request: false }
        })
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.gateway.peers.release(self.ip);
        self.gateway.tasks.end();
    }
}

fn limit_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_at_its_limit_is_refused_until_a_release() {
        let peers = Peers::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(peers.acquire(a, 2) && peers.acquire(a, 2) && !peers.acquire(a, 2));
        assert!(peers.acquire(b, 2));
        peers.release(a);
        assert!(peers.acquire(a, 2));
        peers.release(b);
        assert!(!peers.live.lock().contains_key(&b), "nothing is kept of an address that is gone");
        assert!((0..100).all(|_| peers.acquire(b, 0)), "0 is no bound");
    }

    #[test]
    fn connects_are_limited_by_address_with_a_burst() {
        let peers = Peers::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let passed = (0..100).filter(|_| peers.may_connect(a, 1)).count();
        assert!((10..15).contains(&passed), "{passed}");
        assert!(peers.may_connect(b, 1));
        assert!(!peers.may_connect(a, 1), "the same limit keeps its counters");
        assert!(peers.may_connect(a, 2), "a changed limit starts anew");
    }

    #[test]
    fn a_rate_of_zero_is_no_bound() {
        let peers = Peers::default();
        assert!((0..100).all(|_| peers.may_connect(IpAddr::from([10, 0, 0, 1]), 0)));
    }

    #[test]
    fn ipv6_addresses_are_limited_by_their_64_bit_prefix() {
        let table =
            [("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("10.0.0.1", "10.0.0.1")];
        for (ip, expected) in table {
            assert_eq!(limit_key(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }
}
