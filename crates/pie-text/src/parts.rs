//! What stands in front of a document: texts of other files, as models were trained to read a repository.
//!
//! ```text
//! begin of sentence | repository marker, a name | file marker, name and text of a part | … | file marker, the document's name | the document
//! ```
//! Models that know no such markers get names as comments. Each part is tokenized by itself, so that it comes, moves and goes as a
//! whole; one whose text changed is compared with what it was, line by line.

use crate::error::TextError;
use crate::tokenizer::Tokenizer;
use pie_words::{Part, Parts, Spellings, TokenId};
use std::sync::Arc;

/// What parts files in a model's prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMarkers {
    /// In front of the repository's name.
    pub repository: TokenId,
    /// In front of each file's.
    pub file: TokenId,
}

/// How the families spell them whose models were trained with repositories so written.
const SPELLED: [[&str; 2]; 3] =
    [["<|repo_name|>", "<|file_sep|>"], ["<repo_name>", "<file_sep>"], ["<reponame>", "<filename>"]];
/// Names where nobody says any.
const REPOSITORY: &str = "repository";
const DOCUMENT: &str = "file";

impl Tokenizer {
    /// What parts files, if the model knows it.
    pub fn file_markers(&self) -> Option<FileMarkers> {
        let id = |spelling| self.token_id(spelling).filter(|id| self.ends().binary_search(id).is_ok());
        let found = SPELLED.iter().find_map(|[repository, file]| Some((id(repository)?, id(file)?)));
        found.map(|(repository, file)| FileMarkers { repository, file })
    }
}

/// What the model is told that a text is.
fn named(name: &str) -> &str {
    if name.is_empty() { DOCUMENT } else { name }
}

/// The text of a part as a model reads it: behind the marker of a file, or by itself.
pub fn led_by(markers: Option<FileMarkers>, name: &str, text: &str) -> String {
    let name = named(name);
    match markers {
        Some(_) => format!("{name}\n{text}"),
        None => format!("# {name}\n{text}\n"),
    }
}

/// Tokens that stand before a document's text.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    /// All of them, the begin of sentence included.
    pub tokens: Vec<TokenId>,
    /// What they were made of.
    pub parts: Parts,
    /// The tokens of each part.
    each: Vec<Arc<[TokenId]>>,
}

impl Lead {
    /// What stands before every text.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        Self { tokens: tokenizer.prefix().to_vec(), parts: Parts::default(), each: Vec::new() }
    }

    /// The same with parts; those that are as they were before are not tokenized again.
    pub fn with(&self, tokenizer: &Arc<Tokenizer>, parts: &Parts) -> Result<Self, TextError> {
        let mut lead = Self { parts: parts.clone(), ..Self::of(tokenizer) };
        if parts.list.is_empty() {
            return Ok(lead);
        }
        // Text is text, whatever a document's own is read as.
        let reading = tokenizer.reading(Spellings::Text);
        let tokens = |text: &str| reading.text_tokens(text);
        let markers = tokenizer.file_markers();
        if let Some(FileMarkers { repository, .. }) = markers {
            lead.tokens.push(repository);
            lead.tokens.extend(tokens(&format!("{REPOSITORY}\n"))?);
        }
        for part in &parts.list {
            let each = match self.known(part) {
                Some(each) => each,
                None => tokens(&led_by(markers, &part.name, &part.text))?.into(),
            };
            lead.tokens.extend(markers.map(|markers| markers.file));
            lead.tokens.extend_from_slice(&each);
            lead.each.push(each);
        }
        if let Some(FileMarkers { file, .. }) = markers {
            lead.tokens.push(file);
            lead.tokens.extend(tokens(&format!("{}\n", named(&parts.document)))?);
        }
        Ok(lead)
    }

    /// The tokens of a part that is here already.
    fn known(&self, part: &Part) -> Option<Arc<[TokenId]>> {
        let at = self.parts.list.iter().position(|other| other == part)?;
        self.each.get(at).cloned()
    }
}
