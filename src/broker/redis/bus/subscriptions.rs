//! Subscriptions of this node: wanted, confirmed by Redis, or lingering before the unsubscribe.
//!
//! Independent of connections: the subscriber asks for the next commands and reports confirmations.

use std::collections::VecDeque;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::broker::Subscription;

/// Subscriptions of one node.
#[derive(Debug)]
pub(super) struct Subscriptions {
    linger: Duration,
    inner: Mutex<Inner>,
    /// Notified when there are commands to send.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    wanted: AHashMap<Subscription, Wanted>,
    /// Subscriptions to subscribe, in order.
    queued: VecDeque<Subscription>,
    /// Subscriptions to unsubscribe, each with its time, in order.
    lingering: VecDeque<(Instant, Subscription)>,
}

#[derive(Debug)]
struct Wanted {
    /// True once Redis has confirmed the subscription. Waiters watch it.
    confirmed: watch::Sender<bool>,
    /// Set while the stream is no longer wanted: the time of the unsubscribe.
    until: Option<Instant>,
}

impl Subscriptions {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, inner: Mutex::default(), changed: Notify::new() }
    }

    /// Adds the subscription and returns a watch for its confirmation.
    pub(super) fn subscribe(&self, subscription: Subscription) -> watch::Receiver<bool> {
        let mut inner = self.inner.lock();
        if let Some(wanted) = inner.wanted.get_mut(&subscription) {
            wanted.until = None;
            return wanted.confirmed.subscribe();
        }
        let (confirmed, watcher) = watch::channel(false);
        inner.wanted.insert(subscription.clone(), Wanted { confirmed, until: None });
        inner.queued.push_back(subscription);
        drop(inner);
        self.changed.notify_one();
        watcher
    }

    /// Removes the subscription after the linger time.
    pub(super) fn unsubscribe(&self, subscription: &Subscription) {
        let until = Instant::now() + self.linger;
        let mut inner = self.inner.lock();
        let Some(wanted) = inner.wanted.get_mut(subscription) else { return };
        wanted.until = Some(until);
        inner.lingering.push_back((until, subscription.clone()));
        let is_first = inner.lingering.len() == 1;
        drop(inner);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Takes up to `most` streams to subscribe.
    pub(super) fn take_new(&self, most: usize) -> Vec<Subscription> {
        let mut inner = self.inner.lock();
        let count = inner.queued.len().min(most);
        let queued: Vec<Subscription> = inner.queued.drain(..count).collect();
        // Skips streams that were unsubscribed before they were asked for.
        queued.into_iter().filter(|subscription| inner.wanted.contains_key(subscription)).collect()
    }

    /// Takes up to `most` streams whose linger time is over. Also returns the time of the next one.
    pub(super) fn take_expired(&self, most: usize) -> (Vec<Subscription>, Option<Instant>) {
        let now = Instant::now();
        let mut expired = Vec::new();
        let mut inner = self.inner.lock();
        while let Some((until, _)) = inner.lingering.front() {
            if *until > now || expired.len() == most {
                break;
            }
            let Some((until, subscription)) = inner.lingering.pop_front() else { break };
            // Skips a stream that was subscribed again meanwhile, or unsubscribed once more.
            if inner.wanted.get(&subscription).is_some_and(|wanted| wanted.until == Some(until)) {
                inner.wanted.remove(&subscription);
                expired.push(subscription);
            }
        }
        (expired, inner.lingering.front().map(|(until, _)| *until))
    }

    /// Marks the subscription as confirmed by Redis.
    pub(super) fn confirm(&self, subscription: &Subscription) {
        if let Some(wanted) = self.inner.lock().wanted.get(subscription) {
            wanted.confirmed.send_replace(true);
        }
    }

    /// Resets all confirmations for a new connection and queues every stream again. Returns their number.
    pub(super) fn requeue_all(&self) -> usize {
        let mut inner = self.inner.lock();
        let Inner { wanted, queued, .. } = &mut *inner;
        queued.clear();
        for (subscription, wanted) in wanted.iter() {
            wanted.confirmed.send_replace(false);
            queued.push_back(subscription.clone());
        }
        queued.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: &str) -> Subscription {
        Subscription::User(uid.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_asked_for_once_and_let_go_after_its_time() {
        let subscriptions = Subscriptions::new(Duration::from_secs(5));
        let (first, second) = (subscriptions.subscribe(user("a")), subscriptions.subscribe(user("a")));
        assert_eq!(subscriptions.take_new(10), [user("a")]);
        assert!(subscriptions.take_new(10).is_empty());
        subscriptions.confirm(&user("a"));
        assert!(*first.borrow() && *second.borrow());

        subscriptions.unsubscribe(&user("a"));
        let (expired, next) = subscriptions.take_expired(10);
        assert!(expired.is_empty());
        assert_eq!(next.unwrap() - Instant::now(), Duration::from_secs(5));
        assert!(*subscriptions.subscribe(user("a")).borrow(), "wanted again while it lingers");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(subscriptions.take_expired(10).0.is_empty());

        subscriptions.unsubscribe(&user("a"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(subscriptions.take_expired(10), (vec![user("a")], None));
        assert!(!*subscriptions.subscribe(user("a")).borrow());
        assert_eq!(subscriptions.take_new(10), [user("a")], "a new subscription");
    }

    #[tokio::test]
    async fn after_a_break_all_of_it_is_asked_for_again() {
        let subscriptions = Subscriptions::new(Duration::ZERO);
        let watcher = subscriptions.subscribe(user("a"));
        let _other = subscriptions.subscribe(user("b"));
        subscriptions.take_new(10);
        subscriptions.confirm(&user("a"));
        assert_eq!(subscriptions.requeue_all(), 2);
        assert!(!*watcher.borrow());
        assert_eq!((subscriptions.take_new(1).len(), subscriptions.take_new(9).len()), (1, 1));
        subscriptions.unsubscribe(&user("b"));
        assert_eq!(subscriptions.take_expired(10).0, [user("b")], "no time to linger");
    }
}
