//! Untyped values → typed ones. One [`Reader`] walks the whole tree and collects every fault.
//!
//! Also resolves references to text from elsewhere: `${NAME}`, `{env: NAME}`, `{file: path}`.

pub(super) mod fault;
pub(super) mod secret_distance;
mod types;
pub(super) mod value;
pub(super) mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::fault::{Fault, nearest};
use self::secret_distance::{SecretDistance, as_written};
use self::value::{Kind, Value, ValueSource};
use super::credential;
use super::{GuardedFile, Key};

/// A type of the configuration tree.
pub(super) trait Setting: Sized + Clone + PartialEq {
    /// The expected form, for faults.
    fn expected() -> String;
    /// Reads the value; `None` after a fault.
    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self>;
    /// The value in the syntax of the configuration.
    fn show(&self) -> Value;
    /// Takes the live keys below this one from `new`. Fixed keys keep their values.
    fn take_live(&mut self, _new: &Self) {}
    /// Adds the keys below this one.
    fn keys(_path: &str, _keys: &mut Vec<Key>) {}
    /// True if a value may be a secret.
    fn is_secret() -> bool {
        false
    }
}

/// Reads and shows one field that its type alone does not define.
pub(super) trait Codec<T> {
    fn expected(&self) -> String;
    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<T>;
    fn show(&self, value: &T) -> Value;
    fn take_live(&self, _own: &mut T, _new: &T) {}
    fn keys(&self, _path: &str, _keys: &mut Vec<Key>) {}
    fn is_secret(&self) -> bool {
        false
    }
}

/// The field is read and shown as its type defines.
pub(super) struct Plain;
/// A whole number between two bounds.
pub(super) struct Bounded(pub(super) u64, pub(super) u64);
/// A number of bytes between two bounds, with or without a unit.
pub(super) struct Bytes(pub(super) usize, pub(super) usize);
/// A text of at least this many bytes, never shown.
pub(super) struct Secret(pub(super) usize);
/// A value that may be missing.
pub(super) struct Optional<C>(pub(super) C);
/// `yes` or `no`, also as `true` or `false`.
pub(super) struct YesNo;

/// Walks the tree.
pub(super) struct Reader<'a> {
    /// The environment variables.
    pub(super) variables: &'a BTreeMap<String, String>,
    /// The faults so far.
    pub(super) faults: Vec<Fault>,
    /// Files that hold secrets, with their keys.
    pub(super) guarded_files: Vec<GuardedFile>,
    /// Path of the current key.
    path: String,
}

impl<'a> Reader<'a> {
    pub(super) fn new(variables: &'a BTreeMap<String, String>, faults: Vec<Fault>) -> Self {
        Self { variables, faults, guarded_files: Vec::new(), path: String::new() }
    }

    /// Checks that the value is a map or null (an empty map). Reports unknown keys as faults and continues.
    pub(super) fn section(&mut self, value: &Value, known: &[&str]) -> Option<()> {
        match &value.kind {
            Kind::Null => Some(()),
            Kind::Map(fields) => {
                for field in fields.iter().filter(|field| !known.contains(&field.name.as_str())) {
                    let nearest = nearest(&field.name, known.iter().copied());
                    let problem = match nearest {
                        Some(_) => "no such key".to_owned(),
                        None => format!("no such key, expected {}", one_of(known)),
                    };
                    // `keys: [{a-secret}]` turns the secret into a key without a value.
                    let path = match field.value.kind == Kind::Null && self.secret_distance() == SecretDistance::Parent
                    {
                        true => self.path.clone(),
                        false => self.join(&shortened(&field.name)),
                    };
                    let source = field.source.clone();
                    self.faults.push(Fault { source, path, problem, nearest });
                }
                Some(())
            }
            _ => {
                let expected = one_of(known);
                self.wrong(value, &format!("a map ({expected})"))
            }
        }
    }

    /// Reads one key of a map, or takes its default. A fault also yields the default, so that rules between keys can
    /// run.
    pub(super) fn field<T>(
        &mut self,
        map: &Value,
        name: &str,
        codec: &impl Codec<T>,
        default: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        match map.get(name).filter(|value| value.kind != Kind::Null) {
            Some(value) => self.below(&format!(".{name}"), |reader| codec.read(value, reader)).or_else(default),
            None => default().or_else(|| {
                let problem = format!("not given, expected {}", codec.expected());
                let (source, path) = (map.source.clone(), self.join(name));
                self.faults.push(Fault { source, path, problem, nearest: None });
                None
            }),
        }
    }

