//! RepoBench's metrics: exact match, edit similarity, and which line of a completion is the prediction.

use crate::names::Language;
use crate::similarity::{in_blocks, in_subsequence};

/// Whether two lines are equal but for white space between their words.
pub fn exact_match(prediction: &str, truth: &str) -> bool {
    words(prediction).eq(words(truth))
}

/// fuzzywuzzy's `ratio` as RepoBench's requirements install it, with Python's difflib: 100 times the share of characters
/// that stand in common blocks, rounded half to even.
pub fn edit_similarity(prediction: &str, truth: &str) -> u32 {
    ratio(truth, prediction, in_blocks)
}

/// fuzzywuzzy's `ratio` where python-Levenshtein is installed: the same of characters that insertions and deletions alone
/// keep. It is never less. Published figures do not say which of the two they are.
pub fn edit_similarity_levenshtein(prediction: &str, truth: &str) -> u32 {
    ratio(truth, prediction, in_subsequence)
}

fn ratio(first: &str, second: &str, same: fn(&[char], &[char]) -> usize) -> u32 {
    if first == second {
        return 100;
    }
    let (a, b): (Vec<char>, Vec<char>) = (first.chars().collect(), second.chars().collect());
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    let ratio = (2 * same(&a, &b)) as f64 / (a.len() + b.len()) as f64;
    (100.0 * ratio).round_ties_even() as u32
}

/// The first line of a completion that is no comment; the first of all where each is one (RepoBench's
/// `get_first_line_not_comment`, with its reading of block comments).
pub fn first_line(completion: &str, language: Language) -> &str {
    let completion = completion.trim_start_matches('\n');
    let first = || completion.split('\n').next().unwrap_or_default();
    first_code_line(completion.split('\n'), language).unwrap_or_else(first)
}

/// Whether more text would not change [`first_line`]: a line that counts is complete.
pub fn first_line_is_complete(completion: &str, language: Language) -> bool {
    let completion = completion.trim_start_matches('\n');
    match completion.rsplit_once('\n') {
        Some((complete, _)) => first_code_line(complete.split('\n'), language).is_some(),
        None => false,
    }
}

/// What lines begin with that are comments, or belong to a longer one.
pub(crate) fn comments(language: Language) -> &'static [&'static str] {
    match language {
        Language::Python => &["#", "\"\"\"", "'''"],
        Language::Java => &["//", "/*", "*"],
    }
}

fn first_code_line<'a>(lines: impl Iterator<Item = &'a str>, language: Language) -> Option<&'a str> {
    let (opens, closes, comment): (&[&str], &[&str], &str) = match language {
        Language::Python => (&["\"\"\"", "'''"], &["\"\"\"", "'''"], "#"),
        Language::Java => (&["/*"], &["*/"], "//"),
    };
    let mut in_block = false;
    for line in lines {
        let bare = line.trim_matches(is_space);
        if bare.is_empty() {
            continue;
        }
        if in_block {
            in_block = !closes.iter().any(|mark| bare.ends_with(mark));
        } else if opens.iter().any(|mark| bare.starts_with(mark)) {
            in_block = true;
        } else if !bare.starts_with(comment) {
            return Some(line);
        }
    }
    None
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(is_space).filter(|word| !word.is_empty())
}

/// What Python's `str.split` and `str.strip` take for white space.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
