//! Life cycle of a connection: attach, admit, bind (device matrix, rooms, presence), detach.
//!
//! Uses no frame besides the bind reply, and of sockets only the trait.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::cluster::membership::Membership;
use super::devices::Devices;
use super::presence::PresenceTracker;
use super::resume::{Resumed, Resumer};
use super::rooms::{Rooms, not_bound};
use crate::claim::{Admission, Claim, Facts, Refusal};
use crate::clock;
use crate::code::Code;
use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::hub::{Binding, Connection, Former, Hub, Socket};
use crate::id::{ConnectionId, Device, IdSequence};
use crate::message::Entries;
use crate::plugin::{Account, Event, Identity, PluginHost, Transport};
use crate::protocol::{self, Form, ServerFrame};
use crate::session::{self, ClientLocation};

/// Attaches, binds and detaches connections.
pub(super) struct Binder {
    hub: Arc<Hub>,
    ids: Arc<IdSequence>,
    plugins: Arc<dyn PluginHost>,
    membership: Arc<Membership>,
    presence: Arc<PresenceTracker>,
    rooms: Arc<Rooms>,
    devices: Arc<Devices>,
    resumer: Arc<Resumer>,
    auth_calls: Semaphore,
}

/// Owners whose work a bind starts.
pub(super) struct Owners {
    pub(super) membership: Arc<Membership>,
    pub(super) presence: Arc<PresenceTracker>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) devices: Arc<Devices>,
    pub(super) resumer: Arc<Resumer>,
}

impl Binder {
    /// `auth_calls` limits the concurrent calls of auth plugins.
    pub(super) fn new(
        hub: Arc<Hub>,
        ids: Arc<IdSequence>,
        plugins: Arc<dyn PluginHost>,
        owners: Owners,
        auth_calls: usize,
    ) -> Self {
        let Owners { membership, presence, rooms, devices, resumer } = owners;
        let auth_calls = Semaphore::new(auth_calls);
        Self { hub, ids, plugins, membership, presence, rooms, devices, resumer, auth_calls }
    }

    /// Adds a new, unbound connection. `form` is `None` if the first frame decides it. `devices` is the policy of its
    /// listener.
    ///
    /// # Errors
    /// Reason of the refusal: too many connections, draining, or no connection to the cluster.
    pub(super) async fn attach(
        &self,
        socket: Arc<dyn Socket>,
        form: Option<Form>,
        devices: DevicePolicy,
    ) -> Result<Connection, Disconnect> {
        if self.membership.is_draining() {
            return Err(Disconnect::RESTART);
        }
        if !self.membership.is_held() {
            return Err(Disconnect::CUT_OFF);
        }
        let attached = self.hub.attach(socket, form).await;
        let no_id = || if self.ids.left() == 0 { Disconnect::CUT_OFF } else { Disconnect::TOO_MANY };
        let connection = attached.ok_or_else(no_id)?;
        connection.set_devices(devices);
        Ok(connection)
    }

    /// Asks the auth plugins. At most `limits.auth_calls` calls run concurrently; further calls wait.
    ///
    /// # Errors
    /// The refusal of the plugin, or of the plugin host if the plugin failed.
    pub(super) async fn admit(&self, transport: Transport, claim: Claim) -> Result<Admission, Refusal> {
        let _permit = self.auth_calls.acquire().await.expect("the semaphore is never closed");
        self.plugins.admit(transport, claim).await
    }

    /// Binds the connection by the admission: device matrix (may close other connections), rooms, presence. A second
    /// bind of the same user adds facts. If the client asked to resume, run the returned replay after the REPLY.
    ///
    /// # Errors
    /// A refusal if the connection is bound to another user, or if the claimed device is not a valid name.
    pub(super) async fn bind(
        &self,
        connection: &Connection,
        admission: Admission,
        facts: Facts,
    ) -> Result<Option<Resumed>, Refusal> {
        if let Some(bound) = connection.binding().filter(|b| b.uid != admission.uid) {
            return Err(Refusal::new(
                Code::FORBIDDEN,
                format!("the connection is bound to {}, not {}", bound.uid, admission.uid),
            ));
        }
        self.apply_bind(connection, admission, facts, 0).await
    }

    /// Adds facts of a bound client. User, expiry and claims stay those of the last admission or login.
    ///
    /// # Errors
    /// A refusal if the connection is not bound, or if the claimed device is not a valid name.
    pub(super) async fn rebind(&self, connection: &Connection, facts: Facts) -> Result<Option<Resumed>, Refusal> {
        let bound = connection.binding().ok_or_else(not_bound)?;
        let admission = Admission {
            uid: bound.uid.clone(),
            device: None,
            rooms: Vec::new(),
            expires: bound.expires,
            claims: bound.claims.clone(),
        };
        self.apply_bind(connection, admission, facts, 0).await
    }

