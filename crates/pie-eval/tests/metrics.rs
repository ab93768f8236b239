//! RepoBench's metrics against reference values of its own scripts.

use pie_eval::metrics::{
    edit_similarity, edit_similarity_levenshtein, exact_match, first_line, first_line_is_complete,
};
use pie_eval::names::Language;
use proptest::prelude::*;
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field].as_str().expect("a text")
}

#[test]
fn scores_equal_the_reference() {
    let lines = lines(include_str!("data/metrics.jsonl"));
    assert!(lines.len() >= 1000, "{} pairs", lines.len());
    for line in &lines {
        let (prediction, truth) = (text(line, "prediction"), text(line, "truth"));
        assert_eq!(Some(exact_match(prediction, truth)), line["exact_match"].as_bool(), "{line}");
        let (difflib, levenshtein) =
            (edit_similarity(prediction, truth), edit_similarity_levenshtein(prediction, truth));
        assert_eq!(Some(u64::from(difflib)), line["edit_similarity"].as_u64(), "{line}");
        assert_eq!(Some(u64::from(levenshtein)), line["edit_similarity_levenshtein"].as_u64(), "{line}");
    }
}

#[test]
fn the_first_line_is_that_of_the_reference() {
    let lines = lines(include_str!("data/first_line.jsonl"));
    assert!(!lines.is_empty());
    for line in &lines {
        let language: Language = text(line, "language").parse().expect("a language");
        assert_eq!(first_line(text(line, "completion"), language), text(line, "expected"), "{line}");
    }
}

proptest! {
    /// Generation ends with the first line that counts; what would have followed must not change the prediction.
    #[test]
    fn a_complete_first_line_stays(
        completion in "(\n|    |x = 1|# no|// no|\"\"\"|'''|/\\*|\\*/| ){0,12}",
        more in "(\n|x|\"\"\"|\\*/|#){0,6}",
        python in any::<bool>(),
    ) {
        let language = if python { Language::Python } else { Language::Java };
        if first_line_is_complete(&completion, language) {
            let longer = format!("{completion}{more}");
            prop_assert_eq!(first_line(&longer, language), first_line(&completion, language));
        }
    }
}
