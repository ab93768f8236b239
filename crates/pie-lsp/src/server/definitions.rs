//! Definitions at hand: what the names around a cursor stand for, where another open document says it.
//!
//! Lines are read as most languages write definitions: a word such as `fn`, `def` or `class`, and the name behind it. What no such line
//! defines is not found, and a name that several documents define is taken from the one that was used last.

use lsp_types::Url;
use ropey::Rope;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Lines of a block: names are looked up in the cursor's, the one before it and the one behind.
const LINES: usize = 8;
/// Of a line that is longer the rest is not looked at.
const LINE_CHARACTERS: usize = 400;
/// Lines of a definition that are shown, and bytes.
const SHOWN_LINES: usize = 12;
const SHOWN_BYTES: usize = 800;
/// Shorter names stand everywhere.
const SHORTEST_NAME: usize = 3;
/// What is behind it in a document is not read.
const READ_BYTES: usize = 1 << 18;
/// Words of a line that may stand before the one that defines.
const WORDS_BEFORE: usize = 5;
/// Words behind which a name is defined.
const DEFINING: [&str; 18] = [
    "fn",
    "def",
    "func",
    "function",
    "fun",
    "sub",
    "class",
    "struct",
    "enum",
    "union",
    "trait",
    "interface",
    "type",
    "typedef",
    "macro_rules",
    "module",
    "record",
    "object",
];

/// Where names are defined in the documents that are open.
#[derive(Debug, Default)]
pub struct Definitions(HashMap<Url, Index>);

/// Of one document.
#[derive(Debug)]
struct Index {
    /// The change that made the text which was read.
    number: u64,
    /// Where the line of each name's first definition begins.
    lines: HashMap<String, usize>,
}

/// A definition in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Where it stands.
    pub uri: Url,
    /// Its bytes, whole lines.
    pub bytes: Range<usize>,
}

impl Definitions {
    /// A document is closed.
    pub fn closed(&mut self, uri: &Url) {
        self.0.remove(uri);
    }

    /// What the names around a byte of a text stand for in other documents, at most so many, in an order that does not depend on where
    /// exactly the cursor is; `others` are those that may be shown, with the number of the change that made each.
    pub fn around<'a>(
        &mut self,
        text: &Rope,
        cursor: usize,
        others: impl Iterator<Item = (&'a Url, &'a Rope, u64)>,
        most: usize,
    ) -> Vec<Definition> {
        let others: Vec<_> = if most == 0 { Vec::new() } else { others.collect() };
        if others.is_empty() {
            return Vec::new();
        }
        for (uri, other, number) in &others {
            if self.0.get(*uri).is_none_or(|index| index.number != *number) {
                self.0.insert((*uri).clone(), Index { number: *number, lines: defined(other) });
            }
        }
        let at = |name: &String| {
            others.iter().find_map(|(uri, other, _)| {
                let line = *self.0.get(*uri)?.lines.get(name)?;
                let bytes = shown(other, line);
                (!bytes.is_empty()).then(|| Definition { uri: (*uri).clone(), bytes })
            })
        };
        let known: Vec<_> =
            names_around(text, cursor).into_iter().filter_map(|name| Some((at(&name)?, name))).collect();
        if known.is_empty() {
            return Vec::new();
        }
        // What the document defines itself is seen there.
        let own = defined(text);
        let others = known.into_iter().filter(|(_, name)| !own.contains_key(name));
        let mut found: Vec<Definition> = others.map(|(definition, _)| definition).take(most).collect();
        found.sort_by(|one, other| (&one.uri, one.bytes.start).cmp(&(&other.uri, other.bytes.start)));
        found.dedup();
        found
    }
}

fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_of_a_word = |character: char| character.is_alphanumeric() || character == '_';
    line.split(move |character| !is_of_a_word(character))
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// The names in the lines around a place, each once: of blocks of lines, so that they stay the same while the cursor moves within one,
/// and without the one that is being written.
fn names_around(text: &Rope, cursor: usize) -> Vec<String> {
    let cursor = cursor.min(text.len_bytes());
    let block = text.byte_to_line(cursor) / LINES;
    let rows = (block.saturating_sub(1) * LINES)..text.len_lines().min((block + 2) * LINES);
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for row in rows {
        let start = text.line_to_byte(row);
        let line: String = text.line(row).chars().take(LINE_CHARACTERS).collect();
        for (at, word) in words(&line) {
            let is_name = word.len() >= SHORTEST_NAME && word.chars().any(char::is_alphabetic);
            let is_being_written = (start + at..=start + at + word.len()).contains(&cursor);
            if is_name && !is_being_written && !DEFINING.contains(&word) && seen.insert(word.to_owned()) {
                found.push(word.to_owned());
            }
        }
    }
    found
}

/// The names that lines of a text define, and where these lines begin.
fn defined(text: &Rope) -> HashMap<String, usize> {
    let mut all = HashMap::new();
    let mut start = 0;
    for line in text.lines() {
        if start > READ_BYTES {
            break;
        }
        let begin: String = line.chars().take(LINE_CHARACTERS).collect();
        if let Some(name) = defines(&begin) {
            all.entry(name.to_owned()).or_insert(start);
        }
        start += line.len_bytes();
    }
    all
}

