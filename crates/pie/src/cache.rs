//! The user's cache of model folders. What lies there is checked before it is believed: files may be cut off by a full disk,
//! emptied, or changed. What is wrong is written again, whole files at a time by a rename, so that processes that do the same at
//! this moment, or have the old ones mapped, see one or the other.

use crate::Failure;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::Xxh3;

/// Sums of the files that were made for a folder.
const SUMS: &str = "checksums.json";
/// A folder of these names is one process's, until it has what it makes.
const AT_WORK: &str = ".at-work-";
/// Held by that process: who gets it finds a left-over.
const LOCK: &str = "lock";
/// What has no lock, or is of a version without one, is left over after this time.
const OLD: Duration = Duration::from_secs(3600);
/// Others may clear a new folder away before its lock is held; each time it is another one that they would have to find so soon.
const ATTEMPTS: u32 = 50;

/// A file with its content.
pub type FileContent<'a> = (&'a str, &'a [u8]);

/// Where model folders are kept.
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Below `XDG_CACHE_HOME`, or `.cache` of the home; left-overs of processes that ended are cleared away.
    pub fn of_user() -> Result<Self, Failure> {
        let root = root(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))?;
        Self::at(root)
    }

    /// Where models of hubs are, beside.
    pub fn hub() -> Result<PathBuf, Failure> {
        let root = root(std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME"))?;
        Ok(root.with_file_name("hub"))
    }

    fn at(root: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(&root).map_err(|error| format!("cannot make {}: {error}", root.display()))?;
        clear(&root);
        Ok(Self { root })
    }

    /// A folder with just these contents of these files.
    pub fn folder(&self, name: &Path, files: &[FileContent<'_>]) -> Result<PathBuf, Failure> {
        let folder = self.root.join(name);
        if !are_there(&folder, files) {
            let place = self.workplace()?;
            place.write(files)?;
            place.hand_over(&folder)?;
        }
        Ok(folder)
    }

    /// A folder with these files, and others that `make` writes to the folder that it is given; they have the sums that they
    /// had when they were made.
    pub fn made(
        &self,
        name: &str,
        files: &[FileContent<'_>],
        make: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<PathBuf, Failure> {
        let folder = self.root.join(name);
        if !(are_there(&folder, files) && have_their_sums(&folder)) {
            let place = self.workplace()?;
            make(&place.files())?;
            place.write(files)?;
            let sums = sums(&place.files())
                .map_err(|error| format!("cannot read {}: {error}", place.files().display()))?;
            place.write(&[(SUMS, serde_json::to_string_pretty(&sums)?.as_bytes())])?;
            place.hand_over(&folder)?;
        }
        Ok(folder)
    }

    fn workplace(&self) -> Result<Workplace, Failure> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match Workplace::new(&self.root) {
                Ok(Some(place)) => return Ok(place),
                Ok(None) if attempts < ATTEMPTS => {}
                Ok(None) => {
                    let root = self.root.display();
                    return Err(format!("others clear {root} away while this process writes to it").into());
                }
                Err(error) => return Err(format!("cannot write to {}: {error}", self.root.display()).into()),
            }
        }
    }
}

/// Only absolute paths name a place: an empty variable would name the working directory.
fn root(cache: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, Failure> {
    let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(cache).or_else(|| absolute(home).map(|home| home.join(".cache")));
    let base = base.ok_or(
        "no folder for the model's files: set XDG_CACHE_HOME or HOME to an absolute path, or give --model",
    )?;
    Ok(base.join("pie-pool").join("models"))
}

fn are_there(folder: &Path, files: &[FileContent<'_>]) -> bool {
    files.iter().all(|(name, content)| fs::read(folder.join(name)).is_ok_and(|found| found == *content))
}

fn have_their_sums(folder: &Path) -> bool {
    let read = || -> Option<BTreeMap<String, String>> {
        serde_json::from_slice(&fs::read(folder.join(SUMS)).ok()?).ok()
    };
    let is_right =
        |(name, wanted): (&String, &String)| sum(&folder.join(name)).is_ok_and(|found| found == *wanted);
    read().is_some_and(|wanted| !wanted.is_empty() && wanted.iter().all(is_right))
}

fn sums(folder: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sums.insert(entry.file_name().to_string_lossy().into_owned(), sum(&entry.path())?);
    }
    Ok(sums)
}

fn sum(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hasher, mut piece) = (File::open(path)?, Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(format!("{:016x}", hasher.digest())),
            read => hasher.update(&piece[..read]),
        }
    }
}

