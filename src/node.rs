//! Connects hub, broker and plugins. No other module uses all three.
//!
//! [`Node`] composes one owner for each concern, and its methods only pass calls on:
//!
//! - [`publish`]: the one way of a message to the broker; [`deliver`]: the way back to the hub.
//! - [`connect`]: attach, admission, bind and detach of a connection; [`devices`]: the device matrix.
//! - [`rooms`]: members of rooms on this node; [`presence`]: subscriptions, and the users online in the cluster.
//! - [`cluster`]: membership, and requests to other nodes: lists, changes, kicks.
//! - [`readiness`], [`drain`] and [`effects`]: the node as operators and plugins see it.
//!
//! Independent of sockets, HTTP and wasmtime.

pub mod cluster;
mod connect;
pub mod deliver;
mod devices;
mod drain;
pub mod effects;
#[cfg(test)]
pub(crate) mod fake;
mod kick;
mod presence;
mod publish;
mod query;
mod readiness;
mod resume;
mod rooms;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

pub use crate::broker::Unavailable;
pub use crate::broker::history::{KeptMessage, Missed, Page, Range, Start};
pub use crate::broker::roster::Member;
pub use crate::broker::source::{Delay, Record, RecordPosition, Source};
pub use crate::fate::{Fate, Published, Unjudged};
pub use crate::hub::{Binding, Connection, Socket};
pub use crate::plugin::{Call, Identity, PluginCommand, PluginCommandFault, PluginState, Rejected, Status, Transport};
pub use query::{Counts, Filter, HistoryFault, PluginHistory, SeenConnection, SeenUser};
pub use resume::{Replay, Resumed};
pub use rooms::RoomJoin;

use crate::broker::Broker;
use crate::broker::history::HistoryStore;
use crate::broker::roster::{LeaseError, Roster};
use crate::claim::{Admission, Answer, Claim, Facts, Refusal};
use crate::code::Code;
use crate::config::{DevicePolicy, LiveConfig};
use crate::disconnect::Disconnect;
use crate::hub::Hub;
use crate::id::{ConnectionId, IdSequence, NodeId, Room, Uid};
use crate::message::{Entries, Publication, Target};
use crate::plugin::PluginHost;
use crate::protocol::Form;
use crate::session::{ClientMessage, JoinReplay};
use cluster::change::Changes;
use cluster::choose::NodeChooser;
use cluster::list::{Listing, Lists};
use cluster::membership::Membership;
use cluster::redirect;
use cluster::requests::Requests;
use cluster::{Changed, Cluster, Kicked};
use connect::{Binder, Owners, identity};
use devices::Devices;
use presence::PresenceTracker;
use publish::Publishing;
use query::Local;
use readiness::Readiness;
use resume::Resumer;
use rooms::Rooms;

/// A running node.
pub struct Node {
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    /// Kept messages; `None` if the node keeps none.
    history: Option<Arc<dyn HistoryStore>>,
    plugins: Arc<dyn PluginHost>,
    publishing: Publishing,
    binder: Arc<Binder>,
    rooms: Arc<Rooms>,
    presence: Arc<PresenceTracker>,
    cluster: Cluster,
    readiness: Readiness,
}

impl Node {
    /// Creates a node that follows `config`. `history` reads the messages that `broker` keeps, `None` if it keeps none.
    /// The node joins no cluster yet: see [`Node::join_cluster`].
    #[must_use]
    pub fn new(
        live: LiveConfig,
        ids: Arc<IdSequence>,
        hub: Arc<Hub>,
        (broker, roster): (Arc<dyn Broker>, Arc<dyn Roster>),
        plugins: Arc<dyn PluginHost>,
        history: Option<Arc<dyn HistoryStore>>,
    ) -> Self {
        let config = live.load_full();
        let membership = Arc::new(Membership::new(&config, hub.clone(), roster.clone()));
        let presence =
            PresenceTracker::new(hub.clone(), broker.clone(), roster.clone(), plugins.clone(), membership.clone());
        let presence = Arc::new(presence);
        let retained = history.is_some().then(|| config.history.clone());
        let resumer = Arc::new(Resumer::new(hub.clone(), history.clone(), plugins.clone()));
        let rooms = Rooms::new(live, hub.clone(), plugins.clone(), presence.clone(), resumer.clone());
        let rooms = Arc::new(rooms);
        let devices = Arc::new(Devices::new(hub.clone(), broker.clone(), roster));
        let owners = Owners {
            membership: membership.clone(),
            presence: presence.clone(),
            rooms: rooms.clone(),
            devices: devices.clone(),
            resumer,
        };
        let binder = Binder::new(hub.clone(), ids.clone(), plugins.clone(), owners, config.limits.auth_calls);
        let binder = Arc::new(binder);
        let local = Local::new(hub.clone());
        let requests = Requests::new(ids.clone(), broker.clone(), membership.clone(), config.cluster.reply_timeout);
        let requests = Arc::new(requests);
        let lists = Lists::new(local.clone(), requests.clone(), membership.clone());
        let changes = Arc::new(Changes {
            local,
            rooms: rooms.clone(),
            binder: binder.clone(),
            requests,
            membership: membership.clone(),
        });
        let chooser = Arc::new(NodeChooser::new(config.cluster.choose_by, membership.clone()));
        Self {
            readiness: Readiness::new(broker.clone(), plugins.clone(), membership),
            publishing: Publishing::new(ids, plugins.clone(), broker.clone(), retained),
            cluster: Cluster::new(&hub, chooser, lists, changes, devices),
            hub,
            broker,
            history,
            plugins,
            binder,
            rooms,
            presence,
        }
    }

