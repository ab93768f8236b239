//! RepoBench's metrics: exact match, edit similarity, and which line of a completion is the prediction.

use crate::names::Language;

/// Whether two lines are equal but for white space between their words.
pub fn exact_match(prediction: &str, truth: &str) -> bool {
    words(prediction).eq(words(truth))
}

/// fuzzywuzzy's `ratio` with Levenshtein's library: 100 times the share of characters that insertions and deletions
/// alone keep, rounded half to even.
pub fn edit_similarity(prediction: &str, truth: &str) -> u32 {
    if prediction == truth {
        return 100;
    }
    let (a, b): (Vec<char>, Vec<char>) = (prediction.chars().collect(), truth.chars().collect());
    if a.is_empty() || b.is_empty() {
        return 0;
    }
    let total = a.len() + b.len();
    let ratio = (2 * longest_common_subsequence(&a, &b)) as f64 / total as f64;
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

fn longest_common_subsequence(a: &[char], b: &[char]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}
