//! Tokenizing around edits: which tokens of a document an edit replaces, and by which.

use crate::edit::CheckedEdit;
use crate::error::TextError;
use crate::form::LookAhead;
use crate::scan::PieceScan;
use crate::store::{PieceStart, TokenStore};
use crate::tokenizer::Tokenizer;
use pie_words::TextToken;
use ropey::Rope;

/// Replaces the tokens `start..end` of the old text, prefix not counted.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// The first token that goes.
    pub start: usize,
    /// The token behind the last that goes.
    pub end: usize,
    /// What comes.
    pub entries: Vec<TextToken>,
    /// Bytes that were cut into pieces for it.
    pub bytes_scanned: usize,
}

/// A text before and after edits.
pub(crate) struct Retokenizer<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How far around an edit its tokenizing looks.
    pub reach: LookAhead,
    /// The text before.
    pub old: &'a Rope,
    /// The tokens of the text before.
    pub tokens: &'a TokenStore,
    /// The text afterwards.
    pub new: &'a Rope,
    /// Sorted and disjoint.
    pub edits: &'a [CheckedEdit<'a>],
}

impl Retokenizer<'_> {
    /// The replacements, one for each place that edits share, in order.
    pub(crate) fn run(&self) -> Result<Vec<Replacement>, TextError> {
        let mut list = Vec::new();
        let (mut edit, mut shift) = (0, Shift::default());
        while edit < self.edits.len() {
            list.push(self.window(&mut edit, &mut shift)?);
        }
        Ok(list)
    }

    /// Scans from a piece start before `edits[edit]` to one behind it from which both texts go on equally. Takes in
    /// the edits that begin on the way.
    fn window(&self, edit: &mut usize, shift: &mut Shift) -> Result<Replacement, TextError> {
        let start = self.restart(&self.edits[*edit]);
        let mut cursor = OldPieces::new(self.tokens, start);
        let mut at = shift.to_new(start.byte);
        let expected = self.edits[*edit].start - start.byte + self.edits[*edit].insert.len();
        let mut scan = PieceScan::new(self.tokenizer, self.reach, self.new, at, expected);
        let mut entries = Vec::new();
        let mut covered = self.take(edit, shift);
        loop {
            if at >= covered {
                let old = shift.to_old(at);
                if self.edits.get(*edit).is_some_and(|next| self.restart(next).byte <= old) {
                    covered = self.take(edit, shift);
                    continue;
                }
                if let Some(end) = cursor.piece_start_at(old) {
                    let bytes_scanned = scan.bytes_scanned;
                    return Ok(Replacement { start: start.token, end, entries, bytes_scanned });
                }
            }
            let piece = scan.next_piece(&mut entries)?;
            if piece == 0 {
                // The end of the new text is the end of the old one, which is always a piece start.
                let message = "the scan passed the end of the text (T1)".into();
                return Err(TextError::Tokenizer { bytes: self.new.len_bytes(), message });
            }
            at += piece;
        }
    }

    /// The last piece start of the old text before which nothing depends on `edit`.
    fn restart(&self, edit: &CheckedEdit) -> PieceStart {
        self.tokens.piece_before(self.reach.settled(self.old, edit.start))
    }

    /// Counts an edit as done; gives its end in the new text.
    fn take(&self, edit: &mut usize, shift: &mut Shift) -> usize {
        let taken = &self.edits[*edit];
        *edit += 1;
        shift.inserted += taken.insert.len();
        shift.deleted += taken.end - taken.start;
        shift.to_new(taken.end)
    }
}

/// What the edits so far add and remove: how offsets behind them move.
#[derive(Clone, Copy, Default)]
struct Shift {
    inserted: usize,
    deleted: usize,
}

impl Shift {
    fn to_new(self, old: usize) -> usize {
        old + self.inserted - self.deleted
    }

    fn to_old(self, new: usize) -> usize {
        new + self.deleted - self.inserted
    }
}

/// Walks over the piece starts of the old text.
struct OldPieces<'a> {
    at: PieceStart,
    rest: Box<dyn Iterator<Item = &'a TextToken> + 'a>,
    /// The entry at `at`.
    entry: Option<&'a TextToken>,
}

impl<'a> OldPieces<'a> {
    fn new(tokens: &'a TokenStore, at: PieceStart) -> Self {
        let mut rest = Box::new(tokens.iter_from(at.token));
        let entry = rest.next();
        Self { at, rest, entry }
    }

    /// The index of the first token of the piece that starts at `byte`, if one does. Asked with growing offsets.
    fn piece_start_at(&mut self, byte: usize) -> Option<usize> {
        // Inside of a piece the byte stays the same until the next start.
        while let Some(entry) = self.entry {
            if self.at.byte >= byte && entry.piece_bytes > 0 {
                break;
            }
            self.at =
                PieceStart { token: self.at.token + 1, byte: self.at.byte + entry.piece_bytes as usize };
            self.entry = self.rest.next();
        }
        (self.at.byte == byte).then_some(self.at.token)
    }
}
