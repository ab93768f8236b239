//! Added tokens: those that are text, which are looked for in documents, and control tokens, which are not.
//!
//! The text of a document is text. Where it spells a control token, as a source file about tokenizers does, it gets the
//! tokens of these characters: control tokens come from the pool alone, before a text and around a cursor, and from
//! the model, whose text they end. An added token is a control token if
//! * the file calls it special, or the configuration beside it names it (begin and end of text, padding, ...);
//! * it is written as one: `<|…|>`, `<｜…｜>`, `<s>`, `<pad>`, ...; files call few of these special;
//! * or it marks a side of a cursor ([`crate::FimMarkers`]).
//!
//! What the model makes from ordinary text by itself (single bytes, the results of merges) is none, whatever the file
//! says: text could not be written without it. All other added tokens are text: runs of white space, rare
//! letters, `<tool_call>`.

use crate::alphabet::characters;
use crate::beside::Beside;
use crate::cursor::is_marker;
use pie_words::TokenId;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use tokenizers::{AddedToken, AddedVocabulary, Model};

/// Control tokens of families that call them neither special nor write them between bars.
const PLAIN: [&str; 7] = ["<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>"];

/// The added tokens of a tokenizer, parted.
#[derive(Debug)]
pub(crate) struct AddedTokens {
    /// Those that are text.
    pub text: AddedVocabulary,
    /// The tokenizer's ids of those in `text`, which numbers them anew.
    ids: HashMap<u32, TokenId>,
    /// Tokens that no text may spell. Sorted.
    pub control: Vec<TokenId>,
    /// Control tokens that the model would take for a whole piece of text with this spelling. Sorted.
    pub tempting: Vec<TokenId>,
}

impl AddedTokens {
    pub(crate) fn of(
        inner: &tokenizers::Tokenizer,
        file: &Value,
        beside: &Beside,
    ) -> Result<Self, tokenizers::Error> {
        let mut tokens: Vec<(u32, AddedToken)> = inner.get_added_tokens_decoder().into_iter().collect();
        // The map's order is another one in each run.
        tokens.sort_unstable_by_key(|(id, _)| *id);
        let named = beside.special_tokens();
        let spelled: HashMap<String, u32> = tokens
            .iter()
            .filter(|(_, token)| is_control(token, &named))
            .map(|(id, token)| (in_alphabet(&token.content), *id))
            .collect();
        let made = made_of_text(&file["model"], &spelled);
        let control: Vec<u32> = {
            let mut ids: Vec<u32> = spelled.values().copied().filter(|id| !made.contains(id)).collect();
            ids.sort_unstable();
            ids
        };
        let is_text = |(id, _): &(u32, AddedToken)| control.binary_search(id).is_err();
        let mut text = AddedVocabulary::new();
        let of_text = tokens.iter().filter(|token| is_text(token)).map(|(_, token)| token.clone());
        text.add_tokens(of_text, inner.get_model(), inner.get_normalizer())?;
        let id = |(id, token): (&u32, &AddedToken)| Some((*id, TokenId(inner.token_to_id(&token.content)?)));
        let ids = text.get_added_tokens_decoder().iter().filter_map(id).collect();
        let takes_whole_pieces = file["model"]["ignore_merges"] == true;
        let tempts = |(spelling, id): (&String, &u32)| inner.get_model().token_to_id(spelling) == Some(*id);
        let mut tempting: Vec<TokenId> = spelled
            .iter()
            .filter(|pair| takes_whole_pieces && !made.contains(pair.1) && tempts(*pair))
            .map(|(_, id)| TokenId(*id))
            .collect();
        tempting.sort_unstable();
        Ok(Self { text, ids, control: control.into_iter().map(TokenId).collect(), tempting })
    }

    /// The tokenizer's id of a token that was found in a text.
    pub(crate) fn id(&self, found: u32) -> TokenId {
        self.ids.get(&found).copied().unwrap_or(TokenId(found))
    }

    /// Bytes that the search for the tokens of `text` looks ahead: the longest of those that are matched before
    /// normalization and the longest of those that are matched after it, as the two searches follow each other.
    ///
    /// # Errors
    /// The token whose search reads text around it, or without end.
    pub(crate) fn reach(&self) -> Result<usize, String> {
        let (mut before, mut after) = (0, 0);
        for token in self.text.get_added_tokens_decoder().values() {
            if token.lstrip || token.rstrip || token.single_word {
                let what = &token.content;
                return Err(format!("added token {what} takes white space or whole words only"));
            }
            let longest = if token.normalized { &mut after } else { &mut before };
            *longest = token.content.len().max(*longest);
        }
        Ok(before + after)
    }
}

fn is_control(token: &AddedToken, named: &HashSet<String>) -> bool {
    let content = token.content.as_str();
    let between = |open, close| {
        let inside = content.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        inside.is_some_and(|inside| !inside.is_empty())
    };
    token.special
        || named.contains(content)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || PLAIN.contains(&content)
        || is_marker(content)
}

/// A text in the characters of the byte-level alphabet.
pub(crate) fn in_alphabet(text: &str) -> String {
    let characters = characters();
    text.bytes().map(|byte| characters[usize::from(byte)]).collect()
}

/// Of the tokens that are spelled so, those that the model makes from text: one byte, or what a merge results in.
fn made_of_text(model: &Value, spelled: &HashMap<String, u32>) -> HashSet<u32> {
    let bytes = spelled.iter().filter(|(spelling, _)| spelling.chars().count() == 1).map(|(_, id)| *id);
    let mut made: HashSet<u32> = bytes.collect();
    let mut result = String::new();
    for merge in model["merges"].as_array().into_iter().flatten() {
        let (left, right) = match merge {
            // A space parts the two: the alphabet has none.
            Value::String(both) => both.split_once(' ').unwrap_or_default(),
            pair => (pair[0].as_str().unwrap_or_default(), pair[1].as_str().unwrap_or_default()),
        };
        result.clear();
        result.push_str(left);
        result.push_str(right);
        made.extend(spelled.get(&result));
    }
    made
}
