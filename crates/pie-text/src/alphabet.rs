//! The alphabet of byte-level BPE: each byte as a printable character, as GPT-2 began it.

/// The character that stands for a byte: itself where it is printable Latin-1, else the next one from U+0100 on.
pub(crate) fn characters() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = u8::try_from(byte).expect("an index of 256 entries is a byte");
        if printable(byte) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).expect("U+0100 to U+0143 are characters")
    })
}

/// The byte that a character stands for.
pub(crate) fn byte_of(character: char) -> Option<u8> {
    use std::sync::LazyLock;
    static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
        let mut bytes = [None; 0x144];
        for (byte, character) in (0..=255).zip(characters()) {
            bytes[character as usize] = Some(byte);
        }
        bytes
    });
    BYTES.get(character as usize).copied().flatten()
}

/// True for bytes of text: not for control characters, those that begin characters beyond U+3FFFF, where none is assigned
/// but private ones, and those that are no part of UTF-8.
pub(crate) fn is_needed(byte: u8) -> bool {
    !matches!(byte, 0..=0x08 | 0x0B | 0x0C | 0x0E..=0x1F | 0x7F | 0xC0 | 0xC1 | 0xF1..=0xFF)
}

/// The bytes of a token: those that its characters stand for, or its own where one stands for none, as Hugging Face's
/// `ByteLevel` decoder has it.
pub(crate) fn token_bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_that_of_the_tokenizers_crate() {
        let ours: std::collections::HashSet<char> = characters().into_iter().collect();
        let theirs: std::collections::HashSet<char> =
            tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        assert_eq!(token_bytes("Ġé"), [b' ', 0xE9]);
        assert_eq!(token_bytes("<｜"), "<｜".as_bytes());
    }
}
