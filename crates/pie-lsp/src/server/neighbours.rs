//! What is shown of other documents to a completion: of those that were edited last, the lines around where they were.
//!
//! While somebody types in one document the others stay as they are, so that nothing of this changes, and costs nothing, from key to key.

use lsp_types::Url;
use pie_proto::v1;
use ropey::Rope;
use std::ops::Range;
use std::path::PathBuf;

/// Bytes of each: about forty lines, five hundred tokens.
const BYTES: usize = 2048;
/// Documents that are remembered; more are not shown whatever the setting.
const REMEMBERED: usize = 32;

/// The documents that were edited, the last one first.
#[derive(Debug, Default)]
pub struct Recent(Vec<Url>);

impl Recent {
    /// One was edited, or asked about.
    pub fn used(&mut self, uri: &Url) {
        if self.0.first() != Some(uri) {
            self.0.retain(|other| other != uri);
            self.0.insert(0, uri.clone());
            self.0.truncate(REMEMBERED);
        }
    }

    /// One is closed.
    pub fn closed(&mut self, uri: &Url) {
        self.0.retain(|other| other != uri);
    }

    /// Whether one is among them.
    pub fn has(&self, uri: &Url) -> bool {
        self.0.contains(uri)
    }

    /// All but this one, the last one first.
    pub fn besides<'a>(&'a self, uri: &'a Url) -> impl Iterator<Item = &'a Url> {
        self.0.iter().filter(move |other| *other != uri)
    }
}

/// Lines of a document as a part of what stands in front of another.
pub fn part(uri: &Url, text: &Rope, lines: Range<usize>, roots: &[PathBuf]) -> v1::Part {
    v1::Part { name: name(uri, roots), text: text.byte_slice(lines).to_string() }
}

/// As people name a file: by its path below the root folder.
pub fn name(uri: &Url, roots: &[PathBuf]) -> String {
    let Ok(path) = uri.to_file_path() else { return uri.path().trim_start_matches('/').to_owned() };
    let below = roots.iter().find_map(|root| path.strip_prefix(root).ok());
    let short = below.or_else(|| path.file_name().map(std::path::Path::new)).unwrap_or(&path);
    short.to_string_lossy().replace(['\n', '\r'], " ")
}

/// What is shown of a document: whole lines around a byte of it, twice as many bytes before the place as behind it.
pub fn around(text: &Rope, cursor: usize) -> Range<usize> {
    let (length, cursor) = (text.len_bytes(), cursor.min(text.len_bytes()));
    if length <= BYTES {
        return 0..length;
    }
    let from = cursor.saturating_sub(BYTES / 3 * 2).min(length - BYTES);
    // The first line that begins there or behind, and the last that ends before so many bytes.
    let first = text.byte_to_line(from);
    let first = if text.line_to_byte(first) < from { first + 1 } else { first };
    let start = text.line_to_byte(first.min(text.len_lines()));
    let end = text.line_to_byte(text.byte_to_line((start + BYTES).min(length)));
    if start + BYTES >= length { start..length } else { start..end.max(start) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_whole_lines_around_the_place_and_no_longer_than_it_may_be() {
        let text =
            Rope::from_str(&(0..400).map(|line| format!("line number {line} é💧\r\n")).collect::<String>());
        for cursor in [0, 1, 700, text.len_bytes() / 2, text.len_bytes() - 1, text.len_bytes(), usize::MAX] {
            let lines = around(&text, cursor);
            assert!(lines.len() <= BYTES && lines.len() > BYTES / 2, "{cursor}: {lines:?}");
            let shown = text.byte_slice(lines.clone()).to_string();
            assert!(shown.starts_with("line number") && shown.ends_with('\n'), "{cursor}: {shown}");
            assert!(lines.contains(&cursor) || cursor >= text.len_bytes(), "{cursor}: {lines:?}");
        }
        let one_line = Rope::from_str(&"x".repeat(3 * BYTES));
        assert!(around(&one_line, BYTES).len() <= BYTES);
    }

    #[test]
    fn the_last_that_was_used_comes_first() {
        let uri = |name: &str| Url::parse(&format!("file:///home/{name}")).expect("it is one");
        let mut recent = Recent::default();
        for name in ["a", "b", "c", "a"] {
            recent.used(&uri(name));
        }
        recent.closed(&uri("b"));
        let besides: Vec<_> = recent.besides(&uri("c")).cloned().collect();
        assert_eq!(besides, [uri("a")]);
        let roots = [PathBuf::from("/home/one")];
        assert_eq!(name(&uri("one/src/main.rs"), &roots), "src/main.rs");
        assert_eq!(name(&uri("two/lib.rs"), &roots), "lib.rs");
        assert_eq!(name(&Url::parse("untitled:Untitled-1").expect("it is one"), &roots), "Untitled-1");
    }
}
