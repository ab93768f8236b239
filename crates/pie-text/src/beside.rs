//! What stands beside a tokenizer.json: tokenizer_config.json, and special_tokens_map.json, which older folders have.

use crate::error::TokenizerError;
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;

/// The two files; null where there is none.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    config: Value,
    map: Value,
    /// What the folder, or who wrote it, calls the model.
    model: String,
}

/// What Transformers calls special by name.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Keys whose values are lists of tokens.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

impl Beside {
    /// Reads what is there.
    ///
    /// # Errors
    /// A file that is there and cannot be read or is no JSON.
    pub(crate) fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let read = |name: &str| {
            let path = folder.join(name);
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
                Err(source) => return Err(TokenizerError::Read { path, source }),
            };
            serde_json::from_slice(&bytes).map_err(|error| TokenizerError::Beside {
                name: path.display().to_string(),
                message: error.to_string(),
            })
        };
        let (config, map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
        // The model's own configuration is checked by who computes with it.
        let model = std::fs::read(folder.join("config.json")).unwrap_or_default();
        let model: Value = serde_json::from_slice(&model).unwrap_or_default();
        let names = [&config["name_or_path"], &model["_name_or_path"]];
        let given = names.iter().filter_map(|name| name.as_str().map(str::to_owned));
        let model = std::iter::once(name_of(folder)).chain(given).collect::<Vec<_>>().join(" ");
        Ok(Self { config, map, model })
    }

    /// The names of the model: the folder's, and those that its files were saved from.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// What a tokenizer_config.json would say, where there is no file, and the model's name.
    pub(crate) fn of(config: Value, model: String) -> Self {
        Self { config, map: Value::Null, model }
    }

    /// A flag of the configuration, such as `add_bos_token`.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.config[name].as_bool()
    }

    /// The class that Transformers makes of it.
    pub(crate) fn class(&self) -> &str {
        self.config["tokenizer_class"].as_str().unwrap_or_default()
    }

    /// The content of a token by its role, such as `bos_token`: a string, or an object with one.
    pub(crate) fn token(&self, role: &str) -> Option<&str> {
        content(&self.config[role]).or_else(|| content(&self.map[role]))
    }

    /// The contents of all tokens that are called special.
    pub(crate) fn special_tokens(&self) -> HashSet<String> {
        let one = NAMES.iter().filter_map(|role| self.token(role));
        let files = [&self.config, &self.map];
        let lists = files.iter().flat_map(|file| LISTS.iter().map(|list| &file[*list]));
        let many = lists.filter_map(Value::as_array).flatten().filter_map(content);
        let added = self.config["added_tokens_decoder"].as_object().into_iter().flatten();
        let flagged = added.filter(|(_, token)| token["special"] == true);
        let flagged = flagged.filter_map(|(_, token)| content(token));
        one.chain(many).chain(flagged).map(str::to_owned).collect()
    }
}

/// A folder's own name; in the cache of Hugging Face's hub, where that is a hash, the name of the model's folder.
fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let in_hub = whole.parent().filter(|parent| parent.ends_with("snapshots")).and_then(Path::parent);
    let name = in_hub.unwrap_or(&whole).file_name();
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn content(token: &Value) -> Option<&str> {
    token.as_str().or(token["content"].as_str())
}
