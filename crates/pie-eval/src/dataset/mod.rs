//! RepoBench-C data: prompts and the line that follows each, by language and setting.

mod builtin;
mod find;
#[cfg(feature = "parquet")]
mod parquet;
mod row;

use crate::error::EvalError;
use crate::names::{Language, Setting};
use flate2::read::GzDecoder;
use row::RepoBenchRow;
use std::hash::Hasher;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// One prediction to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where it is from.
    pub repo: String,
    /// The file's path in the repository.
    pub file: String,
    /// Cross-file context, imports and the code before the line.
    pub prompt: String,
    /// The line that stands behind the prompt, which is to be predicted.
    pub next_line: String,
}

/// All samples of one language and setting, in the order of their files.
#[derive(Clone, Debug)]
pub struct Set {
    /// The programming language of all samples.
    pub language: Language,
    /// Which line of a file is asked for.
    pub setting: Setting,
    /// The samples.
    pub samples: Vec<Sample>,
}

impl Set {
    /// Tells this set from others: a hash of all prompts and lines.
    pub fn fingerprint(&self) -> String {
        let mut hasher = Xxh3::new();
        for text in self.samples.iter().flat_map(|sample| [&sample.prompt, &sample.next_line]) {
            hasher.write(&(text.len() as u64).to_le_bytes());
            hasher.write(text.as_bytes());
        }
        format!("{:016x}", hasher.finish())
    }
}

/// What to load.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The languages that are wanted, in this order.
    pub languages: Vec<Language>,
    /// The settings that are wanted, in this order.
    pub settings: Vec<Setting>,
}

impl Selection {
    fn has(&self, language: Language, setting: Setting) -> bool {
        self.languages.contains(&language) && self.settings.contains(&setting)
    }
}

/// Loads the selected sets of a file or folder, or of the set that ships; by language, then by setting, both in the
/// selection's order. Whatever of the selection is not there is left out, but not everything.
///
/// # Errors
/// No data, no data of the selection, or a file that is not as RepoBench has it.
pub fn load(path: Option<&Path>, selection: &Selection) -> Result<Vec<Set>, EvalError> {
    let sources = match path {
        Some(path) => find::sources(path)?,
        None => builtin::sources(),
    };
    let mut sets = Vec::new();
    for language in &selection.languages {
        for setting in &selection.settings {
            let mut samples = Vec::new();
            for source in &sources {
                if source.language == *language && source.setting == *setting {
                    samples.extend(source.read()?);
                }
            }
            if !samples.is_empty() {
                sets.push(Set { language: *language, setting: *setting, samples });
            }
        }
    }
    if sets.is_empty() {
        let names = |list: Vec<&str>| list.join(", ");
        let there = |source: &SampleFile| format!("{} {}", source.language, source.setting);
        return Err(EvalError::NothingSelected {
            languages: names(selection.languages.iter().map(|one| one.name()).collect()),
            settings: names(selection.settings.iter().map(|one| one.name()).collect()),
            there: sources.iter().map(there).collect::<Vec<_>>().join(", "),
        });
    }
    debug_assert!(sets.iter().all(|set| selection.has(set.language, set.setting)));
    Ok(sets)
}

/// One file of samples.
struct SampleFile {
    language: Language,
    setting: Setting,
    /// Its path, or its name where it is part of the program.
    path: PathBuf,
    content: FileFormat,
}

enum FileFormat {
    Lines,
    GzipLines,
    Parquet,
    Shipped(&'static [u8]),
}

impl SampleFile {
    fn read(&self) -> Result<Vec<Sample>, EvalError> {
        let open = || std::fs::File::open(&self.path).map_err(EvalError::file(&self.path));
        match self.content {
            FileFormat::Lines => self.lines(open()?),
            FileFormat::GzipLines => self.lines(GzDecoder::new(open()?)),
            FileFormat::Shipped(bytes) => self.lines(GzDecoder::new(bytes)),
            #[cfg(feature = "parquet")]
            FileFormat::Parquet => parquet::rows(&self.path, open()?)?
                .into_iter()
                .enumerate()
                .map(|(index, row)| self.sample(index, row))
                .collect(),
            #[cfg(not(feature = "parquet"))]
            FileFormat::Parquet => Err(EvalError::ParquetLeftOut { path: self.path.clone() }),
        }
    }

    fn lines(&self, reader: impl Read) -> Result<Vec<Sample>, EvalError> {
        let mut samples = Vec::new();
        for (index, line) in BufReader::new(reader).lines().enumerate() {
            let line = line.map_err(EvalError::file(&self.path))?;
            if !line.trim().is_empty() {
                let row = serde_json::from_str(&line).map_err(|error| self.bad(index, error.to_string()))?;
                samples.push(self.sample(index, row)?);
            }
        }
        Ok(samples)
    }

    fn sample(&self, index: usize, row: serde_json::Value) -> Result<Sample, EvalError> {
        let row: RepoBenchRow =
            serde_json::from_value(row).map_err(|error| self.bad(index, error.to_string()))?;
        row.sample(self.language).map_err(|reason| self.bad(index, reason))
    }

    fn bad(&self, index: usize, reason: String) -> EvalError {
        EvalError::BadSample { path: self.path.clone(), sample: index + 1, reason }
    }
}
