//! Safetensors of a folder, memory-mapped: a rank reads its slices only, and widens them to f32. On CPUs products of
//! narrow types widen whole matrices each time, so they are widened once.

use crate::error::ModelError;
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where one tensor lies.
#[derive(Clone, Debug)]
struct Place {
    file: usize,
    bytes: Range<usize>,
    shape: Vec<usize>,
    dtype: Dtype,
}

/// All tensors of a folder.
pub(crate) struct Weights {
    files: Vec<Mmap>,
    places: BTreeMap<String, Place>,
}

impl Weights {
    /// Maps `model.safetensors`, or the files that `model.safetensors.index.json` names.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let index = folder.join("model.safetensors.index.json");
        let names = if index.is_file() { indexed(&index)? } else { vec!["model.safetensors".to_owned()] };
        let mut weights = Self { files: Vec::new(), places: BTreeMap::new() };
        for name in names {
            weights.add(&folder.join(name))?;
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let failed = |why: String| ModelError::File { path: path.to_owned(), why };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        // SAFETY: the map is read only, and lives no longer than this process's interest in the model. A file that
        // another program truncates meanwhile would end this process; model folders are not written while served.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| failed(error.to_string()))?;
        let broken = |error: safetensors::SafeTensorError| failed(format!("is no complete safetensors file: {error}"));
        let tensors = SafeTensors::deserialize(&map).map_err(broken)?;
        for (name, view) in tensors.iter() {
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            let place = Place {
                file: self.files.len(),
                bytes: start..start + view.data().len(),
                shape: view.shape().to_vec(),
                dtype: view.dtype(),
            };
            self.places.insert(name.to_owned(), place);
        }
        self.files.push(map);
        Ok(())
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// `rows` x `columns` of a matrix of the given shape, f32, row by row.
    pub fn slice(
        &self,
        name: &str,
        shape: [usize; 2],
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<f32>, ModelError> {
        let (data, size) = self.data(name, &shape)?;
        let mut out = vec![0.0; rows.len() * columns.len()];
        out.par_chunks_mut(columns.len().max(1)).zip(rows).for_each(|(to, row)| {
            let start = (row * shape[1] + columns.start) * size.0;
            size.widen(&data[start..start + columns.len() * size.0], to);
        });
        Ok(out)
    }

    /// A whole vector, f32.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, ModelError> {
        let (data, size) = self.data(name, &[length])?;
        let mut out = vec![0.0; length];
        size.widen(data, &mut out);
        Ok(out)
    }

    /// The bytes of a tensor, its shape and type checked.
    fn data(&self, name: &str, shape: &[usize]) -> Result<(&[u8], Width), ModelError> {
        let wrong = |why: String| ModelError::Weight { name: name.to_owned(), why };
        let place = self.places.get(name).ok_or_else(|| wrong("is missing from the safetensors files".to_owned()))?;
        if place.shape != shape {
            return Err(wrong(format!("has shape {:?}, config.json says {shape:?}", place.shape)));
        }
        let width = match place.dtype {
            Dtype::F32 => Width(4, Kind::F32),
            Dtype::F16 => Width(2, Kind::F16),
            Dtype::BF16 => Width(2, Kind::Bf16),
            other => return Err(wrong(format!("has type {other:?}; f32, f16 and bf16 are supported"))),
        };
        Ok((&self.files[place.file][place.bytes.clone()], width))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    F32,
    F16,
    Bf16,
}

/// Bytes of a number, and what they mean.
#[derive(Clone, Copy)]
struct Width(usize, Kind);

impl Width {
    fn widen(self, bytes: &[u8], to: &mut [f32]) {
        match self.1 {
            Kind::F32 => to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, b)| *to = f32::from_le_bytes(*b)),
            Kind::F16 => to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, b)| *to = f16::from_le_bytes(*b).to_f32()),
            Kind::Bf16 => {
                to.iter_mut().zip(bytes.as_chunks().0).for_each(|(to, b)| *to = bf16::from_le_bytes(*b).to_f32());
            }
        }
    }
}

/// The files that an index names.
fn indexed(path: &PathBuf) -> Result<Vec<String>, ModelError> {
    let failed = |why: String| ModelError::File { path: path.clone(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
    let map = json.get("weight_map").and_then(serde_json::Value::as_object);
    let map = map.ok_or_else(|| failed("has no `weight_map`".to_owned()))?;
    let mut names: Vec<String> = map.values().filter_map(|name| name.as_str().map(str::to_owned)).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}
