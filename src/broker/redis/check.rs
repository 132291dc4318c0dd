//! Checks that a node can work with its Redis: connects and performs the operations of a node on keys of its own.
//!
//! Used by `skylark check`. Leaves nothing behind.

use ::redis::{Script, Value, pipe};

use super::client::{Client, UrlError};
use super::names::{BusChannel, Names};
use crate::broker::{Subscription, Unavailable};
use crate::clock;
use crate::config::Bus;

/// First version with all commands that are used.
const MIN_VERSION: (u32, u32) = (6, 2);
/// Maximum difference of the clocks. A larger one is a fault of one machine. Only displayed times depend on it.
const SKEW_MILLIS: i64 = 5_000;
/// Name used for the user, room and space of the check.
const CHECK_NAME: &str = "skylark-check";

/// Returns one sentence for each fault. Empty if a node can work with the server.
///
/// # Errors
/// [`UrlError`]: the server address is invalid.
pub async fn check(bus: &Bus) -> Result<Vec<String>, UrlError> {
    let client = Client::new(&bus.redis)?;
    let names = Names::new(&bus.prefix);
    let mut faults = Vec::new();
    // Without a connection, all other checks would fail with the same error. The first one shows the server's own
    // message.
    if let Err(error) = client.wire().await {
        return Ok(vec![with_hint(&error)]);
    }
    let info: Vec<String> = match client.run(pipe().cmd("INFO").arg("server").cmd("INFO").arg("memory")).await {
        Ok(info) => info,
        Err(error) if error.why.contains("NOPERM") => {
            faults.push(format!("redis: the user may not run INFO, so the server version is unknown: {}", error.why));
            Vec::new()
        }
        Err(error) => return Ok(vec![with_hint(&error)]),
    };
    let info = info.concat();
    faults.extend(version_fault(&info));
    faults.extend(eviction_fault(&info));
    faults.extend(clock_fault(&client).await);
    faults.extend(rights_faults(&client, &names).await);
    Ok(faults)
}

/// Adds a hint with the remedy to common errors.
fn with_hint(error: &Unavailable) -> String {
    let hint = match &error.why {
        why if why.contains("WRONGPASS") => ": check bus.redis.user and bus.redis.password",
        why if why.contains("NOAUTH") => ": set bus.redis.password",
        why if why.contains("without any password") => {
            ": the server has no password for this user: remove bus.redis.password"
        }
        _ => "",
    };
    format!("{error}{hint}")
}

fn version_fault(info: &str) -> Option<String> {
    let version = field(info, "redis_version")?;
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let found = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (major, minor) = MIN_VERSION;
    if field(info, "redis_mode") == Some("cluster") {
        return Some("redis: expected one server, got a Redis Cluster, which is not supported yet".to_owned());
    }
    (found < MIN_VERSION).then(|| format!("redis: expected version {major}.{minor} or later, got {version}"))
}

/// Leases and presence are stored in keys. A server that evicts keys would also evict members.
fn eviction_fault(info: &str) -> Option<String> {
    let policy = field(info, "maxmemory_policy")?;
    let is_bounded = field(info, "maxmemory").is_some_and(|bytes| bytes != "0");
    (is_bounded && policy != "noeviction").then(|| {
        format!("redis: expected maxmemory-policy noeviction, got {policy}: the server may evict the keys of members")
    })
}

async fn clock_fault(client: &Client) -> Option<String> {
    let ((seconds, micros),): ((i64, i64),) = client.run(pipe().cmd("TIME")).await.ok()?;
    let skew = seconds * 1_000 + micros / 1_000 - clock::now_millis();
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    let millis = skew.abs();
    (millis > SKEW_MILLIS).then(|| {
        format!("redis: the server clock is {millis} ms {direction} the clock of this machine: synchronize them")
    })
}

/// Performs each operation of a node once, on unused names.
async fn rights_faults(client: &Client, names: &Names) -> Vec<String> {
    let user = Subscription::User(CHECK_NAME.parse().expect("a valid name"));
    let channels = [names.channel(BusChannel::Everyone), names.channel((&user).into())];
    let mut faults = Vec::new();
    let mut note = |what: &str, why: String| faults.push(format!("redis: the user may not {what}: {why}"));
    for channel in &channels[1..] {
        let result: Result<Vec<Value>, _> = client.run(pipe().cmd("PUBLISH").arg(channel).arg("")).await;
        result.err().into_iter().for_each(|error| note(&format!("publish to {channel}"), error.why));
    }
    for channel in &channels {
        let result = subscribe(client, channel).await;
        result.err().into_iter().for_each(|error| note(&format!("subscribe to {channel}"), error.why));
    }
    let keys = [names.roster(CHECK_NAME), names.space(CHECK_NAME, "values")];
    for key in &keys {
        let script = Script::new(CHECK_SCRIPT);
        let result = client.invoke::<Value>(script.prepare_invoke().key(key)).await;
        result.err().into_iter().for_each(|error| note(&format!("run scripts on {key}"), error.why));
    }
    faults
}

async fn subscribe(client: &Client, channel: &str) -> Result<(), Unavailable> {
    let mut wire = client.wire().await?;
    wire.request(&[b"SUBSCRIBE", channel.as_bytes()]).await.map(drop).map_err(|why| client.unavailable(why))
}

/// Runs every command of the scripts on a key that is deleted at the end.
const CHECK_SCRIPT: &str = "
redis.call('TIME')
redis.call('SET', KEYS[1], '1', 'PX', 1000) redis.call('GET', KEYS[1]) redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'a', '1') redis.call('HGET', KEYS[1], 'a') redis.call('HEXISTS', KEYS[1], 'a')
redis.call('HSTRLEN', KEYS[1], 'a') redis.call('HINCRBY', KEYS[1], 'a', 1) redis.call('HLEN', KEYS[1])
redis.call('HKEYS', KEYS[1]) redis.call('HVALS', KEYS[1]) redis.call('HGETALL', KEYS[1]) redis.call('HDEL', KEYS[1], 'a')
redis.call('ZADD', KEYS[1], 1, 'a') redis.call('ZSCORE', KEYS[1], 'a') redis.call('ZRANGEBYSCORE', KEYS[1], 0, 1)
redis.call('ZREM', KEYS[1], 'a')
redis.call('SADD', KEYS[1], 'a') redis.call('SISMEMBER', KEYS[1], 'a') redis.call('SPOP', KEYS[1], 1)
redis.call('SREM', KEYS[1], 'a') redis.call('EXISTS', KEYS[1])
return 1";

/// Returns the value of a line `name:value` of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_judged() {
        let info = "# Server\r\nredis_version:6.0.16\r\nredis_mode:standalone\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(version_fault(info).unwrap(), "redis: expected version 6.2 or later, got 6.0.16");
        assert!(eviction_fault(info).unwrap().contains("allkeys-lru"));
        let good = "redis_version:7.0.15\r\nredis_mode:standalone\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!((version_fault(good), eviction_fault(good)), (None, None));
        assert!(version_fault("redis_version:8.1.0\r\nredis_mode:cluster\r\n").unwrap().contains("Cluster"));
    }
}
