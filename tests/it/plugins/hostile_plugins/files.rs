//! Hostile at load: files that are no plugin, files that are too large, and failures before the first call.

use super::wat::{Guest, KEYS, extended, filter, filter_with, handler_with, section, starting};
use super::{Case, Expected::*, play};

const LOOP: &str = "(loop $for_ever (br $for_ever)) unreachable";

fn core(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// Components that are refused for their kind.
const STRANGERS: [Case; 12] = [
    Case { name: "garbage", file: || vec![0xa5; 4_096], manifest: "", expected: Refused("not WebAssembly") },
    Case { name: "empty", file: Vec::new, manifest: "", expected: Refused("empty") },
    Case { name: "core-module", file: || core("(module)"), manifest: "", expected: Refused("core module") },
    Case {
        name: "half-a-file",
        file: || {
            let whole = filter("(i32.const 0)").build();
            whole[..whole.len() / 2].to_vec()
        },
        manifest: "",
        expected: Refused(""),
    },
    Case { name: "no-role", file: || core("(component)"), manifest: "", expected: Refused("no role") },
    Case {
        name: "wrong-world",
        file: || core(r#"(component (instance $i) (export "skylark:plugin/filter@9.0.0" (instance $i)))"#),
        manifest: "",
        expected: Refused("this host offers"),
    },
    Case {
        name: "wrong-types",
        file: || core(r#"(component (instance $i) (export "skylark:plugin/filter@0.1.0" (instance $i)))"#),
        manifest: "",
        expected: Refused("it does not link"),
    },
    Case {
        name: "missing-import",
        file: || {
            let world = "import telepathy: interface { read: func(); }";
            filter_with(world, r#"(import "telepathy" "read" (func $read))"#, "(call $read) (i32.const 0)").build()
        },
        manifest: "",
        expected: Refused("imports telepathy, which this host does not offer"),
    },
    Case {
        name: "not-granted",
        file: || handler_with("import skylark:plugin/kv@V;", GET, KEYS, "(i32.const 1088)").build(),
        manifest: "",
        expected: Refused("grants = [\"kv\"]"),
    },
    Case {
        name: "not-for-its-role",
        file: || {
            let join = r#"(import "skylark:plugin/outbox@V" "leave" (func $leave (param i32 i32 i32 i32 i32)))"#;
            filter_with("import skylark:plugin/outbox@V;", join, "(i32.const 0)").build()
        },
        manifest: "grants = [\"outbox\"]",
        expected: Refused("which the role filter may not use"),
    },
    Case {
        name: "async",
        file: || {
            core(
                r#"(component
                    (core module $m
                        (func (export "f") (result i32) (i32.const 0))
                        (func (export "again") (param i32 i32 i32) (result i32) (i32.const 0)))
                    (core instance $i (instantiate $m))
                    (func (export "f") async
                        (canon lift (core func $i "f") async (callback (core func $i "again")))))"#,
            )
        },
        manifest: "",
        expected: Refused("rebuild with --sync"),
    },
    Case {
        name: "threads",
        file: || filter("(i32.const 0)").memory("(memory (export \"memory\") 2 2 shared)").build(),
        manifest: "",
        expected: Refused(""),
    },
];

const GET: &str = r#"(import "skylark:plugin/kv@V" "get" (func $get (param i32 i32 i32)))"#;

/// Components that exceed a limit.
const GIANTS: [Case; 15] = [
    Case {
        name: "50-mb",
        file: || {
            let mut whole = filter("(i32.const 0)").build();
            whole.extend(section(0, &[&[7][..], b"padding", &vec![0; 50_000_000][..]].concat()));
            whole
        },
        manifest: MATCH,
        expected: Passes,
    },
    Case {
        name: "70-mb",
        file: || {
            let mut whole = filter("(i32.const 0)").build();
            whole.extend(section(0, &[&[7][..], b"padding", &vec![0; 70_000_000][..]].concat()));
            whole
        },
        manifest: "",
        expected: Refused("at most 67108864 bytes"),
    },
    Case {
        name: "50-mb-of-data",
        file: || {
            let data = "a".repeat(50_000_000);
            let memory = "(memory (export \"memory\") 1024)";
            filter_with("", &format!("(data (i32.const 65536) \"{data}\")"), "(i32.const 0)").memory(memory).build()
        },
        manifest: "",
        expected: Refused("memory"),
    },
    Case {
        name: "10000-functions",
        file: || {
            let functions: String = (0..10_000).map(|n| format!("(func (result i32) (i32.const {n}))")).collect();
            filter_with("", &functions, "(i32.const 0)").build()
        },
        manifest: MATCH,
        expected: Passes,
    },
    Case {
        name: "deep-blocks",
        file: || filter(&format!("{}{} (i32.const 0)", "(block ".repeat(5_000), ")".repeat(5_000))).build(),
        manifest: MATCH,
        expected: Passes,
    },
    Case { name: "deep-lists", file: || core(&nested("(list $t@)", 50_000)), manifest: "", expected: Refused("") },
    Case {
        name: "many-locals",
        file: || filter(&format!("(local {}) (i32.const 0)", "i64 ".repeat(60_000))).build(),
        manifest: "",
        expected: Refused("locals"),
    },
    Case { name: "deep-types", file: || core(&nested("(tuple $t@ $t@)", 64)), manifest: "", expected: Refused("size") },
    Case {
        name: "memory-at-birth",
        file: || filter("(i32.const 0)").memory("(memory (export \"memory\") 20000)").build(),
        manifest: "",
        expected: Refused("memory"),
    },
    Case {
        name: "table-at-birth",
        file: || filter_with("", "(table 10000000 funcref)", "(i32.const 0)").build(),
        manifest: "",
        expected: Refused("table"),
    },
    Case { name: "40-memories", file: || crowd("(memory 1)", 40), manifest: "", expected: Refused("count too high") },
    // As many as a Python component has, and more than any toolchain makes.
    Case { name: "60-instances", file: || crowd("", 60), manifest: MATCH, expected: Passes },
    Case { name: "200-instances", file: || crowd("", 200), manifest: "", expected: Refused("maximum of 128") },
    Case {
        name: "5-memories",
        file: || {
            filter_with("", "", "(i32.const 0)")
                .memory("(memory (export \"memory\") 2) (memory 1) (memory 1) (memory 1) (memory 1)")
                .build()
        },
        manifest: "",
        expected: Refused("memor"),
    },
    Case {
        name: "asks-for-too-much",
        file: || filter("(i32.const 0)").build(),
        manifest: "[limits]\nmemory = \"8GiB\"",
        expected: Refused(
            "\"8GiB\" is more than this node allows (512MiB): ask for less, or raise plugins.caps.memory",
        ),
    },
];

const MATCH: &str = "[match]\nactions = [\"hostile\"]";

/// A component that builds the type of each level from the level below.
fn nested(of: &str, levels: usize) -> String {
    let types: String =
        (1..=levels).map(|n| format!("(type $t{n} {})", of.replace('@', &(n - 1).to_string()))).collect();
    format!("(component (type $t0 (list u8)) {types})")
}

/// Components that fail before they serve.
const STARTERS: [Case; 10] = [
    Case {
        name: "trap-in-start",
        file: || starting("unreachable").build(),
        manifest: "",
        expected: Refused("unreachable"),
    },
    Case {
        name: "loop-in-start",
        file: || starting(LOOP).build(),
        manifest: "",
        expected: Refused("CPU time of 500ms"),
    },
    Case {
        name: "loop-at-instantiation",
        file: || filter_with("", &format!("(func $first {LOOP}) (start $first)"), "(i32.const 0)").build(),
        manifest: "[limits.start]\ncpu = \"50ms\"",
        expected: Refused("CPU time of 50ms"),
    },
    Case {
        name: "hog-in-start",
        file: || {
            let hog = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
            starting(hog).build()
        },
        manifest: "",
        expected: Refused("memory"),
    },
    Case {
        name: "trap-in-keys",
        file: || handler_with("", "", "unreachable", "(i32.const 1088)").build(),
        manifest: "",
        expected: Refused("keys: "),
    },
    Case {
        name: "loop-in-keys",
        file: || handler_with("", "", LOOP, "(i32.const 1088)").build(),
        manifest: "",
        expected: Refused("keys: used up its CPU time"),
    },
    Case { name: "keys-nowhere", file: || listing(0x7fff_0000, 1).build(), manifest: "", expected: Refused("keys: ") },
    Case {
        name: "keys-out-of-range",
        file: || listing(0, 0x0fff_ffff).build(),
        manifest: "",
        expected: Refused("keys: "),
    },
    Case {
        name: "a-million-keys",
        file: || listing(65_536, 1_000_000).memory("(memory (export \"memory\") 256)").build(),
        manifest: "",
        expected: Refused("keys: handed over too many bytes in one host call"),
    },
    Case { name: "300-keys", file: || listing(65_536, 300).build(), manifest: "", expected: Refused("at most 256") },
];

/// A filter with `count` instances of an additional module.
fn crowd(module: &str, count: usize) -> Vec<u8> {
    let instances = "(core instance (instantiate $m))".repeat(count);
    let crowd = format!("(component (core module) (core module $m {module}) {instances})");
    extended(&filter("(i32.const 0)"), &crowd)
}

/// A handler with a `keys` that returns a list of `count` texts at `at`.
fn listing(at: u32, count: u32) -> Guest {
    let keys = format!(
        "(i32.store (i32.const 8192) (i32.const {at})) (i32.store (i32.const 8196) (i32.const {count})) (i32.const 8192)"
    );
    handler_with("", "", &keys, "(i32.const 1088)")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_that_is_no_plugin_is_refused_without_effect_on_others() {
    play(&STRANGERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_plugin_is_refused_without_effect_on_others() {
    play(&GIANTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugin_failing_at_start_is_refused_without_effect_on_others() {
    play(&STARTERS).await;
}
