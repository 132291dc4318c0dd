//! The device matrix across nodes: who was bound is told to every node that holds the user, and the lower number goes.
//!
//! A node holds the user's stream before it announces. Of two that bind at once, at least the one that announces second
//! is heard by the other; where that one has the greater number, its node says so again, so exactly one stays.

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
    /// Tells the nodes that hold the connection's user that it was bound, where that may concern them.
    ///
    /// # Errors
    /// A 503 when it could not be told: the same user may stay bound elsewhere.
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

    /// A connection of the user was bound on `from`: those here that must give way to it do, and if it must itself,
    /// its node hears to whom.
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
