//! Names of models, and the places on a hub that they stand for.

use super::problem::{Code, Problem};
use std::fmt;

/// What a place on a hub begins with.
const SCHEME: &str = "hf:";
/// The revision of a repository if nobody names one.
const NEWEST: &str = "main";
/// Longer names are none.
const LONGEST: usize = 200;
/// As similar must a known name be to be meant.
const SIMILAR: f64 = 0.8;

/// Short names, each with its place. Files of 4 bits are what most people can hold; DeepSeek's are folders, since they are what PIE
/// was measured with in its paper.
pub const SHORT: [(&str, &str); 12] = [
    (
        "qwen2.5-coder-0.5b",
        "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    ),
    (
        "qwen2.5-coder-1.5b",
        "hf:Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    ),
    ("qwen2.5-coder-3b", "hf:Qwen/Qwen2.5-Coder-3B-Instruct-GGUF/qwen2.5-coder-3b-instruct-q4_k_m.gguf"),
    ("qwen2.5-coder-7b", "hf:Qwen/Qwen2.5-Coder-7B-Instruct-GGUF/qwen2.5-coder-7b-instruct-q4_k_m.gguf"),
    ("qwen2.5-coder-14b", "hf:Qwen/Qwen2.5-Coder-14B-Instruct-GGUF/qwen2.5-coder-14b-instruct-q4_k_m.gguf"),
    ("qwen2.5-coder-32b", "hf:Qwen/Qwen2.5-Coder-32B-Instruct-GGUF/qwen2.5-coder-32b-instruct-q4_k_m.gguf"),
    ("deepseek-coder-1.3b", "hf:deepseek-ai/deepseek-coder-1.3b-base"),
    ("deepseek-coder-6.7b", "hf:deepseek-ai/deepseek-coder-6.7b-base"),
    ("deepseek-coder-33b", "hf:deepseek-ai/deepseek-coder-33b-base"),
    ("smollm2-135m", "hf:bartowski/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct-Q4_K_M.gguf"),
    ("smollm2-360m", "hf:bartowski/SmolLM2-360M-Instruct-GGUF/SmolLM2-360M-Instruct-Q4_K_M.gguf"),
    ("smollm2-1.7b", "hf:HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF/smollm2-1.7b-instruct-q4_k_m.gguf"),
];

/// A model on a hub: a repository's folder, or one GGUF file of it, at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelReference {
    /// Whose repository.
    pub owner: String,
    /// The repository.
    pub name: String,
    /// A GGUF file in it; none: the folder.
    pub file: Option<String>,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl ModelReference {
    /// What a name stands for: `hf:…`, or a short name.
    ///
    /// # Errors
    /// [`Code::Name`], with what is like it.
    pub fn of(name: &str) -> Result<Self, Problem> {
        if let Some(rest) = name.strip_prefix(SCHEME) {
            return Self::parse(rest)
                .map_err(|why| Problem::new(Code::Name, format!("`{name}` names no place on a hub: {why}")));
        }
        let (short, revision) =
            name.split_once('@').map_or((name, None), |(short, revision)| (short, Some(revision)));
        let known = SHORT.iter().find(|(known, _)| known.eq_ignore_ascii_case(short));
        let Some((_, place)) = known else { return Err(unknown(name)) };
        let whole = revision.map_or_else(|| (*place).to_owned(), |revision| format!("{place}@{revision}"));
        Self::of(&whole)
    }

    /// Whether somebody who writes this means a place on a hub rather than a path.
    pub fn is_meant(text: &str) -> bool {
        let short = text.split('@').next().unwrap_or_default();
        text.starts_with(SCHEME) || SHORT.iter().any(|(known, _)| known.eq_ignore_ascii_case(short))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (path, revision) = text.split_once('@').unwrap_or((text, NEWEST));
        let mut parts = path.splitn(3, '/');
        let (Some(owner), Some(name), file) = (parts.next(), parts.next(), parts.next()) else {
            return Err("write hf:OWNER/NAME or hf:OWNER/NAME/FILE.gguf".to_owned());
        };
        for part in [owner, name].into_iter().chain(file.into_iter().flat_map(|file| file.split('/'))) {
            if !is_plain(part) {
                return Err(format!(
                    "`{part}` is no name (letters, digits, - _ . and none of those in front but _)"
                ));
            }
        }
        // The hub has no such names, and the cache sets the two apart by it.
        if owner.contains("--") || name.contains("--") {
            return Err(format!("{owner}/{name} is no repository's name: it has two dashes in a row"));
        }
        if revision.is_empty() || revision.len() > LONGEST || !revision.split('/').all(is_plain) {
            return Err(format!(
                "`{revision}` is no revision: write a branch, a tag or a commit behind the @"
            ));
        }
        if let Some(file) = file {
            if !ends_in_gguf(file) {
                return Err(format!("{file} is no GGUF file; hf:{owner}/{name} is the repository's folder"));
            }
            if is_a_piece(file) {
                return Err(format!("{file} is one piece of a file that was split: name one that is whole"));
            }
        }
        let file = file.map(str::to_owned);
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), file, revision: revision.to_owned() })
    }

    /// The repository's name on its hub.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// A file name of the place's own: no other place has it.
    pub fn key(&self) -> String {
        let mut key = format!("{}--{}", self.owner, self.name);
        for (mark, part) in [("--", self.file.as_deref()), ("@", Some(self.revision.as_str()))] {
            // A slash cannot stand in a file's name, and % cannot in a part.
            key.extend(part.map(|part| format!("{mark}{}", part.replace('/', "%2F"))));
        }
        key
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.owner, self.name)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision == NEWEST { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether a file's name says that it is GGUF.
pub fn ends_in_gguf(name: &str) -> bool {
    name.len() > ".gguf".len() && name.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a file is named as llama.cpp names the pieces of one that was split: `…-00001-of-00003.gguf`.
pub fn is_a_piece(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = stem.rsplitn(4, '-');
    let ends = (parts.next(), parts.next(), parts.next());
    matches!(ends, (Some(count), Some("of"), Some(piece)) if number(count) && number(piece))
}

/// Names that are the same on every file system and lead nowhere else. No part may be read as an option or be hidden.
pub fn is_plain(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let begins = part.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_');
    begins && part.len() <= LONGEST && part.bytes().all(known) && !part.contains("..")
}

fn unknown(name: &str) -> Problem {
    let wanted = name.to_ascii_lowercase();
    let mut near: Vec<_> =
        SHORT.iter().map(|(known, _)| (strsim::jaro_winkler(known, &wanted), *known)).collect();
    near.sort_by(|one, other| other.0.total_cmp(&one.0));
    let near: Vec<_> =
        near.into_iter().take(3).filter(|(like, _)| *like > SIMILAR).map(|(_, known)| known).collect();
    let advice = match near.as_slice() {
        [] => "known are the names that `pie model list --names` shows".to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    Problem::new(
        Code::Name,
        format!("`{name}` is no folder, no GGUF file, and no short name of a model: {advice}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_name_is_a_place() {
        for (short, place) in SHORT {
            let found = ModelReference::of(short).expect("a place");
            assert_eq!(found.to_string(), place);
            assert!(ModelReference::is_meant(short) && ModelReference::is_meant(place));
            let fixed = ModelReference::of(&format!("{short}@v1")).expect("a place");
            assert_eq!(fixed.revision, "v1", "{short}");
        }
    }

    #[test]
    fn places_are_read_as_they_are_shown() {
        let table = [
            ("hf:acme/tiny", "acme--tiny@main", "hf:acme/tiny"),
            ("hf:acme/tiny@main", "acme--tiny@main", "hf:acme/tiny"),
            ("hf:acme/tiny@refs/pr/1", "acme--tiny@refs%2Fpr%2F1", "hf:acme/tiny@refs/pr/1"),
            ("hf:acme/tiny/a.gguf@v2", "acme--tiny--a.gguf@v2", "hf:acme/tiny/a.gguf@v2"),
            ("hf:acme/tiny/q4/a.GGUF", "acme--tiny--q4%2Fa.GGUF@main", "hf:acme/tiny/q4/a.GGUF"),
        ];
        for (text, key, shown) in table {
            let place = ModelReference::of(text).expect("a place");
            assert_eq!((place.key().as_str(), place.to_string().as_str()), (key, shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_to_write() {
        let table = [
            ("hf:", "hf:OWNER/NAME"),
            ("hf:tiny", "hf:OWNER/NAME"),
            ("hf:acme/", "no name"),
            ("hf:../tiny", "no name"),
            ("hf:acme/../tiny", "no name"),
            ("hf:acme/tiny/../../x.gguf", "no name"),
            ("hf:acme/tiny/-x.gguf", "no name"),
            ("hf:acme/tiny?x", "no name"),
            ("hf:acme/ti--ny", "two dashes"),
            ("hf:acme/tiny/model.bin", "no GGUF file"),
            ("hf:acme/tiny/.gguf", "no name"),
            ("hf:acme/tiny@", "no revision"),
            ("hf:acme/tiny@a b", "no revision"),
            ("hf:acme/tiny/x-00001-of-00002.gguf", "one piece"),
            ("qwen2.5-coder-8b", "did you mean qwen2.5-coder-"),
            ("deepseek-1.3b", "did you mean deepseek-coder-1.3b"),
            ("xyz", "pie model list --names"),
        ];
        for (text, wanted) in table {
            let problem = ModelReference::of(text).expect_err(text);
            assert!(problem.code == Code::Name && problem.what.contains(wanted), "{text}: {problem}");
        }
    }
}
