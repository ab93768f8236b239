//! Safetensors files of a folder, memory-mapped: any row or part of a row of any tensor, widened to f32.

use crate::config::Config;
use crate::error::ModelError;
use crate::product::Numbers;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use xxhash_rust::xxh3::Xxh3;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// What the names of a model begin with in the file of a causal language model, beside those of its head.
const TRUNK: &str = "model.";
const HEAD: &str = "lm_head.";

/// All tensors of a folder. Nothing is read before it is asked for.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    /// By the names of a causal language model, whatever they are called in the file.
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone)]
struct Tensor {
    /// Its name in the file.
    stored: String,
    file: Arc<(PathBuf, Mmap)>,
    bytes: Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps the files and reads their headers.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
        let mut checkpoint = Self { folder: folder.to_owned(), tensors: BTreeMap::new() };
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
            let tensor = Tensor {
                stored: name.clone(),
                file: file.clone(),
                bytes: data + start..data + end,
                dtype: info.dtype,
                shape: info.shape,
            };
            if let Some(other) = self.tensors.insert(name.clone(), tensor) {
                let reason = format!("{name} stands in {} too", other.file.0.display());
                return Err(ModelError::WeightsInvalid { path: path.to_owned(), reason });
            }
        }
        Ok(())
    }

    /// The names of all tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether two tensors have the same bytes.
    pub fn are_equal(&self, one: &str, other: &str) -> bool {
        let (Some(one), Some(other)) = (self.tensors.get(one), self.tensors.get(other)) else { return false };
        one.dtype == other.dtype && one.shape == other.shape && one.data() == other.data()
    }

    /// That a tensor is nowhere.
    pub fn missing(&self, name: &str) -> ModelError {
        ModelError::TensorMissing { name: name.to_owned(), place: self.folder.clone() }
    }

    /// That a tensor would be left out.
    pub fn unused(&self, name: &str, others: usize, why: String) -> ModelError {
        let (name, place) = match self.tensors.get(name) {
            Some(tensor) => (tensor.stored.clone(), tensor.file.0.clone()),
            None => (name.to_owned(), self.folder.clone()),
        };
        ModelError::TensorUnused { name, place, others, why }
    }

    /// Of the configuration, and of each tensor its name, type, shape and first page: a fine-tuned model differs in these
    /// from the one that it was made of.
    pub fn fingerprint(&self, config: &Config) -> String {
        const PAGE: usize = 4096;
        let mut hasher = Xxh3::new();
        hasher.update(config.to_json().as_bytes());
        for (name, tensor) in &self.tensors {
            hasher.update(format!("{name} {:?} {:?}", tensor.dtype, tensor.shape).as_bytes());
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
        let tensor = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        let place = || tensor.file.0.clone();
        if tensor.shape != expected {
            let (got, expected) = (tensor.shape.clone(), expected.to_vec());
            let name = tensor.stored.clone();
            return Err(ModelError::TensorShape { name, place: place(), got, expected });
        }
        match tensor.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(tensor),
            other => Err(ModelError::TensorType {
                name: tensor.stored.clone(),
                place: place(),
                got: format!("{other:?}"),
            }),
        }
    }
}

impl Tensor {
    fn data(&self) -> &[u8] {
        &self.file.1[self.bytes.clone()]
    }
}

/// A matrix that stays in its file.
pub(crate) struct Matrix {
    tensor: Tensor,
    columns: usize,
    /// The place of the first number that was loaded and is none.
    wrong: AtomicUsize,
}

/// Nothing is wrong.
const NOTHING: usize = usize::MAX;

impl Matrix {
    fn new(tensor: Tensor, columns: usize) -> Self {
        Self { tensor, columns, wrong: AtomicUsize::new(NOTHING) }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.tensor.shape[0]
    }

    /// Columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How its numbers can be kept without changing them.
    pub fn numbers(&self) -> Numbers {
        if self.tensor.dtype == Dtype::BF16 { Numbers::Bf16 } else { Numbers::F32 }
    }

    /// Some columns of a row as they lie in the file, if the numbers there are of this type: `f32`, `f16` or `bf16`.
    #[cfg(feature = "cuda")]
    pub fn bytes(&self, row: usize, columns: Range<usize>, dtype: &str) -> Option<&[u8]> {
        let (name, size) = match self.tensor.dtype {
            Dtype::F32 => ("f32", 4),
            Dtype::F16 => ("f16", 2),
            _ => ("bf16", 2),
        };
        let start = row * self.columns;
        let bytes = self.tensor.data();
        (name == dtype).then(|| &bytes[(start + columns.start) * size..(start + columns.end) * size])
    }

    /// As [`Matrix::row`], for weights that will be computed with: [`Matrix::check`] then says whether all are numbers.
    pub fn load(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        let first = row * self.columns + columns.start;
        self.row(row, columns, to);
        // Without an early end it goes as fast as the row is read.
        if !to.iter().fold(true, |finite, number| finite & number.is_finite()) {
            let place = to.iter().position(|number| !number.is_finite()).unwrap_or(0);
            self.note(first + place);
        }
    }

    /// The number at this place of the tensor cannot be computed with.
    pub fn note(&self, place: usize) {
        self.wrong.fetch_min(place, Ordering::Relaxed);
    }

    /// Refuses the tensor if something of it that was loaded is NaN or infinite.
    pub fn check(&self) -> Result<(), ModelError> {
        self.check_for("f32")
    }

    /// The same, where it is loaded as numbers of another type.
    pub fn check_for(&self, kind: &'static str) -> Result<(), ModelError> {
        let place = self.wrong.load(Ordering::Relaxed);
        if place == NOTHING {
            return Ok(());
        }
        let (row, column) = (place / self.columns, place % self.columns);
        let mut value = [0.0];
        self.row(row, column..column + 1, &mut value);
        Err(ModelError::TensorNotFinite {
            name: self.tensor.stored.clone(),
            place: self.tensor.file.0.clone(),
            index: if self.tensor.shape.len() == 1 { [column].into() } else { [row, column].into() },
            value: value[0],
            kind,
        })
    }

    /// Widens some columns of a row; `to` is as long as `columns`.
    pub fn row(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        let size = if self.tensor.dtype == Dtype::F32 { 4 } else { 2 };
        let start = row * self.columns;
        let bytes = self.tensor.data();
        let bytes = &bytes[(start + columns.start) * size..(start + columns.end) * size];
        match self.tensor.dtype {
            Dtype::F32 => widen(bytes, to, f32::from_le_bytes),
            Dtype::F16 => widen(bytes, to, |bytes| f16::from_le_bytes(bytes).to_f32()),
            _ => widen(bytes, to, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        }
    }
}

fn widen<const SIZE: usize>(bytes: &[u8], to: &mut [f32], number: impl Fn([u8; SIZE]) -> f32) {
    for (to, bytes) in to.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *to = number(*bytes);
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
