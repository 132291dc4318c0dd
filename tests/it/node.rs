//! The node as a process: commands, start, end, reloads, secrets, ids, and shortages of the machine.

mod commands;
mod descriptors;
mod ids;
mod journal;
mod life;
mod owners;
mod reconfigure;
mod secrets;
mod weather;
