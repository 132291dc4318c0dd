//! Guests as core WebAssembly text, wrapped into components as a guest toolchain would.

use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A component from the text of a core module and the interfaces of a world.
///
/// Data of all guests: zeros at 0 (an `allow`, an `ok`, a `none`), and the guest's texts from 1024 upwards.
pub(super) fn component(world: &str, core: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            {core}
            (memory (export "memory") 2)
            (global $top (mut i32) (i32.const 65536))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $top (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (if (i32.gt_u (i32.add (global.get $top) (local.get 3)) (i32.const 131072))
                    (then (global.set $top (i32.const 65536))))
                (global.get $top)
                (global.set $top (i32.add (global.get $top) (local.get 3)))))"#
    );
    let mut module = wat::parse_str(&text).unwrap();
    let mut resolve = Resolve::default();
    // A world may name any version: most guests here are written against the first one, which is still served.
    let releases = ["0.1.0", "0.1.1", "0.1.2"].map(|version| format!("tests/fixtures/abi-{version}/wit"));
    for wit in releases.iter().map(String::as_str).chain(["wit"]) {
        resolve.push_path(Path::new(env!("CARGO_MANIFEST_DIR")).join(wit)).unwrap();
    }
    let package = format!("package test:guest; world guest {{ {world} }}");
    let package = resolve.push_str("guest.wit", &package).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

/// Bodies of functions that never answer.
pub(super) const TRAP: &str = "unreachable";
pub(super) const LOOP: &str = "(loop $for_ever (br $for_ever)) unreachable";
/// Takes memory until a growth fails, then gives up as an allocator does.
pub(super) const HOG: &str = "(loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
/// Calls itself until the stack is used up.
pub(super) const DEEP: &str = "(call $self)";

/// A filter with `body` as its `judge`, which returns a pointer to the verdict.
pub(super) fn filter(body: &str) -> Vec<u8> {
    let world = "export skylark:plugin/filter@0.1.0;";
    component(
        world,
        &format!(
            r#"(func $self (export "skylark:plugin/filter@0.1.0#judge") (result i32) {body})
            {DATA}"#
        ),
    )
}