    /// Publishes messages. Returns one result per publication, in order.
    pub async fn publish(&self, batch: Vec<Publication>) -> Vec<Published> {
        self.publishing.publish(batch).await
    }

    /// Publishes a client's message.
    ///
    /// # Errors
    /// A refusal if the connection is not bound or is not in the room that it writes to.
    pub async fn publish_from(&self, connection: &Connection, message: ClientMessage) -> Result<Published, Refusal> {
        self.publishing.publish_from(connection, message).await
    }

    /// Adds a new, unbound connection. `form` is `None` if the first frame decides it. `devices` is the policy of its
    /// listener.
    ///
    /// # Errors
    /// Reason of the refusal: too many connections, draining, or no connection to the cluster.
    pub async fn attach(
        &self,
        socket: Arc<dyn Socket>,
        form: Option<Form>,
        devices: DevicePolicy,
    ) -> Result<Connection, Disconnect> {
        self.binder.attach(socket, form, devices).await
    }

    /// Asks the auth plugins.
    ///
    /// # Errors
    /// The refusal of the plugin, or of the plugin host if the plugin failed.
    pub async fn admit(&self, transport: Transport, claim: Claim) -> Result<Admission, Refusal> {
        self.binder.admit(transport, claim).await
    }

    /// Binds the connection as admitted. A second bind of the same user adds facts. If the client asked to resume, run the
    /// returned replay after the REPLY.
    ///
    /// # Errors
    /// A refusal if the connection is bound to another user, or if the claimed device is not a valid name.
    pub async fn bind(
        &self,
        connection: &Connection,
        admission: Admission,
        facts: Facts,
    ) -> Result<Option<Resumed>, Refusal> {
        self.binder.bind(connection, admission, facts).await
    }

    /// Adds facts of a bound client. User, expiry and claims stay those of the last admission or login.
    ///
    /// # Errors
    /// A refusal if the connection is not bound, or if the claimed device is not a valid name.
    pub async fn rebind(&self, connection: &Connection, facts: Facts) -> Result<Option<Resumed>, Refusal> {
        self.binder.rebind(connection, facts).await
    }

    /// Removes a connection whose socket is gone.
    pub async fn detach(&self, connection: &Connection) {
        self.binder.detach(connection).await;
    }

    /// Calls the plugin that owns the key. `None` if no plugin does. `remote` is the client's address, which plugins
    /// see while the connection is not bound.
    pub async fn handle(&self, connection: &Connection, key: String, data: Entries, remote: &str) -> Option<Answer> {
        let caller = identity(connection);
        let remote = if caller.is_none() { remote.to_owned() } else { String::new() };
        self.plugins.handle(Call { key, data, caller, cid: connection.id(), remote }).await
    }

    /// Handles a join request of a bound client. With `replay` the client also asks for earlier messages of the room.
    ///
    /// # Errors
    /// A refusal if the client may not join, or if access plugins or the engine do not answer.
    pub async fn request_join(
        &self,
        connection: &Connection,
        room: Room,
        data: Entries,
        replay: Option<JoinReplay>,
    ) -> Result<RoomJoin, Refusal> {
        self.rooms.request_join(connection, room, data, replay).await
    }

    /// Leaves a room. Returns false if the connection was not in it.
    pub async fn leave(&self, connection: &Connection, room: &Room) -> bool {
        self.rooms.leave(connection, room, 0).await
    }

    /// Adds the target's connections (connection, device, user, users) on all nodes to the room.
    pub async fn join_room(&self, target: &Target, room: &Room) -> Changed {
        self.cluster.changes.join_room(target, room).await
    }

    /// Removes the target's connections on all nodes from the room.
    pub async fn leave_room(&self, target: &Target, room: &Room) -> Changed {
        self.cluster.changes.leave_room(target, room).await
    }

