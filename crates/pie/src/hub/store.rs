//! Models that were fetched, in the user's cache: a folder for each place, with a manifest beside the files. What lies there is
//! believed by its sum, not by its name.
//!
//! ```text
//! hub/OWNER--NAME[--FILE.gguf]@REVISION/manifest.json     written last, so that it names what is whole
//!                                      /lock              of the process that changes something here
//!                                      /FILE.SUM.part     what a fetch has of a file
//!                                      /model/NAME/…      the files: the folder that a model is loaded from
//! ```

use super::api::Remote;
use super::part::{PART, Sums};
use super::places::ModelReference;
use super::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const MANIFEST: &str = "manifest.json";
/// A folder of its own, since repositories may have any name.
const MODEL: &str = "model";
/// A larger manifest is none.
const MANIFEST_LIMIT: u64 = 4 << 20;
/// Parts that nobody has added to for so long are given up.
const OLD: Duration = Duration::from_secs(14 * 24 * 3600);

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its path in the repository.
    pub path: String,
    /// Its length.
    pub size: u64,
    /// Its sum when it came.
    pub sha256: String,
    /// Its name in git, where the hub has it in git.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
    /// When it was last changed: if that is still so, its sum is not made again.
    pub modified_ns: i128,
}

impl ManifestFile {
    /// Its name in the cache.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether it is the same file as one of the hub.
    pub fn is(&self, remote: &Remote) -> bool {
        let sums = Sums { sha256: self.sha256.clone(), git: self.git.clone().unwrap_or_default() };
        self.path == remote.path && self.size == remote.size && sums.are(&remote.digest)
    }
}

/// What stands beside the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The place, as it is written.
    pub place: String,
    /// Whose it was.
    pub endpoint: String,
    /// Of which commit.
    pub commit: String,
    /// All files of the model.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// What the cache has of a place.
#[derive(Debug)]
pub enum DownloadState {
    /// Nothing that is whole.
    Absent,
    /// All files, as they came.
    Whole(Manifest),
    /// Some are not as they came: these, and why.
    Broken(Manifest, Vec<String>),
}

/// How closely files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationLevel {
    /// Sizes and times of change; where those differ, the sum.
    Quick,
    /// The sum of each.
    Full,
}

/// All models that were fetched.
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// In a folder, which need not be there yet.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A place's home in it.
    pub fn home(&self, place: &ModelReference) -> ModelCacheFolder {
        ModelCacheFolder { folder: self.root.join(place.key()), place: place.clone() }
    }

    /// The homes of all places that something is there of, whole or not, in order.
    pub fn homes(&self) -> Vec<ModelCacheFolder> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut homes: Vec<_> =
            entries.filter_map(|entry| self.home_of(&entry.file_name().to_string_lossy())).collect();
        homes.sort_by(|one, other| one.folder.cmp(&other.folder));
        homes
    }

    /// Folders of other names are not the store's.
    fn home_of(&self, key: &str) -> Option<ModelCacheFolder> {
        let (path, revision) = key.split_once('@')?;
        let mut parts = path.splitn(3, "--").map(|part| part.replace("%2F", "/"));
        let (owner, name) = (parts.next()?, parts.next()?);
        let file = parts.next().map(|file| format!("/{file}")).unwrap_or_default();
        let place =
            ModelReference::of(&format!("hf:{owner}/{name}{file}@{}", revision.replace("%2F", "/"))).ok()?;
        (place.key() == key).then(|| self.home(&place))
    }

    /// Clears away what fetches left that nobody has gone on with.
    pub fn clear_old_parts(&self) {
        for home in self.homes() {
            for (path, about) in home.parts() {
                let age = about.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
                if age.is_some_and(|age| age > OLD) {
                    // What cannot be removed is found the next time.
                    let _ = fs::remove_file(path);
                }
            }
        }
    }
}

/// Where a place's files are.
pub struct ModelCacheFolder {
    folder: PathBuf,
    place: ModelReference,
}

impl ModelCacheFolder {
    /// The place.
    pub fn place(&self) -> &ModelReference {
        &self.place
    }

    /// All that belongs to the place.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the files. Its name is the model's, which a pool shows.
    pub fn files(&self) -> PathBuf {
        self.folder.join(MODEL).join(&self.place.name)
    }

    /// What a model is loaded from: the folder, or its one file.
    pub fn model(&self) -> PathBuf {
        match &self.place.file {
            None => self.files(),
            Some(file) => self.files().join(file.rsplit('/').next().unwrap_or(file)),
        }
    }

