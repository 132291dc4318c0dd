//! HTTP on a listener: answers WebSocket handshakes and passes every other request to the API.
//!
//! Ends with the upgrade: the socket moves to its own small task, and hyper's buffers are freed.

mod framing;
mod handshake;
mod head;
mod pipe;
mod repoll;
mod timer;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::connection::{self, ConnectionStart};
use super::peers::ConnectionPermit;
use super::socket::MaybeTlsStream;
use super::{Gateway, listener, stopped};
use crate::config::Service;
use crate::node::Socket as _;
use crate::telemetry::{capped, may_log};
use handshake::HandshakeCheck;
use pipe::{Pipe, PipeTimeouts, UpgradeNumber};
use repoll::Repoll;
use timer::HeadTimer;

/// Maximum number of headers of a request.
const MAX_HEADERS: usize = 64;
/// Maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Time allowed for the head of a request while descriptors are short.
const SHORT_HANDSHAKE: Duration = Duration::from_secs(1);
/// hyper's buffer size on listeners that receive bodies, in bytes: large enough to read a batch with few calls.
const MAX_BUFFER: usize = 64 * 1024;

/// Answers requests until the client leaves, the gateway stops, or a request upgrades to a WebSocket.
pub(super) async fn serve(
    permit: ConnectionPermit,
    stream: MaybeTlsStream,
    peer: SocketAddr,
    at: usize,
    serves: Vec<Service>,
) {
    let gateway = Arc::clone(permit.gateway());
    let (timer, timeouts) = {
        let config = gateway.config.load();
        let most = if permit.one_request { SHORT_HANDSHAKE } else { Duration::MAX };
        let head = config.limits.handshake.min(most);
        (HeadTimer::new(head, config.limits.keep_alive), PipeTimeouts { head, write: config.queue.write_timeout })
    };
    let http = http_builder(&timer, timeouts, permit.one_request, &serves);
    let websocket = UpgradeNumber::default();
    let pipe = Pipe::new(stream, timeouts, websocket.clone());
    let http_service = Arc::new(HttpService {
        gateway: Arc::clone(&gateway),
        peer,
        at,
        serves,
        timer,
        one_request: permit.one_request,
        requests: AtomicU32::new(0),
        websocket,
        upgraded: Mutex::default(),
    });
    let service = service_fn({
        let http_service = Arc::clone(&http_service);
        move |request| http_service.call(request)
    });
    let mut connection = http.serve_connection(TokioIo::new(pipe), service);

    let mut stop = gateway.stop.subscribe();
    let repoll = Repoll::new();
    let ended = tokio::select! {
        ended = poll_fn(|cx| repoll.poll(cx, |cx| connection.poll_without_shutdown(cx))) => ended,
        () = stopped(&mut stop) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| repoll.poll(cx, |cx| connection.poll_without_shutdown(cx))).await
        }
    };
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    if let Err(error) = ended {
        if may_log(peer.ip()) {
            tracing::debug!(%peer, error = capped(&error.to_string()), "HTTP connection failed");
        }
        // A malformed request was answered. Bytes after it must not turn the answer into a reset.
        if error.is_parse() {
            stream.shutdown(false);
            stream.linger().await;
        }
        return;
    }
    let upgraded = http_service.upgraded.lock().take();
    match upgraded {
        // The connection gets its own task, because this one is as large as hyper's state.
        Some(start) => connection::start(permit, start, stream, parts.read_buf).await,
        None => {
            stream.shutdown(false);
            stream.linger().await;
        }
    }
}

fn http_builder(timer: &HeadTimer, timeouts: PipeTimeouts, one_request: bool, serves: &[Service]) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(timer.clone())
        .header_read_timeout(timeouts.head)
        .keep_alive(!one_request)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        // Also serves clients that stop sending after a request or leave at once, like PHP's fire-and-forget.
        .half_close(true)
        .max_buf_size(if serves.contains(&Service::Api) { MAX_BUFFER } else { MAX_HEAD });
    http
}

/// Answers the requests of one connection.
struct HttpService {
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    at: usize,
    serves: Vec<Service>,
    timer: HeadTimer,
    /// No descriptor is left for another client.
    one_request: bool,
    /// Number of requests so far.
    requests: AtomicU32,
    websocket: UpgradeNumber,
    /// The accepted handshake.
    upgraded: Mutex<Option<Box<ConnectionStart>>>,
}

impl HttpService {
    fn call(&self, request: Request<Incoming>) -> BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>> {
        self.timer.request_received();
        let number = self.requests.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        // Bytes after a WebSocket request were not scanned, so none of them may be treated as a request.
        let is_last = number == self.websocket.number();
        if let Err(problem) = head::check(&request) {
            listener::refused(self.peer, "head");
            let answer = handshake::answer(StatusCode::BAD_REQUEST, &problem);
            return ready(Ok(with_connection_close(answer))).boxed();
        }
        match self.check(&request) {
            HandshakeCheck::Upgrade(..) if self.one_request => {
                listener::refused(self.peer, "descriptors");
                ready(Ok(with_connection_close(handshake::no_descriptor()))).boxed()
            }
            HandshakeCheck::Upgrade(start, response) => {
                *self.upgraded.lock() = Some(start);
                ready(Ok(response)).boxed()
            }
            HandshakeCheck::Refused(response) => {
                listener::refused(self.peer, "handshake");
                ready(Ok(if is_last { with_connection_close(response) } else { response })).boxed()
            }
            HandshakeCheck::OtherRequest => {
                let answer = self.gateway.api.respond(request, self.peer, &self.serves);
                answer.map(move |answer| Ok(if is_last { with_connection_close(answer) } else { answer })).boxed()
            }
        }
    }

    fn check(&self, request: &Request<Incoming>) -> HandshakeCheck {
        let config = self.gateway.config.load();
        let listener = &config.listeners[self.at];
        let may_connect = || {
            listener::counts_accepts(listener)
                || self.gateway.peers.may_connect(self.peer.ip(), config.limits.connects_per_ip)
        };
        handshake::check(request, listener, self.peer, self.at, may_connect)
    }
}

/// Marks the last response of a connection.
fn with_connection_close(mut answer: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    answer.headers_mut().append(CONNECTION, HeaderValue::from_static("close"));
    answer
}
