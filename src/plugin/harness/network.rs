//! The network of a harness: given answers, and a record of the requests. Nothing leaves the process.
//!
//! The manifest's allow-list is checked before, as in a node.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use crate::plugin::fetch::{Fetch, FetchError, FetchRequest, FetchResponse};

/// An expected request and its answer.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// The method, e.g. GET or POST.
    pub method: String,
    /// The whole URL, with scheme and path.
    pub url: String,
    /// The answer, or why there is none.
    pub answer: Result<FetchResponse, FetchError>,
}

/// A request as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentRequest {
    /// GET, POST…
    pub method: String,
    /// The whole URL.
    pub url: String,
    /// Names and values, as the plugin gave them.
    pub headers: Vec<(String, String)>,
    /// The request's body.
    pub body: Vec<u8>,
}

/// The given network.
#[derive(Debug)]
pub(super) struct GivenNetwork {
    /// Each exchange with the number of its uses.
    exchanges: Mutex<Vec<(Exchange, usize)>>,
    asked: Mutex<Vec<SentRequest>>,
}

impl GivenNetwork {
    pub(super) fn new(exchanges: &[Exchange]) -> Self {
        let exchanges = exchanges.iter().map(|exchange| (exchange.clone(), 0)).collect();
        Self { exchanges: Mutex::new(exchanges), asked: Mutex::default() }
    }

    pub(super) fn take_asked(&self) -> Vec<SentRequest> {
        std::mem::take(&mut self.asked.lock())
    }

    /// Answers to the same request are used in turn; the last one is repeated.
    fn answer(&self, method: &str, url: &str) -> Result<FetchResponse, FetchError> {
        let mut exchanges = self.exchanges.lock();
        let mut fitting = exchanges.iter_mut().filter(|(one, _)| one.method == method && one.url == url).peekable();
        while let Some((exchange, used)) = fitting.next() {
            if *used == 0 || fitting.peek().is_none() {
                *used += 1;
                return exchange.answer.clone();
            }
        }
        Err(FetchError::Unreachable(format!("the test case has no answer for {method} {url}")))
    }
}

impl Fetch for GivenNetwork {
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>> {
        let FetchRequest { method, url, headers, body, max_body, .. } = request;
        let url = format!("{url}{}", url.path);
        let answer = self.answer(&method, &url).and_then(|answer| match answer.body.len() > max_body {
            true => Err(FetchError::TooLarge),
            false => Ok(answer),
        });
        self.asked.lock().push(SentRequest { method, url, headers, body });
        ready(answer).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_answers_are_used_in_turn_and_the_last_is_repeated() {
        let given = |url: &str, status| Exchange {
            method: "GET".into(),
            url: url.into(),
            answer: Ok(FetchResponse { status, headers: Vec::new(), body: Vec::new() }),
        };
        let network = GivenNetwork::new(&[given("http://a/", 500), given("http://b/", 404), given("http://a/", 200)]);
        let statuses: Vec<u16> = (0..3).map(|_| network.answer("GET", "http://a/").unwrap().status).collect();
        assert_eq!(statuses, [500, 200, 200]);
        assert_eq!(network.answer("GET", "http://b/").unwrap().status, 404);
        let none = network.answer("POST", "http://a/").unwrap_err();
        assert_eq!(none, FetchError::Unreachable("the test case has no answer for POST http://a/".to_owned()));
    }
}
