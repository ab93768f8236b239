//! The ready file: one line of JSON that is there as long as what it speaks of serves.

use crate::Failure;
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file that a process writes when it serves, and removes when it ends.
pub struct ReadyFile {
    /// None if nobody asked for one.
    path: Option<PathBuf>,
    /// What this process wrote.
    written: Option<String>,
}

impl ReadyFile {
    /// Removes what a process that is dead has left there: whoever waits for the file must not take the dead one for this one.
    ///
    /// # Errors
    /// The file cannot be removed, or its folder is not there: better said now than when the model is loaded.
    pub fn claim(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { path: None, written: None }) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(
                format!("--ready-file {}: there is no folder {}", path.display(), folder.display()).into()
            );
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(format!("--ready-file {}: {error}", path.display()).into())
            }
            _ => Ok(Self { path: Some(path.to_owned()), written: None }),
        }
    }

    /// Writes the file in one go, so that a reader never sees half a line.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, ready: &impl Serialize) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let line = serde_json::to_string(ready)? + "\n";
        std::fs::write(&partial, &line)
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(|error| format!("--ready-file {}: {error}", path.display()))?;
        self.written = Some(line);
        Ok(())
    }

    /// What it speaks of serves no more.
    pub fn remove(&mut self) {
        let Some((path, written)) = self.path.take().zip(self.written.take()) else { return };
        // Another process may have taken the place of this one, and have written its own.
        if std::fs::read_to_string(&path).is_ok_and(|there| there == written) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lives_as_long_as_what_it_speaks_of() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("ready.json");
        std::fs::write(&path, "of a dead pool").expect("a stale file");
        let mut ready = ReadyFile::claim(Some(&path)).expect("the folder is there");
        assert!(!path.exists(), "a stale file goes before anything serves");
        ready.write(&7).expect("it is written");
        assert_eq!(std::fs::read_to_string(&path).expect("a line"), "7\n");
        drop(ready);
        assert!(!path.exists(), "nothing serves any more");

        let mut first = ReadyFile::claim(Some(&path)).expect("the folder is there");
        first.write(&1).expect("it is written");
        let mut second = ReadyFile::claim(Some(&path)).expect("the folder is there");
        second.write(&2).expect("it is written");
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).expect("the second's"), "2\n");

        let nowhere = ReadyFile::claim(Some(&folder.path().join("no/ready.json"))).err();
        assert!(nowhere.is_some_and(|error| error.to_string().contains("there is no folder")));
    }
}
