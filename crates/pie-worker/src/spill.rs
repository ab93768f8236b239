//! Blocks of rows on disk: what a rank wrote before is not encoded again after its rows went, or its process.
//!
//! **Invariant.** What is read is what was written, for the same tokens, by the same slice of the same model: a file that is torn, or another's,
//! is not there ([`file`]). Nobody waits for a disk longer than [`PATIENCE`], and what is on it is bounded ([`folder`]).

mod file;
mod folder;

use file::BlockShape;
use folder::BlockFolder;
use pie_kv::KvShape;
use pie_model::KvRows;
use pie_plan::blocks::{BLOCK, Realm};
use pie_words::TokenId;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

/// A block that a disk has not given by then is encoded instead: all ranks and sessions wait for it.
const PATIENCE: Duration = Duration::from_millis(300);
/// Blocks that wait to be written; more are left out.
const WRITES: usize = 8;
/// A folder that holds fewer is of no use.
const LEAST_BLOCKS: u64 = 4;
/// Names that are remembered, so that nothing is read from the cache to be written a second time.
const KNOWN: usize = 1 << 16;

/// Where blocks are, and how much of them.
#[derive(Clone, Debug)]
pub struct SpillOptions {
    /// The folder. Several ranks, groups and models may have one.
    pub folder: PathBuf,
    /// All that makes rows what they are beside the tokens: the model's weights, the rank's slice, its arithmetic.
    pub identity: String,
    /// Bytes of everything in the folder.
    pub limit: u64,
}

/// What became of blocks.
#[derive(Debug, Default)]
pub struct BlockCounts {
    /// Written to disk.
    pub written: AtomicU64,
    /// BlockRead back.
    pub read: AtomicU64,
    /// Files that were not what their names say.
    pub torn: AtomicU64,
    /// Not written, since the disk failed or was too slow.
    pub failed: AtomicU64,
}

/// A block's name: its tokens and all before them, in its realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockName {
    realm: Realm,
    tokens: u128,
}

impl BlockName {
    /// The name of the block at the end of these tokens.
    pub fn new(tokens: &[TokenId], realm: Realm) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::with_seed(realm.0);
        tokens.iter().for_each(|token| hasher.update(&token.0.to_le_bytes()));
        Self { realm, tokens: hasher.digest128() }
    }
}

/// A rank's blocks on disk.
pub struct Spill {
    reads: SyncSender<BlockRead>,
    writes: SyncSender<BlockWrite>,
    /// A read is going on that was given up.
    is_stuck: Arc<AtomicBool>,
    known: RefCell<HashSet<BlockName>>,
    counts: Arc<BlockCounts>,
}

struct BlockRead {
    key: BlockName,
    reply: SyncSender<Option<Vec<KvRows>>>,
}

struct BlockWrite {
    key: BlockName,
    /// None, where it is there: it is of use.
    layers: Option<Vec<KvRows>>,
}

