//! `skylark plugin test`: runs cases without a node, reports differences, and sets the exit code.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::gateway::{Folder, Setup, skylark};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Exit code, and standard output followed by standard error.
fn play(path: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = skylark().args(["plugin", "test"]).arg(path).args(arguments).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), told)
}

/// A folder with one test plugin and these cases.
fn folder(guest: &str, manifest: &str, cases: &str) -> Folder {
    let folder = Setup::default().no_plugins().prepare();
    let wasm = Path::new(ROOT).join("plugins/testing/dist").join(format!("{guest}.wasm"));
    std::fs::copy(wasm, folder.plugins().join(format!("{guest}.wasm"))).unwrap();
    folder.put(&format!("{guest}.toml"), manifest.as_bytes());
    folder.put("cases.yaml", cases.as_bytes());
    folder
}

#[test]
fn the_cases_of_the_samples_pass() {
    let (code, told) = play(&Path::new(ROOT).join("plugins/dist"), &[]);
    assert_eq!(code, Some(0), "{told}");
    for name in ["token-auth.wasm", "video-call.wasm", "word-filter.wasm"] {
        assert!(told.contains(name), "{told}");
    }
    let (code, told) = play(&Path::new(ROOT).join("plugins/dist/word-filter.wasm"), &["--only", "mode drop"]);
    assert!(code == Some(0) && told.contains("1 passed"), "{told}");
}

#[test]
fn failed_case_reports_the_difference_and_exits_with_1() {
    let cases = r#"
cases:
  - name: a reply with a push
    call: {key: fault_none, data: {push: "7", set: x}, caller: {uid: "1"}}
    expect:
      reply: {code: 201, data: {push: "7"}}
      pushes:
        - {to: {room: lobby}, message: {action: fault, content: {text: {like: "fault_*"}}}}
        - join: {uid: "1", room: lobby}
      kv: {value: y, other: ~}
      log: []
"#;
    let folder = folder("fault-handler", "grants = [\"outbox\", \"kv\"]", cases);
    let (code, told) = play(&folder.plugins(), &[]);
    assert_eq!(code, Some(1), "{told}");
    let place = format!("FAIL  a reply with a push  ({}:3)", folder.plugins().join("cases.yaml").display());
    for words in [
        place.as_str(),
        "reply.code\n          expected  \"201\"\n          got       \"200\"",
        "reply.data.set\n          expected  nothing\n          got       \"x\"",
        "pushes[0].to\n          expected  room lobby\n          got       user 7",
        "pushes[1]\n          expected  join\n          got       nothing",
        "kv.value\n          expected  \"y\"\n          got       \"x\"",
        "1 failed, 0 passed",
    ] {
        assert!(told.contains(words), "expected {words:?} in:\n{told}");
    }
}

#[test]
fn failures_limits_and_refusals_are_expected_like_answers() {
    let cases = r#"
given: {grants: [outbox, kv]}
cases:
  - name: a trap leaves nothing behind
    call: {key: fault_trap, data: {push: "7", set: x}, caller: {uid: "1"}}
    expect: {fails: trap, pushes: [], kv: {value: ~}}
  - name: a loop ends with its CPU time
    call: {key: fault_spin}
    expect: {fails: "cpu: used up its CPU time of 50ms"}
  - name: memory has an end
    call: {key: fault_hog}
    expect: {fails: memory}
  - name: an error of its own
    call: {key: fault_error}
    expect: {fails: "declared: told to fail"}
  - name: it is alive afterwards, and remembers what was given
    given: {kv: {value: {base64: aGk=}, count: 41}}
    steps:
      - call: {key: fault_trap}
        expect: {fails: trap}
      - call: {key: fault_none, data: {get: "", count: ""}}
        times: 3
        expect: {reply: {data: {get: "", count: "44", value: hi}}, kv: {count: 44}}
  - name: no grant
    given: {grants: []}
    refused: grants = ["outbox", "kv"]
  - name: a limit beyond the operator's
    given: {manifest: {limits: {cpu: 1h}}}
    refused: limits.cpu
"#;
    let (code, told) = play(&folder("fault-handler", "", cases).plugins(), &[]);
    assert!(code == Some(0) && told.contains("7 passed"), "{told}");

    let unexpected = "cases:\n  - name: n\n    call: {key: fault_trap}\n";
    let (code, told) = play(&folder("fault-handler", "grants = [\"outbox\", \"kv\"]", unexpected).plugins(), &[]);
    assert!(code == Some(1) && told.contains("a failure, trap: "), "{told}");
    let (code, told) = play(&folder("fault-handler", "", unexpected).plugins(), &[]);
    assert!(code == Some(1) && told.contains("a refusal, imports outbox and kv"), "{told}");
}

