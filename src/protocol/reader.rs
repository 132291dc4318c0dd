//! Reads untrusted JSON in one pass and tracks the position, so that a fault names its field.
//!
//! A [`Shape`] defines the expected type. Leaves are returned as [`Raw`] text, which their owner checks. Independent of
//! messages.

pub(super) mod raw;

use std::borrow::Cow;
use std::fmt;
use std::fmt::Write;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::{FieldFault, Mismatch, quoted};
pub(super) use raw::Raw;

/// Reads `body` as one JSON value of this shape. `path` is the position of the value (empty: the whole body).
pub(super) fn read<'de, S: Shape<'de>>(path: &'static str, body: &'de [u8], shape: S) -> Result<S::Out, FieldFault> {
    match std::str::from_utf8(body) {
        Ok(text) => read_text(path, text, shape),
        Err(error) => {
            let at = error.valid_up_to();
            let got = format!("byte 0x{:02x} at offset {at}", body[at]);
            Err(Mismatch::new("UTF-8", got).at(whole(path)))
        }
    }
}

/// A fault of the text itself concerns the whole value.
const fn whole(path: &'static str) -> &'static str {
    if path.is_empty() { BODY } else { path }
}

/// Like [`read`], for a text.
pub(super) fn read_text<'de, S: Shape<'de>>(
    path: &'static str,
    text: &'de str,
    shape: S,
) -> Result<S::Out, FieldFault> {
    let mut reader = Reader { path: Vec::new(), fault: None };
    if !path.is_empty() {
        reader.path.push(Step::Key(path));
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let out = Seed { at: &mut reader, shape }.deserialize(&mut json);
    match out.and_then(|out| json.end().map(|()| out)) {
        Ok(out) => Ok(out),
        Err(error) => Err(reader.fault.take().unwrap_or_else(|| syntax(&error, text).at(whole(path)))),
    }
}

/// The expected type of a JSON value. Each method that a shape does not override returns a fault.
pub(super) trait Shape<'de>: Sized {
    /// The resulting type.
    type Out;
    /// The expected form, for faults.
    const EXPECTED: &'static str;

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, _map: A) -> Result<Self::Out, A::Error> {
        Err(at.fail(Mismatch::new(Self::EXPECTED, "an object")))
    }

    fn list<A: SeqAccess<'de>>(self, at: &mut Reader, _list: A) -> Result<Self::Out, A::Error> {
        Err(at.fail(Mismatch::new(Self::EXPECTED, "an array")))
    }

    fn text<E: Error>(self, at: &mut Reader, text: &str) -> Result<Self::Out, E> {
        Err(at.fail(Mismatch::new(Self::EXPECTED, quoted(text))))
    }

    fn null<E: Error>(self, at: &mut Reader) -> Result<Self::Out, E> {
        Err(at.fail(Mismatch::new(Self::EXPECTED, "null")))
    }
}

/// The current position and the first fault.
#[derive(Debug)]
pub(super) struct Reader {
    path: Vec<Step>,
    fault: Option<FieldFault>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Key(&'static str),
    Index(usize),
}

impl Reader {
    /// Reads the value of `key`, which must be of this shape.
    pub(super) fn value<'de, S, A>(&mut self, key: &'static str, map: &mut A, shape: S) -> Result<S::Out, A::Error>
    where
        S: Shape<'de>,
        A: MapAccess<'de>,
    {
        self.path.push(Step::Key(key));
        let out = map.next_value_seed(Seed { at: self, shape })?;
        self.path.pop();
        Ok(out)
    }

