//! Which files under a path are data, and of what.

use super::{FileFormat, SampleFile};
use crate::error::EvalError;
use crate::names::{Language, Setting};
use std::path::{Path, PathBuf};

/// All data files at or under a path, sorted by path.
pub(super) fn sources(path: &Path) -> Result<Vec<SampleFile>, EvalError> {
    let mut files = Vec::new();
    if path.is_dir() {
        let mut open = vec![path.to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).map_err(EvalError::file(&folder))? {
                let entry = entry.map_err(EvalError::file(&folder))?.path();
                if entry.is_dir() { open.push(entry) } else { files.push(entry) }
            }
        }
    } else {
        std::fs::metadata(path).map_err(EvalError::file(path))?;
        files.push(path.to_owned());
    }
    files.sort();
    let sources: Vec<_> = files.into_iter().filter_map(source).collect();
    if sources.is_empty() { Err(EvalError::NoData { path: path.to_owned() }) } else { Ok(sources) }
}

fn source(path: PathBuf) -> Option<SampleFile> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let content = if name.ends_with(".jsonl") {
        FileFormat::Lines
    } else if name.ends_with(".jsonl.gz") {
        FileFormat::GzipLines
    } else if name.ends_with(".parquet") {
        FileFormat::Parquet
    } else {
        return None;
    };
    let (language, setting) = identify(&path)?;
    Some(SampleFile { language, setting, path, content })
}

/// Language and setting by the names in a path; of several the one nearest to the file counts.
fn identify(path: &Path) -> Option<(Language, Setting)> {
    let parts: Vec<Vec<String>> = path
        .components()
        .rev()
        .map(|part| {
            let name = part.as_os_str().to_string_lossy().to_lowercase();
            name.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
        })
        .collect();
    Some((parts.iter().find_map(|words| language(words))?, parts.iter().find_map(|words| setting(words))?))
}

fn language(words: &[String]) -> Option<Language> {
    words.iter().find_map(|word| match word.as_str() {
        "python" | "py" => Some(Language::Python),
        "java" => Some(Language::Java),
        _ => None,
    })
}

fn setting(words: &[String]) -> Option<Setting> {
    const NAMES: [(Setting, &[&str]); 11] = [
        (Setting::CrossFileFirst, &["cross", "file", "first"]),
        (Setting::CrossFileFirst, &["cff"]),
        (Setting::CrossFileFirst, &["xf", "f"]),
        (Setting::CrossFileFirst, &["xff"]),
        (Setting::CrossFileRandom, &["cross", "file", "random"]),
        (Setting::CrossFileRandom, &["cfr"]),
        (Setting::CrossFileRandom, &["xf", "r"]),
        (Setting::CrossFileRandom, &["xfr"]),
        (Setting::InFile, &["in", "file"]),
        (Setting::InFile, &["infile"]),
        (Setting::InFile, &["if"]),
    ];
    let stands = |name: &[&str]| words.windows(name.len()).any(|window| window.iter().eq(name));
    NAMES.iter().find(|(_, name)| stands(name)).map(|(setting, _)| *setting)
}
