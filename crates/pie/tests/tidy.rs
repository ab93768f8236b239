//! The structure, checked: arrows between crates, what crates must not know, file lengths, invariants with a test.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the phrases of the map's last column mean: packages that a crate must not reach, directly or through other crates of this
/// workspace, and words that must not stand in its sources.
const MEANINGS: &[(&str, &[&str], &[&str])] = &[
    ("the router", &["pie-router"], &[]),
    ("the router's insides", &["pie-router", "pie-group"], &[]),
    ("clients", &["pie-client"], &[]),
    ("the command line", &["clap"], &[]),
    ("ranks", &["pie-worker"], &[]),
    ("models", &["pie-model", "pie-kv"], &[]),
    ("CUDA", &["cudarc"], &[]),
    ("tensors", &["pie-model", "pie-kv"], &[]),
    ("tokenizers", &["tokenizers"], &[]),
    ("text", &["pie-text", "ropey", "tokenizers"], &[]),
    ("documents", &["pie-text", "ropey", "tokenizers"], &[]),
    ("sessions", &["pie-plan", "pie-group", "pie-router"], &["SessionId"]),
    ("plans", &["pie-plan"], &[]),
    ("order of plans", &["pie-plan"], &["Epoch", "Seq"]),
    ("the wire", &["pie-proto", "tonic", "prost"], &[]),
    ("gRPC", &["pie-proto", "tonic", "prost"], &[]),
    ("calls", &["pie-proto"], &[]),
    ("behaviour", &["pie-text", "pie-model", "pie-kv", "pie-placement", "tokio"], &[]),
    ("files", &[], &["std::fs", "tokio::fs"]),
    ("flags", &["clap", "toml"], &[]),
    ("the clock", &["tokio"], &["std::time"]),
    ("floats", &[], &["f32", "f64"]),
];
const LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Of each package of the resolved graph: the names of its normal dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    // Packages of other platforms are not at hand.
    let about = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let about = String::from_utf8(about.stdout).expect("UTF-8");
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features", "--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), text(&package["name"])));
    let names: BTreeMap<_, _> = names.collect();
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let normal = list(&node["deps"])
            .into_iter()
            .filter(|dependency| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()));
        let normal = normal.filter_map(|dependency| names.get(&text(&dependency["pkg"])).cloned());
        all.entry(names[&text(&node["id"])].clone()).or_default().extend(normal);
    }
    all
}

/// A row of the map in ARCHITECTURE.md.
struct Mapped {
    name: String,
    must_not_know: Vec<String>,
}

/// The map: the crates from top to bottom.
fn map() -> Vec<Mapped> {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("UTF-8");
    let rows = page.lines().filter_map(|line| {
        let [_, name, _, foreign, _] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            return None;
        };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        let must_not_know = foreign.split(", ").filter(|phrase| *phrase != "-").map(str::to_owned).collect();
        name.starts_with("pie").then(|| Mapped { name: name.to_owned(), must_not_know })
    });
    rows.collect()
}

