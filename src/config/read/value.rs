//! The untyped configuration: texts, lists and maps, each with its source.
//!
//! Independent of the actual keys.

use std::fmt;
use std::sync::Arc;

/// ValueSource of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// The built-in default.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The file, as it was named by the operator.
        file: Arc<str>,
        /// The line; 0 = the file as a whole.
        line: usize,
    },
    /// A `SKYLARK__…` variable.
    Variable(Arc<str>),
    /// A command-line option.
    Flag(Arc<str>),
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { file, line: 0 } => f.write_str(file),
            Self::File { file, line } => write!(f, "{file}:{line}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One value with its source.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct Value {
    pub(in crate::config) kind: Kind,
    pub(in crate::config) source: ValueSource,
}

/// As YAML, secrets masked.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(from {})", self.source)
    }
}

/// The kinds of values. Only `Display` shows them, and it masks secrets.
#[derive(Clone, PartialEq)]
pub(in crate::config) enum Kind {
    /// Null: the key is not set.
    Null,
    /// A text. Numbers and booleans are texts until their key parses them.
    Text(String),
    /// A text that is never shown.
    Secret(String),
    /// A list.
    List(Vec<Value>),
    /// Keys in the order of the file, each once.
    Map(Vec<Field>),
}

/// One key of a map.
#[derive(Clone, PartialEq)]
pub(in crate::config) struct Field {
    pub(in crate::config) name: String,
    /// ValueSource of the key itself.
    pub(in crate::config) source: ValueSource,
    pub(in crate::config) value: Value,
}

impl Value {
    /// A built-in text.
    pub(in crate::config) fn text(text: impl Into<String>) -> Self {
        Self::built_in(Kind::Text(text.into()))
    }

    /// A built-in value.
    pub(in crate::config) fn built_in(kind: Kind) -> Self {
        Self { kind, source: ValueSource::Default }
    }

    /// A built-in map.
    pub(in crate::config) fn map<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let field = |(name, value): (&str, Self)| Field { name: name.to_owned(), source: ValueSource::Default, value };
        Self::built_in(Kind::Map(fields.into_iter().map(field).collect()))
    }

    /// Returns the value at a key of a map or an index of a list.
    pub(in crate::config) fn get(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(fields) => fields.iter().find(|field| field.name == name).map(|field| &field.value),
            Kind::List(items) => items.get(name.parse::<usize>().ok()?),
            Kind::Null | Kind::Text(_) | Kind::Secret(_) => None,
        }
    }

    /// Merges `over` into this value: maps key by key, other values as a whole. A key without a value sets nothing.
    pub(in crate::config) fn overlay(&mut self, over: Self) {
        match (&mut self.kind, over.kind) {
            (_, Kind::Null) => {}
            (Kind::Map(mine), Kind::Map(theirs)) if !is_reference(mine) && !is_reference(&theirs) => {
                for field in theirs {
                    match mine.iter_mut().find(|own| own.name == field.name) {
                        Some(own) => own.value.overlay(field.value),
                        None => mine.push(field),
                    }
                }
                if mine.is_empty() {
                    self.source = over.source;
                }
            }
            (kind, other) => {
                *kind = other;
                self.source = over.source;
            }
        }
    }

    /// Sets `value` at `path`. A number in the path indexes a list; the length of the list appends an entry. Returns
    /// `false` if a number exceeds the length.
    pub(in crate::config) fn set(&mut self, path: &[&str], value: Self) -> bool {
        let Some((name, rest)) = path.split_first() else {
            self.overlay(value);
            return true;
        };
        let source = value.source.clone();
        if let (Kind::List(items), Ok(index)) = (&mut self.kind, name.parse::<usize>()) {
            if index == items.len() {
                items.push(Self { kind: Kind::Null, source });
            }
            return items.get_mut(index).is_some_and(|item| item.set(rest, value));
        }
        if !matches!(self.kind, Kind::Map(_)) {
            self.kind = Kind::Map(Vec::new());
            self.source = source.clone();
        }
        let Kind::Map(fields) = &mut self.kind else { unreachable!("just made a map") };
        let at = fields.iter().position(|field| field.name == *name).unwrap_or_else(|| {
            fields.push(Field {
                name: (*name).to_owned(),
                source: source.clone(),
                value: Self { kind: Kind::Null, source },
            });
            fields.len() - 1
        });
        fields[at].value.set(rest, value)
    }

    /// Sets the source of the whole value to `source`.
    pub(in crate::config) fn set_source(&mut self, source: &ValueSource) {
        self.source = source.clone();
        match &mut self.kind {
            Kind::Null | Kind::Text(_) | Kind::Secret(_) => {}
            Kind::List(items) => items.iter_mut().for_each(|item| item.set_source(source)),
            Kind::Map(fields) => fields.iter_mut().for_each(|field| {
                field.source = source.clone();
                field.value.set_source(source);
            }),
        }
    }

    /// The source of the value at a path such as `listeners[0].serves`.
    pub(in crate::config) fn source_at(&self, path: &str) -> ValueSource {
        let mut steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty());
        steps.try_fold(self, |value, step| value.get(step)).map_or(ValueSource::Default, |value| value.source.clone())
    }

    /// The leaves with their paths. An empty list or map is a leaf.
    pub(in crate::config) fn leaves(&self) -> Vec<(String, &Self)> {
        let mut leaves = Vec::new();
        self.collect_leaves("", &mut leaves);
        leaves
    }

    fn collect_leaves<'a>(&'a self, path: &str, leaves: &mut Vec<(String, &'a Self)>) {
        match &self.kind {
            Kind::Map(fields) if !fields.is_empty() => {
                for field in fields {
                    let dot = if path.is_empty() { "" } else { "." };
                    field.value.collect_leaves(&format!("{path}{dot}{}", field.name), leaves);
                }
            }
            // A list of texts is one leaf; a list of maps is split into its keys.
            Kind::List(items) if items.iter().any(|item| matches!(item.kind, Kind::Map(_))) => {
                for (index, item) in items.iter().enumerate() {
                    item.collect_leaves(&format!("{path}[{index}]"), leaves);
                }
            }
            _ => leaves.push((path.to_owned(), self)),
        }
    }
}

/// YAML on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Null => f.write_str("~"),
            Kind::Secret(_) => f.write_str("***"),
            Kind::Text(text) if needs_quotes(text) => write!(f, "{text:?}"),
            Kind::Text(text) => f.write_str(text),
            Kind::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Kind::Map(fields) => {
                f.write_str("{")?;
                for (index, field) in fields.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", field.name, field.value)?;
                }
                f.write_str("}")
            }
        }
    }
}

/// True if the map is a reference to text from elsewhere.
fn is_reference(fields: &[Field]) -> bool {
    matches!(fields, [Field { name, .. }] if name == "file" || name == "env")
}

fn needs_quotes(text: &str) -> bool {
    let first = text.chars().next();
    first.is_none_or(|c| c.is_whitespace() || "[]{}*&!|>'\"%@`#-?:,~".contains(c))
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.contains(['[', ']', '{', '}', ','])
        || text.chars().any(char::is_control)
        || text == "null"
}
