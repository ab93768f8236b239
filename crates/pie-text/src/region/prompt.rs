//! What a model is told to write a region anew, by model. Models that were trained for it have their own way of being asked; the
//! others get the plain one.

use crate::error::TextError;
use crate::parts::FileMarkers;
use crate::tokenizer::Tokenizer;
use pie_words::TokenId;
use std::ops::Range;
use std::str::FromStr;

/// How a model is asked to write a region anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptForm {
    /// As Sweep's Next-Edit models are (2026): the edits as blocks of what was and what is, the region as it was before the latest of
    /// them and as it is now, each a file of a repository.
    Sweep,
    /// As Zed's first Zeta is (2025): an instruction, the edits as diffs, and the region between marks in an excerpt.
    Zeta,
    /// In words, for models that were not trained for it.
    Plain,
}

const NAMED: [(&str, PromptForm); 3] =
    [("sweep", PromptForm::Sweep), ("zeta", PromptForm::Zeta), ("plain", PromptForm::Plain)];

/// A name that stands for no form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no form of asking for a next edit: write `sweep`, `zeta` or `plain`")]
pub struct UnknownForm(String);

impl FromStr for PromptForm {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        let found = NAMED.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, form)| form).ok_or_else(|| UnknownForm(name.to_owned()))
    }
}

impl PromptForm {
    /// The one of a model, by its name: neither of the others leaves a trace in a tokenizer.
    pub fn of(model: &str) -> Self {
        let model = model.to_lowercase().replace(['-', '_', ' '], "");
        // The second Zeta is asked in another way, which is not known here.
        if model.contains("zeta2") {
            return Self::Plain;
        }
        let trained = NAMED.into_iter().find(|(name, _)| model.contains(name));
        trained.map_or(Self::Plain, |(_, form)| form)
    }
}

/// Lines of the document that an edit changed, and those around them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EditedLines {
    /// As they were.
    pub original: String,
    /// As they are.
    pub updated: String,
}

/// What a model can be told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Of the document; empty where its client did not say it.
    pub path: String,
    /// What the latest edits changed.
    pub edits: Vec<EditedLines>,
    /// The region before the latest of them.
    pub original: String,
    /// The region as it is.
    pub now: String,
    /// Bytes of the region before the cursor.
    pub before_cursor: usize,
    /// Its lines in the document, from 0.
    pub rows: Range<usize>,
}

/// A prompt, and how its answer ends.
#[derive(Clone, Debug)]
pub(super) struct RegionPrompt {
    /// What the model is told.
    pub tokens: Vec<TokenId>,
    /// What ends it, where no control token does.
    pub stop: Vec<String>,
}

impl PromptForm {
    /// The prompt in a model's tokens: what is quoted is text, whatever it spells.
    pub(super) fn prompt(self, told: &Told, tokenizer: &Tokenizer) -> Result<RegionPrompt, TextError> {
        match (self, tokenizer.file_markers()) {
            (Self::Sweep, Some(markers)) => sweep(told, tokenizer, markers),
            (Self::Zeta, _) => whole(&zeta(told), "\n<|editable_region_end|>", tokenizer),
            (Self::Sweep | Self::Plain, _) => {
                let fence = fence(told);
                whole(&plain(told, &fence), &format!("\n{fence}"), tokenizer)
            }
        }
    }
}

fn whole(text: &str, stop: &str, tokenizer: &Tokenizer) -> Result<RegionPrompt, TextError> {
    Ok(RegionPrompt { tokens: tokenizer.text_tokens(text)?, stop: vec![stop.to_owned()] })
}

/// Lines as models know them: each ends with a line feed, the last one too.
fn closed(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    if text.is_empty() || text.ends_with('\n') { text } else { text + "\n" }
}

fn path(told: &Told) -> &str {
    if told.path.is_empty() { "file" } else { &told.path }
}

/// The next file's marker ends the answer, as all control tokens do.
fn sweep(told: &Told, tokenizer: &Tokenizer, markers: FileMarkers) -> Result<RegionPrompt, TextError> {
    let (path, Told { original, now, rows, .. }) = (path(told), told);
    let lines = format!("{}:{}", rows.start + 1, rows.end);
    let edits = told.edits.iter().map(|EditedLines { original, updated }| {
        format!("{path}.diff\noriginal:\n{}updated:\n{}", closed(original), closed(updated))
    });
    let region = [
        format!("original/{path}:{lines}\n{}", closed(original)),
        format!("current/{path}:{lines}\n{}", closed(now)),
        format!("updated/{path}:{lines}\n"),
    ];
    let mut tokens = Vec::new();
    for file in edits.chain(region) {
        tokens.push(markers.file);
        tokens.extend(tokenizer.text_tokens(&file)?);
    }
    Ok(RegionPrompt { tokens, stop: Vec::new() })
}

/// An edit as a diff without line numbers.
fn as_diff(edit: &EditedLines) -> String {
    let signed =
        |text: &str, sign: char| -> String { text.lines().map(|line| format!("{sign}{line}\n")).collect() };
    signed(&edit.original, '-') + &signed(&edit.updated, '+')
}

fn zeta(told: &Told) -> String {
    let path = path(told);
    let (before, behind) = told.now.split_at(told.before_cursor);
    let before = before.replace("\r\n", "\n");
    let edits: Vec<String> = told
        .edits
        .iter()
        .map(|edit| format!("User edited {path:?}:\n```diff\n{}```", as_diff(edit)))
        .collect();
    let start = if told.rows.start == 0 { "<|start_of_file|>\n" } else { "" };
    format!(
        "\n### Instruction:\nYou are a code completion assistant and your task is to analyze user edits and then rewrite an excerpt \
         that the user provides, suggesting the appropriate edits within the excerpt, taking into account the cursor location.\n\n\
         ### User Edits:\n\n{}\n\n### User Excerpt:\n\n```{path}\n{start}<|editable_region_start|>\n{before}<|user_cursor_is_here|>{}\
         <|editable_region_end|>\n```\n\n### Response:\n\n```{path}\n{start}<|editable_region_start|>\n",
        edits.join("\n\n"),
        closed(behind)
    )
}

/// Longer than any in what is quoted.
fn fence(told: &Told) -> String {
    let edits = told.edits.iter().flat_map(|edit| [&edit.original, &edit.updated]);
    let quoted = edits.chain([&told.now]);
    let longest = quoted.flat_map(|text| text.split(|character| character != '`')).map(str::len).max();
    "`".repeat(3.max(longest.unwrap_or(0) + 1))
}

fn plain(told: &Told, fence: &str) -> String {
    let edits: String = told
        .edits
        .iter()
        .map(|edit| {
            format!(
                "Before:\n{fence}\n{}{fence}\nAfter:\n{fence}\n{}{fence}\n",
                closed(&edit.original),
                closed(&edit.updated)
            )
        })
        .collect();
    let edits =
        if edits.is_empty() { edits } else { format!("The latest edits of {}:\n\n{edits}\n", path(told)) };
    format!(
        "\n\n{edits}The lines {} to {} of {}, as they are:\n{fence}\n{}{fence}\n\nThe same lines, with what the latest edits ask for made there \
         too:\n{fence}\n",
        told.rows.start + 1,
        told.rows.end,
        path(told),
        closed(&told.now)
    )
}