    /// Reads one of a list of words.
    pub(super) fn word<T: Copy>(&mut self, value: &Value, words: &[(T, &str)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
        let text = self.text(value, &one_of(&names))?;
        if let Some((found, _)) = words.iter().find(|(_, word)| *word == text) {
            return Some(*found);
        }
        self.wrong::<()>(value, &one_of(&names));
        if let Some(fault) = self.faults.last_mut() {
            fault.nearest = nearest(&text, names);
        }
        None
    }

    /// The text of a scalar, or the text it refers to.
    pub(super) fn text(&mut self, value: &Value, expected: &str) -> Option<String> {
        match &value.kind {
            Kind::Text(text) | Kind::Secret(text) => self.interpolate(value, text),
            Kind::Map(fields) => match fields.as_slice() {
                [field] if field.name == "env" => {
                    let name = self.text(&field.value, "the name of a variable")?;
                    self.variable(value, &name)
                }
                [field] if field.name == "file" => {
                    let path = self.text(&field.value, "the path of a file")?;
                    self.file(value, Path::new(&path))
                }
                _ => self.wrong(value, expected),
            },
            _ => self.wrong(value, expected),
        }
    }

    /// Reads a text and parses it.
    fn parsed<T>(&mut self, value: &Value, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(value, expected)?;
        parse(&text).or_else(|| self.wrong(value, expected))
    }

    /// Resolves `${NAME}`; `$${` is an escaped `${`.
    fn interpolate(&mut self, value: &Value, text: &str) -> Option<String> {
        let (mut whole, mut rest) = (String::new(), text);
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                whole.push_str(&rest[..start]);
                whole.push('{');
                rest = &rest[start + 2..];
                continue;
            }
            whole.push_str(&rest[..start]);
            let Some(length) = rest[start..].find('}') else {
                return self.wrong(value, "a } after ${ (`$${` is a plain `${`)");
            };
            whole.push_str(&self.variable(value, &rest[start + 2..start + length])?);
            rest = &rest[start + length + 1..];
        }
        whole.push_str(rest);
        Some(whole)
    }

    fn variable(&mut self, value: &Value, name: &str) -> Option<String> {
        if let Some(text) = self.variables.get(name) {
            return Some(as_written(text).to_owned());
        }
        // The name of the variable may be part of the secret itself.
        let which = if self.secret_distance() == SecretDistance::None { name } else { "named here" };
        self.fault(value, format!("expected the variable {which} to be set, it is not"))
    }

    fn file(&mut self, value: &Value, path: &Path) -> Option<String> {
        match credential::read_text(path) {
            Ok(text) => {
                if self.secret_distance() == SecretDistance::Secret {
                    self.guarded_files.push(GuardedFile::secret(&self.path, path));
                }
                Some(text)
            }
            Err(error) if self.secret_distance() == SecretDistance::None => {
                self.fault(value, format!("expected a file to read, got {}: {error}", path.display()))
            }
            Err(error) => self.fault(value, format!("cannot read the file that is named here: {error}")),
        }
    }

    /// The file that a value refers to (`{file: PATH}`).
    pub(super) fn file_of(&mut self, value: &Value) -> Option<PathBuf> {
        match &value.kind {
            Kind::Map(fields) => match fields.as_slice() {
                [field] if field.name == "file" => self.text(&field.value, "the path of a file").map(PathBuf::from),
                _ => None,
            },
            _ => None,
        }
    }

    /// Reports that `expected` did not come. The received value is shown as written, so no resolved secret appears. At
    /// a secret key, above it and below it the value is not shown at all.
    pub(super) fn wrong<T>(&mut self, value: &Value, expected: &str) -> Option<T> {
        let got = match &value.kind {
            Kind::Null => "nothing".to_owned(),
            Kind::Text(_) if self.secret_distance() != SecretDistance::None => "a string that is not shown".to_owned(),
            // A key or certificate was given in place of its path.
            Kind::Text(text) if text.contains('\n') => format!("a string of {} lines", text.lines().count()),
            Kind::Text(text) => format!("{:?}", shortened(text)),
            Kind::Secret(_) => "a secret".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        };
        self.fault(value, format!("expected {expected}, got {got}"))
    }

    fn fault<T>(&mut self, value: &Value, problem: String) -> Option<T> {
        let (source, path) = (value.source.clone(), self.path.clone());
        self.faults.push(Fault { source, path, problem, nearest: None });
        None
    }

    /// Runs `read` with `step` appended to the path.
    pub(super) fn below<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        let step = if length == 0 { step.trim_start_matches('.') } else { step };
        self.path.push_str(step);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn secret_distance(&self) -> SecretDistance {
        SecretDistance::of(&self.path)
    }
}

