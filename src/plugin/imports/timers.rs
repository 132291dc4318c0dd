//! The interface `timers`: changes of timers are staged like every effect.

use std::time::Duration;

use crate::plugin::guest::bindings::skylark::plugin::timers::{Error, Host};
use crate::plugin::guest::state::Guest;
use crate::plugin::guest::timers::{MAX_DATA, TimerChange};

/// Longest name of a timer, bytes, and its longest delay.
const MAX_NAME: usize = 128;
const FURTHEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl Host for Guest {
    fn start(&mut self, name: String, after_ms: u64, data: Vec<u8>) -> wasmtime::Result<Result<(), Error>> {
        self.call.hand_over(name.len() + data.len())?;
        let after = Duration::from_millis(after_ms);
        if !self.call.may_push() {
            return Ok(Err(Error::Invalid("only handlers and events plugins set timers".to_owned())));
        }
        if name.is_empty() || name.len() > MAX_NAME {
            return Ok(Err(Error::Invalid(format!("name: expected 1 to {MAX_NAME} bytes, got {}", name.len()))));
        }
        if data.len() > MAX_DATA {
            return Ok(Err(Error::Invalid(format!("data: expected at most {MAX_DATA} bytes, got {}", data.len()))));
        }
        if after > FURTHEST {
            return Ok(Err(Error::Invalid(format!(
                "after-ms: expected at most {}, got {after_ms}",
                FURTHEST.as_millis()
            ))));
        }
        let staged = &mut self.call.staged.timers;
        if staged.len() >= self.context.limits.pushes {
            return Ok(Err(Error::TooMany));
        }
        staged.push(TimerChange::Start { name, after, data });
        if !self.context.timers.fits(&self.context.plugin, staged) {
            staged.pop();
            return Ok(Err(Error::TooMany));
        }
        Ok(Ok(()))
    }

    fn cancel(&mut self, name: String) -> wasmtime::Result<Result<(), Error>> {
        self.call.hand_over(name.len())?;
        if !self.call.may_push() {
            return Ok(Err(Error::Invalid("only handlers and events plugins set timers".to_owned())));
        }
        if self.call.staged.timers.len() >= self.context.limits.pushes {
            return Ok(Err(Error::TooMany));
        }
        self.call.staged.timers.push(TimerChange::Cancel { name });
        Ok(Ok(()))
    }
}
