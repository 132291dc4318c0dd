//! SDK for Skylark plugins: the traits of the roles, the shared types and the services of the host.
//!
//! A complete filter (`crate-type = ["cdylib"]`, built with `--target wasm32-wasip2`):
//!
//! ```
//! use skylark_plugin::{Filter, NoSettings, Plugin, Publish, Verdict};
//!
//! struct NoGossip;
//!
//! impl Plugin for NoGossip {
//!     type Settings = NoSettings;
//!     fn start(_: NoSettings) -> Result<Self, String> { Ok(Self) }
//! }
//! impl Filter for NoGossip {
//!     fn judge(&mut self, publish: &Publish) -> Verdict {
//!         if publish.title().contains("gossip") { Verdict::reject("403", "no gossip") } else { Verdict::Allow }
//!     }
//! }
//! skylark_plugin::export!(NoGossip: filter);
//! # let spoken = skylark_plugin::Message::text("chat", "hi").with_title("gossip");
//! # assert_eq!(NoGossip.judge(&Publish::of(spoken)), Verdict::reject("403", "no gossip"));
//! ```
//!
//! [`Plugin::start`] builds one plugin value for each instance, from the `[settings]` table of its manifest. The value
//! implements one or more roles: [`Auth`], [`Filter`], [`Handler`], [`Events`], [`Access`]. [`export!`] names them. An
//! instance runs one call at a time.
//!
//! Off WebAssembly the crate exports nothing. The modules [`log`], [`clock`], [`crypto`], [`directory`], [`kv`],
//! [`counters`], [`history`], [`outbox`], [`timers`], [`login`] and [`http`] then call an in-memory host (the module
//! `testing`), so a plain `cargo test` tests the logic of a plugin.
//!
//! Does not know how the host is implemented; the contract is `wit/skylark.wit`.

#[doc(hidden)]
pub mod bindings;
#[doc(hidden)]
pub mod glue;
mod imports;
mod publish;
mod roles;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod words;

pub use imports::{clock, counters, crypto, directory, history, http, kv, log, login, outbox, timers};
pub use publish::Publish;
pub use roles::{Access, Alarms, Auth, Events, Filter, Handler, Join, NoSettings, Plugin, Receipts};
pub use words::{
    AccessAnswer, Admission, AuthAnswer, Call, Claim, DeviceOf, Entry, Event, Identity, Message, Origin, Refusal,
    Reply, ResumedStream, RoomChange, Target, TargetKind, Transport, UndeliveredCause, Verdict,
};

/// Compiles the example plugin of plugins/README.md.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Exports the roles of a plugin: `export!(MyPlugin: auth, filter, handler, events, access)`, with at least one role.
///
/// `alarms`, next to a handler or events, exports [`Alarms::on_timer`]. `receipts`, next to events, exports
/// [`Receipts`]. A component uses the macro once. Off WebAssembly the macro exports nothing.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($role:ident),+ $(,)?) => {
        $( $crate::__role!($role, $plugin); )+
        $crate::__role!(lifecycle, $plugin);
    };
}

/// One role of [`export!`]. The second half of each arm type-checks and uses the author's implementation off
/// WebAssembly.
#[doc(hidden)]
#[macro_export]
macro_rules! __role {
    (lifecycle, $plugin:ty) => {
        $crate::__glue!(lifecycle, export_lifecycle, {
            fn start() -> Result<(), String> {
                $crate::glue::start::<$plugin>()
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> Result<(), String> = $crate::glue::start::<$plugin>;
    };
    (auth, $plugin:ty) => {
        $crate::__glue!(auth, export_auth, {
            fn admit(transport: $crate::Transport, claim: $crate::Claim) -> $crate::AuthAnswer {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Auth::admit(plugin, &transport, &claim))
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&mut $plugin, &$crate::Transport, &$crate::Claim) -> $crate::AuthAnswer =
            <$plugin as $crate::Auth>::admit;
    };
    (access, $plugin:ty) => {
        $crate::__glue!(access, export_access, {
            fn join(
                who: $crate::Identity,
                claims: Vec<$crate::Entry>,
                room: String,
                data: Vec<$crate::Entry>,
            ) -> $crate::AccessAnswer {
                let join = $crate::Join { who, claims, room, data };
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Access::join(plugin, &join))
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&mut $plugin, &$crate::Join) -> $crate::AccessAnswer = <$plugin as $crate::Access>::join;
    };
    (filter, $plugin:ty) => {
        $crate::__glue!(filter, export_filter, {
            fn judge() -> $crate::Verdict {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Filter::judge(plugin, &$crate::Publish::current()))
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&mut $plugin, &$crate::Publish) -> $crate::Verdict = <$plugin as $crate::Filter>::judge;
    };
    (handler, $plugin:ty) => {
        $crate::__glue!(handler, export_handler, {
            fn keys() -> Vec<String> {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Handler::keys(plugin))
            }
            fn handle(call: $crate::Call) -> Result<$crate::Reply, String> {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Handler::handle(plugin, &call))
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&mut $plugin, &$crate::Call) -> Result<$crate::Reply, String> =
            <$plugin as $crate::Handler>::handle;
    };
    (alarms, $plugin:ty) => {
        $crate::__glue!(alarms, export_alarms, {
            fn on_timer(name: String, data: Vec<u8>) {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Alarms::on_timer(plugin, &name, &data));
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&mut $plugin, &str, &[u8]) = <$plugin as $crate::Alarms>::on_timer;
    };
    (receipts, $plugin:ty) => {
        $crate::__glue!(receipts, export_receipts, {
            fn resumed(who: $crate::Identity, streams: Vec<$crate::ResumedStream>) {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Receipts::resumed(plugin, &who, &streams));
            }
            fn undelivered(uid: String, id: i64, cause: $crate::UndeliveredCause) {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Receipts::undelivered(plugin, &uid, id, cause));
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: (
            fn(&mut $plugin, &$crate::Identity, &[$crate::ResumedStream]),
            fn(&mut $plugin, &str, i64, $crate::UndeliveredCause),
        ) = (<$plugin as $crate::Receipts>::resumed, <$plugin as $crate::Receipts>::undelivered);
    };
    (events, $plugin:ty) => {
        $crate::__glue!(events, export_events, {
            fn on_event(event: $crate::Event) {
                $crate::glue::with::<$plugin, _>(|plugin| $crate::Events::on_event(plugin, &event));
            }
        });
        #[cfg(not(target_family = "wasm"))]
        const _: fn(&mut $plugin, &$crate::Event) = <$plugin as $crate::Events>::on_event;
    };
}

/// Passes the functions of one role to the generated export macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __glue {
    ($role:ident, $export:ident, { $($function:item)+ }) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "generated: the canonical ABI is made of raw pointers")]
        const _: () = {
            struct Glue;
            impl $crate::bindings::$role::exports::skylark::plugin::$role::Guest for Glue {
                $($function)+
            }
            $crate::bindings::$role::$export!(Glue with_types_in $crate::bindings::$role);
        };
    };
}
