//! Whole runs with small settings: the table, the JSON, the charts and the exit codes.

use std::process::{Command, Output};

use serde_json::Value;

use super::{bench, plugins, text};

/// Few connections, one repetition, short windows.
const TINY: [&str; 4] = ["--quick", "--connections", "40", "--plugins"];

fn tiny() -> Command {
    let mut command = bench();
    command.args(TINY).arg(plugins());
    command
}

#[track_caller]
fn good(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    output
}

#[test]
fn a_run_is_told_in_a_table_as_json_as_charts_and_against_a_baseline() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("now.json");
    let told = good(tiny().args(["--cell", "allocations", "--cell", "tls", "--json"]).arg(&file));
    let (table, progress) = (text(&told.stdout), text(&told.stderr));
    for words in ["allocations\n", "unicast, batches of 100", "allocations a delivery", "skylark, TLS", "B user space"]
    {
        assert!(table.contains(words), "{words:?} is not in:\n{table}");
    }
    assert!(progress.contains("tls, burst of 16, skylark, TLS: "), "nothing was told on the way: {progress}");

    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let cells = json["cells"].as_array().unwrap();
    // Four lines with two contenders each, and three lines with two.
    assert_eq!((cells.len(), &json["connections"], &json["invalid"]), (14, &40.into(), &Value::Array(Vec::new())));
    for row in cells {
        let sample = &row["samples"][0];
        assert!(sample["work"]["count"].as_u64() > Some(0) && sample["cost"]["wall"].as_f64() > Some(0.0), "{row}");
        assert!(row["per_cpu_second"]["median"].as_f64() > Some(0.0), "{row}");
    }
    let unicast = cells.iter().find(|row| row["line"] == "unicast, single POST").unwrap();
    assert!(unicast["samples"][0]["cost"]["allocations"].as_f64() > Some(1.0), "{unicast}");

    let charts = dir.path().join("charts");
    let drawn = good(bench().arg("plot").arg(&file).arg("-o").arg(&charts));
    let paths: Vec<&str> = text(&drawn.stdout).lines().collect();
    assert_eq!(paths.len(), 5, "{paths:?}");
    let work = std::fs::read_to_string(charts.join("tls-work.svg")).unwrap();
    assert!(work.starts_with("<svg ") && work.contains(">skylark, TLS<"), "{work}");
    let markdown = good(bench().arg("table").arg(&file));
    assert!(text(&markdown.stdout).contains("### tls\n\n| | | a second | "), "{}", text(&markdown.stdout));

    let again = good(tiny().args(["--cell", "allocations", "--baseline"]).arg(&file));
    let ratios = text(&again.stdout).lines().filter(|line| line.trim_end().ends_with('x')).count();
    assert_eq!(ratios, 8, "{}", text(&again.stdout));
}

/// Too few descriptors for the receivers: a cell without a measurement must not look measured.
#[test]
fn a_run_that_could_not_be_made_is_invalid_and_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("now.json");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]);
    command.arg(bench().get_program()).args(["--quick", "--cell", "dialects", "--plugins"]);
    let output = command.arg(plugins()).arg("--json").arg(&file).output().unwrap();
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{table}{}", text(&output.stderr));
    assert!(table.contains("INVALID dialects, skylark: "), "{table}");
    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(json["invalid"].as_array().map(Vec::len), Some(1), "{json}");
}

/// Two nodes and their Redis are one contender: the CPU of both nodes is measured, and that of Redis beside it.
#[test]
fn cluster_cell_reports_the_round_trips_of_redis() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("now.json");
    let told = good(tiny().args(["--cell", "cluster", "--json"]).arg(&file));
    let table = text(&told.stdout);
    assert_eq!(table.matches("Redis round trips a request").count(), 2, "{table}");
    let json: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for row in json["cells"].as_array().unwrap() {
        let engine = &row["samples"][0]["cost"]["engine"];
        let has_engine = engine["cpu"].as_f64() > Some(0.0) && engine["round_trips"].as_f64() > Some(0.0);
        assert_eq!(has_engine, row["contender"] == "two nodes, Redis", "{row}");
    }

    // Without Redis on the machine there is no figure, and the run reports this.
    let output = tiny().args(["--cell", "cluster"]).env("PATH", dir.path()).output().unwrap();
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{table}");
    assert!(
        table.contains("INVALID cluster, two nodes, Redis: ") && table.contains("expected redis-server"),
        "{table}"
    );
}

#[test]
fn missing_guest_of_the_calls_cell_reports_its_build_command() {
    let output = tiny().args(["--cell", "calls", "--guests", "nowhere"]).output().unwrap();
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{table}{}", text(&output.stderr));
    for lang in ["c", "js", "python"] {
        let words = format!("build it by `plugins/testing/languages nowhere {lang}`");
        assert!(table.contains(&words), "{words} is not in:\n{table}");
    }
    for words in [
        "judge, reads nothing",
        "judge, reads everything",
        "a rule that does not match",
        "admit, HS256",
        "µs of CPU each",
    ] {
        assert!(table.contains(words), "{words:?} is not in:\n{table}");
    }
}

#[test]
fn skip_cell_reports_the_cpu_time_of_a_skipped_record() {
    let table = good(tiny().args(["--cell", "skip"]));
    let table = text(&table.stdout);
    assert!(table.contains("a record of another node's") && table.contains("µs of CPU each"), "{table}");
}

#[test]
fn unknown_cell_exits_with_1_and_the_list_of_cells() {
    let output = bench().args(["--cell", "fanout"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("fan-out-10k, linearity"), "{}", text(&output.stderr));
    let list = good(bench().arg("--list"));
    assert!(text(&list.stdout).lines().count() >= 14, "{}", text(&list.stdout));
}
