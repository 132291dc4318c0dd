//! Compilation in a child process with limits: exceeding one is a refusal with its reason and has no other effect.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Setup, component, skylark};
use crate::support::wire::Form;

/// A node without a cache, so that it compiles each file.
fn node(limits: &str) -> Gateway {
    let yaml = format!("plugins:\n  dir: $PLUGINS\n  settle: 50ms\n  rescan: 1s\n  compile: {limits}");
    Setup::default().yaml(&yaml).start()
}

async fn refusal(gateway: &Gateway, name: &str) -> String {
    let told = gateway.plugin_until(name, |plugin| plugin["rejected"].is_object()).await;
    told["rejected"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_bound_of_the_compiler_is_a_refusal_that_names_it() {
    let gateway = node("{memory: 32MiB}");
    gateway.folder.put("bomb.wasm", &large());
    let reason = "compiling it took more than 32MiB of memory (plugins.compile.memory)";
    assert_eq!(refusal(&gateway, "bomb").await, reason);
    assert_eq!(gateway.get("/health/ready").await.status, 200, "a refused file made the node unready");
    let gateway = node("{wall: 1ms}");
    let reason = "compiling it took more than 1ms (plugins.compile.wall)";
    assert_eq!(refusal(&gateway, "token-auth").await, reason);
    assert_eq!(gateway.get("/health/live").await.status, 200);
}

/// A component with one custom section of 48 MiB.
fn large() -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // The length after the id, as LEB128: 3 << 24.
    bytes.extend([0, 0x80, 0x80, 0x80, 0x18, 1, b'x']);
    bytes.resize(bytes.len() + (3 << 24) - 2, 0);
    bytes
}

/// Takes the compiler far more than a second: the function returns a sum of very many products.
pub fn bomb() -> Vec<u8> {
    let mut body = String::from("(local.get 0)");
    for n in 1..150 {
        body = format!("{body} (local.get 0) (i32.const {n}) (i32.div_u) (i32.mul) (local.tee 0)");
    }
    let functions = format!("(func (param i32) (result i32) {body})").repeat(6_000);
    wat::parse_str(format!("(component (core module {functions}))")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compile_bomb_is_refused_without_delaying_messages() {
    let gateway = node("{cpu: 1s, memory: 4GiB}");
    gateway.plugin_until("token-auth", |plugin| plugin["state"] == "live").await;
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    gateway.folder.put("bomb.wasm", &bomb());
    let mut http = gateway.http().await;
    let mut sent = 0;
    let reason = loop {
        let body = json!({"receiver": "a", "action": "chat", "title": sent.to_string()});
        assert_eq!(http.post("/send", &body).await.data()["delivered"], 1);
        assert_eq!(client.message().await["title"], sent.to_string());
        sent += 1;
        let plugins = http.get("/plugins").await.data();
        let bomb = plugins["items"].as_array().unwrap().iter().find(|plugin| plugin["name"] == "bomb");
        if let Some(Value::String(reason)) = bomb.map(|bomb| bomb["rejected"]["reason"].clone()) {
            break reason;
        }
    };
    assert_eq!(reason, "compiling it took more than 1s of CPU time (plugins.compile.cpu)");
    assert!(sent > 10, "only {sent} messages passed during the compilation");
}

/// All cores are busy, so the compiler gets almost no CPU time while it uses idle cores only.
#[tokio::test]
async fn reload_on_a_busy_machine_ends() {
    let gateway = node("{wall: 10min}");
    gateway.plugin_until("token-auth", |plugin| plugin["state"] == "live").await;
    let spin = Arc::new(AtomicBool::new(true));
    // Several for each core, so that none is idle before the scheduler has spread them.
    let count = 4 * thread::available_parallelism().unwrap().get();
    let spinning = (0..count).map(|_| {
        let spin = Arc::clone(&spin);
        thread::spawn(move || while spin.load(Ordering::Relaxed) {})
    });
    let threads: Vec<_> = spinning.collect();
    gateway.folder.put("word-filter.wasm", &component("word-filter"));
    gateway.said("no idle core to compile a plugin: compiling it again at low priority").await;
    spin.store(false, Ordering::Relaxed);
    gateway.plugin_until("word-filter", |plugin| plugin["state"] == "live").await;
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn the_child_refuses_what_is_no_component_and_what_is_not_for_it() {
    let compile = |bytes: &[u8]| {
        let mut command = skylark();
        command.args(["compile-plugin", "--memory", "1073741824", "--cpu", "10", "--engine", "1"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, words) = compile(&component("noop"));
    assert_eq!((code, words.as_str()), (Some(3), "the compiler process and the node are different builds"));
}
