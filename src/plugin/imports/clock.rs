//! The interface `clock`: the time that guests see.

use crate::plugin::guest::bindings::skylark::plugin as wit;
use crate::plugin::guest::state::Guest;

impl wit::clock::Host for Guest {
    fn now(&mut self) -> u64 {
        u64::try_from(self.context.time.since_1970().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&mut self) -> u64 {
        u64::try_from(self.context.time.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}
