//! Checks one WebSocket handshake: path, RFC 6455 headers, Origin, dialect, the client's claim.
//!
//! A `ws` listener answers faults by HTTP. CIM's SDK reconnects within milliseconds after an HTTP error, so a `cim`
//! listener accepts the handshake first and then refuses in band.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
    USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::claim::Refusal;
use crate::code::Code;
use crate::config::{Listener, Service};
use crate::disconnect::Disconnect;
use crate::node::Transport;
use crate::protocol::{Coding, Form};
use crate::server::claim::{self, BadHandshake, Cookie, HandshakeData, TokenSources, lists};
use crate::server::connection::{ConnectionStart, FirstInput};
use crate::server::origin::{self, OriginCheck};

/// Path of the `ws` service.
const WS_PATH: &str = "/ws";
/// The protocol version of RFC 6455.
const VERSION: &str = "13";
/// Length of the handshake key in bytes.
const KEY_BYTES: usize = 16;
/// Maximum characters of a header in a response.
const MAX_SHOWN: usize = 80;

/// Result of the check.
pub(super) enum HandshakeCheck {
    /// A WebSocket handshake; send the response first.
    Upgrade(Box<ConnectionStart>, Response<Full<Bytes>>),
    /// An invalid WebSocket handshake, with its response.
    Refused(Response<Full<Bytes>>),
    /// A request for the API.
    OtherRequest,
}

/// Checks `request`. `may_connect` counts it as a connection attempt.
pub(super) fn check<B>(
    request: &Request<B>,
    listener: &Listener,
    peer: SocketAddr,
    at: usize,
    may_connect: impl FnOnce() -> bool,
) -> HandshakeCheck {
    let is_ws_path = listener.serves.contains(&Service::Ws) && request.uri().path() == WS_PATH;
    let is_cim = !is_ws_path && listener.serves.contains(&Service::Cim);
    if !wants_upgrade(request.headers()) {
        return if is_ws_path { HandshakeCheck::Refused(upgrade_required()) } else { HandshakeCheck::OtherRequest };
    }
    if !is_ws_path && !is_cim {
        return HandshakeCheck::OtherRequest;
    }
    if !may_connect() {
        return HandshakeCheck::Refused(rate_limited());
    }
    if has_body(request.headers()) {
        return HandshakeCheck::Refused(answer(StatusCode::BAD_REQUEST, "handshake: expected no body, got one"));
    }
    let mut response = match accepted(request) {
        Ok(response) => response,
        Err(refusal) => return HandshakeCheck::Refused(refusal),
    };
    let mut start = ConnectionStart {
        at,
        transport: transport(request, peer, is_cim),
        first_input: None,
        form: Form::websocket(listener.dialect, Coding::Protobuf),
        sniffs: is_cim,
    };
    match present(request, listener) {
        Ok(presented) => {
            if let Some(name) = presented.subprotocol {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
            }
            if let Some(form) = presented.form {
                (start.form, start.sniffs) = (form, false);
            }
            start.transport.path = presented.path;
            start.first_input = Some(match presented.claim.token {
                Some(_) => FirstInput::Token(Box::new(presented.claim)),
                None => FirstInput::Unbound,
            });
        }
        Err(bad) if is_cim => start.first_input = Some(refusal(&bad)),
        Err(bad) => return HandshakeCheck::Refused(refused(&bad)),
    }
    HandshakeCheck::Upgrade(Box::new(start), response)
}

