//! What a hub says of a repository: its commit, its files with sizes and sums, and which of them make a model.

use super::http::Client;
use super::patience::ConsecutiveFailures;
use super::places::{ModelReference, ends_in_gguf, is_a_piece, is_plain};
use super::problem::{Code, Problem};
use hyper::http::StatusCode;
use serde::{Deserialize, Serialize};

/// Files beside the weights that are read, or stand beside what is read.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];
const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Where a hub answers about models.
const MODELS: &str = "/api/models/";
/// Pages of a tree, of a thousand files each: no model has so many.
const PAGES: usize = 20;
/// As many files are named in an error.
const NAMED: usize = 8;

/// What a file's content must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileDigest {
    /// Of files that lie in the hub's store.
    Sha256(String),
    /// Of files that lie in git itself: the name of the blob, a SHA-1.
    GitBlob(String),
}

impl FileDigest {
    /// Its digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

impl std::fmt::Display for FileDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "sha256 {hex}"),
            Self::GitBlob(hex) => write!(f, "git blob {hex}"),
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub size: u64,
    /// Its sum.
    pub digest: FileDigest,
}

impl Remote {
    /// Its name in the cache.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// A repository's model at a commit.
#[derive(Debug)]
pub struct Snapshot {
    /// Which commit.
    pub commit: String,
    /// The files that make the model.
    pub files: Vec<Remote>,
}

#[derive(Deserialize)]
struct About {
    sha: String,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// A hub's programming interface.
pub struct Api<'a> {
    /// How it is asked.
    pub client: &'a Client,
    /// Its address.
    pub endpoint: &'a str,
}

impl Api<'_> {
    /// What the place has now.
    ///
    /// # Errors
    /// The hub does not say, or it is no model.
    pub async fn snapshot(&self, place: &ModelReference) -> Result<Snapshot, Problem> {
        let base = format!("{}{MODELS}{}", self.endpoint, place.repository());
        let what = format!("{} at {}", place.repository(), place.revision);
        let (about, _): (About, _) =
            self.json(&format!("{base}/revision/{}", encoded(&place.revision, "")), &what, place).await?;
        if !(is_hex(&about.sha) && about.sha.len() >= 40) {
            return Err(Problem::new(
                Code::Answer,
                format!("{} names no commit of {what}: is it a hub? (HF_ENDPOINT)", self.endpoint),
            ));
        }
        let entries = self.tree(&format!("{base}/tree/{}?recursive=true", about.sha), &what, place).await?;
        Ok(Snapshot { commit: about.sha, files: chosen(place, entries)? })
    }

    /// All pages of a tree.
    async fn tree(&self, first: &str, what: &str, place: &ModelReference) -> Result<Vec<TreeEntry>, Problem> {
        let (mut entries, mut address) = (Vec::new(), first.to_owned());
        for _ in 0..PAGES {
            let (page, link): (Vec<TreeEntry>, _) = self.json(&address, what, place).await?;
            entries.extend(page);
            // Mirrors may hand through the address of the hub behind them, but it is they who are asked.
            let next = link.as_deref().and_then(|link| link.find(MODELS).map(|at| &link[at..]));
            let Some(next) = next else { return Ok(entries) };
            address = format!("{}{next}", self.endpoint);
        }
        Err(Problem::new(
            Code::NoModel,
            format!("{what} has more than {PAGES} pages of files: no model has so many"),
        ))
    }

    /// Where a file of a commit lies.
    pub fn address(&self, place: &ModelReference, commit: &str, path: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, place.repository(), encoded(path, "/"))
    }

    /// Where people look the repository up.
    pub fn page(&self, place: &ModelReference) -> String {
        format!("{}/{}", self.endpoint, place.repository())
    }

    /// An answer in JSON, and the address of its next page.
    async fn json<T: for<'de> Deserialize<'de>>(
        &self,
        address: &str,
        what: &str,
        place: &ModelReference,
    ) -> Result<(T, Option<String>), Problem> {
        let mut patience = ConsecutiveFailures::default();
        loop {
            let attempt = async {
                let answer = self.client.get(address, 0).await?;
                if answer.status() != StatusCode::OK {
                    return Err(answer.refusal(what, &self.page(place), self.client.has_token()).await);
                }
                let link = answer.header("link").and_then(next_page);
                Ok((answer.text().await?, link))
            };
            match attempt.await {
                Ok((text, link)) => {
                    let wrong = |error| {
                        format!(
                            "{} does not answer as a hub does ({error}): look at HF_ENDPOINT",
                            self.endpoint
                        )
                    };
                    let parsed = serde_json::from_str(&text)
                        .map_err(|error| Problem::new(Code::Answer, wrong(error)))?;
                    return Ok((parsed, link));
                }
                Err(problem) => patience.bear(problem, |line| say!("{line}")).await?,
            }
        }
    }
}

/// The address of the next page in a Link field: `<…>; rel="next"`.
fn next_page(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}

