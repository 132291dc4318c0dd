//! What the parts of `protocol` do together: golden frames, prost as the judge, bombs.

mod golden;
mod judged;
