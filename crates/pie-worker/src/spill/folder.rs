//! The files of blocks, and the bound of them: what was not used for longest goes.

use super::{BlockName, SpillOptions};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use xxhash_rust::xxh3::xxh3_128;

/// Blocks that nobody used for so long go in any case.
const MOST_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// After so large a part of the limit has been written here the folder is looked through: others write to it too.
const SWEPT_PARTS: u64 = 64;
const FOLDER: &str = "pie-rows";
const ENDING: &str = "rows";
const PARTIAL: &str = "partial";
/// What is still half written after so long is left over from a process that ended.
const LEFT_OVER: Duration = Duration::from_secs(600);

/// A folder of its own in the one that was named: `IDENTITY/REALM/NAME.rows`. Whatever else stands there is not looked at.
pub struct BlockFolder {
    root: PathBuf,
    own: PathBuf,
    limit: u64,
    written: AtomicU64,
}

/// A block on disk.
struct BlockFile {
    used: SystemTime,
    bytes: u64,
    path: PathBuf,
}

impl BlockFolder {
    /// Opens it, or makes it.
    pub fn open(options: &SpillOptions) -> std::io::Result<Self> {
        let identity = xxh3_128(options.identity.as_bytes());
        let root = options.folder.join(FOLDER);
        let own = root.join(format!("{identity:032x}"));
        make(&own)?;
        Ok(Self { root, own, limit: options.limit, written: AtomicU64::new(0) })
    }

    /// Where a block is, or would be.
    pub fn path_of(&self, key: BlockName) -> PathBuf {
        let (realm, name) = (key.realm.0, key.tokens);
        self.own.join(format!("{realm:016x}")).join(format!("{name:032x}.{ENDING}"))
    }

    /// A block was of use: others go before it.
    pub fn used(&self, path: &Path) {
        // Where that fails it goes a little earlier.
        let _ =
            fs::File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Writes a file whole, or not at all.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        if let Some(realm) = path.parent() {
            make(realm)?;
        }
        // Others may write the same block, from other machines too.
        let moment = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let partial = path.with_extension(format!("{}-{moment}.{PARTIAL}", std::process::id()));
        let written = create(&partial)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&partial, path));
        if let Err(error) = written {
            let _ = fs::remove_file(&partial);
            self.sweep();
            return Err(error);
        }
        let length = bytes.len() as u64;
        let unswept = self.written.fetch_add(length, Ordering::Relaxed) + length;
        if unswept >= self.limit / SWEPT_PARTS {
            self.sweep();
        }
        Ok(())
    }

    /// What is too old goes, and of the rest what was not used for longest, until it is within the limit.
    pub fn sweep(&self) {
        self.written.store(0, Ordering::Relaxed);
        let mut all = Vec::new();
        for identity in entries(&self.root) {
            for realm in entries(&identity) {
                for path in entries(&realm) {
                    let data = fs::symlink_metadata(&path).ok();
                    let Some(data) = data.filter(|data| data.is_file() && is_ours(&path)) else { continue };
                    let used = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    all.push(BlockFile { used, bytes: data.len(), path });
                }
            }
        }
        all.sort_by_key(|held| held.used);
        let mut bytes: u64 = all.iter().map(|held| held.bytes).sum();
        // With room for what is written until the next look.
        let most = self.limit - self.limit / SWEPT_PARTS;
        let now = SystemTime::now();
        for held in all {
            let age = now.duration_since(held.used).unwrap_or_default();
            let is_partial = held.path.extension().is_some_and(|ending| ending == PARTIAL);
            let is_left_over = is_partial && age > LEFT_OVER;
            if (bytes > most || age > MOST_AGE || is_left_over) && fs::remove_file(&held.path).is_ok() {
                bytes -= held.bytes;
            }
        }
    }
}

/// Whether a file is a block, or was to be one, by its name.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (name, ending) = name.split_once('.').unwrap_or_default();
    let is_name = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name && (ending == ENDING || ending.ends_with(PARTIAL))
}

/// What stands in a folder; nothing, where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

/// Makes a folder for its owner alone: rows are made of what people write, and tell of it.
fn make(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }
    #[cfg(not(unix))]
    fs::create_dir_all(folder)
}

fn create(path: &Path) -> std::io::Result<fs::File> {
    let mut options = fs::File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pie_plan::blocks::Realm;

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = |identity: &str| SpillOptions {
            folder: folder.path().to_owned(),
            identity: identity.to_owned(),
            limit: 64 * 100,
        };
        let (ours, theirs) =
            (BlockFolder::open(&options("a")).unwrap(), BlockFolder::open(&options("b")).unwrap());
        let key = |number: u32| BlockName { realm: Realm(u64::from(number % 3)), tokens: u128::from(number) };
        let age = |path: &Path, seconds: u64| {
            let used = SystemTime::now() - Duration::from_secs(seconds);
            fs::File::options().append(true).open(path).and_then(|file| file.set_modified(used)).unwrap();
        };
        for number in 0..60 {
            let of = if number % 2 == 0 { &ours } else { &theirs };
            of.write(&of.path_of(key(number)), &[7; 100]).unwrap();
            age(&of.path_of(key(number)), 1000 - u64::from(number));
        }
        ours.used(&ours.path_of(key(0)));
        age(&theirs.path_of(key(59)), 8 * 24 * 3600);
        // What is nobody's block stays, however old, in their folders or beside them.
        let strangers =
            ["pie-rows/a/b/notes.txt", "work/project/src/main.rs"].map(|path| folder.path().join(path));
        for stranger in &strangers {
            fs::create_dir_all(stranger.parent().unwrap()).unwrap();
            fs::write(stranger, [7; 100_000]).unwrap();
            age(stranger, 30 * 24 * 3600);
        }
        for number in 60..90 {
            ours.write(&ours.path_of(key(number)), &[7; 100]).unwrap();
        }
        let is_there =
            |number: u32| ours.path_of(key(number)).exists() || theirs.path_of(key(number)).exists();
        let left: Vec<u32> = (0..90).filter(|number| is_there(*number)).collect();
        let wanted: Vec<u32> = [0].into_iter().chain(27..59).chain(60..90).collect();
        assert_eq!(left, wanted, "63 of both, the latest used, and none that is too old");
    }
}
