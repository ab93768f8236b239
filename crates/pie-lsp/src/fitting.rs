//! How a suggestion fits between what stands before the cursor and what stands behind it. Many editors close a bracket as soon as it is opened, so text stands
//! behind most cursors, and a model writes it once more.

use ropey::Rope;
use std::cmp::Reverse;

/// So many characters on each side tell which brackets are open.
const REACH: usize = 8192;
/// What may stand behind the cursor because the editor wrote it.
const CLOSING: &[char] = &[')', ']', '}', '"', '\'', '`', ';', ',', ':', '>'];

const BRACKETS: [(char, char); 3] = [('(', ')'), ('[', ']'), ('{', '}')];

/// The text around a cursor.
#[derive(Clone, Debug)]
pub struct Surroundings {
    before: String,
    behind: String,
}

impl Surroundings {
    /// Of a byte of a text.
    pub fn new(text: &Rope, cursor: usize) -> Self {
        let at = text.byte_to_char(cursor.min(text.len_bytes()));
        let end = (at + REACH).min(text.len_chars());
        Self {
            before: text.slice(at.saturating_sub(REACH)..at).to_string(),
            behind: text.slice(at..end).to_string(),
        }
    }

    /// So many lines of what a model wrote as are suggested: one where the line goes on behind the cursor, since what stands there would
    /// end up behind the last one. A text that begins with a line break means to break that line.
    pub fn lines<'a>(&self, text: &'a str, most: Option<usize>) -> &'a str {
        let breaks = || text.match_indices('\n').map(|(at, _)| at);
        let goes_on = !self.rest_of_line().trim().is_empty();
        let first = breaks().next().filter(|end| goes_on && !text[..*end].trim().is_empty());
        let last = most.and_then(|most| breaks().nth(most.saturating_sub(1)));
        let end = first.or(last).unwrap_or(text.len());
        if end < text.len() { text[..end].trim_end_matches('\r') } else { text }
    }

    /// A suggestion without the brackets, quotes and the like at its end that stand behind the cursor already: so many of them as leave
    /// the fewest brackets and quotes without a partner.
    pub fn without_doubles<'a>(&self, text: &'a str) -> &'a str {
        let standing = self.rest_of_line().trim_start();
        let closing = standing.find(|c| !CLOSING.contains(&c)).unwrap_or(standing.len());
        let trimmed = text.trim_end();
        let doubled = (1..=closing).filter(|length| trimmed.ends_with(&standing[..*length]));
        let cut = |length: usize| if length == 0 { text } else { &trimmed[..trimmed.len() - length] };
        // Of those that leave as few, the longest: commas and the like have no partner, and three quotes are as odd as one.
        let lengths = std::iter::once(0).chain(doubled);
        let best = lengths.min_by_key(|length| (self.without_partner(cut(*length)), Reverse(*length)));
        best.map_or(text, cut)
    }

    fn rest_of_line(&self) -> &str {
        let end = self.behind.find(['\n', '\r']).unwrap_or(self.behind.len());
        &self.behind[..end]
    }

    /// Brackets without a partner around the cursor, each kind for itself, and quotes on its line, if the text stood there.
    fn without_partner(&self, text: &str) -> usize {
        let whole = || self.before.chars().chain(text.chars()).chain(self.behind.chars());
        let brackets = BRACKETS.iter().map(|(opens, closes)| {
            let (mut open, mut lone) = (0_usize, 0);
            for c in whole() {
                if c == *opens {
                    open += 1;
                } else if c == *closes {
                    lone += usize::from(open == 0);
                    open = open.saturating_sub(1);
                }
            }
            open + lone
        });
        let start = self.before.rfind('\n').map_or(0, |end| end + 1);
        let quotes = ['"', '\'', '`'].into_iter().map(|quote| {
            let of = |part: &str| part.matches(quote).count();
            (of(&self.before[start..]) + of(text) + of(self.rest_of_line())) % 2
        });
        brackets.chain(quotes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a text with `|` where the cursor is.
    fn at(marked: &str) -> Surroundings {
        let (before, behind) = marked.split_once('|').expect("a cursor");
        Surroundings::new(&Rope::from_str(&(before.to_owned() + behind)), before.len())
    }

    #[test]
    fn lines_are_counted_from_the_cursor() {
        let lines = |marked, text, most| at(marked).lines(text, most).to_owned();
        assert_eq!(lines("|", "a\nb\nc", Some(2)), "a\nb");
        assert_eq!(lines("|", "a\nb\nc", Some(3)), "a\nb\nc");
        assert_eq!(lines("|\nx", "a\nb\n", None), "a\nb\n");
        assert_eq!(lines("| \r\nx", "a\r\nb\r\n", Some(1)), "a");
        assert_eq!(lines("|", "\nb", Some(1)), "");
        // The line goes on.
        assert_eq!(lines("f(|)", "a\nb\nc", Some(8)), "a");
        assert_eq!(lines("f(|)", "a\r\nb\nc", None), "a");
        assert_eq!(lines("f {|}", "\n    a\n    b\n", Some(2)), "\n    a");
        assert_eq!(lines("f {|}", "\n    a\n", None), "\n    a\n");
    }

    #[test]
    fn what_an_editor_has_closed_is_not_closed_again() {
        let cases = [
            // Around the cursor, what a model writes, what of it is suggested.
            ("return 2 * (|)\n", "width + height)", "width + height"),
            ("f(g(|)\n", "x)", "x)"),
            ("f(g(|))\n", "x)", "x"),
            ("f(g(|))\n", "x))", "x"),
            ("f(\n    g(1, |)\n)\n", "2)", "2"),
            ("f(\n    g(1, |\n)\n", "2)", "2)"),
            ("f(|);\n", "a, b);", "a, b"),
            ("f(|);\n", "h(a)", "h(a)"),
            ("say(\"|\")\n", "hello\")", "hello"),
            ("x = \"|\"\n", "it's\"", "it's"),
            ("x = |\n", "\"y\"", "\"y\""),
            ("let a = [|];\n", "1, 2];  ", "1, 2"),
            ("{|}", "\n    a();\n}", "\n    a();\n"),
            ("x = (| + 1)\n", "y)", "y)"),
            ("größe(|)\n", "breite · höhe)", "breite · höhe"),
            (":-) (|)\n", "a)", "a"),
            ("|", "", ""),
            ("f(|)", ")", ""),
            // Other brackets are open, as in code that is being written, or have their partners far away.
            ("fn f() {\n    g(|)\n", "x)", "x"),
            ("# :-{\nf(|)", "x)", "x"),
            ("\"\"\"|\"\"\"", "Doc.\"\"\"", "Doc."),
            ("let x = |;", "5;", "5"),
            ("Vec<|>", "u8>", "u8"),
            ("a, |, c", "b", "b"),
        ];
        for (marked, text, suggested) in cases {
            assert_eq!(at(marked).without_doubles(text), suggested, "{text:?} in {marked:?}");
        }
    }

    #[test]
    fn only_what_is_near_is_looked_at() {
        let far = "日".repeat(2 * REACH);
        let around = at(&format!("({far}{{(|){far}}}"));
        assert!(around.before.chars().count() == REACH && around.behind.chars().count() == REACH);
        assert_eq!(around.without_doubles("x)"), "x");
    }
}