#[test]
fn every_crate_is_on_the_map_and_dependencies_point_downwards() {
    let (all, map) = (dependencies(), map());
    let folders = std::fs::read_dir(root().join("crates")).expect("a folder");
    let folders: BTreeSet<_> =
        folders.map(|folder| folder.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    assert_eq!(map.iter().map(|row| row.name.clone()).collect::<BTreeSet<_>>(), folders);
    let place = |name: &str| map.iter().position(|row| row.name == name);
    for (index, row) in map.iter().enumerate() {
        for dependency in &all[&row.name] {
            let below = place(dependency).is_none_or(|place| place > index);
            assert!(below, "{} must not depend on {dependency}: arrows point downwards", row.name);
        }
    }
}

#[test]
fn crates_do_not_know_what_the_map_says_they_must_not() {
    let (all, map, sources) = (dependencies(), map(), sources());
    let words = |text: &str, word: &str| {
        let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let begins = |before: &str| !before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        text.match_indices(word).any(|(at, _)| begins(&text[..at]) && ends(&text[at + word.len()..]))
    };
    let mut wrong = Vec::new();
    for Mapped { name, must_not_know } in &map {
        let (mut known, mut open) = (BTreeSet::new(), vec![name.clone()]);
        while let Some(next) = open.pop() {
            let new = all[&next].iter().filter(|dependency| known.insert((*dependency).clone()));
            open.extend(new.filter(|new| map.iter().any(|row| row.name == **new)).cloned());
        }
        let folder = root().join("crates").join(name).join("src");
        for phrase in must_not_know {
            let meaning = MEANINGS.iter().find(|(known, ..)| known == phrase);
            let (_, packages, foreign) =
                meaning.unwrap_or_else(|| panic!("what does {phrase:?} mean for {name}?"));
            let reached = packages.iter().filter(|package| known.contains(**package));
            wrong.extend(
                reached.map(|package| format!("{name} must not know {phrase}: it reaches {package}")),
            );
            for (path, text) in sources.iter().filter(|(path, _)| path.starts_with(&folder)) {
                let said = foreign.iter().filter(|word| words(text, word));
                wrong.extend(said.map(|word| format!("{} must not know {phrase}: {word}", path.display())));
            }
        }
        let free = must_not_know.is_empty() && name != "pie";
        assert!(!free, "{name}: a crate that may know everything is no crate of its own");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut open = vec![root().join("crates")];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in
            std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path())
        {
            // Nobody writes what is generated.
            if entry.ends_with("generated") {
                continue;
            }
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&entry).expect("UTF-8");
                found.push((entry, text));
            }
        }
    }
    found
}

#[test]
fn files_are_short() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES)
        .collect();
    assert!(long.is_empty(), "over {LINES} lines, a sign that two ideas share a room: {long:?}");
}

/// The owner's core is plain: tasks, channels, traces and messages on the wire stay with its desk.
#[test]
fn the_core_of_a_group_is_plain() {
    let core = root().join("crates/pie-group/src/core");
    let is_core = |path: &Path| path.starts_with(&core) || path == core.with_extension("rs");
    let foreign = ["tokio", "tonic", "opentelemetry", "prost", "worker_v1", "peer_v1", "v1::"];
    let files: Vec<_> = sources().into_iter().filter(|(path, _)| is_core(path)).collect();
    let known = |text: &str| foreign.into_iter().filter(|name| text.contains(name)).collect::<Vec<_>>();
    let mut wrong: Vec<_> = files.iter().map(|(path, text)| (path, known(text))).collect();
    wrong.retain(|(_, known)| !known.is_empty());
    assert!(!files.is_empty() && wrong.is_empty(), "{wrong:?}");
}

/// A guard that lives on in its caller is there when the caller asks for the same lock again. Locks stay in small files, and leave
/// as copies; each of these is one whose guards were looked at.
#[test]
fn locks_are_handed_out_where_that_was_looked_at_only() {
    let looked_at = [
        "pie-comm/src/thread.rs",
        "pie-load/src/run/flight.rs",
        "pie-placement/src/embedded.rs",
        "pie-router/src/directory/known.rs",
        "pie-group/src/peers.rs",
    ];
    let guards = ["MutexGuard", "RwLockReadGuard", "RwLockWriteGuard"];
    let elsewhere: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| !path.ends_with("tidy.rs") && guards.iter().any(|guard| text.contains(guard)))
        .map(|(path, _)| path)
        .filter(|path| !looked_at.iter().any(|known| path.ends_with(known)))
        .collect();
    assert!(elsewhere.is_empty(), "return copies, not guards: {elsewhere:?}");
}

