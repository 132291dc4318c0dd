//! Redis specifics: the findings of `skylark check`, the minimal rights of a node, TLS, and the number of round trips
//! for a batch.

use std::process::Command;
use std::sync::{Arc, LazyLock};

use rustix::process::Signal;
use skylark::broker::Subscription;
use skylark::config::{BusKind, Config};
use skylark::message::Target;

use crate::support::brokers::bus::{Bus, Seat, envelope, is_accepted, user};
use crate::support::brokers::redis::{Redis, documented_rights, free_address};
use crate::support::brokers::resp::{Reply, Resp};
use crate::support::client::within;
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::{Cluster, until};
use crate::support::tls::Pair;

/// The rights from the document.
static RIGHTS: LazyLock<String> = LazyLock::new(|| documented_rights("docs/guides/redis-bus.md", "bus"));

/// Runs `skylark check`; returns true if it succeeds, and its output.
fn check(yaml: &str) -> (bool, String) {
    let folder = Setup::default().no_plugins().yaml(yaml).prepare();
    let mut command: Command = folder.command("check");
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

async fn tell(redis: &Redis, command: &str) {
    let reply = redis.line().await.ask(command).await.unwrap();
    assert_eq!(reply, Reply::Text("OK".to_owned()), "{command}");
}

#[tokio::test]
async fn check_says_what_is_wrong_with_redis() {
    let nobody = format!("bus:\n  kind: redis\n  redis:\n    url: redis://{}", free_address());
    let (good, said) = check(&nobody);
    assert!(!good && said.contains("redis is unavailable") && said.contains("refused"), "{said}");

    let redis = Redis::start();
    let (good, said) = check(&redis.bus());
    assert!(good && said.contains("bus: ok (redis)"), "{said}");

    tell(&redis, "CONFIG SET maxmemory 100mb").await;
    tell(&redis, "CONFIG SET maxmemory-policy allkeys-lru").await;
    let (good, said) = check(&redis.bus());
    assert!(!good && said.contains("expected maxmemory-policy noeviction, got allkeys-lru"), "{said}");
    tell(&redis, "CONFIG SET maxmemory-policy noeviction").await;

    tell(&redis, "ACL SETUSER narrow on >a-long-password ~other:* resetchannels &other:* +@all").await;
    tell(
        &redis,
        &format!("ACL SETUSER node on >a-long-password {}", RIGHTS.split_whitespace().collect::<Vec<_>>().join(" ")),
    )
    .await;
    let with = |user: &str| format!("{}\n    user: {user}\n    password: a-long-password", redis.bus());
    let (good, said) = check(&with("narrow"));
    assert!(!good, "{said}");
    for what in
        ["may not publish to skylark:u:", "may not subscribe to skylark:all", "may not run scripts on {skylark}:"]
    {
        assert!(said.contains(what), "{what}: {said}");
    }
    let (good, said) = check(&with("node"));
    assert!(good, "the documented rights are not enough: {said}");

    tell(&redis, "CONFIG SET requirepass another-password").await;
    for (yaml, word) in [(redis.bus(), "NOAUTH"), (with("nobody"), "WRONGPASS")] {
        let (good, said) = check(&yaml);
        assert!(!good && said.contains(word) && said.contains("bus.redis.password"), "{said}");
        assert!(!said.contains("a-long-password"), "{said}");
    }
}

/// A Redis with `rediss://` and a user with the minimal rights.
struct Guarded {
    redis: Redis,
    folder: tempfile::TempDir,
    port: u16,
}

impl Guarded {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Pair::new().install(folder.path());
        let port = free_address().port();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (cert, key, tls_port) = (file("cert.pem"), file("key.pem"), port.to_string());
        let redis = Redis::with(&[
            "--save",
            "",
            "--tls-port",
            &tls_port,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-auth-clients",
            "no",
        ]);
        let rights = RIGHTS.split_whitespace().collect::<Vec<_>>().join(" ");
        tell(&redis, &format!("ACL SETUSER node on >a-long-password {rights}")).await;
        tell(&redis, "ACL SETUSER default off").await;
        Self { redis, folder, port }
    }
}

impl Bus for Guarded {
    const IS_SHARED: bool = true;
    const IS_ROUTED: bool = true;

    fn start() -> Self {
        unreachable!("the test starts this bus itself")
    }

    fn configure(&self, config: &mut Config) {
        config.bus.kind = BusKind::Redis;
        config.bus.redis.url = format!("rediss://localhost:{}", self.port);
        config.bus.redis.ca = self.folder.path().join("cert.pem");
        config.bus.redis.user = "node".to_owned();
        config.bus.redis.password = "a-long-password".into();
    }

    fn kill(&mut self) {
        self.redis.kill();
    }

    fn restart(&mut self) {
        unreachable!("a restart would lose the ACL user")
    }

    fn pause(&self) {
        self.redis.freeze();
    }

    fn resume(&self) {
        self.redis.thaw();
    }

    async fn inject(&self, _: &[u8]) {
        unreachable!("this bus takes no injected records")
    }
}

