//! What would keep an intake from reading its topic of Redis, for `skylark check`. Changes nothing, and subscribes to
//! nothing: PUBLISH would count it.

use ::redis::{Value, pipe};

use super::client::{Client, UrlError};
use crate::config::RedisConfig;

/// One sentence for each thing that is wrong with the channel of this name; none = an intake can work.
///
/// # Errors
/// [`UrlError`]: the server cannot be named.
pub async fn check_channel(redis: &RedisConfig, prefix: &str, topic: &str) -> Result<Vec<String>, UrlError> {
    let client = Client::new(redis)?;
    let owner = format!("{{{prefix}:intake:{topic}}}:owner");
    let mut faults = Vec::new();
    let mut see = pipe();
    see.cmd("GET").arg(owner);
    if let Err(error) = client.run::<Vec<Value>>(&see).await {
        // Without a connection the rest would say the same again.
        return Ok(vec![error.to_string()]);
    }
    let mut list = pipe();
    list.cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub");
    if let Err(error) = client.run::<Vec<Value>>(&list).await {
        faults.push(format!("{error}: PUBLISH may count a node that was stopped beside the one that took over"));
    }
    Ok(faults)
}

/// The same of a stream.
///
/// # Errors
/// As [`check_channel`].
pub async fn check_stream(redis: &RedisConfig, topic: &str) -> Result<Vec<String>, UrlError> {
    let client = Client::new(redis)?;
    let mut see = pipe();
    see.cmd("XINFO").arg("GROUPS").arg(topic);
    Ok(match client.run::<Vec<Value>>(&see).await {
        Err(error) if error.why.contains("WRONGTYPE") => {
            vec![format!("redis: expected {topic} to be a stream: {}", error.why)]
        }
        // The first node that reads it makes it.
        Err(error) if error.why.contains("no such key") => Vec::new(),
        Err(error) => vec![error.to_string()],
        Ok(_) => Vec::new(),
    })
}
