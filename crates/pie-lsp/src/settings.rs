//! What people set: by `workspace/configuration`, by what the editor pushes, or once with `initialize`; in this order.

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The section of an editor's settings.
pub const SECTION: &str = "pie";
/// More tokens at once are no completion.
const MOST_TOKENS: u64 = 4096;
const MOST_LINES: u64 = 10_000;
const LONGEST_DEBOUNCE: u64 = 10_000;
const MOST_OTHER_FILES: u64 = 16;
const MOST_DEFINITIONS: u64 = 16;

/// How documents are completed.
#[derive(Clone, Debug)]
pub struct EditorSettings {
    /// Whether any is.
    pub enable: bool,
    /// The most tokens of a completion.
    pub max_tokens: u32,
    /// The most lines of a completion; no limit if none is given.
    pub max_lines: Option<usize>,
    /// 0 always takes the likeliest.
    pub temperature: f32,
    /// How long nothing must be typed before the pool is asked.
    pub debounce: Duration,
    /// A completion ends before one of these.
    pub stop: Vec<String>,
    /// How many of the other open documents stand in front of the one that is completed.
    pub other_files: usize,
    /// How many definitions of other open documents stand in front of them.
    pub definitions: usize,
    /// What is not sent to the pool.
    pub exclude: Exclude,
}

impl Default for EditorSettings {
    fn default() -> Self {
        Self {
            enable: true,
            max_tokens: 64,
            max_lines: Some(12),
            temperature: 0.0,
            debounce: Duration::ZERO,
            stop: Vec::new(),
            other_files: 3,
            definitions: 4,
            exclude: Exclude::default(),
        }
    }
}

/// Settings, and what was wrong with them, in sentences. What was wrong is as it was before.
#[derive(Clone, Debug, Default)]
pub struct CheckedSettings {
    /// What they are now.
    pub settings: EditorSettings,
    /// To be shown.
    pub complaints: Vec<String>,
}

impl CheckedSettings {
    /// These settings, and above them those of an editor: an object, of which what is not there stays.
    pub fn above(mut self, value: &Value) -> Self {
        let Some(object) = value.as_object() else {
            if !value.is_null() {
                self.complaints.push(format!("{SECTION}: {value} is no object of settings; it is ignored"));
            }
            return self;
        };
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            if let Err(wanted) = self.settings.set(name, value) {
                self.complaints.push(format!("{SECTION}.{name}: {value} is not {wanted}; it is ignored"));
            }
        }
        self
    }
}

impl EditorSettings {
    /// Says what is wanted if the value is wrong. Names that are unknown may be the editor's own.
    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let count = |least: u64, most: u64| {
            let counted = value.as_u64().filter(|count| (least..=most).contains(count));
            counted.ok_or_else(|| format!("a whole number from {least} to {most}"))
        };
        match name {
            "enable" => self.enable = value.as_bool().ok_or("true or false")?,
            "maxTokens" => self.max_tokens = u32::try_from(count(1, MOST_TOKENS)?).unwrap_or(u32::MAX),
            "maxLines" => {
                let lines = count(0, MOST_LINES)?;
                self.max_lines = usize::try_from(lines).ok().filter(|lines| *lines > 0);
            }
            "temperature" => {
                let heat = value.as_f64().filter(|heat| (0.0..=2.0).contains(heat));
                self.temperature = heat.ok_or("a number from 0 to 2")? as f32;
            }
            "debounceMs" => self.debounce = Duration::from_millis(count(0, LONGEST_DEBOUNCE)?),
            "stop" => self.stop = texts(value).ok_or("a list of texts, none of them empty")?,
            "otherFiles" => {
                self.other_files = usize::try_from(count(0, MOST_OTHER_FILES)?).unwrap_or_default();
            }
            "definitions" => {
                self.definitions = usize::try_from(count(0, MOST_DEFINITIONS)?).unwrap_or_default();
            }
            "exclude" => {
                let globs = texts(value).ok_or("a list of globs and language ids")?;
                self.exclude = Exclude::new(globs).map_err(|error| format!("a list of globs ({error})"))?;
            }
            _ => tracing::debug!(name, "an unknown setting"),
        }
        Ok(())
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter();
    texts.map(|text| text.as_str().filter(|text| !text.is_empty()).map(str::to_owned)).collect()
}

/// Documents that are not sent: by globs of their paths (whole, below their root folder, or the name alone), or by their language.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    globs: GlobSet,
    languages: Vec<String>,
}

impl Exclude {
    fn new(patterns: Vec<String>) -> Result<Self, globset::Error> {
        let mut globs = GlobSetBuilder::new();
        for pattern in &patterns {
            globs.add(Glob::new(pattern)?);
        }
        Ok(Self { globs: globs.build()?, languages: patterns })
    }

    /// Whether a document is one of them. What has no path goes by its language alone.
    pub fn holds(&self, path: Option<&Path>, language: &str, roots: &[PathBuf]) -> bool {
        let matches = |path: &Path| self.globs.is_match(path);
        let by_path = path.is_some_and(|path| {
            let below = roots.iter().filter_map(|root| path.strip_prefix(root).ok());
            matches(path)
                || below.into_iter().any(matches)
                || path.file_name().is_some_and(|name| matches(Path::new(name)))
        });
        by_path || self.languages.iter().any(|excluded| excluded == language)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wrong_is_told_and_what_is_right_counts() {
        let value = json!({
            "maxTokens": 0, "maxLines": 0, "temperature": 0.5, "debounceMs": -1, "stop": ["\n\n"], "enable": "yes",
            "path": "/usr/bin/pie", "exclude": ["[", "toml"],
        });
        let CheckedSettings { settings, complaints } = CheckedSettings::default().above(&value);
        assert_eq!((settings.max_tokens, settings.max_lines, settings.enable), (64, None, true));
        assert_eq!((settings.temperature, settings.stop), (0.5, vec!["\n\n".to_owned()]));
        let about = |name: &str| complaints.iter().filter(|complaint| complaint.contains(name)).count();
        let names = ["pie.maxTokens", "pie.debounceMs", "pie.enable", "pie.exclude", "pie.path"];
        assert_eq!(names.map(about), [1, 1, 1, 1, 0], "{complaints:?}");
    }

    #[test]
    fn later_settings_stand_above_earlier_ones() {
        let read =
            CheckedSettings::default().above(&json!({"maxTokens": 8, "maxLines": 3})).above(&Value::Null);
        let read = read.above(&json!({"maxTokens": 9, "maxLines": null}));
        assert_eq!((read.settings.max_tokens, read.settings.max_lines), (9, Some(3)));
        assert!(read.complaints.is_empty());
        assert_eq!(read.above(&json!(7)).complaints.len(), 1);
    }

    #[test]
    fn documents_are_excluded_by_path_name_root_and_language() {
        let exclude = ["*.env", "secrets/**", "markdown"].map(str::to_owned).to_vec();
        let exclude = Exclude::new(exclude).expect("globs");
        let roots = [PathBuf::from("/home/one"), PathBuf::from("/home/two")];
        let held = |path: &str, language| exclude.holds(Some(Path::new(path)), language, &roots);
        assert!(held("/home/one/a/prod.env", "sh") && held("/home/two/secrets/key.rs", "rust"));
        assert!(held("/home/one/README.md", "markdown") && exclude.holds(None, "markdown", &roots));
        assert!(!held("/home/one/src/secrets/key.rs", "rust") && !exclude.holds(None, "rust", &roots));
    }
}
