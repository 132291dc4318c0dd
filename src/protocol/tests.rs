//! Combined tests of `protocol`: golden frames, comparison with prost, oversized input.

mod golden;
mod judged;