    /// Closes the target's connections (connection, device, user, users) on all nodes, after a message with the text
    /// `text`.
    pub async fn kick(&self, target: &Target, text: &str) -> Kicked {
        self.cluster.changes.kick(target, text).await
    }

    /// Number of online users and of bound connections on this node.
    #[must_use]
    pub fn counts_here(&self) -> Counts {
        self.cluster.changes.local.counts()
    }

    /// Lists matching connections of all nodes in ascending order, at most `size`.
    pub async fn list_connections(
        &self,
        filter: &Filter,
        start: cluster::list::PageStart<u64>,
        size: usize,
    ) -> Listing<SeenConnection, Counts, ConnectionId> {
        self.cluster.lists.connections(filter, start, size).await
    }

    /// Lists users of all nodes with matching connections, at most `size`.
    pub async fn list_users(
        &self,
        filter: &Filter,
        start: cluster::list::PageStart<u64>,
        size: usize,
    ) -> Listing<SeenUser, Counts, ConnectionId> {
        self.cluster.lists.users(filter, start, size).await
    }

    /// Lists rooms of all nodes by name with their connections, at most `size`.
    pub async fn list_rooms(
        &self,
        start: cluster::list::PageStart<Room>,
        size: usize,
    ) -> Listing<(Room, usize), usize, Room> {
        self.cluster.lists.rooms(start, size).await
    }

    /// Name of this node.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.cluster.membership.me().id
    }

    /// Current description of this node for the others.
    #[must_use]
    pub fn own_member(&self) -> Member {
        self.cluster.membership.own_member()
    }

    /// Every living member by id, this node included. Falls back to the last list if the engine does not answer.
    pub async fn members(&self) -> Arc<Vec<Member>> {
        self.cluster.membership.members().await
    }

    /// Node for this user at this address, or `None` if no node accepts clients. At least one argument is given.
    pub async fn choose(&self, uid: Option<&Uid>, ip: Option<IpAddr>) -> Option<Member> {
        self.cluster.chooser.choose(uid, ip).await
    }

    /// Address that the client should use next time, if it belongs to another node.
    #[must_use]
    pub fn next_address(&self, uid: Option<&Uid>, ip: Option<IpAddr>) -> Option<String> {
        self.cluster.chooser.next_address(uid, ip)
    }

    /// Last bytes for a refused client with protocol `form` and address `ip`.
    #[must_use]
    pub fn refusal(&self, form: Form, why: Disconnect, ip: Option<IpAddr>) -> Option<Bytes> {
        redirect::refusal(&self.cluster.chooser, form, why, ip)
    }

    /// Joins the cluster. After an error, [`Node::run_cluster`] tries again.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn join_cluster(&self) -> Result<(), LeaseError> {
        self.cluster.membership.join().await
    }

    /// Runs the cluster tasks of the node. Never returns. Run it once and drop it when the node ends.
    pub async fn run_cluster(self: Arc<Self>) {
        self.cluster.run(&self.presence, &self.rooms).await;
    }

    /// Releases the lease at the end of the node. Call it after [`Node::run_cluster`] is dropped.
    pub async fn leave_cluster(&self) {
        self.cluster.membership.leave().await;
        self.broker.close().await;
    }

    /// Starts the drain: the node is not ready and accepts no new connection.
    pub fn begin_drain(&self) {
        self.cluster.membership.begin_drain();
    }

    /// Closes all connections, `step_percent` per cent at a time. Returns when all are gone or at `deadline`; the hub
    /// closes the rest.
    pub async fn drain(&self, step_percent: u32, deadline: Instant) {
        drain::close_all(&self.hub, &self.cluster.chooser, step_percent, deadline).await;
    }

    /// Status of every plugin, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<Status> {
        self.plugins.status()
    }

    /// Sends an operator command to one plugin and returns the plugin's new status.
    ///
    /// # Errors
    /// [`PluginCommandFault`]: the command failed.
    pub async fn command_plugin(&self, name: &str, command: PluginCommand) -> Result<Status, PluginCommandFault> {
        self.plugins.execute(name, command).await
    }

    /// Succeeds if the node should get traffic.
    ///
    /// # Errors
    /// One short sentence for each reason against it.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let reasons = self.readiness.reasons();
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Sets the fault of a component, or clears it with `None`. With any fault the node is not ready.
    pub fn set_component_fault(&self, component: &Arc<str>, why: Option<String>) {
        self.readiness.set_component_fault(component, why);
    }
}

/// Refusal for a client whose request needs an engine that does not answer. The log has the engine's address and error;
/// the client does not see them.
fn unavailable(why: &Unavailable) -> Refusal {
    tracing::debug!(%why, "request refused: the engine is unavailable");
    Refusal::new(Code::UNAVAILABLE, "unavailable: try again later")
}