/// `a, b or c`.
pub(super) fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(79).chain(['…']).collect() }
}

impl<T: Setting> Codec<T> for Plain {
    fn expected(&self) -> String {
        T::expected()
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<T> {
        T::read(value, reader)
    }

    fn show(&self, value: &T) -> Value {
        value.show()
    }

    fn take_live(&self, own: &mut T, new: &T) {
        own.take_live(new);
    }

    fn keys(&self, path: &str, keys: &mut Vec<Key>) {
        T::keys(path, keys);
    }

    fn is_secret(&self) -> bool {
        T::is_secret()
    }
}

impl<T: TryFrom<u64> + Copy + ToString> Codec<T> for Bounded {
    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<T> {
        let expected = Codec::<T>::expected(self);
        reader.parsed(value, &expected, |text| {
            let number: u64 = text.replace('_', "").parse().ok()?;
            (self.0..=self.1).contains(&number).then_some(number)?.try_into().ok()
        })
    }

    fn show(&self, value: &T) -> Value {
        Value::text(value.to_string())
    }
}

const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Codec<usize> for Bytes {
    fn expected(&self) -> String {
        format!("a size such as 64KiB or 1MiB, from {} to {}", shown_bytes(self.0), shown_bytes(self.1))
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<usize> {
        reader.parsed(value, &self.expected(), |text| {
            let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
            let unit = match unit.trim_start() {
                "" | "B" => 1,
                unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
            };
            let bytes = digits.parse::<usize>().ok()?.checked_mul(unit)?;
            (self.0..=self.1).contains(&bytes).then_some(bytes)
        })
    }

    fn show(&self, value: &usize) -> Value {
        Value::text(shown_bytes(*value))
    }
}

fn shown_bytes(bytes: usize) -> String {
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    unit.map_or_else(|| bytes.to_string(), |(name, size)| format!("{}{name}", bytes / size))
}

impl<T, C: Codec<T>> Codec<Option<T>> for Optional<C> {
    fn expected(&self) -> String {
        self.0.expected()
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<Option<T>> {
        self.0.read(value, reader).map(Some)
    }

    fn show(&self, value: &Option<T>) -> Value {
        value.as_ref().map_or_else(|| Value::built_in(Kind::Null), |value| self.0.show(value))
    }
}

const YES_NO: [(bool, &str); 4] = [(true, "yes"), (false, "no"), (true, "true"), (false, "false")];

impl Codec<bool> for YesNo {
    fn expected(&self) -> String {
        one_of(&YES_NO.map(|(_, word)| word))
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<bool> {
        // A misspelt word gets no suggestion: `on` is nearer to `no` than to `yes`.
        let meaning = |text: &str| YES_NO.iter().find(|(_, word)| *word == text).map(|(is_yes, _)| *is_yes);
        reader.parsed(value, &Codec::<bool>::expected(self), meaning)
    }

    fn show(&self, value: &bool) -> Value {
        Value::text(if *value { "yes" } else { "no" })
    }
}

impl Codec<String> for Secret {
    fn expected(&self) -> String {
        format!("a secret of at least {} bytes", self.0)
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<String> {
        let masked = match &value.kind {
            Kind::Text(text) => &Value { kind: Kind::Secret(text.clone()), source: value.source.clone() },
            _ => value,
        };
        // The secret is in the configuration file itself, so that file must be guarded.
        if let (Kind::Text(text), ValueSource::File { file, .. }) = (&value.kind, &value.source)
            && !text.is_empty()
            && !text.contains("${")
        {
            reader.guarded_files.push(GuardedFile::secret(&reader.path, Path::new(&**file)));
        }
        let text = reader.text(masked, &Codec::<String>::expected(self))?;
        if text.len() < self.0 {
            return reader.fault(value, format!("expected at least {} bytes, got {}", self.0, text.len()));
        }
        Some(text)
    }

    /// An empty secret is shown as empty.
    fn show(&self, value: &String) -> Value {
        if value.is_empty() { Value::text("") } else { Value::built_in(Kind::Secret(value.clone())) }
    }

    fn is_secret(&self) -> bool {
        true
    }
}