#[test]
fn timers_ring_as_time_passes_and_the_network_answers_what_was_given() {
    let cases = r#"
given: {grants: [directory, outbox, timers, login, kv, counters, http]}
cases:
  - name: timers ring in order, at their time, once
    steps:
      - call: {key: probe_timer, data: {name: late, after: 60000, to: "7"}}
        expect: {timers: {late: 1m, early: ~}, pushes: []}
      - call: {key: probe_timer, data: {name: early, after: 1500, to: "8"}}
      - {wait: 1s, expect: {rang: [], timers: {early: 500ms, late: 59s}}}
      - wait: 10m
        expect:
          rang: [early, late]
          pushes:
            - {to: {user: "8"}, message: {action: probe_timer, content: {text: {like: "*"}}}}
            - {to: {user: "7"}}
          timers: {early: ~, late: ~}
      - {wait: 1h, expect: {rang: [], pushes: []}}
  - name: what a call that fails set does not ring
    steps:
      - call: {key: probe_timer, data: {name: t, after: 10, to: "7", fail: x}}
        expect: {fails: told to fail, timers: {t: ~}}
      - {wait: 1s, expect: {rang: []}}
  - name: answers come in turn
    given:
      manifest: {http: {allow: ["https://a.example"]}}
      http:
        - {url: "https://a.example/x?y=1", body: one}
        - {url: "https://a.example/x?y=1", status: 404, headers: {Location: /z}}
        - {method: POST, url: "https://a.example/x?y=1", fails: timeout}
    steps:
      - call: {key: probe_http, data: {url: "https://a.example/x?y=1"}}
        expect: {reply: {data: {value: one, status: 200, location: ""}}, http: [{url: {like: "*y=1"}}]}
      - call: {key: probe_http, data: {url: "https://a.example/x?y=1", header: X-Own}}
        times: 2
        expect: {reply: {data: {value: "", status: 404, location: /z}}, http: [{method: GET, headers: {x-own: asked}}]}
      - call: {key: probe_http, data: {url: "https://a.example/x?y=1", body: sent}}
        expect: {reply: {code: 502}, http: [{method: POST, body: sent}]}
      - call: {key: probe_http, data: {url: "https://b.example/"}}
        expect: {reply: {code: 502, message: {like: "*allow = *"}}, http: []}
      - call: {key: probe_http, data: {url: "https://a.example/other"}}
        expect: {reply: {message: {like: "*the test case has no answer for GET https://a.example/other*"}}}
"#;
    let (code, told) = play(&folder("probe", "", cases).plugins(), &[]);
    assert!(code == Some(0) && told.contains("3 passed"), "{told}");

    let wrong = r#"
given: {grants: [directory, outbox, timers, login, kv, counters, http]}
cases:
  - name: n
    steps:
      - {call: {key: probe_timer, data: {name: t, after: 5000}}, expect: {timers: {t: 6s}}}
  - name: m
    steps:
      - {call: {key: probe_me}, expect: {http: [{url: x}]}}
"#;
    let (code, told) = play(&folder("probe", "", wrong).plugins(), &[]);
    assert_eq!(code, Some(1), "{told}");
    for words in [
        "timers.t\n          expected  in 6s\n          got       in 5s",
        "http[0]\n          expected  a request\n          got       nothing",
    ] {
        assert!(told.contains(words), "expected {words:?} in:\n{told}");
    }
}

#[test]
fn a_case_file_that_is_wrong_says_where_and_what_was_expected() {
    for (cases, words) in [
        ("cases:\n  - name: n\n    jugde: {}\n", &["jugde", "judge", "line 3"][..]),
        ("cases:\n  - name: n\n    expect: {verdict: maybe}\n", &["maybe", "abstain"]),
        ("cases:\n  - name: n\n    call: {key: k, caller: {uid: \"\"}}\n", &["line 3"]),
        ("cases:\n  - name: n\n", &["expected one of admit, judge, call"]),
        ("cases:\n  - name: n\n    call: {key: nobody}\n", &["does not own the key \"nobody\""]),
        ("cases: []\n", &["no case was run"]),
    ] {
        let folder = folder("fault-handler", "grants = [\"outbox\", \"kv\"]", cases);
        let (code, told) = play(&folder.plugins(), &[]);
        assert_eq!(code, Some(1), "{told}");
        for word in words {
            assert!(told.contains(word), "expected {word:?} in:\n{told}");
        }
    }
    let (code, told) = play(&Path::new(ROOT).join("src"), &[]);
    assert!(code == Some(1) && told.contains("expected a file cases.yaml"), "{told}");
}

#[test]
fn watch_runs_the_cases_again_when_a_file_changes() {
    let cases = "cases:\n  - name: n\n    judge: {message: {action: chat}}\n    expect: {verdict: drop}\n";
    let folder = folder("noop", "", cases);
    let mut child = Command::new(skylark().get_program())
        .args(["plugin", "test", "--watch"])
        .arg(folder.plugins())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(told.next().unwrap(), "1 failed, 0 passed");
    assert!(told.next().unwrap().starts_with("waiting for a change"));
    folder.put("cases.yaml", cases.replace("drop", "allow").as_bytes());
    let mut played = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(played.any(|line| line == "1 passed"));
    child.kill().unwrap();
    child.wait().unwrap();
}
