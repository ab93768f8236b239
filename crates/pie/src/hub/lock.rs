//! One process at a time changes what is there of a model. The system takes a lock from a process that ends, however it ends.

use super::problem::{Code, Problem};
use super::store::ModelCacheFolder;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const LOCK: &str = "lock";
/// How often one looks whether it is free.
const LOOK: Duration = Duration::from_millis(100);
/// Who holds it and gets nothing in this time is stuck: longer than a hub may be silent again and again, and than a slow disk takes to
/// read what a large file has so far.
const STUCK: Duration = Duration::from_secs(900);
/// Whoever removes a model removes its lock; each time it is another one who would have to do so at this moment.
const ATTEMPTS: u32 = 50;

/// Held until it is dropped.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until nobody else has it, as long as that one gets on; `waits` is called once if there is somebody.
    ///
    /// # Errors
    /// [`Code::Locked`] if the other one does not get on; [`Code::Disk`].
    pub fn take(home: &ModelCacheFolder, waits: impl FnOnce()) -> Result<Self, Problem> {
        Self::within(home, STUCK, waits)
    }

    fn within(home: &ModelCacheFolder, stuck: Duration, waits: impl FnOnce()) -> Result<Self, Problem> {
        let path = home.folder().join(LOCK);
        let (mut waits, mut held, mut since) = (Some(waits), home.held(), Instant::now());
        let mut gone = 0;
        loop {
            home.make()?;
            let file = File::options().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(|error| Problem::disk("write", &path, &error))?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => return Ok(Self { _file: file }),
                // It was removed before it was locked.
                Ok(()) if gone < ATTEMPTS => gone += 1,
                // Without locks on this file system sums tell when two have written to one file.
                Ok(()) | Err(TryLockError::Error(_)) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    std::thread::sleep(LOOK);
                }
            }
            let now = home.held();
            if now != held {
                (held, since) = (now, Instant::now());
            }
            if since.elapsed() > stuck {
                let what = format!(
                    "another process has {} locked and has got nothing in {} s: end it (`fuser {}` tells which), and give the command \
                     again",
                    home.place(),
                    stuck.as_secs(),
                    path.display()
                );
                return Err(Problem::new(Code::Locked, what));
            }
        }
    }
}

/// Whether a path still is the file that was opened there.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(here), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (here.dev(), here.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use super::super::places::ModelReference;
    use super::super::store::Store;
    use super::*;

    #[test]
    fn one_at_a_time_and_nobody_waits_for_ever() {
        let place = tempfile::tempdir().expect("room");
        let home =
            Store::at(place.path().to_owned()).home(&ModelReference::of("hf:acme/tiny").expect("a place"));
        let first = Lock::take(&home, || panic!("nobody else is there")).expect("it is free");
        let mut waited = false;
        let refused = Lock::within(&home, Duration::from_millis(300), || waited = true);
        let problem = refused.err().expect("the first has it");
        assert!(waited && problem.code == Code::Locked && problem.what.contains("hf:acme/tiny"), "{problem}");
        // Who removes a model with its lock leaves the next one a lock that is there.
        home.remove().expect("it was there");
        let second = Lock::take(&home, || {}).expect("another file");
        drop(first);
        assert!(Lock::within(&home, Duration::from_millis(300), || {}).is_err());
        drop(second);
        Lock::take(&home, || {}).expect("it is free");
    }
}
