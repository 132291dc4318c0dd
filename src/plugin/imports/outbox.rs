//! The interface `outbox`: pushes, rooms and kicks. Each is an effect that is staged.

use crate::id::{Room, Uid};
use crate::message::{MAX_HOPS, Target};
use crate::plugin::Effect;
use crate::plugin::guest::bindings::skylark::plugin as wit;
use crate::plugin::guest::convert;
use crate::plugin::guest::state::Guest;

impl Guest {
    /// Stages an effect for the commit.
    pub(super) fn stage(&mut self, effect: Result<Effect, String>) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        use wit::outbox::Error;
        if !self.call.may_push() {
            return Ok(Err(Error::Invalid("only handlers and events plugins have an outbox".to_owned())));
        }
        // Holds for rooms and kicks too: they cause events, which may lead to the next effect.
        if self.call.staged.hops > MAX_HOPS {
            return Ok(Err(Error::TooManyHops));
        }
        let effect = match effect {
            Ok(effect) => effect,
            Err(why) => return Ok(Err(Error::Invalid(why))),
        };
        if self.call.staged.effects.len() >= self.context.limits.pushes {
            return Ok(Err(Error::TooMany));
        }
        self.call.staged.effects.push(effect);
        Ok(Ok(()))
    }

    fn change_room(
        &mut self,
        uid: &str,
        room: &str,
        effect: fn(Uid, Room) -> Effect,
    ) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.call.hand_over(uid.len() + room.len())?;
        let names = convert::name::<Uid>("uid", uid).and_then(|uid| Ok((uid, convert::name::<Room>("room", room)?)));
        self.stage(names.map(|(uid, room)| effect(uid, room)))
    }
}

impl wit::outbox::Host for Guest {
    fn push(
        &mut self,
        target: wit::types::Target,
        message: wit::types::Message,
        options: Option<wit::outbox::Options>,
    ) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        use wit::outbox::Error;
        let bytes = convert::text_bytes(&message);
        self.call.hand_over(convert::message_cost(&message) + convert::target_cost(&target))?;
        if bytes > convert::MAX_MESSAGE_BYTES {
            return Ok(Err(Error::TooLarge));
        }
        let by = (self.call.staged.hops, &self.context.plugin);
        self.stage(convert::publication(target, message, options, by).map(|push| Effect::Push(Box::new(push))))
    }

    fn join(&mut self, uid: String, room: String) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.change_room(&uid, &room, Effect::Join)
    }

    fn leave(&mut self, uid: String, room: String) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.change_room(&uid, &room, Effect::Leave)
    }

    fn kick(&mut self, target: wit::types::Target, reason: String) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.call.hand_over(reason.len() + convert::target_cost(&target))?;
        let target = convert::target(target).and_then(|target| match target {
            Target::Room(_) | Target::Everyone | Target::EveryoneBut(_) => {
                Err("target: expected a connection, a device, a user or users".to_owned())
            }
            named => Ok(named),
        });
        self.stage(target.map(|target| Effect::Kick(target, reason)))
    }
}
