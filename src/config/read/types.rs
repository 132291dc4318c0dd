//! [`Setting`] of lists, of optional values and of the basic types.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::value::{Kind, Value};
use super::{Reader, Setting};
use crate::config::{Fsync, Key, KvLocation};
use crate::id::NodeId;
use crate::protocol::Dialect;

/// Maximum duration; a longer one is taken for a mistake.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);
/// Bounds of the time between two syncs of the journal.
const MIN_FSYNC: Duration = Duration::from_millis(1);
const MAX_FSYNC: Duration = Duration::from_secs(60);

impl<T: Setting> Setting for Vec<T> {
    fn expected() -> String {
        format!("a list ({})", T::expected())
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::List(items) = &value.kind else {
            return reader.wrong(value, &Self::expected());
        };
        let read = |(index, item)| reader.below(&format!("[{index}]"), |reader| T::read(item, reader));
        // Read all items before the first fault ends the list.
        items.iter().enumerate().map(read).collect::<Vec<_>>().into_iter().collect()
    }

    fn show(&self) -> Value {
        Value::built_in(Kind::List(self.iter().map(Setting::show).collect()))
    }

    /// Entries are matched by their positions. If a fixed key of one differs, or the number of entries, all of them wait
    /// for the restart: an entry that moved would get the live keys of another.
    fn take_live(&mut self, new: &Self) {
        let mut taken = self.clone();
        taken.iter_mut().zip(new).for_each(|(own, new)| own.take_live(new));
        if taken == *new {
            *self = taken;
        }
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        T::keys(&format!("{path}[]"), keys);
    }
}

/// A missing value is `None`. The keys below tell the two cases apart.
impl<T: Setting> Setting for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        T::read(value, reader).map(Some)
    }

    fn show(&self) -> Value {
        self.as_ref().map_or_else(|| Value::built_in(Kind::Null), Setting::show)
    }

    fn take_live(&mut self, new: &Self) {
        if let (Some(own), Some(new)) = (self, new) {
            own.take_live(new);
        }
    }

    fn keys(path: &str, keys: &mut Vec<Key>) {
        T::keys(path, keys);
    }
}

impl Setting for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        reader.word(value, &[(true, "true"), (false, "false")])
    }

    fn show(&self) -> Value {
        Value::text(self.to_string())
    }
}

/// Types parsed from a text: type, expected form, parser, formatter.
macro_rules! parsed_setting {
    ($($type:ty, $expected:literal, $parse:expr, $show:expr;)+) => {
        $(impl Setting for $type {
            fn expected() -> String {
                $expected.to_owned()
            }

            fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
                reader.parsed(value, $expected, $parse)
            }

            fn show(&self) -> Value {
                Value::text($show(self))
            }
        })+
    };
}

parsed_setting! {
    String, "a string", |text| Some(text.to_owned()), String::clone;
    Arc<str>, "a string", |text| Some(text.into()), |text: &Arc<str>| text.to_string();
    // A text with line breaks is the contents of a file, such as a private key.
    PathBuf, "a path", |text| (!text.contains(char::is_control)).then(|| PathBuf::from(text)), |path: &PathBuf| path.display().to_string();
    SocketAddr, "an address and port such as 127.0.0.1:8080", |text| text.parse().ok(), SocketAddr::to_string;
    NodeId, "a name of at most 128 bytes without comma", |text| NodeId::parse(text).ok(), NodeId::to_string;
    Duration, "a duration such as 25s, 500ms or 5m",
        |text| humantime::parse_duration(text).ok().filter(|duration| *duration <= MAX_DURATION),
        |duration: &Duration| humantime::format_duration(*duration).to_string().replace(' ', "");
}

impl Setting for KvLocation {
    fn expected() -> String {
        "`memory`, or a path with a slash such as ./state/kv.redb".to_owned()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        // A word without a slash may be a typo of `memory`. Taken as a path, it would start with an empty store.
        reader.parsed(value, &Self::expected(), |text| match text {
            "memory" => Some(Self::Memory),
            path => path.contains('/').then(|| Self::File(PathBuf::from(path))),
        })
    }

    fn show(&self) -> Value {
        match self {
            Self::Memory => Value::text("memory"),
            Self::File(path) => path.show(),
        }
    }
}

impl Setting for Fsync {
    fn expected() -> String {
        "always, os or a duration from 1ms to 1m such as 100ms".to_owned()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        reader.parsed(value, &Self::expected(), |text| match text {
            "always" => Some(Self::Always),
            "os" => Some(Self::Os),
            duration => {
                let duration = humantime::parse_duration(duration).ok()?;
                (MIN_FSYNC..=MAX_FSYNC).contains(&duration).then_some(Self::Every(duration))
            }
        })
    }

    fn show(&self) -> Value {
        match self {
            Self::Always => Value::text("always"),
            Self::Os => Value::text("os"),
            Self::Every(duration) => duration.show(),
        }
    }
}

keyword_setting!(Dialect, [(Dialect::Yunque, "yunque"), (Dialect::Cim, "cim")]);
