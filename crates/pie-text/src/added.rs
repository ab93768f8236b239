//! Added tokens: those that are text, which are looked for in documents, and control tokens, which are not.
//!
//! The text of a document is text. Where it spells a control token, as a source file about tokenizers does, it gets the
//! tokens of these characters: control tokens come from the pool alone, before a text and around a cursor, and from
//! the model, whose text they end. An added token is a control token if
//! * the file calls it special, or the configuration beside it names it (begin and end of text, padding, ...);
//! * it is written as one: `<|…|>`, `<｜…｜>`, `<s>`, `<pad>`, ...; files call few of these special;
//! * or it marks a side of a cursor, or ends what is written between the sides, in the model's way to fill in the middle
//!   ([`crate::Fim`]); then also if it stands in the vocabulary alone, as some conversions leave it.
//!
//! What the model makes from ordinary text by itself (single bytes, the results of merges) is none, whatever the file
//! says: text could not be written without it. All other added tokens are text: runs of white space, rare
//! letters, `<tool_call>`.
//!
//! A document may be opened to be read otherwise ([`pie_words::Spellings::ControlTokens`]): then all added tokens are looked for.

use crate::alphabet::characters;
use crate::beside::Beside;
use crate::fim::is_marker;
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
    /// Those of a tokenizer; `fim` are contents of tokens that are none of a text in its way to fill in the middle.
    pub(crate) fn of(
        inner: &tokenizers::Tokenizer,
        file: &Value,
        beside: &Beside,
        fim: &[String],
    ) -> Result<Self, tokenizers::Error> {
        let named: HashSet<String> = beside.special_tokens().into_iter().chain(fim.iter().cloned()).collect();
        let in_vocabulary = fim.iter().filter_map(|content| Some((content, inner.token_to_id(content)?)));
        let spelled: HashMap<String, u32> = all_of(inner)
            .iter()
            .filter(|(_, token)| is_control(token, &named))
            .map(|(id, token)| (in_alphabet(&token.content), *id))
            .chain(in_vocabulary.map(|(content, id)| (in_alphabet(content), id)))
            .collect();
        let made = made_of_text(&file["model"], &spelled);
        let control: Vec<u32> = {
            let mut ids: Vec<u32> = spelled.values().copied().filter(|id| !made.contains(id)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let is_text = |(id, _): &(u32, AddedToken)| control.binary_search(id).is_err();
        let (text, ids) = looked_for(inner, all_of(inner).into_iter().filter(is_text))?;
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

    /// The same tokens, all of which are looked for in texts.
    pub(crate) fn all_in_text(&self, inner: &tokenizers::Tokenizer) -> Result<Self, tokenizers::Error> {
        let mut tokens = all_of(inner);
        for id in &self.control {
            if let (Err(at), Some(content)) =
                (tokens.binary_search_by_key(&id.0, |(id, _)| *id), inner.id_to_token(id.0))
            {
                tokens.insert(at, (id.0, AddedToken::from(content, true)));
            }
        }
        let (text, ids) = looked_for(inner, tokens.into_iter())?;
        Ok(Self { text, ids, control: self.control.clone(), tempting: Vec::new() })
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

/// All added tokens, by their ids: the map's order is another one in each run.
fn all_of(inner: &tokenizers::Tokenizer) -> Vec<(u32, AddedToken)> {
    let mut tokens: Vec<(u32, AddedToken)> = inner.get_added_tokens_decoder().into_iter().collect();
    tokens.sort_unstable_by_key(|(id, _)| *id);
    tokens
}

/// What finds these tokens in a text, and the tokenizer's ids of them.
fn looked_for(
    inner: &tokenizers::Tokenizer,
    tokens: impl Iterator<Item = (u32, AddedToken)>,
) -> Result<(AddedVocabulary, HashMap<u32, TokenId>), tokenizers::Error> {
    let mut text = AddedVocabulary::new();
    text.add_tokens(tokens.map(|(_, token)| token), inner.get_model(), inner.get_normalizer())?;
    let id = |(id, token): (&u32, &AddedToken)| Some((*id, TokenId(inner.token_to_id(&token.content)?)));
    let ids = text.get_added_tokens_decoder().iter().filter_map(id).collect();
    Ok((text, ids))
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
