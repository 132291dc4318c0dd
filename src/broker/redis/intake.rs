//! Topics of intakes in Redis: pub/sub channels and streams.

mod channel;
mod check;
mod dead;
mod lease;
mod stream;

pub use channel::{ChannelSettings, ChannelSource};
pub use check::{check_channel, check_stream};
pub use stream::{StreamSettings, StreamSource};
