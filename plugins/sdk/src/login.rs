//! Gives connections their user, for login flows: a code that a phone confirms, a guest who signs in. Handlers and events only; the
//! operator grants it: `grants = ["login"]`, which is the power to make any connection anybody's.
//!
//! ```
//! use skylark_plugin::{Call, Reply, login};
//! /// The phone, which is bound, confirms the code that stands for the connection `waiting`.
//! fn confirm(phone: &Call, waiting: u64) -> Result<Reply, login::Error> {
//!     let Some(who) = &phone.caller else { return Ok(Reply::new("401", "bind first")) };
//!     login::bind(waiting, login::Account::of(&who.uid))?;
//!     Ok(Reply::ok())
//! }
//! # let who = skylark_plugin::Identity { uid: "1".into(), cid: 1, device: None, channel: None };
//! # let phone = Call { key: "login_confirm".into(), data: vec![], cid: who.cid, caller: Some(who) };
//! # assert_eq!(confirm(&phone, 2).unwrap().code, "200");
//! ```

pub use crate::bindings::host::skylark::plugin::login::{Account, Error};

impl Account {
    /// Of this user, for as long as the connection lives.
    pub fn of(uid: impl Into<String>) -> Self {
        Self { uid: uid.into(), device: None, channel: None, rooms: Vec::new(), expires: None, claims: Vec::new() }
    }
}

/// The connection is this user's once the call has returned ok. Its client is told by a REPLY `client_bind`.
///
/// # Errors
/// There is no such connection, more effects than a call may have, or an invalid name.
#[cfg(target_family = "wasm")]
pub fn bind(cid: u64, account: Account) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::login::bind(cid, &account)
}

/// The connection is this user's, in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn bind(cid: u64, account: Account) -> Result<(), Error> {
    crate::testing::with(|host| host.effects.push(crate::testing::Effect::Login(cid, Box::new(account))));
    Ok(())
}