#[tokio::test]
async fn a_node_needs_few_rights_and_speaks_tls() {
    let bus = Guarded::start().await;
    let seats = [Seat::take(&bus, "n1", 1).await, Seat::take(&bus, "n2", 2).await];
    for seat in &seats {
        within("the lease", seat.engine.roster.join(&seat.member())).await.unwrap();
        within("the renewal", seat.engine.roster.renew(&seat.member())).await.unwrap();
    }
    assert_eq!(within("the member list", seats[1].engine.roster.members()).await.unwrap().len(), 2);
    within("the subscription", seats[0].broker().subscribe(Subscription::User("a".parse().unwrap()))).await.unwrap();
    // More than one TLS record in both directions.
    let batch: Vec<_> = (0..200).map(|n| envelope(user("a"), &format!("{n:03}{}", "x".repeat(1_000)))).collect();
    assert!(seats[1].publish_all(batch).await.iter().all(is_accepted));
    let texts = seats[0].heard.messages(200).await;
    assert!(texts.iter().enumerate().all(|(n, text)| text.starts_with(&format!("{n:03}"))));
    assert!(within("the presence update", seats[0].engine.roster.online(&"a".parse().unwrap())).await.unwrap());
    assert!(within("the list of expired members", seats[0].engine.roster.expired()).await.unwrap().is_empty());
    within("the next number", seats[0].engine.roster.next_number(&"a".parse().unwrap())).await.unwrap();
    seats[0].engine.store.clone().unwrap().get("p", "k").await.unwrap();
    within("the leave", seats[0].engine.roster.leave()).await;
}

/// Extends a lease beyond the duration of the test.
async fn stretch_lease(redis: &Redis, node: &str) {
    let stretched =
        redis.line().await.ask(&format!("ZADD {{skylark}}:leases XX CH 99999999999999 {node}")).await.unwrap();
    assert_eq!(stretched, Reply::Integer(1), "{node} has no lease to stretch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_has_its_name_again_at_once() {
    let redis = Redis::start();
    let cluster = Cluster::start(2, &redis.bus()).await;
    cluster.kill(0).await;
    stretch_lease(&redis, "n1").await;
    cluster.restart(0).await;
    let nodes = cluster.node(0).get("/nodes").await.data();
    assert_eq!(nodes["items"].as_array().unwrap().len(), 2, "{nodes}");
}

/// A stopped process may resume: no other node may take its name while it exists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stands_still_keeps_its_name() {
    let redis = Redis::start();
    let cluster = Cluster::start(1, &redis.bus()).await;
    let first = cluster.node(0);
    cluster.freeze(0);
    stretch_lease(&redis, "n1").await;
    let again = Arc::clone(&first);
    let second = tokio::task::spawn_blocking(move || again.again()).await.unwrap();
    let reasons = second.get("/health/ready").await;
    assert_eq!(reasons.status, 503);
    assert!(reasons.body.contains("a living node already uses the name n1"), "{}", reasons.body);
    first.signal(Signal::KILL);
    first.ended().await;
    until("readiness of the second node", async || second.get("/health/ready").await.status == 200).await;
}

/// Redis' own counters show its reads and writes for a batch of pushes to as many users.
#[tokio::test]
async fn a_batch_takes_few_round_trips() {
    const USERS: usize = 500;
    let redis = Redis::start();
    let seats = [Seat::take(&redis, "n1", 1).await, Seat::take(&redis, "n2", 2).await];
    let holds = (0..USERS).map(|n| seats[1].broker().subscribe(Subscription::User(format!("u{n}").parse().unwrap())));
    for held in within("the subscriptions", futures_util::future::join_all(holds)).await {
        held.unwrap();
    }
    let mut line = redis.line().await;
    let mut counts = Vec::new();
    for _ in 0..2 {
        counts.push((reads(&mut line).await, count(&mut line, "total_commands_processed").await));
        let batch = (0..USERS).map(|n| envelope(user(&format!("u{n}")), "hello")).collect();
        assert!(seats[0].publish_all(batch).await.iter().all(is_accepted));
    }
    seats[1].heard.messages(2 * USERS).await;
    let (reads, commands) = (counts[1].0 - counts[0].0, counts[1].1 - counts[0].1);
    println!("{USERS} pushes: {commands} commands in {reads} reads of Redis, this test's own included");
    assert!((500..520).contains(&commands), "expected one copy for the one subscribed node, got {commands} commands");
    assert!(reads <= 20, "expected one read for each batch, got {reads} reads");
    assert!(is_accepted(&seats[0].publish(Target::Everyone, "end").await));
}

/// Redis' own counters: publishers that publish while a reply is pending share the next write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_at_once_share_their_round_trips() {
    const PUBLISHERS: usize = 64;
    const EACH: usize = 10;
    let redis = Redis::start();
    let seat = Arc::new(Seat::take(&redis, "n1", 1).await);
    within("the subscription", seat.broker().subscribe(Subscription::User("a".parse().unwrap()))).await.unwrap();
    let mut line = redis.line().await;
    let before = reads(&mut line).await;
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let seat = Arc::clone(&seat);
            tokio::spawn(async move {
                for _ in 0..EACH {
                    assert!(is_accepted(&seat.publish(user("a"), "hello").await));
                }
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await.unwrap();
    }
    let reads = reads(&mut line).await - before;
    println!("{} pushes by {PUBLISHERS} publishers: {reads} reads of Redis", PUBLISHERS * EACH);
    assert!(
        reads < (PUBLISHERS * EACH / 4) as u64,
        "expected at most a quarter of the pushes as reads, got {reads} reads"
    );
    assert_eq!(seat.heard.messages(PUBLISHERS * EACH).await.len(), PUBLISHERS * EACH);
}

async fn reads(line: &mut Resp) -> u64 {
    count(line, "total_reads_processed").await
}

async fn count(line: &mut Resp, name: &str) -> u64 {
    let info = line.ask("INFO stats").await.unwrap();
    let line = info.text().lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.trim().parse().unwrap()
}
