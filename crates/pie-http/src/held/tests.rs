//! F1, in part: what a prompt is read as does not depend on what was read before it.

use super::*;
use proptest::prelude::*;
use std::path::Path;

fn reader() -> PromptTokenizer {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny-code");
    PromptTokenizer::new(Arc::new(Tokenizer::open(&folder).expect("it ships")))
}

fn piece(text: &str, role: PromptSection, room: Truncation) -> PromptPiece {
    let lead = if role == PromptSection::Chunk { vec![TokenId(3)] } else { Vec::new() };
    PromptPiece::Text(TextPiece { lead, text: text.to_owned(), role, spellings: Spellings::Text, room })
}

/// Chunks, a side, a marker, the other side.
fn prompt(chunks: &[String], before: &str, behind: &str) -> Prompt {
    let chunks = chunks.iter().map(|chunk| piece(chunk, PromptSection::Chunk, Truncation::Whole));
    let sides = [
        piece(before, PromptSection::Before, Truncation::FromStart),
        PromptPiece::Tokens(vec![TokenId(1)]),
        piece(behind, PromptSection::Behind, Truncation::FromEnd),
    ];
    Prompt { pieces: chunks.chain(sides).collect() }
}

const WIDE: TokenBudget = TokenBudget { context: 10_000, generated: 100 };

fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            "let x", " = ", "1", "\n", "    ", "é", "💧", "fn f(", ")", "\r\n", "<|x|>", "word ",
        ]),
        0..30,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(9), failure_persistence: None, cases: 64, ..ProptestConfig::default()
    })]

    #[test]
    fn a_prompt_is_read_the_same_whatever_was_read_before(
        steps in prop::collection::vec((prop::collection::vec(texts(), 0..4), texts(), texts()), 1..6)
    ) {
        let reader = reader();
        let (mut texts, mut tokens) = (Vec::new(), Vec::new());
        for (chunks, before, behind) in &steps {
            let fresh = reader.read(prompt(chunks, before, behind), Vec::new(), WIDE).expect("it fits");
            let reading = reader.read(prompt(chunks, before, behind), texts, WIDE).expect("it fits");
            prop_assert_eq!(&reading.tokens, &fresh.tokens);
            prop_assert_eq!(reader.splices(&tokens, &reading).apply(&tokens), fresh.tokens);
            (texts, tokens) = (reading.texts, reading.tokens);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_to_fit(chunks in 0..4_usize, before in 0..400_usize, behind in 0..400_usize) {
        let (reader, space) = (reader(), TokenBudget { context: 256, generated: 32 });
        let chunks = vec!["chunk ".repeat(20); chunks];
        let reading = reader.read(prompt(&chunks, &"a\n".repeat(before), &"b\n".repeat(behind)), Vec::new(), space);
        let reading = reading.expect("all of it may be cut");
        prop_assert!(reading.tokens.len() <= 224, "{}", reading.tokens.len());
        let whole = reader.read(prompt(&chunks, &"a\n".repeat(before), &"b\n".repeat(behind)), Vec::new(), WIDE).expect("it fits");
        prop_assert_eq!(reading.is_cut, whole.tokens.len() > 224);
        if !reading.is_cut {
            prop_assert_eq!(reading.tokens, whole.tokens);
        }
    }
}

#[test]
fn the_far_end_does_not_move_with_each_key() {
    let (reader, space) = (reader(), TokenBudget { context: 256, generated: 32 });
    let (long, mut held, mut moved) = ("some code\n".repeat(200), Vec::new(), 0);
    for key in 0..40 {
        let reading =
            reader.read(prompt(&[], &format!("{long}{}", "x ".repeat(key)), &long), Vec::new(), space);
        let reading = reading.expect("it is cut");
        let splices = reader.splices(&held, &reading);
        moved += usize::from(key > 0 && splices.inserted() > 4);
        held = reading.tokens;
    }
    assert!(moved <= 4, "{moved} of 40 keys moved what stays");
}

#[test]
fn what_may_not_be_cut_is_refused() {
    let (reader, space) = (reader(), TokenBudget { context: 64, generated: 32 });
    let fixed = |text: &str| Prompt { pieces: vec![piece(text, PromptSection::Whole, Truncation::Fixed)] };
    let refused = reader.read(fixed(&"word ".repeat(70)), Vec::new(), space);
    assert!(matches!(refused, Err(ReadError::TooLong { unit: "tokens", .. })), "{refused:?}");
    let refused = reader.within(fixed(&"word ".repeat(100_000)), space);
    assert!(matches!(refused, Err(ReadError::TooLong { unit: "bytes", .. })), "{refused:?}");
    let sides = prompt(&["💧".repeat(100_000)], &"é".repeat(100_000), &"ß".repeat(100_000));
    let bounded = reader.within(sides, space).expect("all of it may be cut");
    assert!(bounded.text_bytes() < 100_000, "what cannot fit is not looked at");
}
