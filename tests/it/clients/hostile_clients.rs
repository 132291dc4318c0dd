//! One hostile client must not affect the others. Each kind runs beside a steady flow of 1 000 messages a second.
//!
//! Pairs of flows are compared, one without the client and one with it. Lost or refused messages always fail the test.
//! The p99 is compared only where `NODE` names a release build on a quiet machine: `NODE=target/release/skylark cargo
//! test --test it hostile_clients -- --nocapture --test-threads 1`. `PAIRS` and `MESSAGES` change the length.

mod flow;
mod kinds;

use std::time::Duration;

use crate::support::dice::given;
use crate::support::gateway::Gateway;
use flow::{MessageFlow, p99};
use kinds::{Attack, AttackKind, Others, Stage};

/// Upper bound of the p99 with the hostile client, as a multiple of the p99 without it.
const MOST: f64 = 3.0;

/// Runs one kind and prints its row.
async fn play(kind: AttackKind) {
    let measures = std::env::var_os("NODE").is_some();
    let (pairs, messages) =
        (given("PAIRS", if measures { 5 } else { 1 }), given("MESSAGES", if measures { 5_000 } else { 300 }));
    let stage = Stage::new(kind);
    // Warms up instances and caches.
    MessageFlow::new(&stage.gateway).send(messages / 3 + 1).await;
    let (mut ratios, mut worst) = (Vec::new(), (Duration::ZERO, Duration::ZERO));
    let mut done = 0;
    let others = Others::begin(&stage);
    for _ in 0..pairs {
        let calm = p99(MessageFlow::new(&stage.gateway).send(messages).await);
        let attack = Attack::begin(&stage);
        let beside = p99(MessageFlow::new(&stage.gateway).send(messages).await);
        done += attack.end().await;
        ratios.push(beside.as_secs_f64() / calm.as_secs_f64());
        worst = (worst.0.max(calm), worst.1.max(beside));
    }
    others.end().await;
    stage.holds().await;
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "| {} | {done} tries | {pairs} pairs of {messages} messages, none lost or refused | worst p99 {:.2?} without, {:.2?} with | \
         median of ratios {median:.2} |",
        kind.name(),
        worst.0,
        worst.1
    );
    if measures {
        assert!(
            median <= MOST,
            "{}: the p99 is {median:.2} times the p99 without the attack: {ratios:.2?}",
            kind.name()
        );
    }
}

/// Checks the node's counters: no circuit has opened and no version was rolled back.
async fn blames_nobody(gateway: &Gateway) {
    let metrics = gateway.get("/metrics").await.body;
    let blame = |line: &&str| {
        let is_blame = line.starts_with("skylark_plugin_circuits_opened_total") || line.contains("rolled_back");
        is_blame && !line.starts_with('#') && !line.ends_with(" 0")
    };
    let found: Vec<&str> = metrics.lines().filter(blame).collect();
    assert!(found.is_empty(), "{found:?}");
    let ready = gateway.get("/health/ready").await;
    assert_eq!(ready.status, 200, "{}", ready.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_with_names_that_no_user_has() {
    play(AttackKind::Name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_with_texts_that_grow_when_they_are_normalised() {
    play(AttackKind::Expansion).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_during_the_probation_of_a_word_list() {
    play(AttackKind::Probation).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_while_the_store_is_away() {
    play(AttackKind::Store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_for_whom_a_filter_fails() {
    play(AttackKind::Source).await;
}
