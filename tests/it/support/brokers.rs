//! Real engines of the tests, clients that bypass Skylark, and fixtures of the bus contract.

pub mod bus;
pub mod kafka;
pub mod redis;
pub mod resp;
