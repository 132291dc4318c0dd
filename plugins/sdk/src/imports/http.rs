//! HTTP requests, for example to fetch a key set. Filters cannot use them. The operator grants `http`, `grants =
//! ["http"]`, and lists the allowed origins in the manifest: `[http]`, `allow = ["https://keys.example"]`. A request is
//! sent at once and is not undone if the call fails.
//!
//! ```
//! use skylark_plugin::http::{Error, Request};
//! fn keys() -> Result<Vec<u8>, Error> {
//!     let answer = Request::get("https://keys.example/jwks.json").header("accept", "application/json").send()?;
//!     if answer.status == 200 { Ok(answer.body) } else { Err(Error::Broken(format!("status {}", answer.status))) }
//! }
//! # skylark_plugin::testing::with(|host| {
//! #     let answer = skylark_plugin::http::Response { status: 200, headers: vec![], body: b"{}".to_vec() };
//! #     host.answers.insert("GET https://keys.example/jwks.json".into(), answer);
//! # });
//! # assert_eq!(keys().unwrap(), b"{}");
//! ```

pub use crate::bindings::host::skylark::plugin::http::{Error, Request, Response};

impl Request {
    /// A GET request for this URL.
    pub fn get(url: impl Into<String>) -> Self {
        Self { method: "GET".to_owned(), url: url.into(), headers: Vec::new(), body: None, timeout_ms: None }
    }

    /// Turns the request into a POST with this body.
    #[must_use]
    pub fn post(mut self, body: impl Into<Vec<u8>>) -> Self {
        (self.method, self.body) = ("POST".to_owned(), Some(body.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the time limit, counted up to the last byte of the response.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = Some(milliseconds);
        self
    }

    /// Sends the request and waits for the response. Any status is a response; redirects are not followed.
    ///
    /// # Errors
    /// The URL is not allowed or cannot be reached, a time or size limit is exceeded, or the request is not valid.
    #[cfg(target_family = "wasm")]
    pub fn send(&self) -> Result<Response, Error> {
        crate::bindings::host::skylark::plugin::http::send(self)
    }

    /// Returns the response that the test set (`testing::Host::answers`).
    ///
    /// # Errors
    /// The test set no response for this request.
    #[cfg(not(target_family = "wasm"))]
    pub fn send(&self) -> Result<Response, Error> {
        let asked = format!("{} {}", self.method, self.url);
        let answer = crate::testing::with(|host| host.answers.get(&asked).cloned());
        answer.ok_or_else(|| Error::Unreachable(format!("the test has no answer to {asked}")))
    }
}

impl Response {
    /// The first header with this name (in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}
