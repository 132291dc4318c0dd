//! Outgoing requests of plugins: the trait [`Fetch`], which the composition root implements, and its records.
//!
//! Knows no HTTP library and no socket. An implementation resolves a name once, connects only to an address that
//! [`Networks::permits`], follows no redirect, and enforces the limits of the request.

mod networks;
mod url;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use networks::{Network, Networks};
pub use url::{Scheme, Url};

/// Sends requests of plugins.
pub trait Fetch: Send + Sync {
    /// Sends one request and reads the whole answer.
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>>;
}

/// One request that has passed the plugin's allow-list.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The plugin that asks; connections are not shared with other plugins.
    pub plugin: Arc<str>,
    /// The method, e.g. GET or POST; an HTTP token.
    pub method: String,
    /// The target.
    pub url: Url,
    /// Headers with valid names and values, none of which belongs to the connection.
    pub headers: Vec<(String, String)>,
    /// The request's body; may be empty.
    pub body: Vec<u8>,
    /// Time from this call to the last byte of the answer.
    pub timeout: Duration,
    /// Most bytes of the answer's body.
    pub max_body: usize,
    /// Addresses that may be connected to.
    pub networks: Arc<Networks>,
}

/// An answer with any status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// Status code; a redirect is an answer like any other.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The name resolves to addresses that the operator did not grant.
    #[error("{0}")]
    Denied(String),
    /// Name resolution, connection or TLS failed.
    #[error("{0}")]
    Unreachable(String),
    /// The answer took too long.
    #[error("the request timed out")]
    Timeout,
    /// The answer is larger than the limit.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer is not HTTP, or ended in the middle.
    #[error("{0}")]
    Broken(String),
    /// The limit of concurrent requests is reached.
    #[error("too many concurrent requests")]
    Busy,
}
