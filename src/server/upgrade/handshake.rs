//! Judges one WebSocket handshake: path, RFC 6455 headers, Origin, dialect, the client's claim.
//!
//! On a `ws` listener what is wrong is answered by HTTP. CIM's SDK redials an HTTP error within milliseconds, so on a `cim`
//! listener every refusal is accepted first and then told in band.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::claim::Refusal;
use crate::config::{Listener, Service};
use crate::disconnect::Disconnect;
use crate::node::Transport;
use crate::protocol::{Coding, Form};
use crate::server::claim::{self, Allowed, BadHandshake, Presented};
use crate::server::connection::{Arrival, Opening};
use crate::server::origin::{self, Page};

/// Where `ws` is served.
const WS_PATH: &str = "/ws";

/// What becomes of a request.
pub(super) enum Judged {
    /// It is a WebSocket now; the answer must be sent first.
    Upgrade(Box<Arrival>, Response<Full<Bytes>>),
    /// It was meant to be one.
    Answer(Response<Full<Bytes>>),
    /// It is the API's.
    NotOurs,
}

/// Judges `request`; `may_connect` counts it as a connect.
pub(super) fn judge<B>(
    request: &Request<B>,
    listener: &Listener,
    peer: SocketAddr,
    at: usize,
    may_connect: impl FnOnce() -> bool,
) -> Judged {
    let is_ws_path = listener.serves.contains(&Service::Ws) && request.uri().path() == WS_PATH;
    let is_cim = !is_ws_path && listener.serves.contains(&Service::Cim);
    if !wants_upgrade(request.headers()) {
        return if is_ws_path { Judged::Answer(upgrade_required()) } else { Judged::NotOurs };
    }
    if !is_ws_path && !is_cim {
        return Judged::NotOurs;
    }
    if !may_connect() {
        return Judged::Answer(too_often());
    }
    if has_body(request.headers()) {
        return Judged::Answer(answer(StatusCode::BAD_REQUEST, "handshake: expected no body, got one"));
    }
    let mut response = match create_response_with_body(request, Full::default) {
        Ok(response) => response,
        Err(error) => return Judged::Answer(bad_handshake(&error)),
    };
    let mut arrival = Arrival {
        at,
        transport: transport(request, peer, is_cim),
        opening: None,
        form: Form::websocket(listener.dialect, Coding::Protobuf),
        sniffs: is_cim,
    };
    match present(request, listener) {
        Ok(presented) => {
            if let Some(name) = presented.subprotocol {
                response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
            }
            if let Some(form) = presented.form {
                (arrival.form, arrival.sniffs) = (form, false);
            }
            arrival.transport.path = presented.path;
            arrival.opening = Some(match presented.claim.token {
                Some(_) => Opening::Token(Box::new(presented.claim)),
                None => Opening::Unbound,
            });
        }
        Err(bad) if is_cim => arrival.opening = Some(refusal(&bad)),
        Err(bad) => return Judged::Answer(refused(&bad)),
    }
    Judged::Upgrade(Box::new(arrival), response)
}

fn present<B>(request: &Request<B>, listener: &Listener) -> Result<Presented, BadHandshake> {
    let headers = request.headers();
    let own = request.uri().authority().map(hyper::http::uri::Authority::as_str).or_else(|| text(headers, &HOST));
    // A header that is no text comes from no browser: it is no page that could be on the list.
    let page_origin = headers.get(ORIGIN).map(|value| value.to_str().unwrap_or_default());
    let page = origin::judge(page_origin, own, &listener.origins);
    if page == Page::Refused {
        return Err(BadHandshake::ForeignPage(page_origin.unwrap_or_default().to_owned()));
    }
    let allowed = Allowed { query_token: listener.query_token, cookie: page == Page::Allowed };
    claim::read(request.uri(), headers, allowed)
}

/// A refusal told in band.
fn refusal(bad: &BadHandshake) -> Opening {
    let (why, code) = match bad {
        BadHandshake::ForeignPage(_) | BadHandshake::CookieWithoutPage => (Disconnect::ORIGIN_REFUSED, "403"),
        BadHandshake::Invalid(_) => (Disconnect::PROTOCOL_ERROR, "400"),
    };
    Opening::Refused(why, Refusal::new(code, bad.to_string()))
}

/// The same, told by HTTP.
fn refused(bad: &BadHandshake) -> Response<Full<Bytes>> {
    let status = match bad {
        BadHandshake::ForeignPage(_) | BadHandshake::CookieWithoutPage => StatusCode::FORBIDDEN,
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
    text(headers, &UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
}

/// What came behind the head would be read as frames.
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

fn too_often() -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::TOO_MANY_REQUESTS, "this address connects too often");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn bad_handshake(error: &Error) -> Response<Full<Bytes>> {
    let is_version = matches!(error, Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader));
    let status = if is_version { StatusCode::UPGRADE_REQUIRED } else { StatusCode::BAD_REQUEST };
    let mut response = answer(status, &format!("handshake: {error}"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// The API's shape of a fault.
fn answer(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "code": status.as_u16(), "message": words }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
