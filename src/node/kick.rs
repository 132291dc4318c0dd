//! Closes connections of this node by a kick of the back end. Builds the kick message.

use crate::clock;
use crate::disconnect::Disconnect;
use crate::hub::Connection;
use crate::message::{KICK_ACTION, Message};
use crate::protocol::{self, ServerFrame};

/// Closes the connections and returns their number.
pub(super) async fn close_all(mut connections: Vec<Connection>, text: &str) -> usize {
    // A connection that is already closing was not closed by this call.
    connections.retain(|connection| connection.closed().is_none());
    for connection in &connections {
        send_kick_message(connection, text).await;
        connection.close(Disconnect::KICKED).await;
    }
    connections.len()
}

/// Sends the message that makes every SDK of the family stop reconnecting.
pub(super) async fn send_kick_message(connection: &Connection, text: &str) {
    let (Some(form), Some(binding)) = (connection.form(), connection.binding()) else { return };
    let message = Message {
        action: KICK_ACTION.to_owned(),
        content: [("text", text)].into_iter().collect(),
        sender: "0".to_owned(),
        receiver: binding.uid.to_string(),
        timestamp: clock::now_millis(),
        ..Message::default()
    };
    if let Ok(frame) = protocol::encode(form, ServerFrame::Message(&message)) {
        connection.send(frame).await;
    }
}
