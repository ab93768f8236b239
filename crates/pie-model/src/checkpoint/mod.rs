//! The weights of a model, memory-mapped: safetensors files of a folder, or a GGUF file.

mod gguf;

pub(crate) use gguf::config as settings;

use crate::config::Config;
use crate::error::ModelError;
use crate::matrix::{Matrix, RowOrder};
use crate::product::Numbers;
use memmap2::{Mmap, UncheckedAdvice};
use pie_gguf::{Gguf, Storage};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What the names of a model begin with in the file of a causal language model, beside those of its head.
const TRUNK: &str = "model.";
const HEAD: &str = "lm_head.";

/// All tensors of a model. Nothing is read before it is asked for.
pub(crate) struct Checkpoint {
    /// The folder, or the file.
    place: PathBuf,
    /// By the names of a causal language model, whatever they are called in the file.
    tensors: BTreeMap<String, CheckpointTensor>,
}

/// A tensor, of whatever type.
struct CheckpointTensor {
    /// Its storage here is [`Storage::F32`] if it is unknown.
    tensor: Tensor,
    /// What its numbers are, where they are not read.
    foreign: Option<String>,
}

/// A tensor whose numbers are of a type that is read.
#[derive(Clone)]
pub(crate) struct Tensor {
    /// Its name in the file.
    pub stored: String,
    /// Where it lies.
    pub file: Arc<(PathBuf, Mmap)>,
    bytes: Range<usize>,
    /// How its numbers are stored.
    pub storage: Storage,
    /// Rows and columns, or the length of a vector.
    pub shape: Vec<usize>,
    /// In which order its rows lie.
    pub order: RowOrder,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps the files of a folder, or a GGUF file, and reads their headers.
    pub fn open(place: &Path, config: &Config) -> Result<Self, ModelError> {
        if Gguf::is_named(place) { Self::of_gguf(place, config) } else { Self::of_folder(place) }
    }

