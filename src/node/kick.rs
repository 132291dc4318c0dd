//! Closes connections of this node by a kick of the back end, or because another device replaces them.
//!
//! Builds the kick message. Of other nodes it uses only the [`Contender`]. [`super::devices`] decides between two
//! devices, here and across nodes.

use super::Node;
use super::devices::{Conflict, Contender, Loser, contest};
use crate::clock;
use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::hub::Connection;
use crate::message::{KICK_ACTION, Message, Target};
use crate::protocol::{self, ServerFrame};

impl Node {
    /// Closes the target's connections on this node and returns their number.
    pub(super) async fn kick_here(&self, target: &Target, words: &str) -> usize {
        let mut connections = self.connections_of(target);
        // A connection that is already closing was not closed by this call.
        connections.retain(|connection| connection.closed().is_none());
        for connection in &connections {
            say_kicked(connection, words).await;
            connection.close(Disconnect::KICKED).await;
        }
        connections.len()
    }

    /// Applies the device matrix on this node. Of two connections that exclude each other, the earlier bind loses.
    pub(super) async fn settle_devices(&self, connection: &Connection) {
        let Some(mine) = connection.binding() else { return };
        let newcomer = Contender::of(&mine);
        for other in self.hub.user(mine.uid.as_str()) {
            if other.id() == connection.id() {
                continue;
            }
            if let Some((conflict, winner)) = self.challenge(connection.devices(), &newcomer, &other).await {
                dismiss(connection, conflict, &winner.name).await;
            }
        }
    }

    /// Closes `holder`, a connection of this node, if it loses against the newcomer. If the newcomer loses, returns the
    /// conflict and the winner.
    pub(super) async fn challenge(
        &self,
        policy: DevicePolicy,
        newcomer: &Contender,
        holder: &Connection,
    ) -> Option<(Conflict, Contender)> {
        let theirs = holder.binding().filter(|_| holder.closed().is_none())?;
        let theirs = Contender::of(&theirs);
        match contest(policy, newcomer, &theirs)? {
            (Loser::Newcomer, conflict) => Some((conflict, theirs)),
            (Loser::Holder, conflict) => {
                dismiss(holder, conflict, &newcomer.name).await;
                None
            }
        }
    }
}

async fn dismiss(connection: &Connection, conflict: Conflict, winner: &str) {
    if conflict == Conflict::OtherDevice {
        say_kicked(connection, winner).await;
    }
    connection.close(Disconnect::REPLACED).await;
}

async fn say_kicked(connection: &Connection, words: &str) {
    let (Some(form), Some(binding)) = (connection.form(), connection.binding()) else { return };
    let message = Message {
        action: KICK_ACTION.to_owned(),
        content: [("text", words)].into_iter().collect(),
        sender: "0".to_owned(),
        receiver: binding.uid.to_string(),
        timestamp: clock::now_millis(),
        ..Message::default()
    };
    if let Ok(frame) = protocol::encode(form, ServerFrame::Message(&message)) {
        connection.send(frame).await;
    }
}
