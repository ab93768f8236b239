//! A row of RepoBench-C as it is published, and the prompt that it stands for.

use super::Sample;
use crate::names::Language;
use serde::Deserialize;

/// The fields of RepoBench-C (2023), and of its version 1.1 (`cropped_code`, cross-file snippets as a list).
#[derive(Deserialize)]
pub(super) struct RepoBenchRow {
    #[serde(default)]
    repo_name: String,
    #[serde(default, alias = "path")]
    file_path: String,
    #[serde(default)]
    context: RepoBenchContext,
    #[serde(default)]
    import_statement: String,
    #[serde(alias = "cropped_code")]
    code: Option<String>,
    prompt: Option<String>,
    next_line: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RepoBenchContext {
    Text(String),
    Snippets(Vec<Snippet>),
}

impl Default for RepoBenchContext {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

#[derive(Deserialize)]
struct Snippet {
    path: String,
    snippet: String,
}

impl RepoBenchRow {
    /// The sample that the row stands for; otherwise says which field is missing or empty.
    pub fn sample(self, language: Language) -> Result<Sample, String> {
        let missing = |what: &str| format!("it has no `{what}`: expected the fields of RepoBench-C");
        let next_line = self.next_line.clone().ok_or_else(|| missing("next_line"))?;
        let prompt = match self.prompt.clone() {
            Some(prompt) => prompt,
            None => self.made_prompt(language).ok_or_else(|| missing("prompt` or `code"))?,
        };
        if prompt.trim().is_empty() {
            return Err("its prompt is empty".to_owned());
        }
        Ok(Sample { repo: self.repo_name, file: self.file_path, prompt, next_line })
    }

    /// The parts in the order in which RepoBench's own scripts of each version put them.
    fn made_prompt(&self, language: Language) -> Option<String> {
        let code = self.code.as_deref()?;
        let comment = match language {
            Language::Python => "#",
            Language::Java => "//",
        };
        let (file, imports) = (&self.file_path, &self.import_statement);
        Some(match &self.context {
            RepoBenchContext::Text(context) => {
                format!("{context}\n{comment} Path: {file}\n{imports}\n\n{code}")
            }
            RepoBenchContext::Snippets(snippets) => {
                let mut prompt = format!("{comment} Repo Name: {}\n", self.repo_name);
                for Snippet { path, snippet } in snippets {
                    prompt.push_str(&format!("{comment} Path: {path}\n{snippet}\n\n"));
                }
                prompt.push_str(&format!("{comment} Path: {file}\n{imports}\n{code}\n"));
                few_empty_lines(&prompt)
            }
        })
    }
}

/// Four or more line breaks in a row become two.
fn few_empty_lines(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut breaks = 0;
    for c in text.chars().map(Some).chain([None]) {
        if c == Some('\n') {
            breaks += 1;
            continue;
        }
        let kept = if breaks >= 4 { 2 } else { breaks };
        result.extend(std::iter::repeat_n('\n', kept));
        breaks = 0;
        result.extend(c);
    }
    result
}
