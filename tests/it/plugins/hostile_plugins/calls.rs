//! Hostile during a call: the caller gets the declared answer of the role, and no other client is affected.

use super::wat::{Guest, KEYS, auth, events_with, filter, filter_with, handler, handler_with};
use super::{Case, Expected::*, play};

const LOOP: &str = "(loop $for_ever (br $for_ever)) unreachable";
const MATCH: &str = "[match]\nactions = [\"hostile\"]";

const fn judging(name: &'static str, file: fn() -> Vec<u8>, words: &'static str) -> Case {
    Case { name, file, manifest: MATCH, expected: Rejects(words) }
}

/// Filters that consume as many resources as possible.
const BOMBS: [Case; 13] = [
    judging("trap", || filter("unreachable").build(), "unreachable"),
    judging("loop", || filter(LOOP).build(), "CPU time of 5ms"),
    judging("stack", || filter("(call $self)").build(), "call stack exhausted"),
    judging("memory", || grabbing("(memory.grow (i32.const 16))"), "ran out of memory"),
    // A failed growth must not return the budget that the growth before it took.
    judging(
        "memory-refund",
        || {
            filter("(loop $more (drop (memory.grow (i32.const 65535))) (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable").build()
        },
        "ran out of memory",
    ),
    judging(
        "second-memory",
        || {
            let body =
                "(loop $more (br_if $more (i32.ne (memory.grow $other (i32.const 16)) (i32.const -1)))) unreachable";
            filter(body).memory("(memory (export \"memory\") 2) (memory $other 1)").build()
        },
        "ran out of memory",
    ),
    judging(
        "tables",
        || {
            filter_with("", "(table $t 1 funcref)", "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable").build()
        },
        "ran out of memory",
    ),
    judging("collected-memory", collected, ""),
    judging("handles", handles, "handle"),
    judging(
        "fill",
        || {
            filter("(loop $again (memory.fill (i32.const 0) (i32.const 0) (i32.const 131072)) (br $again)) unreachable")
                .build()
        },
        "CPU time",
    ),
    judging(
        "log-flood",
        || {
            let write = r#"(import "skylark:plugin/log@V" "write" (func $log (param i32 i32 i32)))"#;
            let flood =
                "(loop $again (call $log (i32.const 3) (i32.const 2048) (i32.const 1024)) (br $again)) unreachable";
            filter_with("import skylark:plugin/log@V;", write, flood).build()
        },
        "",
    ),
    judging("loop-in-realloc", || picky().realloc(LOOP).build(), "CPU time"),
    judging("realloc-nowhere", || picky().realloc("(i32.const 0x7fffffff)").build(), ""),
];

fn grabbing(grow: &str) -> Vec<u8> {
    filter(&format!("(loop $more (br_if $more (i32.ne {grow} (i32.const -1)))) unreachable")).build()
}

/// Reads the action, for which the host calls its allocator.
fn picky() -> Guest {
    let action = r#"(import "skylark:plugin/publication@V" "action" (func $action (param i32)))"#;
    filter_with("import skylark:plugin/publication@V;", action, "(call $action (i32.const 512)) (i32.const 0)")
}

/// A list of garbage-collected objects that stays reachable and grows.
fn collected() -> Vec<u8> {
    let types = "(type $node (struct (field (ref null $node)) (field i64 i64 i64 i64)))
        (global $head (mut (ref null $node)) (ref.null $node))";
    let more = "(loop $more (global.set $head (struct.new $node (global.get $head) (i64.const 1) (i64.const 2)
        (i64.const 3) (i64.const 4))) (br $more)) unreachable";
    filter_with("", types, more).build()
}

/// Creates handles to its own resource without end.
fn handles() -> Vec<u8> {
    let world = "export bomb: interface { resource thing { constructor(); } }";
    let before = r#"(import "[export]bomb" "[resource-new]thing" (func $new (param i32) (result i32)))
        (func (export "bomb#[constructor]thing") (result i32) (call $new (i32.const 1)))
        (func (export "bomb#[dtor]thing") (param i32))"#;
    filter_with(world, before, "(loop $more (drop (call $new (i32.const 1))) (br $more)) unreachable").build()
}

