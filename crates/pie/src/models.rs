//! Where models come from: a folder, or a small seeded one that is made once.

use crate::{Failure, progress};
use pie_model::Config;
use std::path::{Path, PathBuf};

/// The tokenizer that ships; seeded models use it.
const TOKENIZER: &str = include_str!("../../../models/tiny-code/tokenizer.json");
const SEED: u64 = 2024;

/// A model folder that is there.
pub struct ModelFolder {
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub kind: ModelKind,
}

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// The user's.
    Given,
    /// Seeded random weights: its text is noise.
    Seeded,
}

/// The user's folder, or the small seeded model in DeepSeek-Coder's shape.
pub fn resolve(model: Option<&Path>) -> Result<ModelFolder, Failure> {
    match model {
        Some(path) if path.join("config.json").is_file() => {
            Ok(ModelFolder { path: path.to_owned(), kind: ModelKind::Given })
        }
        Some(path) => Err(format!(
            "{} is no model folder: it has no config.json (expected: config.json, tokenizer.json, *.safetensors)",
            path.display()
        )
        .into()),
        None => Ok(ModelFolder { path: seeded("tiny")?, kind: ModelKind::Seeded }),
    }
}

/// The folder of a seeded model, made if it is not there yet.
pub fn seeded(preset: &str) -> Result<PathBuf, Failure> {
    let config = Config::preset(preset)?;
    // The folder's name holds what its content depends on.
    let path = cache()?.join(format!("{preset}-seed{SEED}-{}", env!("CARGO_PKG_VERSION")));
    if !path.join("tokenizer.json").is_file() {
        let bar = progress::bytes(&format!("making the seeded model `{preset}`"));
        let mut show = |done, total| progress::show(&bar, done, total);
        pie_model::seeded::write_model(&path, &config, SEED, &mut show)?;
        std::fs::write(path.join("tokenizer.json"), TOKENIZER)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        bar.finish_and_clear();
    }
    Ok(path)
}

fn cache() -> Result<PathBuf, Failure> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let base = base.ok_or("no folder for the seeded model: set XDG_CACHE_HOME or HOME, or give --model")?;
    let path = base.join("pie-pool").join("models");
    std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    Ok(path)
}