/// The name that a line defines.
fn defines(line: &str) -> Option<&str> {
    let list: Vec<(usize, &str)> = words(line).take(WORDS_BEFORE + 2).collect();
    let at = list.iter().position(|(_, word)| DEFINING.contains(word))?;
    // Nothing but other words stands before it: neither a comment's mark nor a call.
    let before = &line[..list[at].0];
    let is_plain =
        before.chars().all(|character| character.is_alphanumeric() || " \t_(){}:".contains(character));
    let (start, name) = list.get(at + 1)?;
    // A method in Go has its receiver before its name.
    let between = &line[list[at].0 + list[at].1.len()..*start];
    let name = if between.trim() == "(" {
        let rest = line[*start..].split_once(')')?.1;
        words(rest).next()?.1
    } else if between.trim().is_empty() || between.trim() == "!" {
        name
    } else {
        return None;
    };
    (is_plain && name.len() >= SHORTEST_NAME).then_some(name)
}

/// The line of a definition and those that belong to it: up to an empty line at its own depth, or the next that defines something there.
fn shown(text: &Rope, start: usize) -> Range<usize> {
    let first = text.byte_to_line(start);
    let depth = |line: &str| line.len() - line.trim_start().len();
    let own = depth(&text.line(first).to_string());
    let mut end = start;
    for row in first..text.len_lines().min(first + SHOWN_LINES) {
        let line = text.line(row).to_string();
        let is_next = row > first && depth(&line) <= own && defines(&line).is_some();
        let is_over = row > first + 1 && line.trim().is_empty() && {
            let next = (row + 1 < text.len_lines()).then(|| text.line(row + 1).to_string());
            next.is_none_or(|next| next.trim().is_empty() || depth(&next) <= own)
        };
        if is_next || is_over || end - start + line.len() > SHOWN_BYTES {
            break;
        }
        end += line.len();
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_define_names_as_languages_write_them() {
        let cases = [
            ("pub(crate) async fn encode(text: &str) -> usize {", Some("encode")),
            ("    def parse_row(self, row):", Some("parse_row")),
            ("export default class Parser extends Base {", Some("Parser")),
            ("func (s *Server) Serve(l net.Listener) error {", Some("Serve")),
            ("func Open(name string) {", Some("Open")),
            ("macro_rules! outln {", Some("outln")),
            ("interface Reader { read(): void }", Some("Reader")),
            ("// the fn main of it", None),
            ("let f = |fn_name| fn_name;", None),
            ("call(def)", None),
            ("fn f() {}", None),
            ("\"class name\"", None),
        ];
        for (line, expected) in cases {
            assert_eq!(defines(line), expected, "{line}");
        }
    }

    #[test]
    fn what_names_around_the_cursor_stand_for_is_found_and_shown_as_a_whole() {
        let uri = |name: &str| Url::parse(&format!("file:///{name}")).expect("it is one");
        let other = Rope::from_str(
            "import os\n\n\nclass Table:\n    def add_row(self, row):\n        self.rows.append(row)\n\n    def size(self):\n        \
             return 1\n\n\ndef load_table(path):\n    \"\"\"Reads it.\"\"\"\n\n    return Table()\n\n\ndef unused():\n    pass\n",
        );
        let text = Rope::from_str("from tables import load_table\n\nt = load_table(\"x\")\nt.add_row(1)\n");
        let (here, there) = (uri("main.py"), uri("tables.py"));
        let mut definitions = Definitions::default();
        let mut at = |cursor: usize, most: usize| {
            let found = definitions.around(&text, cursor, [(&there, &other, 3)].into_iter(), most);
            let shown = found.into_iter().map(|definition| other.byte_slice(definition.bytes).to_string());
            shown.collect::<Vec<_>>()
        };
        let load = "def load_table(path):\n    \"\"\"Reads it.\"\"\"\n\n    return Table()\n";
        let add = "    def add_row(self, row):\n        self.rows.append(row)\n";
        // In the order in which they stand there, wherever the cursor is.
        assert_eq!([at(text.len_bytes() - 1, 4), at(3, 4)], [[add, load], [add, load]]);
        assert_eq!(at(3, 1), [load]);
        // A name that is being written may be another one's begin.
        assert_eq!(at(text.len_bytes() - "(1)\n".len(), 4), [load]);
        assert_eq!(at(0, 0), Vec::<String>::new());
        let twice = Rope::from_str("def load_table(path):\n    return 1\n");
        assert_eq!(Definitions::default().around(&twice, 0, [(&there, &other, 3)].into_iter(), 4), []);
        definitions.closed(&there);
        assert!(definitions.around(&text, 0, [].into_iter(), 4).is_empty() && definitions.0.is_empty());
        assert_eq!(definitions.around(&other, 0, [(&here, &text, 1)].into_iter(), 4), []);
    }
}
