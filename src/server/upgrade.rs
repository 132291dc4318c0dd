//! HTTP on a listener: WebSocket handshakes are answered here, every other request goes to the API.
//!
//! Ends with the request that is upgraded: the socket goes to a small task of its own, and hyper's buffers are freed.

mod handshake;
mod repoll;
mod timer;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::connection::{self, Arrival};
use super::peers::Guest;
use super::socket::Stream;
use super::{Gateway, listener, stopped};
use crate::config::Service;
use crate::node::Socket as _;
use crate::telemetry::{capped, may_tell};
use handshake::Judged;
use repoll::Repoll;
use timer::HeadTimer;

/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// hyper's buffers where bodies come, in bytes: a batch is read with few calls.
const MAX_BUFFER: usize = 64 * 1024;

/// Answers requests until the client leaves, the gateway stops, or one becomes a WebSocket.
pub(super) async fn serve(guest: Guest, stream: Stream, peer: SocketAddr, at: usize, serves: Vec<Service>) {
    let gateway = Arc::clone(guest.gateway());
    let timer = HeadTimer::default();
    let mut http = http1::Builder::new();
    http.timer(timer.clone())
        .header_read_timeout(gateway.config.load().limits.handshake)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        // Who sends a request and then stops sending, or leaves at once, as PHP's fire-and-forget does, is served too.
        .half_close(true)
        .max_buf_size(if serves.contains(&Service::Api) { MAX_BUFFER } else { MAX_HEAD });
    let front = Arc::new(Front { gateway: Arc::clone(&gateway), peer, at, serves, timer, upgraded: Mutex::default() });
    let service = service_fn({
        let front = Arc::clone(&front);
        move |request| front.call(request)
    });
    let mut connection = http.serve_connection(TokioIo::new(stream), service);

    let mut stop = gateway.stop.subscribe();
    let repoll = Repoll::new();
    let ended = tokio::select! {
        ended = poll_fn(|cx| repoll.poll(cx, |cx| connection.poll_without_shutdown(cx))) => ended,
        () = stopped(&mut stop) => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|cx| repoll.poll(cx, |cx| connection.poll_without_shutdown(cx))).await
        }
    };
    if let Err(error) = ended {
        if may_tell(peer.ip()) {
            tracing::debug!(%peer, error = capped(&error.to_string()), "http connection ended");
        }
        return;
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    let upgraded = front.upgraded.lock().take();
    match upgraded {
        // It gets a task of its own: this one is as large as hyper is.
        Some(arrival) => connection::begin(guest, arrival, stream, parts.read_buf).await,
        None => {
            stream.shutdown(false);
            stream.linger().await;
        }
    }
}

/// Who answers the requests of one connection.
struct Front {
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    at: usize,
    serves: Vec<Service>,
    timer: HeadTimer,
    /// The handshake that was accepted.
    upgraded: Mutex<Option<Box<Arrival>>>,
}

impl Front {
    fn call(&self, request: Request<Incoming>) -> BoxFuture<'static, Result<Response<Full<Bytes>>, Infallible>> {
        self.timer.saw_request();
        match self.judge(&request) {
            Judged::Upgrade(arrival, response) => {
                *self.upgraded.lock() = Some(arrival);
                ready(Ok(response)).boxed()
            }
            Judged::Answer(response) => {
                listener::refused(self.peer, "handshake");
                ready(Ok(response)).boxed()
            }
            Judged::NotOurs => self.gateway.api.respond(request, self.peer, &self.serves).map(Ok).boxed(),
        }
    }

    fn judge(&self, request: &Request<Incoming>) -> Judged {
        let config = self.gateway.config.load();
        let listener = &config.listeners[self.at];
        let may_connect = || listener::counts_accepts(listener) || self.gateway.peers.may_connect(self.peer.ip());
        handshake::judge(request, listener, self.peer, self.at, may_connect)
    }
}
