//! The interface `login`: a plugin binds connections to users. Bindings are staged like every effect.

use crate::id::ConnectionId;
use crate::plugin::guest::bindings::skylark::plugin::{login as wit, outbox};
use crate::plugin::guest::convert;
use crate::plugin::guest::failure::Waiting;
use crate::plugin::guest::state::Guest;
use crate::plugin::{Account, Admission, Effect};

/// Longest channel in bytes, as in a client's own bind.
const MAX_CHANNEL_BYTES: usize = 256;

impl wit::Host for Guest {
    async fn bind(&mut self, cid: u64, account: wit::Account) -> wasmtime::Result<Result<(), wit::Error>> {
        self.call.hand_over(bytes(&account))?;
        let (cid, account) = match (connection(cid), checked(account)) {
            (Ok(cid), Ok(account)) => (cid, account),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(wit::Error::Invalid(why))),
        };
        // Only a hint: the connection may close before the commit, which then leaves the binding out.
        let is_connected = match self.context.services.get() {
            Some(services) => {
                self.call.waiting = Some(Waiting::Cluster);
                let is_connected = services.is_connected(cid).await;
                self.call.waiting = None;
                is_connected
            }
            None => false,
        };
        if !is_connected {
            return Ok(Err(wit::Error::Gone));
        }
        let staged = self.stage(Ok(Effect::Login(cid, Box::new(account))))?;
        Ok(staged.map_err(|error| match error {
            outbox::Error::Invalid(why) => wit::Error::Invalid(why),
            _ => wit::Error::TooMany,
        }))
    }
}

fn bytes(account: &wit::Account) -> usize {
    let claims = account.claims.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    account.uid.len() + account.rooms.iter().map(String::len).sum::<usize>() + claims
}

fn connection(cid: u64) -> Result<ConnectionId, String> {
    ConnectionId::new(cid).ok_or_else(|| format!("cid: expected 1 to 2^53 - 1, got {cid}"))
}

fn checked(account: wit::Account) -> Result<Account, String> {
    let wit::Account { uid, device, channel, rooms, expires, claims } = account;
    if let Some(channel) = channel.as_deref().filter(|channel| channel.len() > MAX_CHANNEL_BYTES) {
        return Err(format!("channel: expected at most {MAX_CHANNEL_BYTES} bytes, got {}", channel.len()));
    }
    let admission = Admission {
        uid: convert::name("uid", &uid)?,
        device: device.map(|device| convert::name("device", &device)).transpose()?,
        rooms: rooms.iter().map(|room| convert::name("room", room)).collect::<Result<_, _>>()?,
        expires,
        claims: convert::entries_in("claims", claims)?,
    };
    Ok(Account { admission, channel })
}