/// A page that says what an edit of a file of this repository takes away says what stands there.
#[test]
fn edits_that_pages_show_are_of_what_stands_there() {
    let mut seen = 0;
    for page in ["README.md", "docs/next-edit.md"] {
        let text = std::fs::read_to_string(root().join(page)).expect("UTF-8");
        let opened = text.lines().filter_map(|line| line.strip_prefix("pie ctl open "));
        let files: Vec<_> =
            opened.map(|file| root().join(file.trim())).filter(|path| path.is_file()).collect();
        let edits = text.lines().filter_map(|line| line.strip_prefix("pie ctl edit ")?.split_once("# `"));
        for (edit, gone) in edits {
            let gone = gone.strip_suffix("` goes").expect("what goes");
            let words: Vec<&str> = edit.split_whitespace().take(2).collect();
            let file = files.iter().find(|path| path.ends_with(words[0])).expect("it was opened before");
            let file = std::fs::read_to_string(file).expect("UTF-8");
            let place = |at: &str| {
                let (line, column) = at.split_once(':').expect("LINE:COLUMN");
                let [line, column] = [line, column].map(|number| number.parse::<usize>().expect("a number"));
                file.lines().take(line).map(|line| line.len() + 1).sum::<usize>() + column
            };
            let (start, end) = words[1].split_once("..").expect("a range");
            assert_eq!(&file[place(start)..place(end)], gone, "{page}: {}", words[0]);
            seen += 1;
        }
    }
    assert!(seen >= 3, "pages show edits in another form");
}

/// A page that names a source file names one that is there.
#[test]
fn pages_name_files_that_are_there() {
    let all: Vec<_> = sources().into_iter().map(|(path, _)| path).collect();
    let docs = std::fs::read_dir(root().join("docs")).expect("a folder");
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let pages = docs.map(|entry| entry.expect("an entry").path()).filter(is_page);
    let mut wrong = Vec::new();
    for page in pages.chain(["README.md", "ARCHITECTURE.md"].map(|name| root().join(name))) {
        let text = std::fs::read_to_string(&page).expect("UTF-8");
        let named = text.split('`').filter(|word| word.ends_with(".rs") && !word.contains([' ', '\n', '{']));
        let is_there =
            |name: &str| root().join(name).is_file() || all.iter().any(|path| path.ends_with(name));
        let missing = named.filter(|name| !is_there(name));
        wrong.extend(missing.map(|name| format!("{}: {name}", page.display())));
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Every invariant of the design stands in product code, where it is kept, and in a test.
#[test]
fn every_invariant_is_kept_somewhere_and_tested() {
    let ids = [
        "R1", "R2", "T1", "T2", "S1", "P1", "P2", "P3", "P4", "K1", "K2", "K3", "K4", "K5", "M1", "W1", "C1",
        "C2", "C3", "L1", "L2", "D1", "N1", "A1", "A2", "H1", "H2", "E1", "E2", "E3", "F1", "F2",
    ];
    let is_test = |path: &Path| path.components().any(|part| part.as_os_str() == "tests");
    let (mut tests, product): (Vec<_>, Vec<_>) = sources().into_iter().partition(|(path, _)| is_test(path));
    // Those of whole processes.
    let python = std::fs::read_dir(root().join("scripts/python")).expect("a folder");
    let python = python.map(|entry| entry.expect("an entry").path());
    let python = python.filter(|path| path.extension().is_some_and(|extension| extension == "py"));
    tests.extend(python.map(|path| (path.clone(), std::fs::read_to_string(path).expect("UTF-8"))));
    let mentions = |list: &[(PathBuf, String)], id: &str| {
        let words = |text: &str| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == id);
        list.iter().any(|(path, text)| !path.ends_with("tidy.rs") && words(text))
    };
    let kept: Vec<_> = ids.iter().filter(|id| !mentions(&product, id)).collect();
    let tested: Vec<_> = ids.iter().filter(|id| !mentions(&tests, id)).collect();
    assert!(
        kept.is_empty() && tested.is_empty(),
        "no word of where they are kept: {kept:?}; of a test: {tested:?}"
    );
}
