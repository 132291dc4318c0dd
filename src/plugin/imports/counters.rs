//! The interface `counters`: adds to a sliding window and reads it.

use crate::plugin::guest::bindings::skylark::plugin::counters::Host;
use crate::plugin::guest::state::Guest;

impl Host for Guest {
    fn add_and_read(&mut self, name: String, window: u32, amount: u32) -> wasmtime::Result<u64> {
        self.call.hand_over(name.len())?;
        let now = self.context.time.monotonic();
        let table = &self.context.counters;
        let hash = table.hash(&name, window);
        let call = &mut self.call;
        // A call that is run again finds the additions of its failed run, and does not add them twice.
        let more = if call.repeats.take(hash, amount) { 0 } else { amount };
        call.counted.record(hash, amount);
        Ok(table.add_and_read(&name, window, more, now))
    }
}
