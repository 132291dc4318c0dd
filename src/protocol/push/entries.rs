//! `content`, `extra` and `data` as JSON.

use serde::de::{Error, MapAccess};

use crate::message::{Entries, MAX_ENTRIES};
use crate::protocol::fault::Mismatch;
use crate::protocol::reader::{Reader, Shape};

/// An object whose values become text; null values are omitted.
pub(in crate::protocol) struct Map;

impl<'de> Shape<'de> for Map {
    type Out = Entries;
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, map: A) -> Result<Entries, A::Error> {
        read_entries(at, map)
    }

    fn null<E: Error>(self, _at: &mut Reader) -> Result<Entries, E> {
        Ok(Entries::new())
    }
}

/// Like [`Map`], but also accepts a plain string, which becomes the entry `text`.
pub(super) struct Content;

impl<'de> Shape<'de> for Content {
    type Out = Entries;
    const EXPECTED: &'static str = "an object or a string";

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, map: A) -> Result<Entries, A::Error> {
        read_entries(at, map)
    }

    fn text<E: Error>(self, _at: &mut Reader, text: &str) -> Result<Entries, E> {
        Ok(plain(text))
    }

    fn null<E: Error>(self, _at: &mut Reader) -> Result<Entries, E> {
        Ok(Entries::new())
    }
}

/// Plain text as content; the empty text yields no entry.
pub(super) fn plain(text: &str) -> Entries {
    if text.is_empty() { Entries::new() } else { [("text", text)].into_iter().collect() }
}

fn read_entries<'de, A: MapAccess<'de>>(at: &mut Reader, mut map: A) -> Result<Entries, A::Error> {
    let mut entries = Entries::new();
    while let Some(key) = at.key(&mut map)? {
        let levels = at.levels_below();
        let value = at.raw(&mut map)?.entry(levels).map_err(|mismatch| at.fail_at(&key, mismatch))?;
        let Some(value) = value else { continue };
        if entries.get(&key).is_some() {
            return Err(at.fail_duplicate(&key));
        }
        if entries.len() == MAX_ENTRIES {
            return Err(at.fail(Mismatch::over(MAX_ENTRIES, "entries", "more")));
        }
        entries.insert(key, value);
    }
    Ok(entries)
}
