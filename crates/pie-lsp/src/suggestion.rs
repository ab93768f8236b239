//! The last suggestion: it answers by itself as long as people type what it says.

use pie_client::Edit;

/// A text that was suggested, and how much of it has been typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Where it begins, in bytes of the document.
    at: usize,
    text: String,
    /// Bytes of it that stand in the document.
    typed: usize,
}

impl Suggestion {
    /// Nothing of it is typed yet.
    pub fn new(at: usize, text: String) -> Self {
        Self { at, text, typed: 0 }
    }

    /// What is left of it at a cursor.
    pub fn rest(&self, cursor: usize) -> Option<&str> {
        let rest = self.text.get(self.typed..).filter(|rest| !rest.is_empty());
        rest.filter(|_| cursor == self.at + self.typed)
    }

    /// The same after an edit: more of it is typed, or less. `None` if the document became another one than it was made for.
    pub fn edited(mut self, edit: &Edit) -> Option<Self> {
        let cursor = self.at + self.typed;
        if edit.range.end != cursor || edit.range.start < self.at {
            return None;
        }
        self.typed = edit.range.start - self.at;
        let next = self.text.get(self.typed..)?;
        next.starts_with(&edit.text).then(|| {
            self.typed += edit.text.len();
            self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_typed_of_it_comes_off_and_what_is_taken_back_comes_back() {
        let insert = |at, text: &str| Edit { range: at..at, text: text.to_owned() };
        let suggestion = Suggestion::new(4, "abc".to_owned());
        assert_eq!((suggestion.rest(4), suggestion.rest(3)), (Some("abc"), None));
        let typed = suggestion.clone().edited(&insert(4, "ab")).expect("a part of it");
        assert_eq!(typed.rest(6), Some("c"));
        let back = typed.clone().edited(&Edit { range: 5..6, text: String::new() }).expect("taken back");
        assert_eq!(back.rest(5), Some("bc"));
        let other = Edit { range: 5..6, text: "x".to_owned() };
        assert_eq!(typed.clone().edited(&other), None);
        let all = typed.edited(&insert(6, "c")).expect("the rest of it");
        assert_eq!(all.rest(7), None, "nothing is left");
        assert_eq!(suggestion.clone().edited(&insert(4, "x")), None);
        assert_eq!(suggestion.edited(&insert(0, "a")), None, "elsewhere");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: proptest::test_runner::RngSeed::Fixed(8), failure_persistence: None, ..ProptestConfig::default()
        })]

        #[test]
        fn a_held_suggestion_still_makes_the_document_that_it_was_made_for(
            before in "[ab]{0,4}", text in "[abä]{1,8}", behind in "[ab]{0,4}",
            edits in prop::collection::vec((0_usize..20, 0_usize..3, "[abä]{0,3}"), 1..5),
        ) {
            let mut suggestion = Suggestion::new(before.len(), text.clone());
            let mut document = before.clone() + &behind;
            for (at, length, insert) in edits {
                let floor = |at: usize| (0..=at.min(document.len())).rev().find(|at| document.is_char_boundary(*at));
                let (start, end) = (floor(at).unwrap_or(0), floor(at + length).unwrap_or(0));
                let edit = Edit { range: start..end, text: insert };
                document.replace_range(edit.range.clone(), &edit.text);
                match suggestion.edited(&edit) {
                    Some(still) => suggestion = still,
                    None => return Ok(()),
                }
                let cursor = before.len() + suggestion.typed;
                if let Some(rest) = suggestion.rest(cursor) {
                    let mut accepted = document.clone();
                    accepted.insert_str(cursor, rest);
                    prop_assert_eq!(accepted, before.clone() + &text + &behind);
                }
            }
        }
    }
}