/// Verdicts and answers in their memory layout.
const DATA: &str = r#"
    (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
    (data (i32.const 1072) "\03")
    (data (i32.const 2048) "451no")"#;
pub(super) const ALLOW: &str = "(i32.const 0)";
/// `reject("451", "no")`.
pub(super) const REJECT: &str = "(i32.const 1024)";
pub(super) const DROP: &str = "(i32.const 1072)";

/// A filter that rejects with `code`, which tells the versions of a test apart.
pub(super) fn stamp(code: u32) -> Vec<u8> {
    assert!((100..1000).contains(&code));
    let text = REJECTING.replace("451no", &format!("{code}no"));
    component("export skylark:plugin/filter@0.1.0;", &text)
}

const REJECTING: &str = r#"
    (func (export "skylark:plugin/filter@0.1.0#judge") (result i32) (i32.const 1024))
    (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
    (data (i32.const 2048) "451no")"#;

/// An auth plugin with `body` as its `admit`, which returns a pointer to the answer.
pub(super) fn auth(body: &str) -> Vec<u8> {
    component(
        "export skylark:plugin/auth@0.1.0;",
        &format!(
            r#"(func $do (param i32) (result i32) {body})
            (func $self (result i32) (call $do (i32.const 0)))
            (export "skylark:plugin/auth@0.1.0#admit" (func $do))
            ;; admit: uid "u7", no device, no rooms, no expiry, no claims
            (data (i32.const 1024) "\00\00\00\00\00\00\00\00\00\08\00\00\02\00\00\00")
            (data (i32.const 1152) "\01\00\00\00\00\00\00\00\02\08\00\00\03\00\00\00\05\08\00\00\02\00\00\00")
            (data (i32.const 1216) "\02")
            (data (i32.const 2048) "u7403no")"#
        ),
    )
}

pub(super) const ADMIT: &str = "(i32.const 1024)";
/// `refuse("403", "no")`.
pub(super) const REFUSE: &str = "(i32.const 1152)";
pub(super) const ABSTAIN: &str = "(i32.const 1216)";

/// An access plugin with `body` as its `join`, which returns a pointer to the answer. [`ALLOW`] is `allow` without an
/// end.
pub(super) fn access(world: &str, imports: &str, body: &str) -> Vec<u8> {
    component(
        &format!("{world} export skylark:plugin/access@0.1.2;"),
        &format!(
            r#"{imports}
            (func $self (result i32) {body})
            (func (export "skylark:plugin/access@0.1.2#join")
                (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (call $self))
            (data (i32.const 1152) "\01\00\00\00\00\00\00\00\02\08\00\00\03\00\00\00\05\08\00\00\02\00\00\00")
            (data (i32.const 1216) "\02")
            ;; allow until second 5 000 000 000
            (data (i32.const 1280) "\00\00\00\00\00\00\00\00\01\00\00\00\00\00\00\00\00\f2\05\2a\01\00\00\00")
            (data (i32.const 2048) "u7403no")"#
        ),
    )
}

/// `allow(some(5_000_000_000))` of an access plugin.
pub(super) const UNTIL: &str = "(i32.const 1280)";

/// A handler that owns `key` (at most 15 bytes), with `imports`. Its `handle` is `body`, which returns a pointer to the
/// result.
pub(super) fn handler(key: &str, world: &str, imports: &str, body: &str) -> Vec<u8> {
    assert!(key.len() < 16);
    let length = key.len();
    component(
        &format!("{world} export skylark:plugin/handler@0.1.0;"),
        &format!(
            r#"{imports}
            (func (export "skylark:plugin/handler@0.1.0#keys") (result i32) (i32.const 1040))
            (func $self (result i32) (local $count i32) {body})
            (func (export "skylark:plugin/handler@0.1.0#handle")
                (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i64) (result i32) (call $self))
            ;; keys: one text
            (data (i32.const 1040) "\20\04\00\00\01\00\00\00")
            (data (i32.const 1056) "\00\08\00\00\{length:02x}\00\00\00")
            ;; ok: code "200", message "fine", no data
            (data (i32.const 1088) "\00\00\00\00\10\08\00\00\03\00\00\00\13\08\00\00\04\00\00\00")
            ;; err: "sorry"
            (data (i32.const 1152) "\01\00\00\00\17\08\00\00\05\00\00\00")
            (data (i32.const 2048) "{key}")
            (data (i32.const 2064) "200finesorry")
            (data (i32.const 2080) "count")
            (data (i32.const 2096) "u7lobby")"#
        ),
    )
}

/// `ok` with code 200 and message "fine".
pub(super) const FINE: &str = "(i32.const 1088)";
/// `err("sorry")`.
pub(super) const SORRY: &str = "(i32.const 1152)";

/// An events plugin with `body` as its `on-event`.
pub(super) fn events(world: &str, imports: &str, body: &str) -> Vec<u8> {
    component(
        &format!("{world} export skylark:plugin/events@0.1.0;"),
        &format!(
            r#"{imports}
            (func $self (result i32) {body})
            (func (export "skylark:plugin/events@0.1.0#on-event")
                (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32) (drop (call $self)))
            (data (i32.const 2096) "u7lobby")"#
        ),
    )
}

/// A filter with `body` as its `start`, which returns a pointer to the result.
pub(super) fn starting(body: &str) -> Vec<u8> {
    component(
        "export skylark:plugin/filter@0.1.0; export skylark:plugin/lifecycle@0.1.0;",
        &format!(
            r#"(func (export "skylark:plugin/filter@0.1.0#judge") (result i32) (i32.const 0))
            (func $self (export "skylark:plugin/lifecycle@0.1.0#start") (result i32) {body})
            (data (i32.const 1152) "\01\00\00\00\17\08\00\00\05\00\00\00")
            (data (i32.const 2071) "sorry")"#
        ),
    )
}
