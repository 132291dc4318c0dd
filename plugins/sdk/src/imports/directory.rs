//! Online users, with their devices and rooms. The operator grants `directory`: `grants = ["directory"]`.

pub use crate::bindings::host::skylark::plugin::directory::Presence;

/// True if the user has at least one connection.
#[cfg(target_family = "wasm")]
pub fn online(uid: &str) -> bool {
    crate::bindings::host::skylark::plugin::directory::online(uid)
}

/// True if the test made the user online.
#[cfg(not(target_family = "wasm"))]
pub fn online(uid: &str) -> bool {
    crate::testing::with(|host| host.online.contains_key(uid))
}

/// The user's connections.
#[cfg(target_family = "wasm")]
pub fn connections(uid: &str) -> Vec<Presence> {
    crate::bindings::host::skylark::plugin::directory::connections(uid)
}

/// The user's connections, as set by the test.
#[cfg(not(target_family = "wasm"))]
pub fn connections(uid: &str) -> Vec<Presence> {
    crate::testing::with(|host| host.online.get(uid).cloned().unwrap_or_default())
}

/// Users in a room, starting at `offset`, at most 1 000 a call, in no defined order.
#[cfg(target_family = "wasm")]
pub fn members(room: &str, offset: u32, limit: u32) -> Vec<String> {
    crate::bindings::host::skylark::plugin::directory::members(room, offset, limit)
}

/// Users with a connection in the room, as set by the test.
#[cfg(not(target_family = "wasm"))]
pub fn members(room: &str, offset: u32, limit: u32) -> Vec<String> {
    crate::testing::with(|host| {
        let inside = host.online.iter().filter(|(_, all)| all.iter().any(|p| p.rooms.iter().any(|r| r == room)));
        inside.map(|(uid, _)| uid.clone()).skip(offset as usize).take(limit.min(1_000) as usize).collect()
    })
}

/// The devices on which the user is online, sorted, without duplicates.
#[cfg(target_family = "wasm")]
pub fn devices(uid: &str) -> Vec<String> {
    crate::bindings::host::skylark::plugin::directory::devices(uid)
}

/// The devices of the user's connections, as set by the test.
#[cfg(not(target_family = "wasm"))]
pub fn devices(uid: &str) -> Vec<String> {
    sorted(connections(uid).into_iter().filter_map(|presence| presence.device))
}

/// The rooms that the user's connections are in, sorted, without duplicates.
#[cfg(target_family = "wasm")]
pub fn rooms(uid: &str) -> Vec<String> {
    crate::bindings::host::skylark::plugin::directory::rooms(uid)
}

/// The rooms of the user's connections, as set by the test.
#[cfg(not(target_family = "wasm"))]
pub fn rooms(uid: &str) -> Vec<String> {
    sorted(connections(uid).into_iter().flat_map(|presence| presence.rooms))
}

#[cfg(not(target_family = "wasm"))]
fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