    /// Rebinds the connection to the user that a plugin chose, and sends the client a bind reply. `hops` counts the
    /// plugin calls since the external event.
    ///
    /// # Errors
    /// A refusal if there is no such connection.
    pub(super) async fn login(&self, cid: ConnectionId, account: Account, hops: u8) -> Result<(), Refusal> {
        let Some(connection) = self.hub.connection(cid) else {
            return Err(Refusal::new(Code::NOT_FOUND, format!("connection {cid} is gone")));
        };
        let Account { mut admission, channel } = account;
        if admission.device.is_none() {
            // The login approves the device that it keeps, so the client cannot claim another one later.
            let same_user = connection.binding().filter(|bound| bound.uid == admission.uid);
            admission.device = same_user.and_then(|bound| bound.device.clone());
        }
        let (uid, expires) = (admission.uid.clone(), admission.expires);
        if let Err(refusal) = self.apply_bind(&connection, admission, Facts { channel, ..Facts::default() }, hops).await
        {
            // The bind may be incomplete. The close makes the client reconnect and bind again.
            connection.close(Disconnect::INTERNAL).await;
            return Err(refusal);
        }
        let me = self.membership.me();
        let location =
            ClientLocation { cid, node: me.id.clone(), address: me.address.clone(), next: None, resume: None };
        let reply = session::bind_reply(&uid, expires, &location, clock::now_millis());
        if let Some(form) = connection.form()
            && let Ok(frame) = protocol::encode(form, ServerFrame::Reply(&reply))
        {
            connection.send(frame).await;
        }
        Ok(())
    }

    /// Binds the connection to the user, and prepares the replay that the client asks for.
    async fn apply_bind(
        &self,
        connection: &Connection,
        admission: Admission,
        mut facts: Facts,
        hops: u8,
    ) -> Result<Option<Resumed>, Refusal> {
        let Some(request) = facts.resume.take() else {
            self.enter(connection, admission, facts, hops).await?;
            return Ok(None);
        };
        let Admission { uid, rooms, .. } = &admission;
        let is_bound = connection.binding().is_some_and(|binding| binding.uid == *uid);
        // Must precede the bind, so that no live message overtakes the replay.
        let begun = self.resumer.begin_bind(connection, uid, rooms, request, is_bound).await?;
        if let Err(refusal) = self.enter(connection, admission, facts, hops).await {
            self.resumer.cancel(connection).await;
            return Err(refusal);
        }
        Ok(Some(self.resumer.read(connection, begun).await))
    }

    /// Leaves the former user's rooms, then applies binding, device matrix, rooms and presence.
    async fn enter(
        &self,
        connection: &Connection,
        admission: Admission,
        facts: Facts,
        hops: u8,
    ) -> Result<(), Refusal> {
        let before = connection.binding().filter(|b| b.uid == admission.uid);
        let Admission { uid, device, rooms, expires, claims } = admission;
        let claimed = match facts.device.as_deref().filter(|d| !d.is_empty()) {
            Some(text) => {
                Some(Device::parse(text).map_err(|e| Refusal::new(Code::BAD_REQUEST, format!("deviceId: {e}")))?)
            }
            None => None,
        };
        let earlier = before.as_deref();
        let device_before =
            |admitted: bool| earlier.filter(|b| b.is_device_admitted == admitted).and_then(|b| b.device.clone());
        let admitted_device = device.or_else(|| device_before(true));
        let binding = Binding {
            number: self.devices.number(connection, &uid, earlier).await?,
            uid: uid.clone(),
            is_device_admitted: admitted_device.is_some(),
            device: admitted_device.or(claimed).or_else(|| device_before(false)),
            channel: facts.channel.map(String::into_boxed_str).or_else(|| earlier.and_then(|b| b.channel.clone())),
            since: earlier.map_or_else(clock::now_millis, |b| b.since),
            expires,
            facts: merge(earlier.map(|b| &b.facts), &facts.rest),
            claims,
        };
        let bound = self.hub.bind(connection, binding);
        if let Some(former) = bound.former {
            self.leave_former_user(connection, &former, hops).await;
        }
        // Must follow the bind: the last connection to leave checks for other connections before it unsubscribes.
        if earlier.is_none()
            && self.presence.add_connection(&uid, bound.first).await?
            && let Some(identity) = identity(connection)
        {
            self.plugins.notify(Event::Online(identity), hops);
        }
        self.devices.apply(connection).await?;
        for room in rooms {
            // Rooms of a token also count toward the limit. Rooms over the limit are refused and left out.
            let _ = self.rooms.join(connection, room, hops).await;
        }
        Ok(())
    }

    /// Removes a connection whose socket is gone.
    pub(super) async fn detach(&self, connection: &Connection) {
        let identity = identity(connection);
        let detached = self.hub.detach(connection).await;
        let Some(identity) = identity else { return };
        for room in detached.rooms {
            self.presence.unsubscribe_room(&room).await;
            self.plugins.notify(Event::RoomLeft(identity.clone(), room), 0);
        }
        if detached.last {
            self.presence.remove_user(identity, 0).await;
        }
    }

    /// Leaves the rooms of the former user after a rebind to another user.
    async fn leave_former_user(&self, connection: &Connection, former: &Former, hops: u8) {
        let identity = identity_of(connection, &former.binding);
        self.rooms.leave_all(connection, &identity, hops).await;
        if former.last {
            self.presence.remove_user(identity, hops).await;
        }
    }
}

/// Identity of the connection, as plugins see it.
#[must_use]
pub(super) fn identity(connection: &Connection) -> Option<Identity> {
    Some(identity_of(connection, &*connection.binding()?))
}

pub(super) fn identity_of(connection: &Connection, binding: &Binding) -> Identity {
    Identity {
        uid: binding.uid.clone(),
        cid: connection.id(),
        device: binding.device.clone(),
        channel: binding.channel.as_deref().map(str::to_owned),
    }
}

fn merge(earlier: Option<&Entries>, new: &Entries) -> Entries {
    let mut all = earlier.cloned().unwrap_or_default();
    for (key, value) in new.iter() {
        all.insert(key, value);
    }
    all
}
