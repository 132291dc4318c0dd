//! Trusted plugin files: pinned by hash, signed with a key, and the reports about all others.

use std::process::Command;

use serde_json::Value;

use crate::support::gateway::{Folder, Gateway, Setup, skylark};

/// Standard output followed by standard error of a command, after a check of its exit code.
#[track_caller]
fn told(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

fn keygen(folder: &Folder, name: &str) -> String {
    let told = told(skylark().args(["plugin", "keygen"]).arg(folder.path().join(name)), 0);
    let (_, rest) = told.split_once("signing_keys: [\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

fn sign(folder: &Folder, key: &str, plugin: &str) {
    let file = folder.plugins().join(format!("{plugin}.wasm"));
    told(skylark().args(["plugin", "sign", "--key"]).arg(folder.path().join(key)).arg(file), 0);
}

/// The entry of one plugin in `GET /plugins`.
async fn status(gateway: &Gateway, name: &str) -> Value {
    let data = gateway.get("/plugins").await.data();
    let items = data["items"].as_array().or(data.as_array()).unwrap().clone();
    items.into_iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("expected plugin {name} in {data}"))
}

fn reason(status: &Value) -> String {
    status["rejected"]["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn required_pin_admits_only_its_file() {
    let folder = Setup::default().prepare();
    let mut strict = folder.command("check");
    strict.env("SKYLARK__PLUGINS__REQUIRE_HASH", "true");
    let missing = told(&mut strict, 1);
    let (_, line) = missing.split_once("put this line into token-auth.toml: ").unwrap();
    let line = line.lines().next().unwrap();
    let manifest = std::fs::read_to_string(folder.plugins().join("token-auth.toml")).unwrap();
    folder.put("token-auth.toml", format!("{line}\n{manifest}").as_bytes());
    told(&mut strict, 0);

    let other = format!("sha256 = \"{}\"\n{manifest}", "0".repeat(64));
    folder.put("token-auth.toml", other.as_bytes());
    for command in [&mut strict, &mut folder.command("check")] {
        assert!(told(command, 1).contains("token-auth.toml pins sha256 0000"));
    }
    folder.put("token-auth.toml", format!("sha256 = \"latest\"\n{manifest}").as_bytes());
    assert!(told(&mut folder.command("check"), 1).contains("sha256: expected 64 hexadecimal digits"));
}

#[tokio::test]
async fn only_files_signed_with_a_configured_key_are_served() {
    let folder = Setup::default().plugin("word-filter").plugin_as("greeter", "video-call").prepare();
    let (own, foreign) = (keygen(&folder, "own.key"), keygen(&folder, "foreign.key"));
    assert_ne!(own, foreign);
    let again = told(skylark().args(["plugin", "keygen"]).arg(folder.path().join("own.key")), 1);
    assert!(again.contains("cannot write"), "{again}");
    sign(&folder, "own.key", "token-auth");
    sign(&folder, "foreign.key", "word-filter");
    // Fills the compile cache for the node below.
    told(&mut folder.command("check"), 0);
    let mut command = folder.command("serve");
    command.env("SKYLARK__PLUGINS__SIGNING_KEYS", format!("[\"{own}\"]"));
    let gateway = Gateway::run(folder, command, None);

    assert_eq!(status(&gateway, "token-auth").await["state"], "live");
    let badly = status(&gateway, "word-filter").await;
    assert_eq!(badly["state"], "rejected");
    assert!(reason(&badly).contains("word-filter.wasm.sig does not verify"), "{badly}");
    let unsigned = status(&gateway, "greeter").await;
    assert!(reason(&unsigned).contains("there is no greeter.wasm.sig"), "{unsigned}");

    // A later signature is a change like any other.
    sign(&gateway.folder, "own.key", "word-filter");
    gateway.plugin_until("word-filter", |status| status["state"] == "live").await;

    // Another file under the old signature does not replace the current version, which keeps serving.
    let wasm = std::fs::read(gateway.folder.plugins().join("greeter.wasm")).unwrap();
    gateway.folder.put("word-filter.wasm", &wasm);
    let kept = gateway.plugin_until("word-filter", |status| !reason(status).is_empty()).await;
    assert_eq!((&kept["state"], &kept["roles"]), (&"live".into(), &serde_json::json!(["filter"])), "{kept}");
    assert!(reason(&kept).contains("does not verify"), "{kept}");
}

#[test]
fn invalid_signing_key_is_a_fault_of_the_configuration() {
    let folder = Setup::default().prepare();
    let told = told(folder.command("check").env("SKYLARK__PLUGINS__SIGNING_KEYS", "[\"c2hvcnQ=\"]"), 1);
    assert!(told.contains("plugins.signing_keys[0]: expected an Ed25519 public key, 32 bytes as base64"), "{told}");
}
