//! A file that is being fetched: what has come so far, and its sums.

use super::api::{FileDigest, Remote};
use super::problem::{Code, Problem};
use super::store::{ManifestFile, ModelCacheFolder, modified_ns};
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What parts' names end in.
pub const PART: &str = "part";
/// As many digits of a sum tell parts of one file's versions apart.
const DIGITS: usize = 16;
const PIECE: usize = 1 << 20;

/// Both sums that a hub may know a file by.
pub struct Sums {
    /// SHA-256 of the content.
    pub sha256: String,
    /// What git names it by.
    pub git: String,
}

impl Sums {
    /// Of a file of that length; `read` hears of what was read.
    pub fn of_file(path: &Path, size: u64, read: &mut impl FnMut(u64)) -> std::io::Result<Self> {
        let (mut file, mut summing) = (File::open(path)?, Summing::new(size));
        summing.take(&mut file, read)?;
        Ok(summing.end())
    }

    /// Whether the hub means the same content.
    pub fn are(&self, digest: &FileDigest) -> bool {
        match digest {
            FileDigest::Sha256(hex) => *hex == self.sha256,
            FileDigest::GitBlob(hex) => *hex == self.git,
        }
    }
}

/// Sums that are being made.
struct Summing {
    sha256: Context,
    git: Context,
}

impl Summing {
    fn new(size: u64) -> Self {
        let mut git = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        git.update(format!("blob {size}\0").as_bytes());
        Self { sha256: Context::new(&SHA256), git }
    }

    fn add(&mut self, piece: &[u8]) {
        self.sha256.update(piece);
        self.git.update(piece);
    }

    fn take(&mut self, file: &mut File, read: &mut impl FnMut(u64)) -> std::io::Result<u64> {
        let (mut piece, mut all) = (vec![0; PIECE], 0);
        loop {
            let got = file.read(&mut piece)?;
            if got == 0 {
                return Ok(all);
            }
            self.add(&piece[..got]);
            all += got as u64;
            read(got as u64);
        }
    }

    fn end(self) -> Sums {
        Sums { sha256: hex::encode(self.sha256.finish()), git: hex::encode(self.git.finish()) }
    }
}

/// What there is of a file. It lies beside the files until it is whole and right.
pub struct PartialDownload {
    path: PathBuf,
    file: File,
    summing: Summing,
    length: u64,
    /// How much of it came in earlier runs.
    pub found: u64,
    remote: Remote,
}

impl PartialDownload {
    /// What earlier fetches of this very content left, or nothing.
    pub fn open(home: &ModelCacheFolder, remote: &Remote) -> Result<Self, Problem> {
        let path = home.folder().join(Self::name(remote));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Problem::disk("write", &path, &error))?;
        let mut summing = Summing::new(remote.size);
        let mut length =
            summing.take(&mut file, &mut |_| {}).map_err(|error| Problem::disk("read", &path, &error))?;
        if length > remote.size {
            file.set_len(0)
                .and_then(|()| file.rewind())
                .map_err(|error| Problem::disk("write", &path, &error))?;
            (summing, length) = (Summing::new(remote.size), 0);
        }
        Ok(Self { path, file, summing, length, found: length, remote: remote.clone() })
    }

    /// Its name: parts of other versions of the file have others.
    pub fn name(remote: &Remote) -> String {
        format!("{}.{}.{PART}", remote.name(), &remote.digest.hex()[..DIGITS])
    }

    /// How much there is.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.length == self.remote.size
    }

    /// What comes next.
    ///
    /// # Errors
    /// It is more than the file has, or the disk is full.
    pub fn add(&mut self, piece: &[u8]) -> Result<(), Problem> {
        if self.length + piece.len() as u64 > self.remote.size {
            let what = format!(
                "more comes of {} than its {} bytes: what was sent is not that file",
                self.remote.path, self.remote.size
            );
            let _ = fs::remove_file(&self.path);
            return Err(Problem::new(Code::WrongBytes, what));
        }
        let written = self.file.seek(SeekFrom::Start(self.length)).and_then(|_| self.file.write_all(piece));
        written.map_err(|error| Problem::disk("write", &self.path, &error))?;
        self.summing.add(piece);
        self.length += piece.len() as u64;
        Ok(())
    }

    /// Forgets all of it.
    pub fn begin_again(&mut self) -> Result<(), Problem> {
        self.file.set_len(0).map_err(|error| Problem::disk("write", &self.path, &error))?;
        (self.summing, self.length, self.found) = (Summing::new(self.remote.size), 0, 0);
        Ok(())
    }

    /// What is whole, if it is what the hub says.
    ///
    /// # Errors
    /// [`Code::WrongBytes`], and then nothing of it is left.
    pub fn checked(self) -> Result<Checked, Problem> {
        let sums = self.summing.end();
        if !sums.are(&self.remote.digest) {
            let _ = fs::remove_file(&self.path);
            let found = match self.remote.digest {
                FileDigest::Sha256(_) => format!("sha256 {}", sums.sha256),
                FileDigest::GitBlob(_) => format!("git blob {}", sums.git),
            };
            let what = format!(
                "{} is not what the hub says: {found} came, and {} was to come; it was thrown away",
                self.remote.path, self.remote.digest
            );
            return Err(Problem::new(Code::WrongBytes, what));
        }
        self.file.sync_all().map_err(|error| Problem::disk("write", &self.path, &error))?;
        Ok(Checked { path: self.path, sums, remote: self.remote })
    }
}

