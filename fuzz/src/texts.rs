//! Texts that tokenizers find hard to cut, more often than random ones.

use crate::pairs::HARD;
use arbitrary::{Arbitrary, Result, Unstructured};

/// A short text: hard pieces, and characters at random.
#[derive(Debug)]
pub struct Text(pub String);

const PIECES: u8 = 24;

impl<'a> Arbitrary<'a> for Text {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let mut text = String::new();
        for _ in 0..input.arbitrary::<u8>()? % PIECES {
            let choice = usize::from(input.arbitrary::<u8>()?);
            match HARD.get(choice) {
                Some(piece) => text.push_str(piece),
                None if choice < 250 => text.push(char::from(input.arbitrary::<u8>()? & 0x7f)),
                None => text.push(input.arbitrary()?),
            }
        }
        Ok(Self(text))
    }
}
