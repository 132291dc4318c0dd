//! The interface `http`: one request to a host that the operator allows. Checked here, sent by
//! [`Fetch`](crate::plugin::fetch::Fetch).
//!
//! Nothing is staged: a request is sent at once, and sent again if its call is run again.

use std::sync::Arc;
use std::time::Duration;

use crate::plugin::Role;
use crate::plugin::fetch::{FetchError, FetchRequest, Url};
use crate::plugin::guest::bindings::skylark::plugin::http::{Error, Host, Request, Response};
use crate::plugin::guest::state::{Context, Guest};

/// Most concurrent requests of one plugin version.
pub(in crate::plugin) const CONCURRENT_REQUESTS: usize = 16;
/// Timeout of a request if the guest names none.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most headers of a request.
const MAX_HEADERS: usize = 32;
/// Headers that belong to the connection, or that would change how the other side reads the request.
const RESERVED_HEADERS: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "te",
    "trailer",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
];

impl Host for Guest {
    async fn send(&mut self, request: Request) -> wasmtime::Result<Result<Response, Error>> {
        let headers: usize = request.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let body = request.body.as_ref().map_or(0, Vec::len);
        self.call.hand_over(request.method.len() + request.url.len() + headers + body)?;
        Ok(match self.check_request(request) {
            Ok(request) => {
                self.call.has_asked_network = true;
                send(Arc::clone(&self.context), request).await
            }
            Err(error) => Err(error),
        })
    }
}

impl Guest {
    /// Checks a guest's request and converts it.
    fn check_request(&self, request: Request) -> Result<FetchRequest, Error> {
        if !matches!(self.call.role, Some(Role::Auth | Role::Access | Role::Handler | Role::Events)) {
            return Err(Error::Denied("only auth, access, handler and events calls may send requests".to_owned()));
        }
        let Request { method, url, headers, body, timeout_ms } = request;
        let url = Url::parse(&url).map_err(Error::Invalid)?;
        let (plugin, outgoing) = (&self.context.plugin, &self.context.outgoing);
        if !outgoing.allows(&url) {
            return Err(Error::Denied(format!(
                "{url} is not allowed: name it in {plugin}.toml under [http]: allow = [\"{url}\"]"
            )));
        }
        if method.is_empty()
            || method.len() > 16
            || !method.bytes().all(|b| b.is_ascii_uppercase())
            || method == "CONNECT"
        {
            return Err(Error::Invalid(format!("method: expected GET, POST or the like, got {method:?}")));
        }
        if headers.len() > MAX_HEADERS {
            return Err(Error::Invalid(format!("headers: expected at most {MAX_HEADERS}, got {}", headers.len())));
        }
        for (name, value) in &headers {
            check_header(name, value).map_err(Error::Invalid)?;
        }
        // The guest must be able to see a time-out, so a request may not take the whole wall time of the call.
        let most = self.call.budget.wall / 4 * 3;
        let asked = timeout_ms.map_or(TIMEOUT, |ms| Duration::from_millis(ms.max(1).into()));
        Ok(FetchRequest {
            plugin: plugin.clone(),
            method,
            url,
            headers,
            body: body.unwrap_or_default(),
            timeout: asked.min(most),
            max_body: outgoing.body,
            networks: outgoing.networks.clone(),
        })
    }
}

async fn send(context: Arc<Context>, request: FetchRequest) -> Result<Response, Error> {
    let Some(fetch) = &context.fetch else {
        return Err(Error::Unreachable("this host has no network".to_owned()));
    };
    let Ok(_turn) = context.requests.try_acquire() else { return Err(Error::Busy) };
    let answer = fetch.fetch(request).await.map_err(|error| match error {
        FetchError::Denied(why) => Error::Denied(why),
        FetchError::Unreachable(why) => Error::Unreachable(why),
        FetchError::Timeout => Error::Timeout,
        FetchError::TooLarge => Error::TooLarge,
        FetchError::Broken(why) => Error::Broken(why),
        FetchError::Busy => Error::Busy,
    })?;
    Ok(Response { status: answer.status, headers: answer.headers, body: answer.body })
}

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("headers: expected a header name, got {name:?}"));
    }
    if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(format!("headers: {name} is set by the host"));
    }
    if !value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
        return Err(format!("headers: {name}: expected visible ASCII characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cannot_smuggle_another_or_a_second_request() {
        assert_eq!(check_header("Accept", "application/json, */*;q=0.5"), Ok(()));
        for (name, value) in [
            ("a b", "x"),
            ("a:", "x"),
            ("", "x"),
            ("a", "x\r\nHost: y"),
            ("a", "x\0"),
            ("a", "é"),
            ("Host", "y"),
            ("transfer-ENCODING", "chunked"),
            ("Content-Length", "0"),
        ] {
            assert!(check_header(name, value).is_err(), "{name}: {value}");
        }
    }
}
