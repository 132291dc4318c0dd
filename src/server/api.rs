//! The push API over HTTP: stub until the API lands.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use crate::config::Service;

/// The push API.
pub struct Api {}

impl Api {
    /// Answers one request that is no WebSocket upgrade.
    pub async fn respond(
        &self,
        _request: Request<Incoming>,
        _peer: SocketAddr,
        _serves: &[Service],
    ) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}
