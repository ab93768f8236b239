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
use xxhash_rust::xxh3::Xxh3;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a folder. Nothing is read before it is asked for.
pub(crate) struct Checkpoint {
    folder: PathBuf,
    tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone)]
struct Tensor {
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
                file: file.clone(),
                bytes: data + start..data + end,
                dtype: info.dtype,
                shape: info.shape,
            };
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }

    /// Of the configuration, and of each tensor its name, type, shape and first page: a fine-tuned model differs in these
    /// from the one that it was made of.
    pub fn fingerprint(&self, config: &Config) -> String {
        const PAGE: usize = 4096;
        let mut hasher = Xxh3::new();
        hasher.update(config.to_json().as_bytes());
        for (name, tensor) in &self.tensors {
            hasher.update(format!("{name} {:?} {:?}", tensor.dtype, tensor.shape).as_bytes());
            let bytes = &tensor.file.1[tensor.bytes.clone()];
            hasher.update(&bytes[..bytes.len().min(PAGE)]);
        }
        format!("{:016x}", hasher.digest())
    }

    /// A matrix by name; it must have this shape and a type that is read.
    pub fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, ModelError> {
        let tensor = self.tensor(name, &[rows, columns])?;
        Ok(Matrix { tensor: tensor.clone(), columns })
    }

    /// A vector by name, widened.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        let tensor = self.tensor(name, &[length])?.clone();
        let mut numbers = vec![0.0; length];
        Matrix { tensor, columns: length }.row(0, 0..length, &mut numbers);
        Ok(numbers)
    }

    fn tensor(&self, name: &str, expected: &[usize]) -> Result<&Tensor, ModelError> {
        let missing = || ModelError::TensorMissing { name: name.to_owned(), place: self.folder.clone() };
        let tensor = self.tensors.get(name).ok_or_else(missing)?;
        let place = || tensor.file.0.clone();
        if tensor.shape != expected {
            let (got, expected) = (tensor.shape.clone(), expected.to_vec());
            return Err(ModelError::TensorShape { name: name.to_owned(), place: place(), got, expected });
        }
        match tensor.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(tensor),
            other => Err(ModelError::TensorType {
                name: name.to_owned(),
                place: place(),
                got: format!("{other:?}"),
            }),
        }
    }
}

/// A matrix that stays in its file.
pub(crate) struct Matrix {
    tensor: Tensor,
    columns: usize,
}

impl Matrix {
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
        let bytes = &self.tensor.file.1[self.tensor.bytes.clone()];
        (name == dtype).then(|| &bytes[(start + columns.start) * size..(start + columns.end) * size])
    }

    /// Widens some columns of a row; `to` is as long as `columns`.
    pub fn row(&self, row: usize, columns: Range<usize>, to: &mut [f32]) {
        let size = if self.tensor.dtype == Dtype::F32 { 4 } else { 2 };
        let start = row * self.columns;
        let bytes = &self.tensor.file.1[self.tensor.bytes.clone()];
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
