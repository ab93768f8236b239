//! Forms of pre-tokenizers whose pieces can be found again around an edit, and how far their decisions reach.
//!
//! Each form is listed because it was read and found memoryless and of short reach (see the crate's page for the
//! words); none is guessed. None looks behind: GPT-2's, StarCoder's, Llama 3's and Qwen 2's patterns have no look-behind and no
//! anchor, and their alternatives cover every character, so a match depends on the text from its start on. In
//! DeepSeek-Coder's sequence, whether there is a piece boundary between two characters depends on these two and the next:
//! line breaks and digits stand alone; a run of letters or of punctuation takes one white space before it, which no other
//! run can claim, because runs end with their own kind; characters in and out of the CJK ranges part.

use ropey::Rope;
use serde_json::{Value, json};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's is Llama 3's but for numbers, which it cuts at each digit.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_CODER: [&str; 4] = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"];

/// A known pre-tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `ByteLevel` with its pattern: GPT-2.
    Gpt2,
    /// `Digits` one by one, then GPT-2's: StarCoder.
    StarCoder,
    /// The pattern of Llama 3 (and GPT-4), then `ByteLevel` without pattern.
    Llama3,
    /// The pattern of Qwen 2 and 2.5, then `ByteLevel` without pattern.
    Qwen2,
    /// Line breaks, words, punctuation, CJK, digits: DeepSeek-Coder.
    DeepSeekCoder,
}

/// How a tokenizer is restarted around an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestartKind {
    /// At the start of any piece: an edit costs what the edit costs.
    Piece(Form),
    /// As [`RestartKind::Piece`] in texts that the tokenizer's normalizer, NFC, leaves alone, which is nearly all code;
    /// where a text has letters that combine, each edit tokenizes it whole.
    PieceOfPlainText(Form),
    /// Not at all: each edit tokenizes the whole text. Right, but slow.
    WholeText {
        /// What in the tokenizer is not known to be safe.
        why: String,
    },
}

impl Form {
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
        let bytes = |own: bool| {
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": own})
        };
        let split = |pattern: &str| {
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
        };
        let digits = || json!({"type": "Digits", "individual_digits": true});
        let parts = match self {
            Self::Gpt2 => vec![split(GPT2), bytes(false)],
            Self::StarCoder => vec![digits(), bytes(true)],
            Self::Llama3 => vec![split(LLAMA3), bytes(false)],
            Self::Qwen2 => vec![split(QWEN2), bytes(false)],
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

    /// How white space behind a piece counts in its decision. Llama 3's `\s*[\r\n]+` runs through all white space and
    /// then steps back to the last line break in it.
    fn white_space(self) -> WhiteSpace {
        match self {
            Self::Llama3 | Self::Qwen2 => WhiteSpace::WholeRun,
            Self::Gpt2 | Self::StarCoder | Self::DeepSeekCoder => WhiteSpace::LikeOthers,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhiteSpace {
    LikeOthers,
    WholeRun,
}

/// How far behind a piece's end the text is read that decides on this end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookAhead {
    white_space: WhiteSpace,
    /// Bytes that the search for added tokens looks ahead: the longest of those that are matched before normalization
    /// and the longest of those that are matched after it, as the two searches follow each other.
    added: usize,
}

/// Characters that a pattern reads behind a match. GPT-2 reads two: after all but one of a run of white space, that one
/// and the character that forbids it; or in `'re` after a lone `'`. One more is for the safe side.
const CHARACTERS: usize = 3;

impl LookAhead {
    pub(crate) fn new(form: Form, added: usize) -> Self {
        Self { white_space: form.white_space(), added }
    }

    /// Pieces that end before this offset were decided by text before `limit` alone.
    pub(crate) fn settled(&self, text: &Rope, limit: usize) -> usize {
        let mut at = text.byte_to_char(limit.saturating_sub(self.added)).saturating_sub(CHARACTERS);
        if self.white_space == WhiteSpace::WholeRun {
            let before = text.chars_at(at).reversed();
            at -= before.take_while(|character| character.is_whitespace()).count();
        }
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
        for form in [Form::Gpt2, Form::StarCoder, Form::Llama3, Form::Qwen2, Form::DeepSeekCoder] {
            assert_eq!(Form::of(&form.written()), Some(form));
        }
    }
}
