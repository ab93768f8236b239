//! The pieces of a text, by the tokenizers crate, and where its patterns give up.
//!
//! A run of white space that something follows is matched by `\s+(?!\S)`, all but its last character: the engine of
//! patterns remembers each step back, and gives up after a million of them without an error, so that all behind
//! would be one piece. Between the ends of a long run nothing can begin or end: no pattern of a [`crate::form::PreTokenizerKind`] tells a
//! character of white space from its like but at an end of a run, and where line breaks are told from others they end
//! a run here too. So the middle is taken out, the rest is cut, and the piece around the place gets it back.

use crate::added::in_alphabet;
use crate::error::TextError;
use crate::form::RestartKind;
use crate::tokenizer::{Tokenizer, failed};
use pie_words::TokenId;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

/// Characters of white space from which on a run is long.
const LONG_RUN: usize = 4096;
/// So many are kept at each of its ends.
const KEPT: usize = 64;
/// Where nothing is known of the pattern, longer runs are refused.
const LONGEST_UNKNOWN: usize = 100_000;

/// A piece before its bytes are merged to tokens.
pub(crate) struct RawPiece {
    /// Bytes of text that the piece covers.
    pub bytes: usize,
    /// What it is made of.
    pub cut: PieceCut,
}

pub(crate) enum PieceCut {
    /// An added token, which is not cut further.
    Added(TokenId),
    /// A piece in the characters of the byte-level alphabet.
    Merge(String),
}

impl Tokenizer {
    /// The pieces of a text that stands alone.
    pub(crate) fn pieces(&self, text: &str) -> Result<Vec<RawPiece>, TextError> {
        let mut cut = self.added.text.extract_and_normalize(self.inner.get_normalizer(), text);
        let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() else { return Ok(self.raw(&cut)) };
        let (RestartKind::Piece(form) | RestartKind::PieceOfPlainText(form)) = &self.restart else {
            return self.pieces_of_unknown(text, cut);
        };
        let runs =
            WhiteSpaceRuns { longer_than: LONG_RUN, across_lines: form.takes_line_breaks_for_spaces() };
        if runs.gaps(text).is_empty() {
            pre_tokenizer.pre_tokenize(&mut cut).map_err(failed(text.len()))?;
            return Ok(self.raw(&cut));
        }
        let mut list = Vec::new();
        for (part, (start, end), tokens) in cut.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            match tokens.as_deref() {
                Some([token]) => {
                    let cut = PieceCut::Added(self.added.id(token.id));
                    list.push(RawPiece { bytes: end - start, cut });
                }
                _ => self.pieces_around_gaps(part, &runs.gaps(part), &mut list)?,
            }
        }
        Ok(list)
    }

    /// The pieces of a text without added tokens, whose long runs the pre-tokenizer does not get to see.
    fn pieces_around_gaps(
        &self,
        text: &str,
        gaps: &[Gap],
        list: &mut Vec<RawPiece>,
    ) -> Result<(), TextError> {
        let mut short = String::new();
        let mut at = 0;
        for gap in gaps {
            short.push_str(&text[at..gap.start]);
            at = gap.start + gap.bytes;
        }
        short.push_str(&text[at..]);
        let mut cut = PreTokenizedString::from(short);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut cut).map_err(failed(text.len()))?;
        }
        let mut gaps = gaps.iter().peekable();
        let (mut start, mut given_back) = (0, 0);
        for (_, (_, end), _) in cut.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            while let Some(gap) = gaps.next_if(|gap| gap.start < end + given_back) {
                given_back += gap.bytes;
            }
            let end = end + given_back;
            if start < end {
                list.push(RawPiece {
                    bytes: end - start,
                    cut: PieceCut::Merge(in_alphabet(&text[start..end])),
                });
            }
            start = end;
        }
        Ok(())
    }

    /// A normalizer or pattern that nobody has looked at may do anything with a long run.
    fn pieces_of_unknown(&self, text: &str, mut cut: PreTokenizedString) -> Result<Vec<RawPiece>, TextError> {
        let runs = WhiteSpaceRuns { longer_than: LONGEST_UNKNOWN, across_lines: true };
        if !runs.gaps(text).is_empty() {
            return Err(TextError::LongRun { limit: LONGEST_UNKNOWN });
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut cut).map_err(failed(text.len()))?;
        }
        Ok(self.raw(&cut))
    }

    fn raw(&self, cut: &PreTokenizedString) -> Vec<RawPiece> {
        let splits = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        let piece =
            |(content, (start, end), tokens): (&str, (usize, usize), &Option<Vec<tokenizers::Token>>)| {
                let cut = match tokens.as_deref() {
                    Some([token]) => PieceCut::Added(self.added.id(token.id)),
                    _ => PieceCut::Merge(content.to_owned()),
                };
                RawPiece { bytes: end - start, cut }
            };
        let has_text =
            |piece: &RawPiece| !matches!(&piece.cut, PieceCut::Merge(content) if content.is_empty());
        splits.into_iter().map(piece).filter(has_text).collect()
    }
}

/// The middle of a long run.
struct Gap {
    /// Its first byte.
    start: usize,
    bytes: usize,
}

/// Runs of white space, and what of them is left out.
struct WhiteSpaceRuns {
    /// Characters; shorter runs are left as they are.
    longer_than: usize,
    /// Whether line breaks are white space like other.
    across_lines: bool,
}

impl WhiteSpaceRuns {
    fn is_blank(&self, character: char) -> bool {
        character.is_whitespace() && (self.across_lines || !matches!(character, '\n' | '\r'))
    }

    fn gaps(&self, text: &str) -> Vec<Gap> {
        let mut gaps = Vec::new();
        let mut rest = text;
        while rest.len() > self.longer_than {
            let Some(run) = rest.find(|character| self.is_blank(character)) else { break };
            let run = &rest[run..];
            let length = run.find(|character| !self.is_blank(character)).unwrap_or(run.len());
            rest = &run[length..];
            let characters = if length > self.longer_than { run[..length].chars().count() } else { length };
            if characters > self.longer_than {
                let offset = |index: usize| run.char_indices().nth(index).map_or(length, |(at, _)| at);
                let (start, end) = (offset(KEPT), offset(characters - KEPT));
                gaps.push(Gap { start: text.len() - run.len() + start, bytes: end - start });
            }
        }
        gaps
    }
}
