//! Plugins in a running node and in the commands of their authors: loading, reloads, rights, and failures.

mod authoring;
pub mod compile;
mod filters;
mod hostile;
mod hostile_plugins;
mod interfaces;
mod load;
mod pins;
mod reloads;
mod state;
mod swap;
mod trials;