    fn of_folder(folder: &Path) -> Result<Self, ModelError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        let mut checkpoint = Self { place: folder.to_owned(), tensors: BTreeMap::new() };
        if single.is_file() {
            let file = map(&single).map_err(|source| ModelError::File { path: single.clone(), source })?;
            checkpoint.add(&single, file)?;
        } else if index.is_file() {
            for shard in shards(&index)? {
                let path = folder.join(&shard);
                let missing = |source| ModelError::ShardMissing { index: index.clone(), shard, source };
                let file = map(&path).map_err(missing)?;
                checkpoint.add(&path, file)?;
            }
        } else {
            return Err(ModelError::NoWeights { folder: folder.to_owned() });
        }
        if !checkpoint.tensors.keys().any(|name| name.starts_with(TRUNK)) {
            // A model that was saved without its head.
            let whole = |name: String| if name.starts_with(HEAD) { name } else { format!("{TRUNK}{name}") };
            let tensors = std::mem::take(&mut checkpoint.tensors).into_iter();
            checkpoint.tensors = tensors.map(|(name, tensor)| (whole(name), tensor)).collect();
        }
        Ok(checkpoint)
    }

    fn add(&mut self, path: &Path, map: Mmap) -> Result<(), ModelError> {
        let invalid = |error: safetensors::SafeTensorError| ModelError::WeightsInvalid {
            path: path.to_owned(),
            reason: format!("not a whole safetensors file of {} bytes: {error}", map.len()),
        };
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(invalid)?;
        let infos: Vec<_> = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let file = Arc::new((path.to_owned(), map));
        // The header's length itself takes eight bytes.
        let data = header + 8;
        for (name, info) in infos {
            let (start, end) = info.data_offsets;
            let storage = match info.dtype {
                Dtype::F32 => Ok(Storage::F32),
                Dtype::F16 => Ok(Storage::F16),
                Dtype::BF16 => Ok(Storage::BF16),
                other => Err(format!("{other:?}")),
            };
            let tensor = Tensor {
                stored: name.clone(),
                file: file.clone(),
                bytes: data + start..data + end,
                storage: *storage.as_ref().unwrap_or(&Storage::F32),
                shape: info.shape,
                order: RowOrder::AsIs,
            };
            self.insert(name, CheckpointTensor { tensor, foreign: storage.err() })?;
        }
        Ok(())
    }

    fn insert(&mut self, name: String, found: CheckpointTensor) -> Result<(), ModelError> {
        let path = found.tensor.file.0.clone();
        match self.tensors.insert(name, found) {
            Some(other) => {
                let reason =
                    format!("{} stands in {} too", other.tensor.stored, other.tensor.file.0.display());
                Err(ModelError::WeightsInvalid { path, reason })
            }
            None => Ok(()),
        }
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Gives back the memory that files take in this process: what is still needed of them is read again.
    pub fn release(&self) {
        for found in self.tensors.values() {
            // SAFETY: the pages are those of a file and are never written to, so that each comes back from the file as it was.
            // That this fails costs memory, and nothing else.
            #[cfg(unix)]
            let _ = unsafe { found.tensor.file.1.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }

    /// Bytes of a tensor, packed to compute with.
    pub fn packed_bytes(&self, name: &str) -> u64 {
        let Some(CheckpointTensor { tensor, .. }) = self.tensors.get(name) else { return 0 };
        let numbers = tensor.shape.iter().product::<usize>() as u64;
        let columns = 0..tensor.shape.last().copied().unwrap_or(0);
        Numbers::of(tensor.storage, &columns).bytes(numbers)
    }

    /// Whether two tensors have the same bytes.
    pub fn are_equal(&self, one: &str, other: &str) -> bool {
        let (Some(one), Some(other)) = (self.tensors.get(one), self.tensors.get(other)) else { return false };
        let (one, other) = (&one.tensor, &other.tensor);
        one.storage == other.storage && one.shape == other.shape && one.data() == other.data()
    }

    /// That a tensor is nowhere.
    pub fn missing(&self, name: &str) -> ModelError {
        ModelError::TensorMissing { name: name.to_owned(), place: self.place.clone() }
    }

    /// That a tensor would be left out.
    pub fn unused(&self, name: &str, others: usize, why: String) -> ModelError {
        let (name, place) = match self.tensors.get(name) {
            Some(found) => (found.tensor.stored.clone(), found.tensor.file.0.clone()),
            None => (name.to_owned(), self.place.clone()),
        };
        ModelError::TensorUnused { name, place, others, why }
    }

    /// Of the configuration, and of each tensor its name, type, shape and first page: a fine-tuned model differs in these
    /// from the one that it was made of.
    pub fn fingerprint(&self, config: &Config) -> String {
        const PAGE: usize = 4096;
        let mut hasher = Xxh3::new();
        hasher.update(config.to_json().as_bytes());
        for (name, CheckpointTensor { tensor, .. }) in &self.tensors {
            hasher.update(format!("{name} {:?} {:?}", tensor.storage, tensor.shape).as_bytes());
            let bytes = tensor.data();
            hasher.update(&bytes[..bytes.len().min(PAGE)]);
        }
        format!("{:016x}", hasher.digest())
    }

    /// A matrix by name; it must have this shape and a type that is read.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, ModelError> {
        let tensor = self.tensor(name, &[rows, columns])?;
        Ok(Matrix::new(tensor.clone(), columns))
    }

    /// A vector by name, widened.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, &[length])?.clone();
        let mut numbers = vec![0.0; length];
        let matrix = Matrix::new(tensor, length);
        matrix.load(0, 0..length, &mut numbers);
        matrix.check()?;
        Ok(numbers)
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<&Tensor, ModelError> {
        let CheckpointTensor { tensor, foreign } =
            self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        let (name, place) = (tensor.stored.clone(), tensor.file.0.clone());
        if tensor.shape != expected {
            let (got, expected) = (tensor.shape.clone(), expected.to_vec());
            return Err(ModelError::TensorShape { name, place, got, expected });
        }
        match foreign {
            None => Ok(tensor),
            Some(got) => Err(ModelError::TensorType { name, place, got: got.clone() }),
        }
    }
}

impl Tensor {
    /// All of it, as it lies in the file.
    pub fn data(&self) -> &[u8] {
        &self.file.1[self.bytes.clone()]
    }
}

/// The files that an index names, each once, in order.
fn shards(index: &Path) -> Result<BTreeSet<String>, ModelError> {
    let text = std::fs::read(index).map_err(|source| ModelError::File { path: index.to_owned(), source })?;
    let invalid = |reason: String| ModelError::WeightsInvalid { path: index.to_owned(), reason };
    let parsed: Index = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    // An index comes with the download: it names files of its own folder, nothing elsewhere.
    match shards.iter().find(|shard| Path::new(shard).file_name() != Some(std::ffi::OsStr::new(shard))) {
        Some(shard) => Err(invalid(format!("it names {shard:?}, which is not a file of this folder"))),
        None => Ok(shards),
    }
}

fn map(path: &Path) -> std::io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the map is private to this process and only read. Memory stays valid as long as nobody shortens the file
    // while it is mapped, which no program can rule out for a file of another owner; model files are written once, and
    // this crate's own writer renames whole folders into place. Bytes are only ever taken as numbers, so that a file
    // changed in place can give wrong weights, but no invalid value of any type.
    unsafe { Mmap::map(&file) }
}
