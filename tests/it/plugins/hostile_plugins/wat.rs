//! Test plugins in core WebAssembly text, wrapped into components as a toolchain does. `@V` stands for the interface
//! version.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A core module and the world that it declares.
pub struct Guest {
    pub world: String,
    /// Everything except memory and allocator, which follow.
    pub core: String,
    pub memory: &'static str,
    /// The body of `cabi_realloc`.
    pub realloc: &'static str,
}

const MEMORY: &str = "(memory (export \"memory\") 2)";
/// Allocates memory from 64 KiB on and starts again at the end.
const REALLOC: &str = "
    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
    (if (i32.gt_u (i32.add (global.get $top) (local.get 3)) (i32.const 131072))
        (then (global.set $top (i32.const 65536))))
    (global.get $top)
    (global.set $top (i32.add (global.get $top) (local.get 3)))";

/// The interface version of this tree.
fn version() -> String {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("wit/skylark.wit");
    let text = std::fs::read_to_string(wit).unwrap();
    let (_, rest) = text.split_once("package skylark:plugin@").expect("the WIT file has a package line");
    rest.split(';').next().unwrap().to_owned()
}

impl Guest {
    pub fn new(world: &str, core: impl Into<String>) -> Self {
        Self { world: world.to_owned(), core: core.into(), memory: MEMORY, realloc: REALLOC }
    }

    pub fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    pub fn realloc(mut self, realloc: &'static str) -> Self {
        self.realloc = realloc;
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let (core, memory, realloc) = (&self.core, self.memory, self.realloc);
        let text = format!(
            "(module {core} {memory} (global $top (mut i32) (i32.const 65536))
                (func $realloc (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) {realloc}))"
        );
        let mut module = wat::parse_str(text.replace("@V", &format!("@{}", version()))).unwrap();
        let mut resolve = Resolve::default();
        resolve.push_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("wit")).unwrap();
        let package = format!("package test:guest; world guest {{ {} }}", self.world);
        let package = resolve.push_str("guest.wit", &package.replace("@V", &format!("@{}", version()))).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
    }
}

/// Answers of test plugins in their memory: 0 is an `allow` and an `ok`.
const DATA: &str = r#"
    ;; 1024: reject("451", "no")
    (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
    ;; 1088: ok(code "200", message "fine", no data)
    (data (i32.const 1088) "\00\00\00\00\10\08\00\00\03\00\00\00\13\08\00\00\04\00\00\00")
    ;; 1040: keys: one text
    (data (i32.const 1040) "\20\04\00\00\01\00\00\00")
    (data (i32.const 1056) "\00\09\00\00\07\00\00\00")
    (data (i32.const 2048) "451no")
    (data (i32.const 2064) "200finesorry")
    (data (i32.const 2304) "hostile")
    (data (i32.const 2320) "callerlobby")
    (data (i32.const 60000) "\ff\fe\80\c0")"#;

/// A filter with `body` as its `judge`, and more definitions before it.
pub fn filter_with(world: &str, before: &str, body: &str) -> Guest {
    let world = format!("{world} export skylark:plugin/filter@V;");
    let judge = format!(r#"(func $self (export "skylark:plugin/filter@V#judge") (result i32) {body})"#);
    Guest::new(&world, format!("{before} {judge} {DATA}"))
}

pub fn filter(body: &str) -> Guest {
    filter_with("", "", body)
}

/// A handler that owns `hostile` unless its `keys` differs.
pub fn handler_with(world: &str, before: &str, keys: &str, body: &str) -> Guest {
    let world = format!("{world} export skylark:plugin/handler@V;");
    Guest::new(
        &world,
        format!(
            r#"{before}
            (func (export "skylark:plugin/handler@V#keys") (result i32) (local $n i32) {keys})
            (func $self (result i32) (local $n i32) {body})
            (func (export "skylark:plugin/handler@V#handle")
                (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i64) (result i32) (call $self))
            {DATA}"#
        ),
    )
}

pub fn handler(body: &str) -> Guest {
    handler_with("", "", KEYS, body)
}

/// Address of the single key for `keys`.
pub const KEYS: &str = "(i32.const 1040)";

/// A filter that allows everything and has a `start`.
pub fn starting(body: &str) -> Guest {
    let start = format!(r#"(func (export "skylark:plugin/lifecycle@V#start") (result i32) {body})"#);
    filter_with("export skylark:plugin/lifecycle@V;", &start, "(i32.const 0)")
}

pub fn auth(body: &str) -> Guest {
    Guest::new(
        "export skylark:plugin/auth@V;",
        format!(
            r#"(func (export "skylark:plugin/auth@V#admit") (param i32) (result i32) (local $n i32) {body})
            ;; 4096: admit with an empty uid
            (data (i32.const 4096) "\00")
            {DATA}"#
        ),
    )
}

pub fn events_with(world: &str, before: &str, body: &str) -> Guest {
    Guest::new(
        &format!("{world} export skylark:plugin/events@V;"),
        format!(
            r#"{before}
            (func (export "skylark:plugin/events@V#on-event")
                (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32) {body})
            {DATA}"#
        ),
    )
}

/// A section of a binary: id, length, bytes.
pub fn section(id: u8, bytes: &[u8]) -> Vec<u8> {
    let mut section = vec![id];
    leb(&mut section, bytes.len());
    section.extend_from_slice(bytes);
    section
}

fn leb(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap());
}

/// Appends the sections of the component `text` to those of `guest`. The first module of `text` stands for the guest's
/// only one and is left out, so the indexes of the others are correct.
pub fn extended(guest: &Guest, text: &str) -> Vec<u8> {
    let more = wat::parse_str(text).unwrap();
    let mut whole = guest.build();
    let mut at = 8;
    let mut first = true;
    while at < more.len() {
        let (length, head) = read_leb(&more[at + 1..]);
        let end = at + 1 + head + length;
        if !std::mem::take(&mut first) {
            whole.extend_from_slice(&more[at..end]);
        }
        at = end;
    }
    whole
}

fn read_leb(bytes: &[u8]) -> (usize, usize) {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (number, index + 1);
        }
    }
    panic!("the number does not end")
}