/// Filters with invalid answers.
const ANSWERS: [Case; 9] = [
    judging("verdict-nowhere", || filter("(i32.const 0x7ffffff0)").build(), ""),
    judging("verdict-unaligned", || filter("(i32.const 3)").build(), ""),
    judging("verdict-unknown", || saying("(i32.store8 (i32.const 8192) (i32.const 9))"), ""),
    judging("invalid-utf8", || rejecting(60_000, 4), "utf-8"),
    judging("text-out-of-range", || rejecting(0x7fff_0000, 16), ""),
    judging("endless-text", || rejecting(0, 0x7fff_ffff), ""),
    judging(
        "huge-text",
        || {
            let text = "(i32.store8 (i32.const 8192) (i32.const 2)) (i32.store (i32.const 8204) (i32.const 9000000))";
            let filter = filter(&format!("{text} (i32.const 8192)"));
            filter.memory("(memory (export \"memory\") 160)").build()
        },
        "handed over too many bytes in one host call",
    ),
    judging(
        "huge-message",
        || {
            // A replace verdict with a message action of 2 MB.
            let text = "(i32.store8 (i32.const 8192) (i32.const 1)) (i32.store (i32.const 8208) (i32.const 131072))
                (i32.store (i32.const 8212) (i32.const 2000000))";
            let filter = filter(&format!("{text} (i32.const 8192)"));
            filter.memory("(memory (export \"memory\") 160)").build()
        },
        "message: expected at most",
    ),
    judging(
        "loop-after-return",
        || {
            filter_with(
                "",
                &format!(r#"(func (export "cabi_post_skylark:plugin/filter@V#judge") (param i32) {LOOP})"#),
                "(i32.const 0)",
            )
            .build()
        },
        "CPU time",
    ),
];

fn saying(store: &str) -> Vec<u8> {
    filter(&format!("{store} (i32.const 8192)")).build()
}

/// `reject` with a code of `length` bytes at `at`.
fn rejecting(at: u32, length: u32) -> Vec<u8> {
    saying(&format!(
        "(i32.store8 (i32.const 8192) (i32.const 2)) (i32.store (i32.const 8200) (i32.const {at}))
         (i32.store (i32.const 8204) (i32.const {length}))"
    ))
}

const OUTBOX: &str = r#"
    (import "skylark:plugin/outbox@V" "push" (func $push (param i32 i32)))
    (import "skylark:plugin/outbox@V" "join" (func $join (param i32 i32 i32 i32 i32)))
    (import "skylark:plugin/outbox@V" "leave" (func $leave (param i32 i32 i32 i32 i32)))"#;
const KV: &str = r#"(import "skylark:plugin/kv@V" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))"#;
const FINE: &str = "(i32.const 1088)";

fn effects(body: &str) -> Vec<u8> {
    handler_with("import skylark:plugin/outbox@V;", OUTBOX, KEYS, body).build()
}

fn storing(body: &str) -> Vec<u8> {
    handler_with("import skylark:plugin/kv@V;", KV, KEYS, body).build()
}

/// `push` to the user "caller".
const TO_CALLER: &str = "
    (i32.store8 (i32.const 4096) (i32.const 2))
    (i32.store (i32.const 4104) (i32.const 2320)) (i32.store (i32.const 4108) (i32.const 6))";
/// `push` to 10 000 users with names of one byte.
const TO_MANY: &str = "
    (i32.store8 (i32.const 4096) (i32.const 3))
    (i32.store (i32.const 4104) (i32.const 16384)) (i32.store (i32.const 4108) (i32.const 10000))
    (loop $fill
        (i32.store (i32.add (i32.const 16384) (i32.shl (local.get $n) (i32.const 3))) (i32.const 2320))
        (i32.store (i32.add (i32.const 16388) (i32.shl (local.get $n) (i32.const 3))) (i32.const 1))
        (br_if $fill (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 10000))))";

/// Loops until the host refuses: the first byte of its answer is then 1.
const UNTIL_NO: &str = "(br_if $more (i32.eqz (i32.load8_u (i32.const 512))))";

const OUTBOX_GRANT: &str = "grants = [\"outbox\"]";

