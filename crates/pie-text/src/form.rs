//! Forms of pre-tokenizers whose pieces can be found again around an edit, and how far their decisions reach.
//!
//! Each form is listed because it was read and found memoryless and of short reach (see the crate's page for the
//! words); none is guessed. None looks behind: GPT-2's, StarCoder's, Llama 3's, Qwen 2's and GPT-4o's patterns have no look-behind and
//! no anchor, and their alternatives cover every character, so a match depends on the text from its start on. In
//! DeepSeek-Coder's sequence, whether there is a piece boundary between two characters depends on these two and the next:
//! line breaks and digits stand alone; a run of letters or of punctuation takes one white space before it, which no other
//! run can claim, because runs end with their own kind; characters in and out of the CJK ranges part.

use ropey::Rope;
use serde_json::{Value, json};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's is Llama 3's but for numbers, which it cuts at each digit.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_CODER: [&str; 4] = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"];

/// A known pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreTokenizerKind {
    /// `ByteLevel` with its pattern: GPT-2.
    Gpt2,
    /// `Digits` one by one, then GPT-2's: StarCoder, SmolLM.
    StarCoder,
    /// The pattern of Llama 3 (and GPT-4), then `ByteLevel` without pattern.
    Llama3,
    /// The pattern of GPT-4o (o200k), which parts words where small letters give way to capitals, then `ByteLevel` without pattern.
    Gpt4o,
    /// The pattern of Qwen 2, 2.5 and 3, then `ByteLevel` without pattern.
    Qwen2,
    /// Line breaks, words, punctuation, CJK, digits: DeepSeek-Coder.
    DeepSeekCoder,
}

/// How a tokenizer is restarted around an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartKind {
    /// At the start of any piece: an edit costs what the edit costs.
    Piece(PreTokenizerKind),
    /// As [`RestartKind::Piece`] in texts that the tokenizer's normalizer, NFC, leaves alone, which is nearly all code;
    /// where a text has letters that combine, each edit tokenizes it whole.
    PieceOfPlainText(PreTokenizerKind),
    /// Not at all: each edit tokenizes the whole text. Right, but slow.
    WholeText {
        /// What in the tokenizer is not known to be safe.
        why: String,
    },
}

impl PreTokenizerKind {
    /// The form of a tokenizer.json's `pre_tokenizer`.
    pub(crate) fn of(pre_tokenizer: &Value) -> Option<Self> {
        if is_byte_level(pre_tokenizer, Pattern::Own) {
            return Some(Self::Gpt2);
        }
        if pre_tokenizer["type"] != "Sequence" {
            return None;
        }
        match pre_tokenizer["pretokenizers"].as_array()?.as_slice() {
            [digits, bytes] if is_digits(digits) && is_byte_level(bytes, Pattern::Own) => {
                Some(Self::StarCoder)
            }
            [split, bytes] if is_split(split, GPT2) && is_byte_level(bytes, Pattern::None) => {
                Some(Self::Gpt2)
            }
            [split, bytes] if is_split(split, LLAMA3) && is_byte_level(bytes, Pattern::None) => {
                Some(Self::Llama3)
            }
            [split, bytes] if is_split(split, QWEN2) && is_byte_level(bytes, Pattern::None) => {
                Some(Self::Qwen2)
            }
            [split, bytes] if covers(split, GPT4O) && is_byte_level(bytes, Pattern::None) => {
                Some(Self::Gpt4o)
            }
            [splits @ .., digits, bytes]
                if splits.len() == DEEPSEEK_CODER.len()
                    && splits.iter().zip(DEEPSEEK_CODER).all(|(split, pattern)| is_split(split, pattern))
                    && is_digits(digits)
                    && is_byte_level(bytes, Pattern::None) =>
            {
                Some(Self::DeepSeekCoder)
            }
            _ => None,
        }
    }

    /// A `pre_tokenizer` of this form.
    pub(crate) fn written(self) -> Value {
        let bytes = |own: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": own});
        let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let digits = || json!({"type": "Digits", "individual_digits": true});
        let parts = match self {
            Self::Gpt2 => vec![split(GPT2), bytes(false)],
            Self::StarCoder => vec![digits(), bytes(true)],
            Self::Llama3 => vec![split(LLAMA3), bytes(false)],
            Self::Qwen2 => vec![split(QWEN2), bytes(false)],
            Self::Gpt4o => vec![split(GPT4O), bytes(false)],
            Self::DeepSeekCoder => {
                DEEPSEEK_CODER.map(split).into_iter().chain([digits(), bytes(false)]).collect()
            }
        };
        json!({"type": "Sequence", "pretokenizers": parts})
    }

