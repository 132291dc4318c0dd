//! The newest log lines of plugins, kept in memory for the plugin test runner and for plugin developers.
//!
//! Recognises plugin lines by their log target and the field with the plugin's name only.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::TelemetryError;

/// Log target of plugin lines.
pub const TARGET: &str = "skylark::plugin::guest";
/// Number of lines kept; older ones are dropped.
const KEPT: usize = 2_048;

/// One log line of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GuestLine {
    /// Grows by one with each line of any plugin.
    pub number: u64,
    /// The plugin that logged it.
    pub plugin: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The logged text.
    pub text: String,
}

/// The newest lines: a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct GuestLog(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<GuestLine>,
    next: u64,
}

impl GuestLog {
    /// Installs a logger that gathers plugin lines and writes no other log.
    ///
    /// # Errors
    /// [`TelemetryError::AlreadyInstalled`] if a logger is already installed.
    pub fn install() -> Result<Self, TelemetryError> {
        let log = Self::default();
        tracing_subscriber::registry().with(log.clone()).try_init().map_err(|_| TelemetryError::AlreadyInstalled)?;
        Ok(log)
    }

    /// The kept lines from this number on, oldest first.
    #[must_use]
    pub fn since(&self, number: u64) -> Vec<GuestLine> {
        self.0.lock().lines.iter().filter(|line| line.number >= number).cloned().collect()
    }

    /// The number that the next line will get.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.0.lock().next
    }

    fn keep(&self, level: Level, line: EventFields) {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut ring = self.0.lock();
        let number = ring.next;
        ring.next += 1;
        if ring.lines.len() == KEPT {
            ring.lines.pop_front();
        }
        ring.lines.push_back(GuestLine { number, plugin: line.plugin, level, text: line.text });
    }
}

impl<S: Subscriber> Layer<S> for GuestLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == TARGET {
            let mut line = EventFields::default();
            event.record(&mut line);
            self.keep(*event.metadata().level(), line);
        }
    }
}

#[derive(Default)]
struct EventFields {
    plugin: String,
    text: String,
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "plugin" => value.clone_into(&mut self.plugin),
            "line" => value.clone_into(&mut self.text),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_log_keeps_only_the_newest_lines_of_guests() {
        let log = GuestLog::default();
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(plugin = "p", line = "not a guest");
            tracing::warn!(target: TARGET, plugin = %"p", line = "first");
            let first = GuestLine { number: 0, plugin: "p".into(), level: "warn", text: "first".into() };
            assert_eq!((log.since(0), log.next()), (vec![first], 1));
            for _ in 0..KEPT {
                tracing::debug!(target: TARGET, plugin = %"p", line = "more");
            }
        });
        let kept = log.since(0);
        assert_eq!((kept.len(), kept[0].number, kept[0].level), (KEPT, 1, "debug"));
    }
}
