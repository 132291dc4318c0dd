//! Combined tests of `protocol`: golden frames, comparison with prost, oversized input, tails of streams.

mod golden;
mod judged;
mod tails;