    /// Makes the folders.
    pub fn make(&self) -> Result<(), Problem> {
        fs::create_dir_all(self.files()).map_err(|error| Problem::disk("make", &self.files(), &error))
    }

    /// What is there. A file that was only touched is whole, and its new time is remembered.
    pub fn state(&self, look: VerificationLevel, mut read: impl FnMut(u64)) -> DownloadState {
        let Some(mut manifest) = self.manifest() else { return DownloadState::Absent };
        let (mut broken, mut touched) = (Vec::new(), false);
        for file in &mut manifest.files {
            match self.inspect(file, look, &mut read) {
                Ok(modified) => {
                    touched |= modified != file.modified_ns;
                    file.modified_ns = modified;
                }
                Err(why) => broken.push(format!("{} {why}", file.name())),
            }
        }
        if !broken.is_empty() {
            return DownloadState::Broken(manifest, broken);
        }
        if touched {
            // Where it cannot be written the sums are made again at the next start.
            let _ = self.write(&manifest);
        }
        DownloadState::Whole(manifest)
    }

    /// When a file that is as it came was changed last, or what is wrong with it.
    fn inspect(
        &self,
        file: &ManifestFile,
        look: VerificationLevel,
        read: &mut impl FnMut(u64),
    ) -> Result<i128, String> {
        let path = self.files().join(file.name());
        let about = fs::metadata(&path).map_err(|error| format!("cannot be read: {error}"))?;
        if about.len() != file.size {
            return Err(format!("has {} bytes instead of {}", about.len(), file.size));
        }
        let modified = modified_ns(&about);
        if look == VerificationLevel::Full || modified != file.modified_ns {
            let sums =
                Sums::of_file(&path, file.size, read).map_err(|error| format!("cannot be read: {error}"))?;
            if sums.sha256 != file.sha256 {
                return Err(format!("has the sha256 {} instead of {}", sums.sha256, file.sha256));
            }
        }
        Ok(modified)
    }

    /// The manifest, if it is this place's.
    pub fn manifest(&self) -> Option<Manifest> {
        let path = self.folder.join(MANIFEST);
        let text = fs::metadata(&path)
            .ok()
            .filter(|about| about.len() <= MANIFEST_LIMIT)
            .and_then(|_| fs::read(&path).ok())?;
        let manifest: Manifest = serde_json::from_slice(&text).ok()?;
        let is_plain = |file: &ManifestFile| super::places::is_plain(file.name());
        let is_ours = manifest.place == self.place.to_string()
            && !manifest.files.is_empty()
            && manifest.files.iter().all(is_plain);
        is_ours.then_some(manifest)
    }