/// A part that is whole and right. It stays a part until all files of its model are, so that no model is half of one commit and half
/// of another, and a fetch that ends in between goes on with it.
pub struct Checked {
    path: PathBuf,
    sums: Sums,
    remote: Remote,
}

impl Checked {
    /// Puts it where it belongs, in one go.
    pub fn place(self, home: &ModelCacheFolder) -> Result<ManifestFile, Problem> {
        let target = home.files().join(self.remote.name());
        let placed = fs::rename(&self.path, &target).and_then(|()| fs::metadata(&target));
        let about = placed.map_err(|error| Problem::disk("write", &target, &error))?;
        let git = matches!(self.remote.digest, FileDigest::GitBlob(_)).then_some(self.sums.git);
        let (path, size, sha256) = (self.remote.path, self.remote.size, self.sums.sha256);
        Ok(ManifestFile { path, size, sha256, git, modified_ns: modified_ns(&about) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::ModelReference;
    use super::super::store::Store;
    use super::*;

    /// `printf hello | git hash-object --stdin`, and `| sha256sum`.
    const GIT: &str = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
    const SHA256_HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    fn home(root: &Path) -> ModelCacheFolder {
        let home = Store::at(root.to_owned()).home(&ModelReference::of("hf:acme/tiny").expect("a place"));
        home.make().expect("room");
        home
    }

    fn remote(digest: FileDigest) -> Remote {
        Remote { path: "x.txt".to_owned(), size: 5, digest }
    }

    #[test]
    fn a_part_goes_on_where_it_was_and_becomes_the_file() {
        for digest in [FileDigest::GitBlob(GIT.to_owned()), FileDigest::Sha256(SHA256_HEX.to_owned())] {
            let place = tempfile::tempdir().expect("room");
            let (home, remote) = (home(place.path()), remote(digest));
            PartialDownload::open(&home, &remote).expect("room").add(b"hel").expect("room");
            let mut part = PartialDownload::open(&home, &remote).expect("room");
            assert_eq!((part.found, part.is_whole()), (3, false));
            part.add(b"lo").expect("room");
            let checked = part.checked().expect("it is right");
            assert!(home.parts().len() == 1 && !home.files().join("x.txt").exists(), "it is still a part");
            let kept = checked.place(&home).expect("room");
            assert!(kept.is(&remote) && kept.sha256 == SHA256_HEX);
            assert_eq!(fs::read(home.files().join("x.txt")).expect("it is there"), b"hello");
            assert!(home.parts().is_empty());
        }
    }

    #[test]
    fn what_is_wrong_leaves_nothing() {
        let place = tempfile::tempdir().expect("room");
        let (home, remote) = (home(place.path()), remote(FileDigest::GitBlob(GIT.to_owned())));
        let mut part = PartialDownload::open(&home, &remote).expect("room");
        part.add(b"hellO").expect("room");
        let problem = part.checked().err().expect("another content");
        assert!(
            problem.code == Code::WrongBytes && problem.what.contains("x.txt") && problem.what.contains(GIT),
            "{problem}"
        );
        let mut part = PartialDownload::open(&home, &remote).expect("room");
        assert_eq!(part.add(b"hello!").expect_err("more").code, Code::WrongBytes);
        assert!(home.parts().is_empty() && !home.files().join("x.txt").exists());
        // A part that is longer than the file is none of it.
        fs::write(home.folder().join(PartialDownload::name(&remote)), "hello, world").expect("room");
        assert_eq!(PartialDownload::open(&home, &remote).expect("room").length(), 0);
    }

    #[test]
    fn a_full_disk_is_named_with_what_to_do() {
        let place = tempfile::tempdir().expect("room");
        let (home, remote) = (home(place.path()), remote(FileDigest::GitBlob(GIT.to_owned())));
        // Whatever is written to this file meets a full disk.
        std::os::unix::fs::symlink("/dev/full", home.folder().join(PartialDownload::name(&remote)))
            .expect("room");
        let path = home.folder().join(PartialDownload::name(&remote));
        let file = File::options().write(true).open(&path).expect("it is there");
        let mut part = PartialDownload { path, file, summing: Summing::new(5), length: 0, found: 0, remote };
        let problem = part.add(b"hello").expect_err("no room");
        assert!(problem.code == Code::Disk && problem.what.contains("pie model remove"), "{problem}");
    }
}
