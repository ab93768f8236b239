//! `pie bench gpu` on a GPU, or on the emulated one (`scripts/gpu/emulator.sh`, LD_LIBRARY_PATH): all rows are there.
#![cfg(feature = "cuda")]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pie"))
        .args(["bench", "gpu"])
        .args(arguments)
        .output()
        .expect("it starts")
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"))
}

fn rows<'a>(figures: &'a Value, kind: &str) -> Vec<&'a Value> {
    figures["rows"].as_array().expect("rows").iter().filter(|row| row["kind"] == kind).collect()
}

#[test]
fn every_row_is_there_beside_its_floor() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (report, markdown) = (path("gpu.json"), path("gpu.md"));
    let mut arguments = vec!["--config", "test", "--contexts", "64", "--batches", "1,2", "--repeat", "1"];
    arguments.extend(["--tokens", "4", "--step-tokens", "64", "--report", &report, "--markdown", &markdown]);
    let output = bench(&arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a GPU, or the emulated one, is needed: {said}");
    let figures = std::fs::read_to_string(&report).expect("a report");
    let figures: Value = serde_json::from_str(&figures).expect("JSON");

    let counts = ["recompute", "edit", "settle", "prefill", "decode"].map(|kind| rows(&figures, kind).len());
    assert_eq!(counts, [1, 15, 1, 2, 2], "{figures:#}");
    for row in figures["rows"].as_array().expect("rows") {
        for key in ["ms", "floor_ms", "over_floor", "tokens_per_s", "of_bandwidth"] {
            assert!(number(row, key) > 0.0 && number(row, key).is_finite(), "{key} of {row}");
        }
    }
    edits_encode_what_they_should(&figures);
    assert_eq!(figures["left_out"], serde_json::json!([]));
    // Recomputing, three edits against floors, two savings, two recomputed edits, a decode, turning.
    assert_eq!(figures["targets"].as_array().map(Vec::len), Some(10), "{:#}", figures["targets"]);
    let rates = &figures["rates"];
    assert!(number(rates, "bytes_per_s") > 0.0 && number(rates, "operations_per_s") > 0.0);

    let (page, printed) = (
        std::fs::read_to_string(Path::new(&markdown)).expect("a page"),
        String::from_utf8_lossy(&output.stdout),
    );
    assert_eq!(
        page.lines().filter(|line| line.starts_with("| ") && line.contains("| 64 |")).count(),
        21,
        "{page}"
    );
    page.lines().for_each(|line| assert!(printed.contains(line), "printed too: {line}"));
}

/// By the engine's own count.
fn edits_encode_what_they_should(figures: &Value) {
    let edits = rows(figures, "edit");
    for of_one in edits.chunks(3) {
        let names: Vec<_> = of_one.iter().map(|row| row["strategy"].as_str().expect("a strategy")).collect();
        assert_eq!(names, ["pie", "conflict", "full"]);
        let encoded: Vec<_> = of_one.iter().map(|row| number(row, "encoded")).collect();
        let inserts = of_one[0]["what"].as_str().is_some_and(|what| what.contains("in at"));
        assert_eq!(encoded[..2], if inserts { [65.0, 65.0] } else { [1.0, 1.0] }, "{:?}", of_one[0]);
        assert!(encoded[0] < encoded[2], "pie encodes fewer rows than full: {encoded:?}");
        assert!(number(of_one[0], "turned") > 0.0 && number(of_one[1], "turned") == 0.0);
    }
}

/// What cannot be measured is refused with what to do.
#[test]
fn refusals_say_what_to_do() {
    let cases: [(&[&str], &str); 4] = [
        (&["--config", "test", "--step-tokens", "32"], "--insert"),
        (&["--config", "no-such-preset"], "deepseek-coder-33b"),
        (&["--config", "test", "--device", "cpu"], "cuda:N"),
        (&[], "--config <NAME|FILE>"),
    ];
    for (arguments, advice) in cases {
        let output = bench(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(advice), "{arguments:?}: {said}");
    }
}
