//! `--kv-spill`: what makes a rank's rows its own, so that no other's are read for them.

use crate::Failure;
use crate::cli::RankArgs;
use crate::device::{DeviceArg, Loaded};
use pie_worker::{Spill, SpillOptions};
use rayon::prelude::*;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Files are read in pieces of so many bytes, several at a time.
const PIECE: u64 = 16 << 20;

/// Opens the folder of a rank that was loaded from `model`, if it is to have one.
///
/// # Errors
/// The folder cannot be written to; the weights cannot be read.
pub fn open(arguments: &RankArgs, loaded: &Loaded, model: &Path) -> Result<Option<Spill>, Failure> {
    let Some(folder) = &arguments.kv_spill else { return Ok(None) };
    let (member, config) = (loaded.compute.member(), &loaded.fingerprint);
    let weights = digest(model).map_err(|error| format!("{}: {error}", model.display()))?;
    // Which of several equal GPUs it is makes no difference.
    let device = match arguments.device {
        DeviceArg::Cpu => "a CPU",
        DeviceArg::Cuda(_) => "a GPU",
    };
    let identity = format!(
        "pie {} on {device}, {:?}, rows in {:?}; model {config} with weights {weights:032x}; rank {} of {}",
        env!("CARGO_PKG_VERSION"),
        arguments.dtype,
        arguments.kv_dtype.precision(),
        member.rank().0,
        member.world_size()
    );
    tracing::info!(folder = %folder.display(), identity, "rows of documents that nobody uses go to disk");
    let options = SpillOptions { folder: folder.clone(), identity, limit: arguments.kv_spill_size };
    let spill = Spill::open(&options, loaded.compute.kv_shape()).map_err(|error| {
        format!("--kv-spill {}: {error}; name a folder that this process may write to, and give it enough by --kv-spill-size", folder.display())
    })?;
    Ok(Some(spill))
}

/// Of all weights: a model that was trained on has the same sizes and other numbers.
fn digest(model: &Path) -> std::io::Result<u128> {
    let mut files = Vec::new();
    if model.is_dir() {
        for entry in std::fs::read_dir(model)? {
            let path = entry?.path();
            let is_of_it = path.extension().is_some_and(|ending| ending == "safetensors" || ending == "json");
            if is_of_it {
                files.push(path);
            }
        }
        files.sort();
    } else {
        files.push(model.to_owned());
    }
    let mut pieces: Vec<(PathBuf, u64)> = Vec::new();
    for file in files {
        let length = std::fs::metadata(&file)?.len();
        pieces.extend((0..=length / PIECE).map(|piece| (file.clone(), piece * PIECE)));
    }
    let digests: Vec<u128> =
        pieces.par_iter().map(|(file, at)| piece(file, *at)).collect::<Result<_, _>>()?;
    let mut whole = Xxh3::new();
    digests.iter().for_each(|digest| whole.update(&digest.to_le_bytes()));
    Ok(whole.digest128())
}

fn piece(file: &Path, at: u64) -> std::io::Result<u128> {
    let (mut file, mut bytes) = (File::open(file)?, Vec::new());
    file.seek(SeekFrom::Start(at))?;
    file.take(PIECE).read_to_end(&mut bytes)?;
    Ok(xxh3_128(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_of_the_weights_makes_another_model() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let weights = folder.path().join("model.safetensors");
        let mut bytes = vec![7; PIECE as usize + 100];
        let mut seen = Vec::new();
        for at in [None, Some(0), Some(PIECE as usize + 50)] {
            at.into_iter().for_each(|at: usize| bytes[at] ^= 1);
            std::fs::write(&weights, &bytes).expect("it can be written");
            seen.push(digest(folder.path()).expect("it can be read"));
        }
        std::fs::write(folder.path().join("config.json"), "{}").expect("it can be written");
        seen.push(digest(folder.path()).expect("it can be read"));
        std::fs::write(folder.path().join("notes.txt"), "none of its files").expect("it can be written");
        assert_eq!(digest(folder.path()).expect("it can be read"), seen[3]);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }
}
