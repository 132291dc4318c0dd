//! Clients that this node refuses or disconnects: each gets the reason and the address of another node.
//!
//! On WebSocket, the close frame carries both. CIM over TCP has no close frame, so an unsolicited REPLY carries them
//! before the end. CIM's SDKs pass it on like any other. Independent of sockets.

use std::net::IpAddr;

use bytes::Bytes;

use super::choose::NodeChooser;
use crate::clock;
use crate::disconnect::Disconnect;
use crate::hub::Connection;
use crate::message::Entries;
use crate::protocol::{self, Form, Framing, Reply, ServerFrame, websocket};

/// Key of the REPLY.
const KEY: &str = "closing";

/// Last bytes for a refused client with protocol `form` and address `ip`.
pub(in crate::node) fn refusal(
    chooser: &NodeChooser,
    form: Form,
    why: Disconnect,
    ip: Option<IpAddr>,
) -> Option<Bytes> {
    let next = chooser.other_address(&chooser.key(None, ip));
    match form.framing {
        Framing::WebSocket => Some(websocket::close_towards(why, next.as_deref())),
        Framing::Tcp => closing(form, why, next.as_deref()),
    }
}

/// Closes a connection that this node has held until now.
pub(in crate::node) async fn close_with_redirect(chooser: &NodeChooser, connection: &Connection, why: Disconnect) {
    // Only the user id is known. Unbound connections are spread by their id.
    let key = match connection.binding() {
        Some(binding) => chooser.key(Some(&binding.uid), None),
        None => connection.id().to_string(),
    };
    let next = chooser.other_address(&key);
    if let Some(form) = connection.form().filter(|form| form.framing == Framing::Tcp)
        && let Some(frame) = closing(form, why, next.as_deref())
    {
        connection.send(frame).await;
    }
    connection.close_towards(why, next.map(String::into_boxed_str)).await;
}

fn closing(form: Form, why: Disconnect, next: Option<&str>) -> Option<Bytes> {
    let mut data = Entries::new();
    if let Some(next) = next {
        data.insert("next", next);
    }
    let reply = Reply {
        key: KEY.to_owned(),
        code: why.code.to_string(),
        message: why.reason.to_owned(),
        timestamp: clock::now_millis(),
        data,
    };
    protocol::encode(form, ServerFrame::Reply(&reply)).ok()
}
