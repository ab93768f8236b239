//! A repository's history, asked of the `git` program: which file changed to what in each commit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Git does not answer.
#[derive(Debug, thiserror::Error)]
#[error("`git {command}` in {path} failed: {reason}")]
pub struct GitError {
    /// The command that git was given.
    pub command: String,
    /// The repository.
    pub path: PathBuf,
    /// Git's words.
    pub reason: String,
}

/// A file, and what became of it along first parents, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVersions {
    /// Its path in the repository.
    pub path: String,
    /// One for each commit that changed it.
    pub versions: Vec<Version>,
}

/// A version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The commit's hash, in hexadecimal digits.
    pub commit: String,
    /// Its content's name; `None` when the commit deletes the file.
    pub blob: Option<String>,
}

/// A repository whose history is read. One `git cat-file --batch` gives the contents.
pub struct Repository {
    path: PathBuf,
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Repository {
    /// Starts git; what it says is read as it is asked for.
    ///
    /// # Errors
    /// There is no git.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let error = |reason: String| failed(path, "cat-file", reason);
        let mut command = git(path);
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|reason| error(reason.to_string()))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (ask, answer) = pipes.ok_or_else(|| error("its pipes are not there".to_owned()))?;
        Ok(Self { path: path.to_owned(), child, ask, answer: BufReader::new(answer) })
    }

    /// All files, optionally under a path of the repository: those with the most versions first.
    ///
    /// # Errors
    /// It is no repository.
    pub fn files(&self, under: Option<&str>) -> Result<Vec<FileVersions>, GitError> {
        let mut command = git(&self.path);
        command.args(["-c", "core.quotePath=false", "log", "--first-parent", "-m", "--reverse", "--raw"]);
        command.args(["--no-abbrev", "--no-renames", "-z", "--format=commit %H", "--"]).args(under);
        let output = command.output().map_err(|error| failed(&self.path, "log", error.to_string()))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(&self.path, "log", reason));
        }
        let files = parse(&String::from_utf8_lossy(&output.stdout)).into_iter();
        let mut files: Vec<_> = files.map(|(path, versions)| FileVersions { path, versions }).collect();
        files.sort_by(|one, other| {
            let key = |file: &FileVersions| std::cmp::Reverse(file.versions.len());
            key(one).cmp(&key(other)).then_with(|| one.path.cmp(&other.path))
        });
        Ok(files)
    }

    /// A version's content, if it has one and that is text.
    ///
    /// # Errors
    /// Git ends.
    pub fn text(&mut self, version: &Version) -> Result<Option<String>, GitError> {
        let Some(blob) = &version.blob else { return Ok(None) };
        let bytes = self.bytes(blob).map_err(|error| failed(&self.path, "cat-file", error.to_string()))?;
        Ok(String::from_utf8(bytes).ok().filter(|text| !text.contains('\0')))
    }

    fn bytes(&mut self, blob: &str) -> std::io::Result<Vec<u8>> {
        writeln!(self.ask, "{blob}")?;
        self.ask.flush()?;
        let mut header = String::new();
        self.answer.read_line(&mut header)?;
        let size = header.trim().rsplit(' ').next().and_then(|size| size.parse::<usize>().ok());
        let size = size.ok_or_else(|| std::io::Error::other(format!("it said `{}`", header.trim())))?;
        let mut bytes = vec![0; size + 1];
        self.answer.read_exact(&mut bytes)?;
        bytes.pop();
        Ok(bytes)
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // It has nothing to finish; what matters is that no process stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `commit HASH`, then for each file `:mode mode old new status` and its path, all ended by NUL.
fn parse(text: &str) -> BTreeMap<String, Vec<Version>> {
    let (mut files, mut commit): (BTreeMap<String, Vec<Version>>, String) = (BTreeMap::new(), String::new());
    let mut parts = text.split('\0').map(|part| part.trim_start_matches('\n'));
    while let Some(part) = parts.next() {
        if let Some(hash) = part.strip_prefix("commit ") {
            commit = hash.trim().to_owned();
        } else if let Some(raw) = part.strip_prefix(':') {
            let fields: Vec<&str> = raw.split(' ').collect();
            let (Some(path), [_, mode, _, new, _]) = (parts.next(), fields.as_slice()) else { continue };
            // Neither links nor submodules.
            let regular = mode.starts_with("100");
            let blob = regular.then(|| (*new).to_owned());
            files.entry(path.to_owned()).or_default().push(Version { commit: commit.clone(), blob });
        }
    }
    files
}

fn git(repository: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(repository).stdin(Stdio::null());
    command
}

fn failed(repository: &Path, command: &str, reason: String) -> GitError {
    GitError { command: command.to_owned(), path: repository.to_owned(), reason }
}
