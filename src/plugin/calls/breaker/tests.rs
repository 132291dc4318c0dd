//! Circuits that open and close, and sources that are set apart, by a paused clock.

use tokio::time::advance;

use super::*;

const RULES: Rules = Rules { failures: 4, rest: Duration::from_secs(5) };

fn user(name: &str) -> CallSource<'_> {
    CallSource::User(name)
}

/// Calls in order, each with its number.
struct Calls {
    breaker: Breaker,
    next: u64,
}

impl Calls {
    fn new() -> Self {
        Self { breaker: Breaker::new(RULES), next: 0 }
    }

    fn fails(&mut self, source: CallSource<'_>) -> Result<Consequence, Kind> {
        self.next += 1;
        let _permit = self.breaker.permit(self.next, || source).map_err(|failure| failure.kind)?;
        Ok(self.breaker.failed(self.next, &source))
    }

    fn answers(&mut self, source: CallSource<'_>) -> Result<bool, Kind> {
        self.next += 1;
        self.breaker.permit(self.next, || source).map(CallPermit::answered).map_err(|failure| failure.kind)
    }

    /// A circuit that the failures of four users opened.
    fn opened() -> Self {
        let mut calls = Self::new();
        let opened = ["a", "b", "c", "d"].map(|name| calls.fails(user(name)).unwrap().opened);
        assert_eq!(opened, [false, false, false, true]);
        calls
    }
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_for_three_failed_sources_above_half_of_those_seen() {
    let mut calls = Calls::new();
    for name in ["a", "b"] {
        for _ in 0..3 {
            assert!(!calls.fails(user(name)).unwrap().opened);
        }
    }
    assert!(calls.fails(user("c")).unwrap().opened);
    assert_eq!(calls.breaker.state(), "open");
}

#[tokio::test(start_paused = true)]
async fn circuit_stays_closed_for_one_or_two_failed_sources() {
    let mut calls = Calls::new();
    for _ in 0..20 {
        for name in ["a", "b"] {
            let _ = calls.fails(user(name));
        }
        advance(RULES.rest).await;
    }
    assert_eq!((calls.breaker.state(), calls.breaker.times_opened()), ("closed", 0));
    assert!(calls.breaker.times_set_apart() > 20);
}

#[tokio::test(start_paused = true)]
async fn circuit_counts_a_key_with_many_senders_as_one_source() {
    let mut calls = Calls::new();
    let senders: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for sender in &senders {
        assert!(!calls.fails(CallSource::Key { name: "shop", sender }).unwrap().opened);
    }
    for sender in &senders {
        calls.fails(CallSource::Key { name: "game", sender }).unwrap();
    }
    assert_eq!(calls.breaker.state(), "closed");
}

#[tokio::test(start_paused = true)]
async fn circuit_counts_sources_seen_before_the_first_failure() {
    let mut calls = Calls::new();
    for name in ["1", "2", "3", "4", "5"] {
        calls.answers(user(name)).unwrap();
    }
    for _ in 0..3 {
        for name in ["a", "b", "c", "d", "e"] {
            let _ = calls.fails(user(name));
        }
    }
    assert_eq!(calls.breaker.state(), "closed", "five of ten");
    calls.fails(user("f")).unwrap();
    assert_eq!(calls.breaker.state(), "open", "six of eleven");
}

#[tokio::test(start_paused = true)]
async fn credentials_of_one_address_count_once_beside_other_addresses() {
    let mut calls = Calls::new();
    for address in ["192.0.2.1", "192.0.2.2"] {
        calls.answers(CallSource::Client { address, credential: "good" }).unwrap();
    }
    let credentials: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for credential in &credentials {
        assert!(!calls.fails(CallSource::Client { address: "198.51.100.7", credential }).unwrap().opened);
    }
    // Behind one proxy, an address identifies no client.
    let mut calls = Calls::new();
    let opened = credentials
        .iter()
        .take(4)
        .map(|credential| calls.fails(CallSource::Client { address: "198.51.100.7", credential }).unwrap().opened);
    assert_eq!(opened.collect::<Vec<_>>(), [false, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn circuit_opens_on_repeated_failures_but_not_on_rare_ones() {
    let mut calls = Calls::new();
    // Every third call fails: four failures stand ten calls apart, and eight are twice as many as four.
    for round in 0..100 {
        let name = ["a", "b", "c", "d"][round % 4];
        assert!(!calls.fails(user(name)).is_ok_and(|consequence| consequence.opened), "{round}");
        for _ in 0..2 {
            let _ = calls.answers(user(name));
        }
        if round % 4 == 3 {
            advance(RULES.rest).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failures_that_arrive_out_of_order_open_the_circuit() {
    let breaker = Breaker::new(RULES);
    let failures = [(13, "a"), (12, "b"), (11, "c"), (10, "d")];
    let opened = failures.map(|(call, name)| breaker.failed(call, &user(name)).opened);
    assert_eq!(opened, [false, false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn failing_source_is_set_apart_without_effect_on_others() {
    let mut calls = Calls::new();
    let apart = [0; 3].map(|_| calls.fails(user("a")).unwrap().apart);
    assert_eq!(apart, [false, false, true]);
    assert_eq!(calls.fails(user("a")), Err(Kind::Apart));
    assert_eq!((calls.answers(user("b")), calls.breaker.is_closed()), (Ok(false), true));
    let (count, shown) = calls.breaker.apart(10);
    assert_eq!((count, shown[0].source.as_str(), shown[0].left), (1, "user a", 5_000));
    advance(RULES.rest).await;
    assert!(calls.fails(user("a")).unwrap().apart, "the first call after the rest decides");
    advance(RULES.rest).await;
    calls.answers(user("a")).unwrap();
    assert!(!calls.fails(user("a")).unwrap().apart);
}

#[tokio::test(start_paused = true)]
async fn operator_readmits_a_source_that_was_set_apart() {
    let mut calls = Calls::new();
    for _ in 0..3 {
        calls.fails(user("a")).unwrap();
    }
    assert_eq!(calls.answers(user("a")), Err(Kind::Apart));
    calls.breaker.readmit();
    assert_eq!((calls.answers(user("a")), calls.breaker.apart(10)), (Ok(false), (0, Vec::new())));
}

#[tokio::test(start_paused = true)]
async fn breaker_stops_watching_a_minute_after_the_last_failure() {
    let mut calls = Calls::new();
    calls.fails(user("a")).unwrap();
    assert_eq!(calls.breaker.mode.load(Ordering::Relaxed), WATCHING);
    advance(Duration::from_secs(61)).await;
    calls.answers(user("b")).unwrap();
    assert_eq!(calls.breaker.mode.load(Ordering::Relaxed), QUIET);
    assert!(calls.breaker.circuit.lock().sources.is_empty());
}

#[tokio::test(start_paused = true)]
async fn successful_canary_closes_the_circuit() {
    let mut calls = Calls::opened();
    assert_eq!((calls.breaker.state(), calls.answers(user("x"))), ("open", Err(Kind::Open)));
    assert!(calls.breaker.refuses_calls());
    advance(RULES.rest - Duration::from_millis(1)).await;
    assert_eq!(calls.answers(user("x")), Err(Kind::Open));
    advance(Duration::from_millis(1)).await;
    assert!(!calls.breaker.refuses_calls(), "somebody has to ask");
    let canary = calls.breaker.permit(100, || user("x")).unwrap();
    assert_eq!(calls.breaker.state(), "half-open");
    assert!(calls.breaker.permit(101, || user("y")).is_err(), "one canary at a time");
    assert!(canary.answered());
    assert_eq!(calls.answers(user("x")), Ok(false), "an ordinary call closes nothing");
    assert_eq!((calls.breaker.state(), calls.breaker.is_closed(), calls.breaker.times_opened()), ("closed", true, 1));
    assert!(!calls.breaker.failed(200, &user("x")).opened, "old failures are forgotten");
}

#[tokio::test(start_paused = true)]
async fn failed_or_dropped_canary_call_opens_the_circuit_again() {
    let calls = Calls::opened();
    for _ in 0..3 {
        advance(RULES.rest).await;
        drop(calls.breaker.permit(100, || user("x")).unwrap());
        assert_eq!(calls.breaker.state(), "open");
        assert!(calls.breaker.permit(101, || user("x")).is_err());
    }
    assert_eq!(calls.breaker.times_opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_source_is_the_canary_only_without_other_callers() {
    let calls = Calls::opened();
    advance(RULES.rest).await;
    assert!(calls.breaker.permit(100, || user("a")).is_err());
    assert!(calls.breaker.permit(101, || user("x")).unwrap().answered());
    let calls = Calls::opened();
    advance(2 * RULES.rest).await;
    assert!(calls.breaker.permit(100, || user("a")).unwrap().answered());
}

#[tokio::test(start_paused = true)]
async fn version_is_condemned_only_by_its_own_failures() {
    let calls = Calls::opened();
    for name in ["a", "b"] {
        calls.breaker.record_evidence(user(name).id());
    }
    assert!(!calls.breaker.warrants_rollback(), "two sources");
    calls.breaker.record_evidence(user("c").id());
    assert!(calls.breaker.warrants_rollback(), "three of four");
    let mut closed = Calls::new();
    for name in ["a", "b", "c"] {
        closed.fails(user(name)).unwrap();
        closed.breaker.record_evidence(user(name).id());
    }
    assert!(!closed.breaker.warrants_rollback(), "its circuit is closed");
}