    /// Reads the element at `index`; `None` after the last.
    pub(super) fn element<'de, S, A>(
        &mut self,
        index: usize,
        list: &mut A,
        shape: S,
    ) -> Result<Option<S::Out>, A::Error>
    where
        S: Shape<'de>,
        A: SeqAccess<'de>,
    {
        self.path.push(Step::Index(index));
        let out = list.next_element_seed(Seed { at: self, shape })?;
        self.path.pop();
        Ok(out)
    }

    /// Reads the next key of an object.
    pub(super) fn key<'de, A: MapAccess<'de>>(&self, map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        map.next_key_seed(Key)
    }

    /// Reads the value of a key as raw text; only its grammar is checked.
    pub(super) fn raw<'de, A: MapAccess<'de>>(&self, map: &mut A) -> Result<Raw<'de>, A::Error> {
        map.next_value::<&RawValue>().map(|raw| Raw::new(raw.get()))
    }

    /// Reads the next element of a list as raw text; only its grammar is checked.
    pub(super) fn raw_element<'de, A: SeqAccess<'de>>(&self, list: &mut A) -> Result<Option<Raw<'de>>, A::Error> {
        Ok(list.next_element::<&RawValue>()?.map(|raw| Raw::new(raw.get())))
    }

    /// Skips the value of an unknown key. The depth limit still applies.
    pub(super) fn skip<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let raw = self.raw(map)?;
        raw.check_depth(self.levels_below()).map_err(|mismatch| self.fail_at(key, mismatch))
    }

    /// Number of levels that a value inside the current object or list may still have.
    pub(super) fn levels_below(&self) -> usize {
        MAX_DEPTH.saturating_sub(self.path.len() + 1)
    }

    /// Records a fault at the current position.
    pub(super) fn fail<E: Error>(&mut self, mismatch: Mismatch) -> E {
        self.fault.get_or_insert_with(|| mismatch.at(render(&self.path, None)));
        // Callers never see this error; they get the fault recorded above.
        E::custom("fault")
    }

    /// Records a fault at a key of the current object.
    pub(super) fn fail_at<E: Error>(&mut self, key: &str, mismatch: Mismatch) -> E {
        self.fault.get_or_insert_with(|| mismatch.at(render(&self.path, Some(key))));
        E::custom("fault")
    }

    /// Records a fault at an element of the current list.
    pub(super) fn fail_in<E: Error>(&mut self, index: usize, mismatch: Mismatch) -> E {
        self.path.push(Step::Index(index));
        self.fail(mismatch)
    }

    /// Records that a key came twice.
    pub(super) fn fail_duplicate<E: Error>(&mut self, key: &str) -> E {
        self.fail_at(key, Mismatch::new("the key once", "it twice"))
    }
}

fn render(path: &[Step], key: Option<&str>) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => push_key(&mut text, key),
            Step::Index(index) => write!(text, "[{index}]").expect("writing to a String does not fail"),
        }
    }
    if let Some(key) = key {
        push_key(&mut text, key);
    }
    if text.is_empty() { BODY.to_owned() } else { text }
}

/// Appends a key, quoted if it would make the path ambiguous.
fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    let plain = !key.is_empty() && key.len() <= 64 && !key.contains(|c: char| c.is_control() || ".[]\" ".contains(c));
    if plain { path.push_str(key) } else { path.push_str(&quoted(key)) }
}

/// Describes a syntax error of serde_json.
fn syntax(error: &serde_json::Error, text: &str) -> Mismatch {
    if text.trim_ascii().is_empty() {
        return Mismatch::missing("JSON");
    }
    let (line, column) = (error.line(), error.column());
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or_default();
    match words {
        "trailing characters" => {
            Mismatch::new("nothing after the JSON value", format!("more at line {line} column {column}"))
        }
        _ if error.is_eof() => Mismatch::new("whole JSON", format!("an early end at line {line} column {column}")),
        words => Mismatch::new("valid JSON", format!("a syntax error at line {line} column {column} ({words})")),
    }
}

struct Seed<'r, S> {
    at: &'r mut Reader,
    shape: S,
}

impl<'de, S: Shape<'de>> DeserializeSeed<'de> for Seed<'_, S> {
    type Value = S::Out;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Out, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape<'de>> Visitor<'de> for Seed<'_, S> {
    type Value = S::Out;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<S::Out, A::Error> {
        self.shape.object(self.at, map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<S::Out, A::Error> {
        self.shape.list(self.at, list)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<S::Out, E> {
        self.shape.text(self.at, text)
    }

    fn visit_unit<E: Error>(self) -> Result<S::Out, E> {
        self.shape.null(self.at)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<S::Out, E> {
        Err(self.at.fail(Mismatch::new(S::EXPECTED, value.to_string())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<S::Out, E> {
        Err(self.at.fail(Mismatch::new(S::EXPECTED, value.to_string())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<S::Out, E> {
        Err(self.at.fail(Mismatch::new(S::EXPECTED, value.to_string())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<S::Out, E> {
        Err(self.at.fail(Mismatch::new(S::EXPECTED, value.to_string())))
    }
}

/// A key, borrowed unless it contains an escape.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// The path of the whole body.
pub(super) const BODY: &str = "body";
/// Maximum nesting of objects and lists, including the body itself.
pub(super) const MAX_DEPTH: usize = 32;