    /// From now on these files are what is there; others go.
    pub fn settle(&self, manifest: &Manifest) -> Result<(), Problem> {
        self.write(manifest)?;
        let wanted = |name: &str| manifest.files.iter().any(|file| file.name() == name);
        for entry in fs::read_dir(self.files()).into_iter().flatten().flatten() {
            if !wanted(&entry.file_name().to_string_lossy()) {
                // It is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
        self.parts().into_iter().for_each(|(path, _)| drop(fs::remove_file(path)));
        Ok(())
    }

    fn write(&self, manifest: &Manifest) -> Result<(), Problem> {
        let (path, draft) =
            (self.folder.join(MANIFEST), self.folder.join(format!("{MANIFEST}.{}", std::process::id())));
        let text = serde_json::to_vec_pretty(manifest)
            .map_err(|error| Problem::new(Code::Disk, error.to_string()))?;
        let written = fs::write(&draft, text)
            .and_then(|()| fs::File::open(&draft)?.sync_all())
            .and_then(|()| fs::rename(&draft, &path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written.map_err(|error| Problem::disk("write", &path, &error))
    }

    /// What fetches have begun and not ended.
    pub fn parts(&self) -> Vec<(PathBuf, Metadata)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_part = |path: &Path| path.extension().is_some_and(|end| end == PART);
        let parts = entries.map(|entry| entry.path()).filter(|path| is_part(path));
        parts.filter_map(|path| Some((path.clone(), fs::metadata(path).ok()?))).collect()
    }

    /// Bytes of all that is there.
    pub fn held(&self) -> u64 {
        let files = fs::read_dir(self.files()).into_iter().flatten().flatten();
        let files = files.filter_map(|entry| entry.metadata().ok()).map(|about| about.len()).sum::<u64>();
        files + self.parts().iter().map(|(_, about)| about.len()).sum::<u64>()
    }

    /// Removes all of it. A process that has the files mapped keeps them until it ends.
    pub fn remove(&self) -> Result<(), Problem> {
        // First what makes the rest a model.
        let _ = fs::remove_file(self.folder.join(MANIFEST));
        fs::remove_dir_all(&self.folder).map_err(|error| Problem::disk("remove", &self.folder, &error))
    }
}

/// When a file was changed last, as exactly as its file system knows.
pub fn modified_ns(about: &Metadata) -> i128 {
    i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(root: &Path, name: &str) -> (Store, ModelCacheFolder) {
        let store = Store::at(root.to_owned());
        let home = store.home(&ModelReference::of(name).expect("a place"));
        home.make().expect("room");
        let path = home.files().join("config.json");
        fs::write(&path, "{}").expect("room");
        let sums = Sums::of_file(&path, 2, &mut |_| {}).expect("it is there");
        let modified_ns = modified_ns(&fs::metadata(&path).expect("it is there"));
        let kept = ManifestFile {
            path: "config.json".to_owned(),
            size: 2,
            sha256: sums.sha256,
            git: Some(sums.git),
            modified_ns,
        };
        let manifest = Manifest {
            place: home.place().to_string(),
            endpoint: "https://hub".to_owned(),
            commit: "c".repeat(40),
            files: vec![kept],
        };
        home.settle(&manifest).expect("room");
        (store, home)
    }

    #[test]
    fn what_is_not_as_it_came_is_found() {
        let place = tempfile::tempdir().expect("room");
        let (_, home) = one(place.path(), "hf:acme/tiny");
        let path = home.files().join("config.json");
        let state = || home.state(VerificationLevel::Quick, |_| {});
        assert!(matches!(state(), DownloadState::Whole(_)));
        // Touched: it is as it came, and the manifest learns the new time.
        fs::write(&path, "{}").expect("room");
        let DownloadState::Whole(manifest) = state() else { panic!("it is whole") };
        assert_eq!(home.manifest(), Some(manifest));
        for (content, wanted) in [("[]", "sha256"), ("{} ", "bytes"), ("", "bytes")] {
            fs::write(&path, content).expect("room");
            let DownloadState::Broken(_, why) = state() else { panic!("{content:?} is taken") };
            assert!(why[0].contains("config.json") && why[0].contains(wanted), "{why:?}");
        }
        fs::remove_file(&path).expect("it was there");
        assert!(matches!(state(), DownloadState::Broken(..)));
        // A manifest of another place, or none, makes no model.
        for text in ["{", "", r#"{"place": "hf:acme/other", "endpoint": "", "commit": "", "files": []}"#] {
            fs::write(home.folder().join(MANIFEST), text).expect("room");
            assert!(matches!(state(), DownloadState::Absent), "{text}");
        }
    }

    #[test]
    fn a_full_look_finds_what_times_do_not_tell() {
        let place = tempfile::tempdir().expect("room");
        let (_, home) = one(place.path(), "hf:acme/tiny");
        let path = home.files().join("config.json");
        let before = fs::metadata(&path).expect("it is there").modified().expect("a time");
        fs::write(&path, "[]").expect("room");
        fs::File::options()
            .write(true)
            .open(&path)
            .expect("it is there")
            .set_modified(before)
            .expect("a time");
        assert!(
            matches!(home.state(VerificationLevel::Quick, |_| {}), DownloadState::Whole(_)),
            "size and time are as they were"
        );
        assert!(matches!(home.state(VerificationLevel::Full, |_| {}), DownloadState::Broken(..)));
    }

    #[test]
    fn homes_are_found_again_by_their_folders() {
        let place = tempfile::tempdir().expect("room");
        let names =
            ["hf:acme/tiny", "hf:acme/tiny/q4/x.gguf", "hf:acme/tiny@refs/pr/1", "hf:acme/tiny/x-1.gguf@v2"];
        for name in names {
            one(place.path(), name);
        }
        fs::create_dir(place.path().join("other")).expect("room");
        let store = Store::at(place.path().to_owned());
        let mut found: Vec<_> = store.homes().iter().map(|home| home.place().to_string()).collect();
        found.sort();
        let mut wanted = names.map(str::to_owned);
        wanted.sort();
        assert_eq!(found, wanted);
        let home = store.homes().remove(0);
        home.remove().expect("it was there");
        assert!(!home.folder().exists() && store.homes().len() == names.len() - 1);
    }
}
