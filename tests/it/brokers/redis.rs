//! Redis specifics: checks, rights, TLS, round trips, failover, and password rotation.

mod bus;
mod failover;