/// The response to a handshake that follows RFC 6455 §4.2.1; otherwise the error response.
#[expect(clippy::result_large_err, reason = "both are answers")]
fn accepted<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, Response<Full<Bytes>>> {
    let headers = request.headers();
    let bad = |what, expected, got: &str| Err(bad_handshake(what, expected, got, StatusCode::BAD_REQUEST));
    if request.method() != Method::GET {
        return bad("method", "GET", request.method().as_str());
    }
    if request.version() < Version::HTTP_11 {
        return bad("version", "HTTP/1.1", &format!("{:?}", request.version()));
    }
    if !lists(headers, &CONNECTION, "upgrade") {
        return bad("Connection", "upgrade", text(headers, &CONNECTION).unwrap_or_default());
    }
    let version = text(headers, &SEC_WEBSOCKET_VERSION).unwrap_or_default().trim();
    if version != VERSION {
        return Err(bad_handshake("Sec-WebSocket-Version", VERSION, version, StatusCode::UPGRADE_REQUIRED));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).into_iter();
    let key = keys.next().filter(|_| keys.next().is_none()).map(|key| key.as_bytes().trim_ascii());
    let Some(key) = key.filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES)) else {
        let got = text(headers, &SEC_WEBSOCKET_KEY).unwrap_or_default();
        return bad("Sec-WebSocket-Key", "16 bytes as base64, once", got);
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = HeaderValue::from_str(&derive_accept_key(key)).expect("base64 is a header value");
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

fn present<B>(request: &Request<B>, listener: &Listener) -> Result<HandshakeData, BadHandshake> {
    let headers = request.headers();
    // No browser sends an Origin that is not text or occurs twice. Such an Origin matches no list.
    let mut origins = headers.get_all(ORIGIN).into_iter();
    let first = origins.next();
    let is_one = origins.next().is_none();
    let origin = first.map(|value| value.to_str().ok().filter(|_| is_one).unwrap_or_default());
    let cookie = match origin::check(origin, text(headers, &HOST), listener) {
        OriginCheck::Refused => return Err(BadHandshake::OriginRefused(origin.unwrap_or_default().to_owned())),
        OriginCheck::None => Cookie::Refused,
        OriginCheck::Allowed { cookie: true } => Cookie::Accepted,
        OriginCheck::Allowed { cookie: false } => Cookie::Ignored,
    };
    claim::read(request.uri(), headers, TokenSources { query_token: listener.query_token, cookie })
}

/// A refusal in band.
fn refusal(bad: &BadHandshake) -> FirstInput {
    let (why, code) = match bad {
        BadHandshake::OriginRefused(_) | BadHandshake::CookieWithoutOrigin => {
            (Disconnect::ORIGIN_REFUSED, Code::FORBIDDEN)
        }
        BadHandshake::Invalid(_) => (Disconnect::PROTOCOL_ERROR, Code::BAD_REQUEST),
    };
    FirstInput::Refused(why, Refusal::new(code, bad.to_string()))
}

/// A refusal by HTTP.
fn refused(bad: &BadHandshake) -> Response<Full<Bytes>> {
    let status = match bad {
        BadHandshake::OriginRefused(_) | BadHandshake::CookieWithoutOrigin => StatusCode::FORBIDDEN,
        BadHandshake::Invalid(_) => StatusCode::BAD_REQUEST,
    };
    answer(status, &bad.to_string())
}

fn transport<B>(request: &Request<B>, peer: SocketAddr, is_cim: bool) -> Transport {
    Transport {
        listener: if is_cim { "cim" } else { "ws" },
        remote: peer.ip().to_canonical().to_string(),
        path: String::new(),
        origin: text(request.headers(), &ORIGIN).map(str::to_owned),
        user_agent: text(request.headers(), &USER_AGENT).map(str::to_owned),
        bound: None,
    }
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    lists(headers, &UPGRADE, "websocket")
}

/// Bytes after the head would be read as frames.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || text(headers, &CONTENT_LENGTH).is_some_and(|length| length != "0")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn upgrade_required() -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::UPGRADE_REQUIRED, "upgrade: expected a WebSocket handshake, got none");
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

fn rate_limited() -> Response<Full<Bytes>> {
    let mut response =
        answer(StatusCode::TOO_MANY_REQUESTS, "too many connection attempts from this address: retry later");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The response while the remaining file descriptors are reserved for requests.
pub(super) fn no_descriptor() -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::SERVICE_UNAVAILABLE, "the node has no file descriptor for one more client");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn bad_handshake(what: &str, expected: &str, got: &str, status: StatusCode) -> Response<Full<Bytes>> {
    let got: String = got.chars().take(MAX_SHOWN).collect();
    let mut response = answer(status, &format!("handshake: {what}: expected {expected}, got {got:?}"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    response
}

/// A response in the format of the API.
pub(super) fn answer(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "code": status.as_u16(), "message": words }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