/// Handlers that fail, or use their grants without limit.
const HANDLERS: [Case; 10] = [
    Case {
        name: "trap-in-handle",
        file: || handler("unreachable").build(),
        manifest: "",
        expected: Answers("503", "unreachable"),
    },
    Case {
        name: "loop-in-handle",
        file: || handler(LOOP).build(),
        manifest: "",
        expected: Answers("503", "CPU time of 50ms"),
    },
    Case {
        name: "answers-nowhere",
        file: || handler("(i32.const -8)").build(),
        manifest: "",
        expected: Answers("503", ""),
    },
    Case {
        name: "no-code",
        file: || handler("(i32.store8 (i32.const 2064) (i32.const 120)) (i32.const 1088)").build(),
        manifest: "",
        expected: Answers("503", "code: expected three digits"),
    },
    Case {
        name: "push-flood",
        file: || {
            effects(&format!(
                "{TO_CALLER} (loop $more (call $push (i32.const 4096) (i32.const 512)) {UNTIL_NO}) {FINE}"
            ))
        },
        manifest: OUTBOX_GRANT,
        expected: Answers("200", "fine"),
    },
    Case {
        name: "push-flood-trap",
        file: || {
            effects(&format!(
                "{TO_CALLER} (loop $more (call $push (i32.const 4096) (i32.const 512)) {UNTIL_NO}) unreachable"
            ))
        },
        manifest: OUTBOX_GRANT,
        expected: Answers("503", "unreachable"),
    },
    Case {
        name: "push-to-millions",
        file: || {
            effects(&format!("{TO_MANY} (loop $more (call $push (i32.const 4096) (i32.const 512)) {UNTIL_NO}) {FINE}"))
        },
        manifest: "grants = [\"outbox\"]\n[limits]\ncpu = \"1s\"",
        expected: Answers("503", "handed over more than"),
    },
    Case {
        name: "kv-flood",
        file: || {
            // Distinct keys of four bytes with 16 KiB each, until the share is used up.
            storing(&format!(
                "(loop $more (i32.store (i32.const 4096) (i32.or (local.get $n) (i32.const 0x20202000)))
                    (local.set $n (i32.add (local.get $n) (i32.const 1)))
                    (call $set (i32.const 4096) (i32.const 4) (i32.const 16384) (i32.const 16384) (i32.const 0) (i32.const 0) (i32.const 512))
                    {UNTIL_NO}) {FINE}"
            ))
        },
        manifest: "grants = [\"kv\"]\n[limits]\nkv_bytes = \"64KiB\"",
        expected: Answers("200", "fine"),
    },
    Case {
        name: "kv-huge-value",
        file: || {
            storing(&format!(
                "(call $set (i32.const 4096) (i32.const 4) (i32.const 0) (i32.const 65537) (i32.const 0) (i32.const 0) (i32.const 512))
                (if (i32.eqz (i32.load8_u (i32.const 512))) (then unreachable)) {FINE}"
            ))
        },
        manifest: "grants = [\"kv\"]",
        expected: Answers("200", "fine"),
    },
    Case {
        name: "loop-for-arguments",
        file: || handler(FINE).realloc(LOOP).build(),
        manifest: "",
        expected: Answers("503", "CPU time"),
    },
];

const FIRST: &str = "order = -1";

/// Auth plugins that run before the real one, and events plugins.
const OTHERS: [Case; 6] = [
    Case { name: "trap-in-admit", file: || auth("unreachable").build(), manifest: FIRST, expected: Bars("failed") },
    Case { name: "loop-in-admit", file: || auth(LOOP).build(), manifest: FIRST, expected: Bars("CPU time of 50ms") },
    Case { name: "admits-nobody", file: || auth("(i32.const 4096)").build(), manifest: FIRST, expected: Bars("uid") },
    Case {
        name: "trap-in-event",
        file: || events_with("", "", "unreachable").build(),
        manifest: "",
        expected: FailsAlone,
    },
    Case { name: "loop-in-event", file: || events_with("", "", LOOP).build(), manifest: "", expected: FailsAlone },
    // Joins when a room was left and leaves when one was joined: each of its effects is an event for it.
    Case {
        name: "events-of-its-own",
        file: || {
            let uid = "(i32.const 2320) (i32.const 6) (i32.const 2326) (i32.const 5) (i32.const 512)";
            let body = format!(
                "(if (i32.eq (local.get 0) (i32.const 2)) (then (call $leave {uid})))
                 (if (i32.eq (local.get 0) (i32.const 3)) (then (call $join {uid})))"
            );
            events_with("import skylark:plugin/outbox@V;", OUTBOX, &body).build()
        },
        manifest: OUTBOX_GRANT,
        expected: Hears(5),
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filter_over_a_call_limit_is_stopped_without_effect_on_others() {
    play(&BOMBS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filter_with_invalid_answer_is_rejected_without_effect_on_others() {
    play(&ANSWERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_handler_is_answered_503_without_effect_on_others() {
    play(&HANDLERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_auth_and_events_plugins_affect_only_their_calls() {
    play(&OTHERS).await;
}
