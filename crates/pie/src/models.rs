//! Where models come from: a folder, the small model that ships in the program, or a seeded one that is made once.

use crate::{Failure, progress};
use pie_model::Config;
use std::path::{Path, PathBuf};

/// The model that ships: its files lie in the program, so that it needs no download and no repository.
const SHIPPED: [(&str, &[u8]); 4] = [
    ("model.safetensors", include_bytes!("../../../models/pie-coder/model.safetensors")),
    ("config.json", include_bytes!("../../../models/pie-coder/config.json")),
    ("tokenizer_config.json", include_bytes!("../../../models/pie-coder/tokenizer_config.json")),
    // Last: a folder that has it is whole.
    ("tokenizer.json", include_bytes!("../../../models/pie-coder/tokenizer.json")),
];
const SHIPPED_NAME: &str = "pie-coder";
/// The tokenizer of seeded models.
const SEEDED_TOKENIZER: &[u8] = include_bytes!("../../../models/tiny-code/tokenizer.json");
const SEEDED_PREFIX: &str = "seeded:";
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
    /// The small trained one that ships.
    Shipped,
    /// Seeded random weights: its text is noise.
    Seeded,
}

/// The user's folder; `seeded:NAME`; or the model that ships if nothing is given.
pub fn resolve(model: Option<&Path>) -> Result<ModelFolder, Failure> {
    let Some(path) = model else { return Ok(ModelFolder { path: shipped()?, kind: ModelKind::Shipped }) };
    if let Some(preset) = path.to_str().and_then(|path| path.strip_prefix(SEEDED_PREFIX)) {
        return Ok(ModelFolder { path: seeded(preset)?, kind: ModelKind::Seeded });
    }
    if !path.join("config.json").is_file() {
        return Err(format!(
            "{} is no model folder: it has no config.json (expected: config.json, tokenizer.json, *.safetensors)",
            path.display()
        )
        .into());
    }
    Ok(ModelFolder { path: path.to_owned(), kind: ModelKind::Given })
}

/// The folder of the model that ships, written out if it is not there yet: ranks map their weights from a file.
fn shipped() -> Result<PathBuf, Failure> {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    SHIPPED.iter().for_each(|(_, content)| hasher.update(content));
    // The folder's name holds what its content depends on.
    let path = cache()?.join(format!("{SHIPPED_NAME}-{:016x}", hasher.digest())).join(SHIPPED_NAME);
    if !path.join("tokenizer.json").is_file() {
        std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        for (name, content) in SHIPPED {
            write(&path.join(name), content)?;
        }
    }
    Ok(path)
}

/// The folder of a seeded model, made if it is not there yet.
pub fn seeded(preset: &str) -> Result<PathBuf, Failure> {
    let config = Config::preset(preset)?;
    let path = cache()?.join(format!("{preset}-seed{SEED}-{}", env!("CARGO_PKG_VERSION")));
    if !path.join("tokenizer.json").is_file() {
        let bar = progress::bytes(&format!("making the seeded model `{preset}`"));
        let mut show = |done, total| progress::show(&bar, done, total);
        pie_model::seeded::write_model(&path, &config, SEED, &mut show)?;
        write(&path.join("tokenizer.json"), SEEDED_TOKENIZER)?;
        bar.finish_and_clear();
    }
    Ok(path)
}

/// Writes a file in one go: another process that does the same at this moment sees all of it, or nothing.
fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    let written = std::fs::write(&partial, content).and_then(|()| std::fs::rename(&partial, path));
    Ok(written.map_err(|error| format!("cannot write {}: {error}", path.display()))?)
}

fn cache() -> Result<PathBuf, Failure> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    let base = base.ok_or("no folder for the model's files: set XDG_CACHE_HOME or HOME, or give --model")?;
    let path = base.join("pie-pool").join("models");
    std::fs::create_dir_all(&path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    Ok(path)
}