/// A part of an address; bytes that mean something in one, but for those in `kept`, are written as numbers.
fn encoded(text: &str, kept: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(letter) || kept.contains(letter) {
            out.push(letter);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The files that make the model of a place.
fn chosen(place: &ModelReference, entries: Vec<TreeEntry>) -> Result<Vec<Remote>, Problem> {
    let files: Vec<Remote> =
        entries.into_iter().filter(|entry| entry.kind == "file").filter_map(remote).collect();
    if let Some(wanted) = &place.file {
        let found: Vec<_> = files.iter().filter(|file| file.path == *wanted).cloned().collect();
        if found.is_empty() {
            let what = format!("{} has no file {wanted}: {}", place.repository(), ggufs(place, &files));
            return Err(Problem::new(Code::NotFound, what));
        }
        return Ok(found);
    }
    let here = |name: &str| files.iter().any(|file| file.path == name);
    let (config, single, index) = (here(CONFIG), here(SINGLE), here(INDEX));
    let is_weight = |name: &str| match single {
        true => name == SINGLE,
        false => name == INDEX || name.ends_with(".safetensors"),
    };
    if !config || !(single || index) {
        let lacks = if config { "*.safetensors" } else { CONFIG };
        let what = format!(
            "{} is no model's folder, it lacks {lacks}: {}",
            place.repository(),
            ggufs(place, &files)
        );
        return Err(Problem::new(Code::NoModel, what));
    }
    Ok(files
        .into_iter()
        .filter(|file| {
            BESIDE.contains(&file.path.as_str()) || (is_plain(&file.path) && is_weight(&file.path))
        })
        .collect())
}

/// Those whose names are names and whose sums are sums: all others are as if they were not there.
fn remote(entry: TreeEntry) -> Option<Remote> {
    let (size, digest) = match entry.lfs {
        Some(lfs) => (lfs.size, FileDigest::Sha256(lfs.oid.to_ascii_lowercase())),
        None => (entry.size, FileDigest::GitBlob(entry.oid.to_ascii_lowercase())),
    };
    let length = if matches!(digest, FileDigest::Sha256(_)) { 64 } else { 40 };
    let is_sum = digest.hex().len() == length && is_hex(digest.hex());
    (is_sum && entry.path.split('/').all(is_plain)).then_some(Remote { path: entry.path, size, digest })
}

/// Which GGUF files there are to name instead.
fn ggufs(place: &ModelReference, files: &[Remote]) -> String {
    let all: Vec<_> =
        files.iter().filter(|file| ends_in_gguf(&file.path) && !is_a_piece(&file.path)).collect();
    if all.is_empty() {
        return "it has no whole GGUF file either".to_owned();
    }
    let names: Vec<_> =
        all.iter().take(NAMED).map(|file| format!("hf:{}/{}", place.repository(), file.path)).collect();
    let more = if all.len() > NAMED { format!(", and {} more", all.len() - NAMED) } else { String::new() };
    format!("it has {}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(names: &[&str]) -> Vec<TreeEntry> {
        let entry = |name: &&str| TreeEntry {
            kind: "file".to_owned(),
            path: (*name).to_owned(),
            size: 3,
            oid: "a".repeat(40),
            lfs: name.contains(".safetensors").then(|| Lfs { oid: "b".repeat(64), size: 5 }),
        };
        names.iter().map(entry).collect()
    }

    #[test]
    fn of_a_repository_the_files_of_the_model_are_taken() {
        let folder = ModelReference::of("hf:acme/tiny").expect("a place");
        let file = ModelReference::of("hf:acme/tiny/q/x.gguf").expect("a place");
        let table: [(&ModelReference, &[&str], &[&str]); 5] = [
            (
                &folder,
                &[
                    "README.md",
                    "config.json",
                    "model.safetensors",
                    "tokenizer.json",
                    "pytorch_model.bin",
                    "onnx/model.safetensors",
                ],
                &["config.json", "model.safetensors", "tokenizer.json"],
            ),
            (
                &folder,
                &[
                    "config.json",
                    "model-1-of-2.safetensors",
                    "model-2-of-2.safetensors",
                    "model.safetensors.index.json",
                ],
                &[
                    "config.json",
                    "model-1-of-2.safetensors",
                    "model-2-of-2.safetensors",
                    "model.safetensors.index.json",
                ],
            ),
            // The whole one is what is loaded where both are there.
            (
                &folder,
                &[
                    "config.json",
                    "model-1-of-1.safetensors",
                    "model.safetensors",
                    "model.safetensors.index.json",
                ],
                &["config.json", "model.safetensors"],
            ),
            (&file, &["config.json", "q/x.gguf", "x.gguf"], &["q/x.gguf"]),
            (
                &folder,
                &["config.json", "model.safetensors", "../x.safetensors", ".hidden", "a b.json"],
                &["config.json", "model.safetensors"],
            ),
        ];
        for (place, names, wanted) in table {
            let found = chosen(place, tree(names)).expect("a model");
            assert_eq!(found.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn what_is_no_model_says_what_it_has_instead() {
        let table: [(&str, &[&str], Code, &str); 4] = [
            (
                "hf:acme/tiny",
                &["x.gguf", "y-00001-of-00002.gguf"],
                Code::NoModel,
                "it has hf:acme/tiny/x.gguf",
            ),
            ("hf:acme/tiny", &["config.json", "pytorch_model.bin"], Code::NoModel, "lacks *.safetensors"),
            ("hf:acme/tiny", &[], Code::NoModel, "no whole GGUF file"),
            ("hf:acme/tiny/z.gguf", &["x.gguf"], Code::NotFound, "hf:acme/tiny/x.gguf"),
        ];
        for (place, names, code, wanted) in table {
            let problem = chosen(&ModelReference::of(place).expect(place), tree(names)).expect_err(place);
            assert!(problem.code == code && problem.what.contains(wanted), "{place}: {problem}");
        }
    }

    #[test]
    fn addresses_have_numbers_for_what_means_something_in_them() {
        assert_eq!(encoded("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(encoded("q 4/x+y.gguf", "/"), "q%204/x%2By.gguf");
        assert_eq!(
            next_page("<https://hub/a?cursor=1>; rel=\"next\"").as_deref(),
            Some("https://hub/a?cursor=1")
        );
        assert_eq!(next_page("<https://hub/a>; rel=\"prev\""), None);
    }
}
