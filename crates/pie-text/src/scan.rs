//! The pieces of a text from a piece start on, one window of text at a time.

use crate::error::TextError;
use crate::form::LookAhead;
use crate::pieces::RawPiece;
use crate::tokenizer::{Tokenizer, failed};
use pie_words::TextToken;
use ropey::Rope;
use std::collections::VecDeque;

/// Windows grow while a scan goes on: a typed character needs one small window, a document few large ones.
const FIRST_WINDOW: usize = 96;
const LARGEST_WINDOW: usize = 1 << 16;

/// Walks over the pieces of a text. By memorylessness each window may start where the pieces of the last one ended; by
/// short reach the pieces that end early enough before a window's end are those of the whole text.
pub(crate) struct PieceScan<'a> {
    tokenizer: &'a Tokenizer,
    reach: LookAhead,
    text: &'a Rope,
    /// Where the next window starts.
    next: usize,
    window: usize,
    ready: VecDeque<RawPiece>,
    /// Bytes that were cut into pieces, those cut twice counted twice.
    pub bytes_scanned: usize,
}

impl<'a> PieceScan<'a> {
    /// A scan from the piece start `start`; the first window holds `expected` bytes and what follows.
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        reach: LookAhead,
        text: &'a Rope,
        start: usize,
        expected: usize,
    ) -> Self {
        let window = (expected + FIRST_WINDOW).min(LARGEST_WINDOW);
        Self { tokenizer, reach, text, next: start, window, ready: VecDeque::new(), bytes_scanned: 0 }
    }

    /// Appends the tokens of the next piece to `entries`; gives its length in bytes, and 0 at the end of the text. A piece
    /// without tokens, of characters that the tokenizer leaves out, is one with the piece behind it; at the end of a text
    /// it has no entry, so that the text counts as one whose pieces are not known.
    pub(crate) fn next_piece(&mut self, entries: &mut Vec<TextToken>) -> Result<usize, TextError> {
        let mut bytes = 0;
        loop {
            if self.ready.is_empty() && self.next < self.text.len_bytes() {
                self.fill()?;
            }
            let Some(piece) = self.ready.pop_front() else { return Ok(bytes) };
            bytes += piece.bytes;
            let first = entries.len();
            self.tokenizer.tokens_of(&piece, entries)?;
            if let Some(entry) = entries.get_mut(first) {
                let too_long = |_| failed(bytes)("a piece of more than 4 GiB".into());
                entry.piece_bytes = u32::try_from(bytes).map_err(too_long)?;
                return Ok(bytes);
            }
        }
    }

    fn fill(&mut self) -> Result<(), TextError> {
        while self.ready.is_empty() {
            let length = self.text.len_bytes();
            let wanted = self.next.saturating_add(self.window).min(length);
            let end = self.text.char_to_byte(self.text.byte_to_char(wanted));
            let window = self.text.byte_slice(self.next..end).to_string();
            let settled = if end == length { usize::MAX } else { self.reach.settled(self.text, end) };
            self.bytes_scanned += window.len();
            let mut at = self.next;
            for piece in self.tokenizer.pieces(&window)? {
                at += piece.bytes;
                if at >= settled {
                    break;
                }
                self.next = at;
                self.ready.push_back(piece);
            }
            // Nothing settled: one piece is longer than the window.
            self.window = if self.ready.is_empty() {
                self.window.saturating_mul(2)
            } else {
                self.window.saturating_mul(2).min(LARGEST_WINDOW)
            };
        }
        Ok(())
    }
}
