//! Checks for `skylark check` that an intake can read its Redis topic. Changes nothing and does not subscribe, because
//! PUBLISH would count the subscriber.

use ::redis::{Value, pipe};

use super::super::client::{Client, UrlError};
use crate::config::RedisConfig;

/// Returns one sentence for each fault of this channel. Empty if an intake can read it.
///
/// # Errors
/// [`UrlError`]: the server address is invalid.
pub async fn check_channel(redis: &RedisConfig, prefix: &str, topic: &str) -> Result<Vec<String>, UrlError> {
    let client = Client::new(redis)?;
    let owner = format!("{{{prefix}:intake:{topic}}}:owner");
    let mut faults = Vec::new();
    let mut see = pipe();
    see.cmd("GET").arg(owner);
    if let Err(error) = client.run::<Vec<Value>>(&see).await {
        // Without a connection, the other checks would fail with the same error.
        return Ok(vec![error.to_string()]);
    }
    let mut list = pipe();
    list.cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub");
    if let Err(error) = client.run::<Vec<Value>>(&list).await {
        faults.push(format!(
            "{error}: without CLIENT LIST, PUBLISH may count a paused node in addition to its successor"
        ));
    }
    Ok(faults)
}

/// Same as [`check_channel`], for a stream.
///
/// # Errors
/// Same as [`check_channel`].
pub async fn check_stream(redis: &RedisConfig, topic: &str) -> Result<Vec<String>, UrlError> {
    let client = Client::new(redis)?;
    let mut see = pipe();
    see.cmd("XINFO").arg("GROUPS").arg(topic);
    Ok(match client.run::<Vec<Value>>(&see).await {
        Err(error) if error.why.contains("WRONGTYPE") => {
            vec![format!("redis: expected {topic} to be a stream: {}", error.why)]
        }
        // The first node that reads the stream creates it.
        Err(error) if error.why.contains("no such key") => Vec::new(),
        Err(error) => vec![error.to_string()],
        Ok(_) => Vec::new(),
    })
}
