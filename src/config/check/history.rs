//! Rules of the history: the bus that its store needs, order of the times, and keys that fit a rule.

use std::time::Duration;

use super::Rules;
use crate::config::{BusKind, HistoryKind, HistoryRule, Keep};

/// Shortest time for which messages are kept. `Retention::Ttl` has whole seconds.
const MIN_TTL: Duration = Duration::from_secs(1);

impl Rules<'_> {
    pub(super) fn history(&mut self) {
        let (history, bus) = (&self.config.history, self.config.bus.kind);
        if self.has_no_fault("history.kind")
            && self.has_no_fault("bus.kind")
            && history.kind == HistoryKind::Memory
            && bus != BusKind::Memory
        {
            let problem = format!(
                "expected auto or off, because bus.kind is {} and other nodes cannot read the memory of this node, got memory",
                bus.as_str()
            );
            self.fault("history.kind", &problem);
        }
        self.journal();
        for (path, bounds) in
            [("history.user.ttl", history.user), ("history.room.ttl", history.room), ("history.all.ttl", history.all)]
        {
            self.ttl(path, bounds.ttl);
        }
        if self.has_no_fault("history.ttl_max") && history.ttl_max < MIN_TTL {
            self.too_short("history.ttl_max", history.ttl_max);
        }
        if self.has_no_fault("history.rules") {
            for (index, rule) in history.rules.iter().enumerate() {
                self.history_rule(&format!("history.rules[{index}]"), rule);
            }
        }
    }

    /// Only the memory engine has a journal.
    fn journal(&mut self) {
        let (history, bus) = (&self.config.history, self.config.bus.kind);
        let has_fault = ["history.kind", "history.journal", "bus.kind"].iter().any(|path| !self.has_no_fault(path));
        if has_fault || history.journal.dir.as_os_str().is_empty() || history.is_on(&bus) {
            return;
        }
        let why = match history.kind {
            HistoryKind::Off => "history.kind is off".to_owned(),
            HistoryKind::Auto | HistoryKind::Memory => format!("bus.kind is {}", bus.as_str()),
        };
        let dir = history.journal.dir.display();
        let problem = format!("expected none, because {why} and only a history in memory has a journal, got \"{dir}\"");
        self.fault("history.journal.dir", &problem);
    }

    fn history_rule(&mut self, path: &str, rule: &HistoryRule) {
        match (&rule.action, &rule.room) {
            (Some(_), Some(_)) => self.fault(path, "expected either action or room, got both"),
            (None, None) => self.fault(path, "expected action or room, got neither"),
            (None, Some(pattern)) => self.room_pattern(&format!("{path}.room"), pattern),
            (Some(_), None) => self.action_rule(path, rule),
        }
        if let Keep::Within(bounds) = &rule.keep
            && let Some(ttl) = bounds.ttl
        {
            self.ttl(&format!("{path}.keep.ttl"), ttl);
        }
    }

    /// Messages of one action are in streams together with others, so a rule cannot bound these streams.
    fn action_rule(&mut self, path: &str, rule: &HistoryRule) {
        let bounds = match &rule.keep {
            Keep::Within(bounds) => [("keep.size", bounds.size.is_some()), ("keep.bytes", bounds.bytes.is_some())],
            Keep::Yes | Keep::No => [("keep.size", false), ("keep.bytes", false)],
        };
        for (key, _) in bounds.into_iter().chain([("latest", rule.latest)]).filter(|(_, is_given)| *is_given) {
            let problem = "expected none, because the rule has an action: only a rule with a room bounds a stream";
            self.fault(&format!("{path}.{key}"), problem);
        }
    }

    fn ttl(&mut self, path: &str, ttl: Duration) {
        let longest = self.config.history.ttl_max;
        if !self.has_no_fault(path) {
            return;
        }
        if ttl < MIN_TTL {
            self.too_short(path, ttl);
        } else if ttl > longest && self.has_no_fault("history.ttl_max") {
            let (longest, ttl) = (humantime::format_duration(longest), humantime::format_duration(ttl));
            self.fault(path, &format!("expected at most history.ttl_max ({longest}), got {ttl}"));
        }
    }

    fn too_short(&mut self, path: &str, ttl: Duration) {
        let (least, ttl) = (humantime::format_duration(MIN_TTL), humantime::format_duration(ttl));
        self.fault(path, &format!("expected at least {least}, got {ttl}"));
    }
}
