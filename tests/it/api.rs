//! The API of back ends: paths, bodies, envelopes, responses, and the errors of bad requests.

mod envelope;
mod faults;
mod holders;
mod numbers;
mod push;
