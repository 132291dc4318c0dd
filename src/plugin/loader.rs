//! Room 4, the loader: from the files of the plugin directory to versions that serve.
//!
//! Imports the three other rooms, and none of them imports it.

pub(super) mod cache;
pub(super) mod compile;
pub(super) mod disk;
pub(super) mod draft;
pub(super) mod inspect;
pub(super) mod load;
pub(super) mod manifest;
pub(super) mod reload;
pub mod trust;
pub(super) mod watch;
