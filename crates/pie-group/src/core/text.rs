//! What a completion writes, as its client reads it: whole characters only, stop strings held back.

use crate::faults;
use pie_proto::Fault;
use pie_text::{StopStrings, TokenDecoder, Tokenizer};
use pie_words::TokenId;

/// Tokens on their way to a client.
pub(super) struct Text {
    decoder: TokenDecoder,
    stop: StopStrings,
}

impl Text {
    /// Nothing is written yet.
    pub fn new(tokenizer: &Tokenizer, stop: Vec<String>) -> Self {
        Self { decoder: tokenizer.decoder(), stop: StopStrings::new(stop) }
    }

    /// Its client has these tokens already, and their text: it goes on with what they left unsaid.
    ///
    /// # Errors
    /// They have a stop string in them, behind which nothing was ever written.
    pub fn skip(&mut self, tokens: &[TokenId]) -> Result<(), Fault> {
        for (index, token) in tokens.iter().enumerate() {
            if self.push(*token).1 {
                return Err(faults::bad_generated(index, "it completes a stop string"));
            }
        }
        Ok(())
    }

    /// What a token adds, and whether a stop string ended it.
    pub fn push(&mut self, token: TokenId) -> (String, bool) {
        self.stop.push(&self.decoder.push(token))
    }

    /// What decoder and stop strings still hold back.
    pub fn rest(&mut self) -> String {
        let (mut text, stopped) = self.stop.push(&self.decoder.finish());
        if !stopped {
            text.push_str(&self.stop.finish());
        }
        text
    }
}
