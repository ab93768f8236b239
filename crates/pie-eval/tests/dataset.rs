//! Data as it is published: both versions of RepoBench's rows, names of files, what is refused.

use pie_eval::dataset::{Selection, Set, load};
use pie_eval::names::{Language, Setting};
use std::path::Path;

fn all() -> Selection {
    Selection { languages: Language::ALL.to_vec(), settings: Setting::ALL.to_vec() }
}

fn names(sets: &[Set]) -> Vec<(Language, Setting)> {
    sets.iter().map(|set| (set.language, set.setting)).collect()
}

#[test]
fn what_ships_has_all_languages_and_settings() {
    let sets = load(None, &all()).expect("it ships");
    assert_eq!(sets.len(), 6);
    for set in &sets {
        assert!(set.samples.iter().all(|sample| !sample.prompt.is_empty() && !sample.next_line.is_empty()));
    }
}

#[test]
fn published_rows_become_prompts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, row: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, row).expect("it can be written");
    };
    write(
        "java/8k/cross_file_first.jsonl",
        r#"{"repo_name":"r","file_path":"A.java","context":"// Path: B.java\n// x","import_statement":"import b;","code":"class A {\n","next_line":"}"}"#,
    );
    write(
        "repobench_python_v1.1/data/in_file-00000-of-00001.jsonl",
        r##"{"repo_name":"r","file_path":"a.py","context":[{"identifier":"f","path":"b.py","snippet":"def f(): pass"}],"import_statement":"import b","cropped_code":"b.f()\n\n\n\n","all_code":"","next_line":"x = 1"}"##,
    );
    write("notes.jsonl", "this names no setting, so nobody reads it");
    let sets = load(Some(folder.path()), &all()).expect("data");
    assert_eq!(
        names(&sets),
        [(Language::Python, Setting::InFile), (Language::Java, Setting::CrossFileFirst)]
    );
    let prompt = |set: &Set| set.samples[0].prompt.clone();
    assert_eq!(prompt(&sets[1]), "// Path: B.java\n// x\n// Path: A.java\nimport b;\n\nclass A {\n");
    let expected = "# Repo Name: r\n# Path: b.py\ndef f(): pass\n\n# Path: a.py\nimport b\nb.f()\n\n";
    assert_eq!(prompt(&sets[0]), expected);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused =
        |path: &Path| load(Some(path), &all()).map(|sets| names(&sets)).expect_err("refused").to_string();
    assert!(
        refused(folder.path()).contains("python_cross_file_first.jsonl"),
        "an empty folder: says what to do"
    );
    let path = folder.path().join("python_if.jsonl");
    std::fs::write(&path, "{\"prompt\":\"x\",\"next_line\":\"y\"}\n{\"prompt\":\"x\"}\n").expect("written");
    let error = refused(&path);
    assert!(error.contains("sample 2") && error.contains("next_line"), "{error}");
    std::fs::write(&path, "{\"prompt\":\"x\",\"next_line\":\"y\"}\n").expect("written");
    let java = Selection { languages: vec![Language::Java], ..all() };
    let error = load(Some(&path), &java).expect_err("no Java").to_string();
    assert!(error.contains("python in_file"), "says what is there: {error}");
    if cfg!(not(feature = "parquet")) {
        let path = folder.path().join("python_cff.parquet");
        std::fs::write(&path, "PAR1").expect("written");
        let error = refused(&path);
        assert!(error.contains("--features pie/parquet") && error.contains("to_json"), "{error}");
    }
}
