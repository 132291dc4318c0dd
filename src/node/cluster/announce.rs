//! Device matrix across nodes: a bind is announced to every node that has the user, and the lower bind number loses.
//!
//! A node subscribes to the user before it announces. Of two concurrent binds, the other node receives at least the
//! later announcement. If its own bind has the greater number, it announces that back, so exactly one stays.

use super::Node;
use super::word;
use crate::broker::Address;
use crate::claim::Refusal;
use crate::config::DevicePolicy;
use crate::hub::Connection;
use crate::id::NodeId;
use crate::node::devices::Contender;
use crate::node::unavailable;
use crate::protocol::cluster as wire;

impl Node {
    /// Announces a bind to the other nodes of the user if it may exclude their connections.
    ///
    /// # Errors
    /// A 503 if the announcement failed: the same user may stay bound elsewhere.
    pub(in crate::node) async fn announce(&self, connection: &Connection) -> Result<(), Refusal> {
        let policy = connection.devices();
        if policy == DevicePolicy::AllowAll || connection.closed().is_some() {
            return Ok(());
        }
        let Some(binding) = connection.binding() else { return Ok(()) };
        let newcomer = Contender::of(&binding);
        if !newcomer.excludes_any() {
            return Ok(());
        }
        let word = word::contender(&binding.uid, policy, &newcomer);
        let told = self.broker.tell(Address::User(binding.uid.clone()), word).await;
        told.map(drop).map_err(|why| unavailable(&why))
    }

    /// Handles a bind on `from`. Closes the connections here that lose against it. If the new one loses, sends the
    /// winner back.
    pub(super) async fn meet(&self, from: &NodeId, contender: wire::Contender) {
        let (uid, policy, newcomer) = match word::read_contender(contender) {
            Ok(read) => read,
            Err(why) => return tracing::warn!(%from, %why, "a bind elsewhere is not understood"),
        };
        for holder in self.hub.user(uid.as_str()) {
            if let Some((_, winner)) = self.challenge(policy, &newcomer, &holder).await {
                self.say(Address::Node(from.clone()), word::contender(&uid, policy, &winner)).await;
            }
        }
    }
}
