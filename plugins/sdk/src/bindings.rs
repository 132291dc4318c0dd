//! Bindings that wit-bindgen generates from `wit/`: one module for the imports of a guest, and one for each role.
//!
//! Each role is a separate world, so a component exports only the roles that it names. Does not know the traits that
//! authors implement.
#![allow(unsafe_code, reason = "generated: the canonical ABI is made of raw pointers")]
#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, reason = "generated; wit/ holds the words")]

/// Imports of a guest. An interface that the guest does not use is absent from its component.
pub mod host {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package skylark:sdk-host; world host {
            import skylark:plugin/types@0.1.3;
            import skylark:plugin/publication@0.1.3;
            import skylark:plugin/log@0.1.3;
            import skylark:plugin/settings@0.1.3;
            import skylark:plugin/clock@0.1.3;
            import skylark:plugin/directory@0.1.3;
            import skylark:plugin/outbox@0.1.3;
            import skylark:plugin/kv@0.1.3;
            import skylark:plugin/history@0.1.3;
            import skylark:plugin/counters@0.1.3;
            import skylark:plugin/crypto@0.1.3;
            import skylark:plugin/login@0.1.3;
            import skylark:plugin/http@0.1.3;
            import skylark:plugin/timers@0.1.3;
        }",
        world: "skylark:sdk-host/host",
        additional_derives: [PartialEq],
        generate_all,
    });
}

macro_rules! role {
    ($(#[$doc:meta])* $name:ident, $world:literal, $wit:literal, $macro_name:literal, $module:literal) => {
        $(#[$doc])*
        pub mod $name {
            wit_bindgen::generate!({
                path: "../../wit",
                inline: $wit,
                world: $world,
                with: { "skylark:plugin/types@0.1.3": crate::bindings::host::skylark::plugin::types },
                additional_derives: [PartialEq],
                pub_export_macro: true,
                export_macro_name: $macro_name,
                default_bindings_module: $module,
            });
        }
    };
}

role! {
    /// Exports `auth`.
    auth, "skylark:sdk-auth/auth-role", "package skylark:sdk-auth; world auth-role { export skylark:plugin/auth@0.1.3; }",
    "export_auth", "skylark_plugin::bindings::auth"
}
role! {
    /// Exports `filter`.
    filter, "skylark:sdk-filter/filter-role", "package skylark:sdk-filter; world filter-role { export skylark:plugin/filter@0.1.3; }",
    "export_filter", "skylark_plugin::bindings::filter"
}
role! {
    /// Exports `handler`.
    handler, "skylark:sdk-handler/handler-role", "package skylark:sdk-handler; world handler-role { export skylark:plugin/handler@0.1.3; }",
    "export_handler", "skylark_plugin::bindings::handler"
}
role! {
    /// Exports `events`.
    events, "skylark:sdk-events/events-role", "package skylark:sdk-events; world events-role { export skylark:plugin/events@0.1.3; }",
    "export_events", "skylark_plugin::bindings::events"
}
role! {
    /// Exports `access`.
    access, "skylark:sdk-access/access-role", "package skylark:sdk-access; world access-role { export skylark:plugin/access@0.1.3; }",
    "export_access", "skylark_plugin::bindings::access"
}
role! {
    /// Exports `receipts`.
    receipts, "skylark:sdk-receipts/receipts-role", "package skylark:sdk-receipts; world receipts-role { export skylark:plugin/receipts@0.1.3; }",
    "export_receipts", "skylark_plugin::bindings::receipts"
}
/// Exports `lifecycle`, which uses no shared type.
pub mod lifecycle {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package skylark:sdk-lifecycle; world lifecycle-role { export skylark:plugin/lifecycle@0.1.3; }",
        world: "skylark:sdk-lifecycle/lifecycle-role",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
        default_bindings_module: "skylark_plugin::bindings::lifecycle",
    });
}
/// Exports `alarms`, which uses no shared type.
pub mod alarms {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package skylark:sdk-alarms; world alarms-role { export skylark:plugin/alarms@0.1.3; }",
        world: "skylark:sdk-alarms/alarms-role",
        pub_export_macro: true,
        export_macro_name: "export_alarms",
        default_bindings_module: "skylark_plugin::bindings::alarms",
    });
}