/// Where a process makes files: on the cache's file system, so that they can be renamed into it.
struct Workplace {
    path: PathBuf,
    _lock: File,
}

impl Workplace {
    /// None if somebody cleared it away.
    fn new(root: &Path) -> std::io::Result<Option<Self>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = root.join(format!("{AT_WORK}{}-{now}", std::process::id()));
        fs::create_dir_all(path.join("files"))?;
        let lock = match File::create(path.join(LOCK)) {
            Ok(lock) => lock,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Ok(None);
        }
        // Whoever had the lock first has cleared the folder away, lock and all. (Without locks on this file system nothing is
        // cleared away before it is old.)
        if !path.join(LOCK).exists() {
            return Ok(None);
        }
        Ok(Some(Self { path, _lock: lock }))
    }

    fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    fn write(&self, files: &[FileContent<'_>]) -> Result<(), Failure> {
        for (name, content) in files {
            let path = self.files().join(name);
            fs::write(&path, content).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(())
    }

    /// Puts all files into a folder, each in one go.
    fn hand_over(self, folder: &Path) -> Result<(), Failure> {
        let moved = fs::create_dir_all(folder).and_then(|()| {
            fs::read_dir(self.files())?.try_for_each(|entry| {
                let entry = entry?;
                fs::rename(entry.path(), folder.join(entry.file_name()))
            })
        });
        Ok(moved.map_err(|error| format!("cannot write to {}: {error}", folder.display()))?)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // What cannot be removed now is a left-over for the next process.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Clears away what processes left that ended before they were done: of this version at once, of older ones when it is old.
fn clear(root: &Path) {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().collect::<Vec<_>>();
    let is_old = |path: &Path| {
        let age = fs::metadata(path).and_then(|about| about.modified()).ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > OLD)
    };
    for entry in entries(root) {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        // Whoever cannot remove something leaves it to others.
        if name.starts_with(AT_WORK) {
            let lock = File::open(path.join(LOCK));
            let is_left = lock.as_ref().map_or_else(|_| is_old(&path), |lock| lock.try_lock().is_ok());
            if is_left {
                let _ = fs::remove_dir_all(&path);
            }
        } else if name.ends_with(".making") && is_old(&path) {
            let _ = fs::remove_dir_all(&path);
        } else {
            for inner in entries(&path).into_iter().flat_map(|entry| {
                let path = entry.path();
                if path.is_dir() { entries(&path) } else { vec![entry] }
            }) {
                if inner.path().extension().is_some_and(|end| end == "partial") && is_old(&inner.path()) {
                    let _ = fs::remove_file(inner.path());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const FILES: [FileContent<'static>; 2] = [("config.json", b"{}"), ("tokenizer.json", b"words")];

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("one").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// What may happen to a file of a cache.
    type Damage = (&'static str, fn(&Path));

    fn damages() -> [Damage; 5] {
        [
            ("removed", |path| fs::remove_file(path).expect("it was there")),
            ("emptied", |path| fs::write(path, "").expect("room")),
            ("cut off", |path| {
                let content = fs::read(path).expect("it was there");
                fs::write(path, &content[..content.len() - 1]).expect("room");
            }),
            ("noise", |path| {
                let mut content = fs::read(path).expect("it was there");
                let middle = content.len() / 2;
                content[middle] ^= 0x10;
                fs::write(path, content).expect("room");
            }),
            ("longer", |path| {
                let content = [fs::read(path).expect("it was there"), b"x".to_vec()].concat();
                fs::write(path, content).expect("room");
            }),
        ]
    }

    #[test]
    fn files_that_are_not_as_they_were_are_written_again() {
        let place = tempfile::tempdir().expect("room");
        let cache = Cache::at(place.path().join("models")).expect("a cache");
        let made = Cell::new(0);
        let make = |folder: &Path| -> Result<(), Failure> {
            made.set(made.get() + 1);
            Ok(fs::write(folder.join("model.safetensors"), b"weights")?)
        };
        let (plain, with_weights) = (
            || cache.folder(Path::new("a/b"), &FILES).expect("room"),
            || cache.made("c", &FILES, make).expect("room"),
        );
        let (first, second) = (plain(), with_weights());
        assert_eq!(names(&first), ["config.json", "tokenizer.json"]);
        assert_eq!(names(&second), [SUMS, "config.json", "model.safetensors", "tokenizer.json"]);
        with_weights();
        assert_eq!(made.get(), 1, "what is whole is not made again");
        for (how, damage) in damages() {
            for name in names(&first) {
                damage(&first.join(name));
                assert!(are_there(&plain(), &FILES), "{how}");
            }
            for name in names(&second) {
                let before = made.get();
                damage(&second.join(&name));
                with_weights();
                let weights = fs::read(second.join("model.safetensors")).expect("it is there");
                assert!(weights == b"weights" && are_there(&second, &FILES), "{name} {how}");
                assert_eq!(made.get(), before + 1, "{name} {how}");
            }
        }
        assert_eq!(names(&place.path().join("models")), ["a", "c"], "nothing is left over");
    }

    #[test]
    fn what_fails_and_who_dies_leaves_nothing() {
        let place = tempfile::tempdir().expect("room");
        let root = place.path().join("models");
        let cache = Cache::at(root.clone()).expect("a cache");
        // Nobody can put a file where a folder is: as little as on a full disk.
        fs::create_dir_all(root.join("a/tokenizer.json/full")).expect("room");
        let error = cache.folder(Path::new("a"), &FILES).expect_err("no room").to_string();
        assert!(error.contains("cannot write to"), "{error}");
        let error = cache.made("b", &[], |_| Err("no space left".into())).expect_err("no room").to_string();
        assert!(error.contains("no space left"), "{error}");
        assert_eq!(names(&root), ["a"]);
        // Of one who is at work nothing is taken; of one who died in the middle all is.
        let at_work = cache.workplace().expect("room");
        at_work.write(&FILES).expect("room");
        let dead = root.join(format!("{AT_WORK}1-1"));
        fs::create_dir_all(dead.join("files")).expect("room");
        File::create(dead.join(LOCK)).expect("room");
        Cache::at(root.clone()).expect("a cache");
        assert!(at_work.files().join("config.json").is_file() && !dead.exists());
        drop(at_work);
        assert_eq!(names(&root), ["a"]);
    }

    #[test]
    fn processes_at_once_have_whole_files() {
        let place = tempfile::tempdir().expect("room");
        let root = place.path().join("models");
        std::thread::scope(|scope| {
            let one = |_| {
                scope.spawn(|| {
                    for number in 0..20 {
                        let cache = Cache::at(root.clone()).expect("a cache");
                        let folder = cache.folder(Path::new(&number.to_string()), &FILES).expect("room");
                        assert!(are_there(&folder, &FILES));
                    }
                })
            };
            let all: Vec<_> = (0..4).map(one).collect();
            all.into_iter().for_each(|one| one.join().expect("no thread panics"));
        });
        assert_eq!(names(&root).len(), 20, "nothing is left over");
    }

    #[test]
    fn only_absolute_paths_name_the_cache() {
        let table: [(Option<&str>, Option<&str>, Option<&str>); 6] = [
            (Some("/x"), Some("/home/me"), Some("/x/pie-pool/models")),
            (None, Some("/home/me"), Some("/home/me/.cache/pie-pool/models")),
            (Some(""), Some("/home/me"), Some("/home/me/.cache/pie-pool/models")),
            (Some("here"), Some(""), None),
            (None, Some(""), None),
            (None, None, None),
        ];
        for (cache, home, wanted) in table {
            let found = root(cache.map(Into::into), home.map(Into::into)).ok();
            assert_eq!(found, wanted.map(PathBuf::from), "{cache:?} {home:?}");
        }
    }
}
