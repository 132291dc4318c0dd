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
use crate::config::Limits;

/// Burst as a multiple of the rate per second.
const BURST: u32 = 10;
/// Number of connection attempts between two removals of idle addresses from the limiter.
const SWEEP: u32 = 4096;

/// Counters per address.
pub(super) struct Peers {
    live: Mutex<HashMap<IpAddr, usize, ahash::RandomState>>,
    rate: ArcSwapOption<Rate>,
    checks: AtomicU32,
}

struct Rate {
    connects_per_ip: u32,
    limiter: DefaultKeyedRateLimiter<IpAddr>,
}

impl Peers {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            live: Mutex::default(),
            rate: ArcSwapOption::new(Rate::new(limits.connects_per_ip)),
            checks: AtomicU32::new(0),
        }
    }

    /// Applies the limits. A changed rate starts with empty counters; an unchanged one keeps its counters.
    pub(super) fn reconfigure(&self, limits: &Limits) {
        let now = self.rate.load().as_ref().map_or(0, |rate| rate.connects_per_ip);
        if now != limits.connects_per_ip {
            self.rate.store(Rate::new(limits.connects_per_ip));
        }
    }

    /// Counts one connection attempt of the address; `false` if the rate is exceeded.
    pub(super) fn may_connect(&self, ip: IpAddr) -> bool {
        let rate = self.rate.load();
        let Some(rate) = rate.as_ref() else { return true };
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
            rate.limiter.retain_recent();
        }
        rate.limiter.check_key(&counted_as(ip)).is_ok()
    }

    /// Counts one live connection of the address; `false` if the limit is reached. 0 = no limit.
    fn enter(&self, ip: IpAddr, limit: usize) -> bool {
        let mut live = self.live.lock();
        let count = live.entry(ip).or_insert(0);
        if limit != 0 && *count >= limit {
            return false;
        }
        *count += 1;
        true
    }

    fn leave(&self, ip: IpAddr) {
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
pub(super) struct Guest {
    gateway: Arc<Gateway>,
    ip: IpAddr,
    /// Descriptors are short: the connection may make one request and cannot become a client.
    pub(super) one_request: bool,
}

impl Guest {
    /// Creates the permit; `None` if the address has reached its limit.
    pub(super) fn enter(gateway: &Arc<Gateway>, ip: IpAddr) -> Option<Self> {
        let ip = counted_as(ip);
        let limit = gateway.config.load().limits.connections_per_ip;
        gateway.peers.enter(ip, limit).then(|| {
            gateway.tasks.begin();
            Self { gateway: Arc::clone(gateway), ip, one_request: false }
        })
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.gateway.peers.leave(self.ip);
        self.gateway.tasks.end();
    }
}

fn counted_as(ip: IpAddr) -> IpAddr {
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

    fn peers(connects_per_ip: u32) -> Peers {
        Peers {
            live: Mutex::default(),
            rate: ArcSwapOption::new(Rate::new(connects_per_ip)),
            checks: AtomicU32::new(0),
        }
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let peers = peers(0);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert!(peers.enter(a, 2) && peers.enter(a, 2) && !peers.enter(a, 2));
        assert!(peers.enter(b, 2));
        peers.leave(a);
        assert!(peers.enter(a, 2));
        peers.leave(b);
        assert!(!peers.live.lock().contains_key(&b), "nothing is kept of an address that is gone");
        assert!((0..100).all(|_| peers.enter(b, 0)), "0 is no bound");
    }

    #[test]
    fn connects_are_limited_by_address_with_a_burst() {
        let peers = peers(1);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let passed = (0..100).filter(|_| peers.may_connect(a)).count();
        assert!((10..15).contains(&passed), "{passed}");
        assert!(peers.may_connect(b));
    }

    #[test]
    fn a_rate_of_zero_is_no_bound() {
        let peers = peers(0);
        assert!((0..100).all(|_| peers.may_connect(IpAddr::from([10, 0, 0, 1]))));
    }

    #[test]
    fn an_address_counts_as_what_one_machine_is_given() {
        let table =
            [("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("10.0.0.1", "10.0.0.1")];
        for (ip, expected) in table {
            assert_eq!(counted_as(ip.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }
}
