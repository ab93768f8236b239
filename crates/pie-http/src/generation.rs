//! A completion's stream, with the ends that its caller set.

use crate::begin::StartedCompletion;
use crate::error::ApiError;
use crate::found::PromptFacts;
use crate::sessions::CompletionGuard;
use pie_proto::v1;
use std::time::{Duration, Instant};
use tonic::Streaming;

/// Ends besides those that the pool knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    /// So long after its first token, once it has ended a line.
    pub time: Option<Duration>,
    /// Before a line that is indented by fewer characters.
    pub indent: usize,
}

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The model ended it, or a stop string.
    Stop,
    /// It has as many tokens as were asked for, or as fit.
    Length,
    /// It took too long, or a line was indented too little.
    Cut,
    /// The session was edited by another request that named it.
    Edited,
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Delta {
    /// New text.
    pub text: String,
    /// New tokens.
    pub tokens: Vec<v1::CompletedToken>,
}

/// A completion that is being read.
pub(crate) struct Generation {
    messages: Option<Streaming<v1::CompleteResponse>>,
    _running: CompletionGuard,
    ends: Ends,
    indent: Indent,
    first: Option<Instant>,
    /// What was done before.
    pub facts: PromptFacts,
    /// Of its first token.
    pub timings: v1::Timings,
    /// The seed, where one was drawn with.
    pub seed: Option<u64>,
    /// All tokens so far.
    pub tokens: Vec<u32>,
    /// All text so far.
    pub text: String,
    /// None as long as it goes on.
    pub ending: Option<StopReason>,
    /// From its first token to its last.
    pub predicting: Duration,
}

impl Generation {
    /// Reads a completion that has begun.
    pub fn new(begun: StartedCompletion, ends: Ends) -> Self {
        let StartedCompletion { messages, facts, running } = begun;
        let ending = if messages.is_none() { Some(StopReason::Length) } else { None };
        Self {
            messages,
            _running: running,
            ends,
            indent: Indent::default(),
            first: None,
            facts,
            timings: v1::Timings::default(),
            seed: None,
            tokens: Vec::new(),
            text: String::new(),
            ending,
            predicting: Duration::ZERO,
        }
    }

    /// What comes next; `None` behind the last.
    ///
    /// # Errors
    /// The pool ends it.
    pub async fn next(&mut self) -> Result<Option<Delta>, ApiError> {
        if self.ending.is_some() {
            return Ok(None);
        }
        let Some(messages) = &mut self.messages else { return Ok(None) };
        let Some(message) = messages.message().await? else {
            return Err(ApiError::internal("the completion ended without saying why"));
        };
        let first = *self.first.get_or_insert_with(Instant::now);
        self.predicting = first.elapsed();
        if let Some(timings) = message.timings {
            self.timings = timings;
        }
        self.seed = self.seed.or(message.seed);
        self.tokens.extend(message.tokens.iter().map(|token| token.id));
        let finish = message.finish_reason();
        let mut text = self.indent.take(&message.text_delta, self.ends.indent);
        self.ending = match finish {
            v1::FinishReason::Unspecified => None,
            v1::FinishReason::Stop => Some(StopReason::Stop),
            v1::FinishReason::Length => Some(StopReason::Length),
            v1::FinishReason::Edited => Some(StopReason::Edited),
        };
        let is_late = self.ends.time.is_some_and(|most| self.predicting > most) && self.text.contains('\n');
        if self.indent.is_over || (self.ending.is_none() && is_late) {
            self.ending = Some(StopReason::Cut);
        }
        if self.ending.is_some() {
            text.push_str(&self.indent.rest());
            self.close().await;
        }
        // A character whose last bytes would have been the next token's is no text yet.
        if matches!(self.ending, Some(StopReason::Length | StopReason::Stop)) {
            text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        }
        self.text.push_str(&text);
        Ok(Some(Delta { text, tokens: message.tokens }))
    }

    /// A call that is read to its end counts as answered; one that is dropped before is cancelled within a step.
    async fn close(&mut self) {
        if let Some(mut messages) = self.messages.take()
            && self.ending != Some(StopReason::Cut)
        {
            let _ = messages.message().await;
        }
    }
}

/// Holds back a line's begin until it is known how far it is indented.
#[derive(Debug, Default)]
struct Indent {
    /// A line break and the white space behind it, which nobody was told of.
    held: String,
    is_over: bool,
}

impl Indent {
    /// What may be told now.
    fn take(&mut self, text: &str, least: usize) -> String {
        if least == 0 {
            return text.to_owned();
        }
        let mut told = String::new();
        for character in text.chars() {
            if self.is_over {
                break;
            }
            let is_held = !self.held.is_empty();
            match character {
                '\n' => self.held.push(character),
                ' ' | '\t' if is_held => self.held.push(character),
                _ if is_held => {
                    let indent = self.held.rsplit('\n').next().map_or(0, str::len);
                    self.is_over = indent < least;
                    if !self.is_over {
                        told.push_str(&std::mem::take(&mut self.held));
                        told.push(character);
                    }
                }
                _ => told.push(character),
            }
        }
        told
    }

    /// What was held back, at the end. What stands before a line that is not wanted goes with it.
    fn rest(&mut self) -> String {
        if self.is_over { String::new() } else { std::mem::take(&mut self.held) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_indented_less_ends_it_before_its_break() {
        let cases = [
            (4, "a\n    b\nc", "a\n    b", true),
            (4, "a\n    b\n  c", "a\n    b", true),
            (4, "a\n\n    b\n\n", "a\n\n    b\n\n", false),
            (4, "a\n\tb", "a", true),
            (0, "a\nb", "a\nb", false),
            (2, "only one line", "only one line", false),
        ];
        for (least, text, expected, over) in cases {
            // However it is cut into deltas.
            for size in 1..4 {
                let characters: Vec<char> = text.chars().collect();
                let mut indent = Indent::default();
                let deltas = characters.chunks(size).map(String::from_iter);
                let mut told: String = deltas.map(|delta| indent.take(&delta, least)).collect();
                told.push_str(&indent.rest());
                assert_eq!((told.as_str(), indent.is_over), (expected, over), "{text:?} by {size}");
            }
        }
    }
}
