//! The users online in a harness, and the effects of plugins on them: a list in place of the node.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use crate::id::{ConnectionId, Room, Uid};
use crate::message::Target;
use crate::plugin::{Account, Admission, Effect, Presence, Services};

/// The connections of all users online, and the effects since they were last taken.
pub(super) struct OnlineUsers {
    online: Mutex<Vec<(Uid, Presence)>>,
    effects: Mutex<Vec<Effect>>,
}

impl OnlineUsers {
    pub(super) fn new(online: Vec<(Uid, Presence)>) -> Self {
        Self { online: Mutex::new(online), effects: Mutex::default() }
    }

    pub(super) fn take_effects(&self) -> Vec<Effect> {
        std::mem::take(&mut self.effects.lock())
    }

    /// Applies an effect, so that later calls find it.
    fn apply(&self, effect: &Effect) {
        let mut online = self.online.lock();
        match effect {
            Effect::Push(_) => {}
            Effect::Join(uid, room) => rooms_of(&mut online, uid, |rooms| {
                if !rooms.contains(room) {
                    rooms.push(room.clone());
                }
            }),
            Effect::Leave(uid, room) => rooms_of(&mut online, uid, |rooms| rooms.retain(|other| other != room)),
            Effect::Login(cid, account) => {
                online.retain(|(_, presence)| presence.cid != *cid);
                let Account { admission, channel } = (**account).clone();
                let Admission { uid, device, rooms, .. } = admission;
                online.push((uid, Presence { cid: *cid, device, channel, rooms }));
            }
            Effect::Kick(target, _) => online.retain(|(uid, presence)| !is_target(target, uid, presence)),
        }
    }
}

fn rooms_of(online: &mut [(Uid, Presence)], uid: &Uid, change: impl Fn(&mut Vec<Room>)) {
    online.iter_mut().filter(|(other, _)| other == uid).for_each(|(_, presence)| change(&mut presence.rooms));
}

fn is_target(target: &Target, uid: &Uid, presence: &Presence) -> bool {
    match target {
        Target::Connection(cid) => presence.cid == *cid,
        Target::ConnectionOf(user, cid) => user == uid && presence.cid == *cid,
        Target::Device(user, device) => user == uid && presence.device.as_ref() == Some(device),
        Target::User(user) => user == uid,
        Target::Users(users) => users.contains(uid),
        Target::Room(room) => presence.rooms.contains(room),
        Target::Everyone => true,
        Target::EveryoneBut(users) => !users.contains(uid),
    }
}

impl Services for OnlineUsers {
    fn is_online<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, bool> {
        ready(self.online.lock().iter().any(|(other, _)| other.as_str() == uid)).boxed()
    }

    fn connections<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Vec<Presence>> {
        let online = self.online.lock();
        let own = online.iter().filter(|(other, _)| other.as_str() == uid);
        ready(own.map(|(_, presence)| presence.clone()).collect()).boxed()
    }

    fn members<'a>(&'a self, room: &'a str, offset: u32, limit: u32) -> BoxFuture<'a, Vec<Uid>> {
        let mut members: Vec<Uid> = Vec::new();
        for (uid, presence) in self.online.lock().iter() {
            if presence.rooms.iter().any(|other| other.as_str() == room) && !members.contains(uid) {
                members.push(uid.clone());
            }
        }
        ready(members.into_iter().skip(offset as usize).take(limit as usize).collect()).boxed()
    }

    /// Always true: a connection that waits for its admission is not in the list.
    fn is_connected(&self, _: ConnectionId) -> BoxFuture<'_, bool> {
        ready(true).boxed()
    }

    fn commit(&self, effects: Vec<Effect>, _: u8) -> BoxFuture<'_, ()> {
        effects.iter().for_each(|effect| self.apply(effect));
        self.effects.lock().extend(effects);
        ready(()).boxed()
    }
}
