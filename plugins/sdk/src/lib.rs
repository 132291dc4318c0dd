//! What a Skylark plugin is written with: the traits of the roles, the words they speak, and the host's services.
//!
//! A filter, whole (`crate-type = ["cdylib"]`, built with `--target wasm32-wasip2`):
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
//! A plugin is a value that [`Plugin::start`] builds once per instance from its manifest's `[settings]`, and that then plays one or
//! more roles: [`Auth`], [`Filter`], [`Handler`], [`Events`], [`Access`], named in [`export!`]. An instance serves one call at a time.
//!
//! Off WebAssembly nothing is exported, and the modules [`log`], [`clock`], [`crypto`], [`directory`], [`kv`], [`counters`], [`outbox`], [`timers`], [`login`] and [`http`] speak to a
//! host in memory (the module `testing`): a plugin's logic is tested by a plain `cargo test`.
//!
//! Knows nothing of how the host works; the contract is `wit/skylark.wit`.

#[doc(hidden)]
pub mod bindings;
pub mod clock;
pub mod counters;
pub mod crypto;
pub mod directory;
#[doc(hidden)]
pub mod glue;
pub mod http;
pub mod kv;
pub mod log;
pub mod login;
pub mod outbox;
mod publish;
mod roles;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod timers;
mod words;

pub use publish::Publish;
pub use roles::{Access, Alarms, Auth, Events, Filter, Handler, Join, NoSettings, Plugin};
pub use words::{
    AccessAnswer, Admission, AuthAnswer, Call, Claim, DeviceOf, Entry, Event, Identity, Message, Origin, Refusal,
    Reply, RoomChange, Target, TargetKind, Transport, Verdict,
};

/// Keeps the plugin in plugins/README.md compiling.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Names the roles that a plugin plays: `export!(MyPlugin: auth, filter, handler, events, access)`, at least one of them.
///
/// Beside a handler or events, `alarms` has [`Alarms::on_timer`] called when a timer is due. Stands once in a component. Off WebAssembly it expands to nothing.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($role:ident),+ $(,)?) => {
        $( $crate::__role!($role, $plugin); )+
        $crate::__role!(lifecycle, $plugin);
    };
}

/// One role of [`export!`]; the second half of each keeps an author's types checked, and used, off WebAssembly too.
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

/// Hands the functions of one role to the generated export macro.
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
