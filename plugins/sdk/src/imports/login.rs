//! Binds connections to users, for login flows such as a code that a phone confirms or a guest login. For handlers and
//! events. The operator grants `login`: `grants = ["login"]`. The grant lets the plugin bind any connection to any
//! user.
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
    /// An account of this user that lasts as long as the connection.
    pub fn of(uid: impl Into<String>) -> Self {
        Self { uid: uid.into(), device: None, channel: None, rooms: Vec::new(), expires: None, claims: Vec::new() }
    }
}

/// Binds the connection to the user after the call returns ok. The client receives a REPLY `client_bind`.
///
/// # Errors
/// The connection does not exist, the call has too many effects, or a name is not valid.
#[cfg(target_family = "wasm")]
pub fn bind(cid: u64, account: Account) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::login::bind(cid, &account)
}

/// Records the login in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn bind(cid: u64, account: Account) -> Result<(), Error> {
    crate::testing::with(|host| host.effects.push(crate::testing::Effect::Login(cid, Box::new(account))));
    Ok(())
}
