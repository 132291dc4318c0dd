//! The format of every response, `{"code":…,"message":"…","data":…}`, and the [`Problem`] that ends a request early.
//!
//! Independent of paths and of the node.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// The response to the caller.
pub(super) type Answer = Response<Full<Bytes>>;

/// A rejected request. No part of it was executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(super) struct Problem {
    status: StatusCode,
    text: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Problem {
    /// Creates a problem with a text for the caller: field, expected and received value.
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), header: None }
    }

    /// 400: the request is malformed.
    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 401: the key is missing or unknown.
    pub(super) fn unauthorized(text: impl Into<String>) -> Self {
        Self { header: Some((WWW_AUTHENTICATE, "Bearer")), ..Self::new(StatusCode::UNAUTHORIZED, text) }
    }

    /// 405: the path exists, but not for this method.
    pub(super) fn wrong_method(text: impl Into<String>, allow: &'static str) -> Self {
        Self { header: Some((ALLOW, allow)), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, text) }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let mut answer = with_status(problem.status, &problem.text, None::<()>);
        if let Some((name, value)) = problem.header {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// 200, with `data`.
pub(super) fn ok(data: impl Serialize) -> Answer {
    with_status(StatusCode::OK, "ok", Some(data))
}

/// A response in the common format. `code` repeats the status for callers that read only the body.
pub(super) fn with_status(status: StatusCode, message: &str, data: Option<impl Serialize>) -> Answer {
    let mut body = Vec::with_capacity(TYPICAL_BYTES);
    let response_body = ResponseBody { code: status.as_u16(), message, data };
    serde_json::to_writer(&mut body, &response_body).expect("plain records with text keys always become JSON");
    plain(status, JSON, body)
}

/// A body in another format: the metrics page.
pub(super) fn plain(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

#[derive(Serialize)]
struct ResponseBody<'a, T> {
    code: u16,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

const JSON: &str = "application/json";
/// Initial capacity in bytes, enough for the response to one push.
const TYPICAL_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_has_the_shape_and_its_header() {
        let answer = Answer::from(Problem::wrong_method("method: expected POST, got GET", "POST"));
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()[ALLOW], "POST");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&*body, br#"{"code":405,"message":"method: expected POST, got GET"}"#);
    }
}
