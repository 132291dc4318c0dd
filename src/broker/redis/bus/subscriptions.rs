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
    asked: VecDeque<Subscription>,
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

    /// Subscribes to `stream` and returns a watch for its confirmation.
    pub(super) fn want(&self, stream: Subscription) -> watch::Receiver<bool> {
        let mut inner = self.inner.lock();
        if let Some(wanted) = inner.wanted.get_mut(&stream) {
            wanted.until = None;
            return wanted.confirmed.subscribe();
        }
        let (confirmed, watcher) = watch::channel(false);
        inner.wanted.insert(stream.clone(), Wanted { confirmed, until: None });
        inner.asked.push_back(stream);
        drop(inner);
        self.changed.notify_one();
        watcher
    }

    /// Unsubscribes from `stream` after the linger time.
    pub(super) fn leave(&self, stream: &Subscription) {
        let until = Instant::now() + self.linger;
        let mut inner = self.inner.lock();
        let Some(wanted) = inner.wanted.get_mut(stream) else { return };
        wanted.until = Some(until);
        inner.lingering.push_back((until, stream.clone()));
        let is_first = inner.lingering.len() == 1;
        drop(inner);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Takes up to `most` streams to subscribe.
    pub(super) fn take_asked(&self, most: usize) -> Vec<Subscription> {
        let mut inner = self.inner.lock();
        let count = inner.asked.len().min(most);
        let asked: Vec<Subscription> = inner.asked.drain(..count).collect();
        // Skips streams that were unsubscribed before they were asked for.
        asked.into_iter().filter(|stream| inner.wanted.contains_key(stream)).collect()
    }

    /// Takes up to `most` streams whose linger time is over. Also returns the time of the next one.
    pub(super) fn take_left(&self, most: usize) -> (Vec<Subscription>, Option<Instant>) {
        let now = Instant::now();
        let mut left = Vec::new();
        let mut inner = self.inner.lock();
        while let Some((until, _)) = inner.lingering.front() {
            if *until > now || left.len() == most {
                break;
            }
            let Some((until, stream)) = inner.lingering.pop_front() else { break };
            // Skips a stream that was subscribed again meanwhile, or unsubscribed once more.
            if inner.wanted.get(&stream).is_some_and(|wanted| wanted.until == Some(until)) {
                inner.wanted.remove(&stream);
                left.push(stream);
            }
        }
        (left, inner.lingering.front().map(|(until, _)| *until))
    }

    /// Marks `stream` as confirmed by Redis.
    pub(super) fn confirm(&self, stream: &Subscription) {
        if let Some(wanted) = self.inner.lock().wanted.get(stream) {
            wanted.confirmed.send_replace(true);
        }
    }

    /// Resets all confirmations for a new connection and queues every stream again. Returns their number.
    pub(super) fn ask_all_again(&self) -> usize {
        let mut inner = self.inner.lock();
        let Inner { wanted, asked, .. } = &mut *inner;
        asked.clear();
        for (stream, wanted) in wanted.iter() {
            wanted.confirmed.send_replace(false);
            asked.push_back(stream.clone());
        }
        asked.len()
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
        let streams = Subscriptions::new(Duration::from_secs(5));
        let (first, second) = (streams.want(user("a")), streams.want(user("a")));
        assert_eq!(streams.take_asked(10), [user("a")]);
        assert!(streams.take_asked(10).is_empty());
        streams.confirm(&user("a"));
        assert!(*first.borrow() && *second.borrow());

        streams.leave(&user("a"));
        let (left, next) = streams.take_left(10);
        assert!(left.is_empty());
        assert_eq!(next.unwrap() - Instant::now(), Duration::from_secs(5));
        assert!(*streams.want(user("a")).borrow(), "wanted again while it lingers");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(streams.take_left(10).0.is_empty());

        streams.leave(&user("a"));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(streams.take_left(10), (vec![user("a")], None));
        assert!(!*streams.want(user("a")).borrow());
        assert_eq!(streams.take_asked(10), [user("a")], "a new subscription");
    }

    #[tokio::test]
    async fn after_a_break_all_of_it_is_asked_for_again() {
        let streams = Subscriptions::new(Duration::ZERO);
        let watcher = streams.want(user("a"));
        let _other = streams.want(user("b"));
        streams.take_asked(10);
        streams.confirm(&user("a"));
        assert_eq!(streams.ask_all_again(), 2);
        assert!(!*watcher.borrow());
        assert_eq!((streams.take_asked(1).len(), streams.take_asked(9).len()), (1, 1));
        streams.leave(&user("b"));
        assert_eq!(streams.take_left(10).0, [user("b")], "no time to linger");
    }
}