impl Spill {
    /// Opens the folder, or makes it, for a cache of this shape.
    ///
    /// # Errors
    /// The folder cannot be made, or written to, or may not hold a few blocks; the operating system refuses a thread.
    pub fn open(options: &SpillOptions, shape: KvShape) -> std::io::Result<Self> {
        let shape = BlockShape { layers: shape.layers, rows: BLOCK, numbers: shape.numbers() };
        let least = LEAST_BLOCKS * shape.bytes() as u64;
        if options.limit < least {
            let why = format!(
                "{} bytes are too few: {least} hold {LEAST_BLOCKS} blocks of {BLOCK} tokens",
                options.limit
            );
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        let folder = Arc::new(BlockFolder::open(options)?);
        let (reads, to_read) = sync_channel(1);
        let (writes, to_write) = sync_channel(WRITES);
        let (is_stuck, counts) = (Arc::new(AtomicBool::new(false)), Arc::<BlockCounts>::default());
        let reader =
            BlockReader { folder: folder.clone(), shape, is_stuck: is_stuck.clone(), counts: counts.clone() };
        std::thread::Builder::new().name("spill-read".into()).spawn(move || reader.run(&to_read))?;
        let writer = BlockWriter { folder, shape, counts: counts.clone() };
        std::thread::Builder::new().name("spill-write".into()).spawn(move || writer.run(&to_write))?;
        Ok(Self { reads, writes, is_stuck, known: RefCell::default(), counts })
    }

    /// What became of blocks.
    pub fn counts(&self) -> Arc<BlockCounts> {
        self.counts.clone()
    }

    /// The rows of a block by layer, if they are there, whole, and come in time.
    pub(crate) fn read(&self, key: BlockName) -> Option<Vec<KvRows>> {
        if self.is_stuck.load(Ordering::Acquire) {
            return None;
        }
        let (reply, answer) = sync_channel(1);
        self.is_stuck.store(true, Ordering::Release);
        if self.reads.try_send(BlockRead { key, reply }).is_err() {
            return None;
        }
        let rows = answer.recv_timeout(PATIENCE);
        if rows.is_err() {
            tracing::warn!("the disk of --kv-spill does not answer: rows are encoded until it does");
        }
        let rows = rows.ok().flatten();
        // What has gone meanwhile is written again.
        match rows {
            Some(_) => self.remember(key),
            None => {
                self.known.borrow_mut().remove(&key);
            }
        }
        rows
    }

    /// Whether a block was written or read here lately.
    pub(crate) fn knows(&self, key: BlockName) -> bool {
        self.known.borrow().contains(&key)
    }

    /// Has a block written, if the disk keeps up.
    pub(crate) fn write(&self, key: BlockName, layers: Vec<KvRows>) {
        match self.writes.try_send(BlockWrite { key, layers: Some(layers) }) {
            Ok(()) => self.remember(key),
            Err(_) => drop(self.counts.failed.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// A block that is there is of use: others go before it.
    pub(crate) fn keep(&self, key: BlockName) {
        // Where the disk does not keep up it goes a little earlier.
        let _ = self.writes.try_send(BlockWrite { key, layers: None });
    }

    fn remember(&self, key: BlockName) {
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(key);
    }
}

struct BlockReader {
    folder: Arc<BlockFolder>,
    shape: BlockShape,
    is_stuck: Arc<AtomicBool>,
    counts: Arc<BlockCounts>,
}

impl BlockReader {
    fn run(self, reads: &Receiver<BlockRead>) {
        while let Ok(BlockRead { key, reply }) = reads.recv() {
            let path = self.folder.path_of(key);
            let rows = self.read(&path, key);
            if rows.is_some() {
                self.folder.used(&path);
            }
            self.is_stuck.store(false, Ordering::Release);
            // Who asked may have gone on without it.
            let _ = reply.send(rows);
        }
    }

    fn read(&self, path: &Path, key: BlockName) -> Option<Vec<KvRows>> {
        let bytes = std::fs::read(path).ok()?;
        match file::decode(&bytes, key.tokens, self.shape) {
            Ok(layers) => {
                self.counts.read.fetch_add(1, Ordering::Relaxed);
                Some(layers)
            }
            Err(why) => {
                tracing::warn!(file = %path.display(), %why, "rows on disk are not what they should be: they are encoded again");
                self.counts.torn.fetch_add(1, Ordering::Relaxed);
                // It can only be in the way.
                let _ = std::fs::remove_file(path);
                None
            }
        }
    }
}

struct BlockWriter {
    folder: Arc<BlockFolder>,
    shape: BlockShape,
    counts: Arc<BlockCounts>,
}

impl BlockWriter {
    fn run(self, writes: &Receiver<BlockWrite>) {
        self.folder.sweep();
        while let Ok(BlockWrite { key, layers }) = writes.recv() {
            let path = self.folder.path_of(key);
            let Some(layers) = layers.filter(|_| !path.exists()) else {
                self.folder.used(&path);
                continue;
            };
            match self.folder.write(&path, &file::encode(&layers, key.tokens, self.shape)) {
                Ok(()) => self.counts.written.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    if self.counts.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                        tracing::warn!(file = %path.display(), %error, "rows cannot be written to --kv-spill");
                    }
                    0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_has_gone_meanwhile_is_written_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options =
            SpillOptions { folder: folder.path().to_owned(), identity: "a test".to_owned(), limit: 1 << 20 };
        let shape = KvShape { layers: 2, kv_heads: 1, head_dim: 2, slots: 300 };
        let spill = Spill::open(&options, shape).expect("a folder");
        let key = BlockName::new(&[TokenId(1); BLOCK], Realm(3));
        let rows = || KvRows { keys: vec![0.5; 2 * BLOCK], values: vec![1.5; 2 * BLOCK] };
        for turn in 1..=2 {
            assert!(!spill.knows(key), "turn {turn}");
            spill.write(key, vec![rows(), rows()]);
            let end = Instant::now() + Duration::from_secs(10);
            while spill.counts().written.load(Ordering::Relaxed) < turn {
                assert!(Instant::now() < end, "it is written");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(spill.knows(key));
            assert_eq!(spill.read(key), Some(vec![rows(), rows()]));
            std::fs::remove_dir_all(folder.path()).expect("it goes");
            assert_eq!(spill.read(key), None);
        }
        let small = SpillOptions { limit: 100, ..options };
        let refused = Spill::open(&small, shape).map(|_| ()).expect_err("it holds nothing");
        assert!(refused.to_string().contains("too few"), "{refused}");
    }
}
