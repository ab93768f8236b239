//! Files that flags name, and that others replace while this process runs: secrets of Kubernetes by a symbolic link,
//! cert-manager and people by a rename.

use crate::Failure;
use crate::observe::{Reload, Security, What};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A file, and the flag that names it.
#[derive(Clone, Debug)]
pub struct FlagFile {
    flag: &'static str,
    path: PathBuf,
}

impl FlagFile {
    /// The file that a flag names; it is not looked at yet.
    pub fn new(flag: &'static str, path: &Path) -> Self {
        Self { flag, path: path.to_owned() }
    }

    /// All of it; what goes wrong names the flag.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        Ok(std::fs::read(&self.path).map_err(|error| format!("{self}: it cannot be read: {error}"))?)
    }
}

impl fmt::Display for FlagFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flag, self.path.display())
    }
}

/// Files that make sense only together.
pub fn all_or_none<const N: usize>(
    flags: [(&'static str, &Option<PathBuf>); N],
) -> Result<Option<[FlagFile; N]>, Failure> {
    let given = flags.iter().find(|(_, path)| path.is_some());
    let missing = flags.iter().find(|(_, path)| path.is_none());
    match (given, missing) {
        (None, _) => Ok(None),
        (Some((given, _)), Some((missing, _))) => {
            Err(format!("{given} is given and {missing} is not: they go together").into())
        }
        (Some(_), None) => Ok(Some(
            flags.map(|(flag, path)| FlagFile::new(flag, path.as_deref().unwrap_or_else(|| Path::new("")))),
        )),
    }
}

/// What tells one file from another under the same name, behind all links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    /// `None`: it is not there.
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        let modified = (about.mtime(), about.mtime_nsec());
        Some(Self { device: about.dev(), inode: about.ino(), modified, size: about.size() })
    }
}

/// Files as they were when this was made: before they are read for the first time, so that no change is missed.
pub struct WatchedFiles {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

impl WatchedFiles {
    /// Looks at the files for the first time.
    pub fn new<'a>(files: impl IntoIterator<Item = &'a FlagFile>) -> Self {
        let files: Vec<_> = files.into_iter().map(|file| file.path.clone()).collect();
        let seen = stamps(&files);
        Self { files, seen }
    }

    /// From now on calls `take` whenever a file has become another one, as long as the process runs. What `take` refuses is told
    /// once and tried again: two files that belong together need not change in the same moment.
    pub fn follow(
        self,
        what: What,
        security: &Security,
        mut take: impl FnMut() -> Result<(), Failure> + Send + 'static,
    ) {
        let (Self { files, mut seen }, security) = (self, security.clone());
        tokio::spawn(async move {
            let mut refused: Option<String> = None;
            loop {
                tokio::time::sleep(LOOK).await;
                let now = stamps(&files);
                if now == seen && refused.is_none() {
                    continue;
                }
                seen = now;
                let taken = take().map_err(|error| error.to_string());
                match taken {
                    Ok(()) => {
                        security.reloaded(what, Reload::Taken);
                        tracing::info!(what = what.as_str(), "read again");
                        refused = None;
                    }
                    Err(why) if refused.as_ref() == Some(&why) => {}
                    Err(why) => {
                        security.reloaded(what, Reload::Refused);
                        tracing::error!("{why}; the old {} still hold", what.as_str());
                        refused = Some(why);
                    }
                }
            }
        });
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|path| Stamp::of(path)).collect()
}
