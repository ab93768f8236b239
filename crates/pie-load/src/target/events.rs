//! The events of an answer of `/v1/completions`, from bytes as they come: a line at a time, whatever the cuts between them.

use super::{CallError, CompletionDelta, CompletionEnd};
use serde::Deserialize;

/// Bytes of one event at most: a server that never ends its line must not fill the memory.
const EVENT_LIMIT: usize = 1 << 20;

/// Reads the events of one answer.
#[derive(Debug, Default)]
pub struct EventReader {
    rest: Vec<u8>,
    /// Bytes of `rest` that are known to have no line's end.
    seen: usize,
    ended: bool,
}

#[derive(Deserialize)]
struct CompletionChunk {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
    finish_reason: Option<String>,
}

enum EventLine {
    Nothing,
    Done,
    Piece(CompletionDelta),
}

impl EventReader {
    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The answer has ended: nothing that follows counts.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next piece of what has come so far; `None` when more must come first, or none will.
    ///
    /// # Errors
    /// An event that cannot be read.
    pub fn next_piece(&mut self) -> Result<Option<CompletionDelta>, CallError> {
        while !self.ended {
            let Some(line) = self.line()? else { break };
            match read(&line)? {
                EventLine::Nothing => {}
                EventLine::Done => self.ended = true,
                EventLine::Piece(piece) => {
                    self.ended = piece.end.is_some();
                    return Ok(Some(piece));
                }
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<String>, CallError> {
        let Some(end) = self.rest[self.seen..].iter().position(|byte| *byte == b'\n') else {
            self.seen = self.rest.len();
            if self.seen > EVENT_LIMIT {
                return Err(unreadable(format!("a line of more than {EVENT_LIMIT} bytes")));
            }
            return Ok(None);
        };
        let line: Vec<u8> = self.rest.drain(..=self.seen + end).collect();
        self.seen = 0;
        Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()))
    }
}

fn read(line: &str) -> Result<EventLine, CallError> {
    let Some(data) = line.strip_prefix("data:").map(str::trim) else { return Ok(EventLine::Nothing) };
    if data == "[DONE]" {
        return Ok(EventLine::Done);
    }
    let shown = || data.chars().take(200).collect::<String>();
    let chunk: CompletionChunk =
        serde_json::from_str(data).map_err(|error| unreadable(format!("`{}`: {error}", shown())))?;
    let Some(choice) = chunk.choices.into_iter().next() else { return Ok(EventLine::Nothing) };
    let end = choice.finish_reason.map(|_| CompletionEnd::Finished);
    let tokens = u32::from(!choice.text.is_empty());
    Ok(EventLine::Piece(CompletionDelta { text: choice.text, tokens, timings: None, end }))
}

fn unreadable(message: String) -> CallError {
    CallError { code: "BAD_RESPONSE".to_owned(), message }
}
