//! Characters that the normalization form NFC leaves alone, whatever stands beside them.
//!
//! A text of these alone is its own normal form, and so is every part of it: edits in it are tokenized around as if there
//! were no normalizer. Nearly all code is such text. The list is made of blocks, not of all there are: letters that
//! combine (accents that stand alone, jamo, the vowel signs of many scripts) and their whole scripts are left out, and
//! texts with these are tokenized whole at each edit.

/// The most bytes of UTF-8 that one byte of the normal form stands for: what the Unicode standard's FAQ gives for the longest
/// decompositions (U+0390 is two bytes, and six decomposed).
pub(crate) const MOST_COMPOSED: usize = 3;

/// Whether NFC does nothing to a text, nor to any text that it stands in beside others like it.
pub(crate) fn leaves_alone(text: &str) -> bool {
    text.is_ascii() || text.chars().all(stands_alone)
}

fn stands_alone(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{2ff}'
            | '\u{3a3}'..='\u{482}'
            | '\u{48a}'..='\u{52f}'
            | '\u{1e00}'..='\u{1eff}'
            | '\u{2002}'..='\u{2064}'
            | '\u{20a0}'..='\u{20bf}'
            | '\u{2100}'..='\u{2125}'
            | '\u{212c}'..='\u{2328}'
            | '\u{232b}'..='\u{2adb}'
            | '\u{2add}'..='\u{2bff}'
            | '\u{3000}'..='\u{3029}'
            | '\u{3041}'..='\u{3096}'
            | '\u{309b}'..='\u{30ff}'
            | '\u{3131}'..='\u{318e}'
            | '\u{3220}'..='\u{a48c}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{e000}'..='\u{f8ff}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ff01}'..='\u{ffbe}'
            | '\u{fffd}'
            | '\u{1f000}'..='\u{1faff}'
            | '\u{20000}'..='\u{2a6df}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::normalizers::{NFC, NFD};
    use tokenizers::{NormalizedString, Normalizer};

    fn normal(form: &impl Normalizer, text: &str) -> String {
        let mut normalized = NormalizedString::from(text);
        form.normalize(&mut normalized).expect("never fails");
        normalized.get().to_owned()
    }

    /// A character changes or moves only if it is no normal form, is the second of two that become one, or has a
    /// combining class, by which marks are sorted.
    #[test]
    fn what_is_listed_is_no_part_of_any_composition() {
        for character in (0..=0x0010_ffff).filter_map(char::from_u32) {
            let alone = String::from(character);
            let parts = normal(&NFD, &alone);
            if let Some(second) = parts.chars().skip(1).find(|second| stands_alone(*second)) {
                panic!("{alone:?} is composed with {second:?}");
            }
            if stands_alone(character) {
                // U+0345 has the largest class: any other goes before it.
                let behind = format!("\u{345}{alone}");
                assert_eq!((normal(&NFC, &alone), normal(&NFC, &behind)), (alone, behind));
            }
        }
        let others = ["e\u{301}", "\u{212b}", "\u{1100}\u{1161}", "か\u{3099}", "\u{958}", "\u{2000}"];
        assert!(others.iter().all(|text| !leaves_alone(text)));
        assert!(leaves_alone("naïve ☃ 日本語 がぎ 한국 👩‍👩‍👧 <｜fim▁hole｜> → €\u{feff}"));
    }
}
