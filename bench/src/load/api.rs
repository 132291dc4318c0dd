//! Single requests to the push API of a node under test, each on a new connection.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The push API at this address, without a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
}

impl Api {
    /// # Errors
    /// The node does not answer, or refuses.
    pub(crate) async fn get(self, path: &str) -> anyhow::Result<Value> {
        self.ask("GET", path, "").await
    }

    /// # Errors
    /// The node does not answer, or refuses.
    pub(crate) async fn post(self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.ask("POST", path, &body.to_string()).await
    }

    async fn ask(self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        read(&answer).with_context(|| format!("{method} {path}"))
    }
}

/// The body of a whole answer.
fn read(answer: &str) -> anyhow::Result<Value> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the node closed the connection before it answered")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("the node answered {status}: {body}");
    }
    serde_json::from_str(body).with_context(|| format!("expected JSON from the node, got {body:?}"))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn answer_of_a_node_is_read() {
        let answer = |status: &str, body: &str| read(&format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\n{body}"));
        assert_eq!(answer("200 OK", r#"{"code":200}"#).unwrap()["code"], 200);
        assert_eq!(answer("403 Forbidden", "no").unwrap_err().to_string(), "the node answered 403: no");
        assert!(answer("200 OK", "hi").unwrap_err().to_string().contains("expected JSON"));
        assert!(read("HTTP/1.1 200 OK").is_err());
    }
}
