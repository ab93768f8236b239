//! From tokens back to text, one token at a time.

use crate::alphabet::token_bytes;
use pie_words::TokenId;
use std::sync::Arc;

/// The bytes of every token, end to end.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    bytes: Vec<u8>,
    /// Where token `i` ends; it starts where the one before ends.
    ends: Vec<u32>,
    /// Control tokens, sorted.
    control: Vec<TokenId>,
}

impl TokenBytes {
    /// The table of `tokenizer`, whose ids are below `vocabulary`. Ids that name no token have no bytes, as in Hugging
    /// Face's `decode`. An added token is written as text, not in the alphabet of bytes: `õ` is itself, not byte 0xF5.
    pub(crate) fn of(tokenizer: &tokenizers::Tokenizer, vocabulary: u32, control: Vec<TokenId>) -> Self {
        let mut table = Self { bytes: Vec::new(), ends: Vec::new(), control };
        let added = tokenizer.get_added_tokens_decoder();
        for id in 0..vocabulary {
            match added.get(&id) {
                Some(token) => table.bytes.extend(token.content.as_bytes()),
                None => table.bytes.extend(token_bytes(&tokenizer.id_to_token(id).unwrap_or_default())),
            }
            table.ends.push(u32::try_from(table.bytes.len()).unwrap_or(u32::MAX));
        }
        table
    }

    /// Bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let lengths = self.ends.iter().zip(starts).map(|(end, start)| (end - start) as usize);
        lengths.max().unwrap_or(0)
    }

    pub(crate) fn get(&self, token: TokenId) -> &[u8] {
        let index = token.0 as usize;
        let Some(end) = self.ends.get(index) else { return &[] };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..*end as usize]
    }
}

/// Turns tokens into text deltas, never cutting a character: bytes of an unfinished one are held back. The deltas and
/// [`TokenDecoder::finish`], joined, equal decoding all tokens at once; bytes that are no UTF-8 become U+FFFD.
/// Each token costs its own bytes alone.
#[derive(Clone, Debug)]
pub struct TokenDecoder {
    table: Arc<TokenBytes>,
    /// The start of a character, at most 3 bytes between calls.
    pending: Vec<u8>,
}

impl TokenDecoder {
    pub(crate) fn new(table: Arc<TokenBytes>) -> Self {
        Self { table, pending: Vec::new() }
    }

    /// The text that a token completes. Control tokens, and ids outside of the vocabulary, add nothing.
    pub fn push(&mut self, token: TokenId) -> String {
        if self.table.control.binary_search(&token).is_ok() {
            return String::new();
        }
        self.pending.extend_from_slice(self.table.get(token));
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        // An error without a length is a character that may go on in the next token.
        let kept = loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break 0;
                }
                Err(error) => error,
            };
            let (valid, bad) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            let Some(length) = error.error_len() else { break bad.len() };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &bad[length..];
        };
        self.pending.drain(..self.pending.len() - kept);
        text
    }

    /// No token follows: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
