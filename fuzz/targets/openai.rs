//! Answers of OpenAI-style servers: however the bytes are cut, the pieces are the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pie_load::target::{EventReader, CompletionDelta};

fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<CompletionDelta>, Option<String>, bool) {
    let (mut events, mut pieces) = (EventReader::default(), Vec::new());
    for chunk in chunks {
        events.push(chunk);
        loop {
            match events.next_piece() {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break,
                Err(error) => return (pieces, Some(error.code + &error.message), events.ended()),
            }
        }
    }
    (pieces, None, events.ended())
}

fuzz_target!(|input: &[u8]| {
    let Some((width, bytes)) = input.split_first() else { return };
    let cut = read(bytes.chunks(usize::from(width % 32) + 1));
    assert_eq!(cut, read([bytes]));
    if cut.2 {
        assert!(cut.1.is_none(), "an answer that has ended has no more errors");
    }
});
