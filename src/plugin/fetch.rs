//! How plugins reach out: the trait [`Fetch`], which the composition root fills, and the words of a request.
//!
//! Knows no HTTP library and no socket. Whoever implements it resolves a name once, connects only to an address that
//! [`Networks::permits`], follows no redirect, and holds the caps of the request.

mod networks;
mod url;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use networks::{Network, Networks};
pub use url::{Scheme, Url};

/// Sends requests of plugins.
pub trait Fetch: Send + Sync {
    /// Sends one request and reads its answer whole.
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>>;
}

/// One request, judged already by the plugin's allow-list.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// Who asks; connections are not shared with others.
    pub plugin: Arc<str>,
    /// GET, POST…; a token of HTTP.
    pub method: String,
    /// Where to.
    pub url: Url,
    /// Valid names and values, none that belongs to the connection.
    pub headers: Vec<(String, String)>,
    /// What is sent; may be empty.
    pub body: Vec<u8>,
    /// From here to the last byte of the answer.
    pub timeout: Duration,
    /// Most bytes of the answer's body.
    pub max_body: usize,
    /// Which addresses may be connected to.
    pub networks: Arc<Networks>,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// 200, 404…; a redirect is an answer like any other.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// All of it.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The name stands for addresses that the operator did not grant.
    #[error("{0}")]
    Denied(String),
    /// No name, no connection, no TLS.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The answer is larger than it may be.
    #[error("the answer is too large")]
    TooLarge,
    /// What came is no HTTP, or ended in the middle.
    #[error("{0}")]
    Broken(String),
    /// As many requests are under way as may be.
    #[error("too many requests are under way")]
    Busy,
}
