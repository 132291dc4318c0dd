//! YAML text → [`Value`], with the line of each key and value, and limits on everything that can grow.
//!
//! Uses the parser's events instead of serde, so that every fault has its line and one wrong value hides no other.

use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, options};

use super::fault::Fault;
use super::value::{Field, Kind, Value, ValueSource};

/// Maximum file size in bytes.
pub(in crate::config) const MAX_BYTES: u64 = 1 << 20;
/// Maximum nesting depth.
const MAX_DEPTH: usize = 32;
/// Maximum bytes in memory, with the copies that aliases make.
const MAX_WEIGHT: usize = 8 << 20;

/// Reads one document; an empty one is an empty map. Duplicate keys are added to `faults`, and reading continues.
pub(in crate::config) fn parse(file: &Arc<str>, text: &str, faults: &mut Vec<Fault>) -> Result<Value, Fault> {
    let mut builder = Builder { file, open: Vec::new(), anchors: HashMap::new(), weight: 0, root: None, faults };
    let options = options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH, emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let why = format!("not YAML: {}, column {}", error.info(), error.marker().col() + 1);
            builder.fault(error.marker().line(), why)
        })?;
        builder.take(event, span)?;
    }
    let source = builder.source(1);
    Ok(builder.root.unwrap_or(Value { kind: Kind::Map(Vec::new()), source }))
}

struct Builder<'a> {
    file: &'a Arc<str>,
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    weight: usize,
    root: Option<Value>,
    faults: &'a mut Vec<Fault>,
}

/// A list or map that is not closed yet.
struct Open {
    anchor: usize,
    source: ValueSource,
    items: Items,
}

enum Items {
    List(Vec<Value>),
    Map { fields: Vec<Field>, key: Option<(String, ValueSource)> },
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Fault> {
        let line = span.start.line();
        let source = self.source(line);
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(self.fault(line, "expected one document, got two")),
            Event::Scalar(text, style, anchor, _) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null");
                let kind = if null { Kind::Null } else { Kind::Text(text.into_owned()) };
                self.finish(Value { kind, source }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.begin(Open { anchor, source, items: Items::List(Vec::new()) }),
            Event::MappingStart(_, anchor, _) => {
                self.begin(Open { anchor, source, items: Items::Map { fields: Vec::new(), key: None } })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser pairs starts and ends");
                let kind = match open.items {
                    Items::List(items) => Kind::List(items),
                    Items::Map { fields, .. } => Kind::Map(fields),
                };
                self.finish(Value { kind, source: open.source }, open.anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(value) => self.finish(value, 0),
                None => Err(self.fault(line, "expected an alias of a complete value, got one of an enclosing value")),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault { source: open.source, ..self.fault(1, format!("expected at most {MAX_DEPTH} levels")) });
        }
        if let Some(Open { items: Items::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(Fault { source: open.source, ..self.fault(1, "expected a string as key, got a list or map") });
        }
        self.open.push(open);
        Ok(())
    }

    fn finish(&mut self, value: Value, anchor: usize) -> Result<(), Fault> {
        self.weight += weight(&value);
        if self.weight > MAX_WEIGHT {
            let why = format!("expected less than {MAX_WEIGHT} bytes with all aliases expanded");
            return Err(Fault { source: value.source, ..self.fault(1, why) });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        let path = self.path();
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(value),
            Some(Items::List(items)) => items.push(value),
            Some(Items::Map { fields, key }) => match key.take() {
                Some((name, source)) => fields.push(Field { name, source, value }),
                None => {
                    let name = match value.kind {
                        Kind::Text(name) => name,
                        _ => String::new(),
                    };
                    if let Some(first) = fields.iter().find(|field| field.name == name) {
                        let problem = format!("given twice, first at {}", first.source);
                        let source = value.source.clone();
                        self.faults.push(Fault { source, path: path + &name, problem, nearest: None });
                    }
                    *key = Some((name, value.source));
                }
            },
        }
        Ok(())
    }

    /// The keys around the open value, each followed by a dot.
    fn path(&self) -> String {
        let keys = self.open.iter().filter_map(|open| match &open.items {
            Items::Map { key: Some((name, _)), .. } => Some(format!("{name}.")),
            _ => None,
        });
        keys.collect()
    }

    fn source(&self, line: usize) -> ValueSource {
        ValueSource::File { file: self.file.clone(), line }
    }

    fn fault(&self, line: usize, problem: impl Into<String>) -> Fault {
        Fault { source: self.source(line), path: String::new(), problem: problem.into(), nearest: None }
    }
}

/// Size of a value in bytes in memory. Contents count again at every level around them; honest files stay far below the
/// limit.
fn weight(value: &Value) -> usize {
    let own = size_of::<Field>();
    match &value.kind {
        Kind::Null => own,
        Kind::Text(text) | Kind::Secret(text) => own + text.len(),
        Kind::List(items) => own + items.iter().map(weight).sum::<usize>(),
        Kind::Map(fields) => own + fields.iter().map(|field| field.name.len() + weight(&field.value)).sum::<usize>(),
    }
}