    /// Whether a line break is white space like other: in GPT-2's pattern, which names none.
    pub(crate) fn takes_line_breaks_for_spaces(self) -> bool {
        matches!(self, Self::Gpt2 | Self::StarCoder)
    }

    /// Runs of characters behind a piece that are read to their end to decide on its own.
    fn runs(self) -> LookaheadRuns {
        match self {
            Self::Llama3 | Self::Qwen2 => LookaheadRuns::WhiteSpace,
            Self::Gpt4o => LookaheadRuns::WhiteSpaceAndLetters,
            Self::Gpt2 | Self::StarCoder | Self::DeepSeekCoder => LookaheadRuns::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookaheadRuns {
    None,
    /// Llama 3's `\s*[\r\n]+` runs through all white space and then steps back to the last line break in it.
    WhiteSpace,
    /// GPT-4o's first alternative also runs through capitals, and steps back to the last letter that may be a small one, if none
    /// comes behind them: `你AB` is two pieces, `你ABc` is one.
    WhiteSpaceAndLetters,
}

/// Whether a character may be a letter or a mark. All are, of those that are none but for blocks without any.
fn may_be_letter(character: char) -> bool {
    let is_none = matches!(
        character,
        '\u{80}'..='\u{a9}'
            | '\u{ab}'..='\u{b4}'
            | '\u{2010}'..='\u{2064}'
            | '\u{20a0}'..='\u{20bf}'
            | '\u{2190}'..='\u{2bff}'
            | '\u{3000}'..='\u{3004}'
            | '\u{3008}'..='\u{3020}'
            | '\u{ff01}'..='\u{ff20}'
            | '\u{1f000}'..='\u{1faff}'
    );
    if character.is_ascii() {
        character.is_ascii_alphabetic()
    } else {
        !is_none && !character.is_whitespace()
    }
}

/// How far behind a piece's end the text is read that decides on this end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookAhead {
    runs: LookaheadRuns,
    /// Bytes that the search for added tokens looks ahead: the longest of those that are matched before normalization
    /// and the longest of those that are matched after it, as the two searches follow each other.
    added: usize,
}

/// Characters that a pattern reads behind a match. GPT-2 reads two: after all but one of a run of white space, that one
/// and the character that forbids it; or in `'re` after a lone `'`. One more is for the safe side.
const CHARACTERS: usize = 3;

impl LookAhead {
    pub(crate) fn new(form: PreTokenizerKind, added: usize) -> Self {
        Self { runs: form.runs(), added }
    }

    /// Pieces that end before this offset were decided by text before `limit` alone.
    pub(crate) fn settled(&self, text: &Rope, limit: usize) -> usize {
        let mut at = text.byte_to_char(limit.saturating_sub(self.added)).saturating_sub(CHARACTERS);
        let before = |is_in_run: fn(char) -> bool| {
            text.chars_at(at).reversed().take_while(|character| is_in_run(*character)).count()
        };
        at -= match self.runs {
            LookaheadRuns::None => 0,
            LookaheadRuns::WhiteSpace => before(char::is_whitespace),
            // One of the two is none.
            LookaheadRuns::WhiteSpaceAndLetters => before(char::is_whitespace) + before(may_be_letter),
        };
        text.char_to_byte(at)
    }
}

enum Pattern {
    Own,
    None,
}

fn is_byte_level(value: &Value, pattern: Pattern) -> bool {
    let uses = value["use_regex"].as_bool().unwrap_or(true);
    value["type"] == "ByteLevel"
        && value["add_prefix_space"] == false
        && uses == matches!(pattern, Pattern::Own)
}

fn is_digits(value: &Value) -> bool {
    value["type"] == "Digits" && value["individual_digits"] == true
}

/// The same, also as what takes away all but matches: where a pattern leaves nothing out, nothing goes.
fn covers(value: &Value, pattern: &str) -> bool {
    let keeps_matches = value["type"] == "Split" && value["behavior"] == "Removed" && value["invert"] == true;
    is_split(value, pattern) || keeps_matches && value["pattern"]["Regex"] == pattern
}

fn is_split(value: &Value, pattern: &str) -> bool {
    value["type"] == "Split"
        && value["behavior"] == "Isolated"
        && value["invert"] == false
        && value["pattern"]["Regex"] == pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_recognized() {
        for form in [
            PreTokenizerKind::Gpt2,
            PreTokenizerKind::StarCoder,
            PreTokenizerKind::Llama3,
            PreTokenizerKind::Qwen2,
            PreTokenizerKind::DeepSeekCoder,
        ] {
            assert_eq!(PreTokenizerKind::of(&form.written()), Some(form));
        }
    }
}
