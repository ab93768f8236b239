//! Where models come from: a folder, the small model that ships in the program, or a seeded one that is made once.

use crate::cache::{Cache, FileContent};
use crate::cli::ModelArgs;
use crate::hub::{self, Hub, ModelReference};
use crate::{Failure, progress};
use pie_model::Config;
use pie_text::{Tokenizer, TokenizerSettings};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The model that ships: its files lie in the program, so that it needs no download and no repository.
const SHIPPED: [FileContent<'static>; 4] = [
    ("model.safetensors", include_bytes!("../../../models/pie-coder/model.safetensors")),
    ("config.json", include_bytes!("../../../models/pie-coder/config.json")),
    ("tokenizer_config.json", include_bytes!("../../../models/pie-coder/tokenizer_config.json")),
    ("tokenizer.json", include_bytes!("../../../models/pie-coder/tokenizer.json")),
];
const SHIPPED_NAME: &str = "pie-coder";
/// The tokenizer of seeded models.
const SEEDED_TOKENIZER: &[u8] = include_bytes!("../../../models/tiny-code/tokenizer.json");
const SEEDED_PREFIX: &str = "seeded:";
const SEED: u64 = 2024;

/// A model folder that is there.
pub struct ModelFolder {
    /// Where its files are.
    pub path: PathBuf,
    /// Who named it, and so what may be wrong with it.
    pub kind: ModelKind,
}

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// The user named a folder.
    Given,
    /// The small trained one that ships.
    Shipped,
    /// Seeded random weights: its text is noise.
    Seeded,
}

/// The user's folder or GGUF file; a place on a hub, or a short name of one; `seeded:NAME`; or the model that ships if nothing is
/// given. What is there under a path is that path's, whatever else its name may mean.
pub fn resolve(arguments: &ModelArgs) -> Result<ModelFolder, Failure> {
    let Some(path) = &arguments.model else {
        return Ok(ModelFolder { path: shipped()?, kind: ModelKind::Shipped });
    };
    if let Some(preset) = path.to_str().and_then(|path| path.strip_prefix(SEEDED_PREFIX)) {
        return Ok(ModelFolder { path: seeded(preset)?, kind: ModelKind::Seeded });
    }
    let is_file = pie_gguf::Gguf::is_named(path) && path.is_file();
    if is_file || path.join("config.json").is_file() {
        return Ok(ModelFolder { path: path.to_owned(), kind: ModelKind::Given });
    }
    if let Some(name) = path.to_str().filter(|name| !path.exists() && hub::is_name(name)) {
        let path = Hub::new(&arguments.hub)?.model(&ModelReference::of(name)?)?;
        return Ok(ModelFolder { path, kind: ModelKind::Given });
    }
    Err(format!(
        "{} is no model: it has no config.json (expected: a folder with config.json, tokenizer.json, *.safetensors, as \
         save_pretrained of Transformers writes it; a GGUF file; a place on a hub, hf:OWNER/NAME; or a short name, which `pie \
         model list --names` shows)",
        path.display()
    )
    .into())
}

/// The folder of the model that ships: ranks map their weights from a file.
pub fn shipped() -> Result<PathBuf, Failure> {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    SHIPPED.iter().for_each(|(_, content)| hasher.update(content));
    // Programs with another model have a folder of their own.
    let name = Path::new(&format!("{SHIPPED_NAME}-{:016x}", hasher.digest())).join(SHIPPED_NAME);
    Cache::of_user()?.folder(&name, &SHIPPED)
}

/// The folder of a seeded model, made if it is not there yet.
pub fn seeded(preset: &str) -> Result<PathBuf, Failure> {
    let config = Config::preset(preset)?;
    let name = format!("{preset}-seed{SEED}-{}", env!("CARGO_PKG_VERSION"));
    let text = config.to_json();
    let files = [("config.json", text.as_bytes()), ("tokenizer.json", SEEDED_TOKENIZER)];
    Cache::of_user()?.made(&name, &files, |folder| {
        let bar = progress::bytes(&format!("making the seeded model `{preset}`"));
        let mut show = |done, total| progress::show(&bar, done, total);
        // It makes the folder itself, whole.
        std::fs::remove_dir(folder)?;
        pie_model::seeded::write_model(folder, &config, SEED, &mut show)?;
        bar.finish_and_clear();
        Ok(())
    })
}

/// The tokenizer of a model.
pub fn tokenizer(folder: &Path, settings: TokenizerSettings<'_>) -> Result<Arc<Tokenizer>, Failure> {
    let tokenizer = Tokenizer::open_with(folder, settings)?;
    let (tokens, known) = (tokenizer.vocab_size() as usize, Config::read(folder)?.vocab_size);
    if tokens > known {
        return Err(format!(
            "{}: the tokenizer has tokens up to {}, and the model knows those below {known} (vocab_size of config.json): take \
             the tokenizer.json of this model",
            folder.display(),
            tokens - 1
        )
        .into());
    }
    Ok(Arc::new(tokenizer))
}
