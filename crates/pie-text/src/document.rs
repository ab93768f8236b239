//! One open document: its text, its revision, its tokens.

mod becoming;
mod bursts;

pub use becoming::splices_between;

use crate::change::{DocumentChange, EditStats, Next, trimmed};
use crate::edit::{CheckedEdit, apply, place};
use crate::error::TextError;
use crate::form::RestartKind;
use crate::parts::Lead;
use crate::retokenize::{Replacement, Retokenizer};
use crate::sequence::composed;
use crate::store::TokenStore;
use crate::tokenizer::{Fingerprint, Tokenizer};
use becoming::narrowed;
use bursts::Bursts;
use pie_words::{
    Parts, Revision, Rewrite, Spellings, Splice, SpliceError, Splices, TextEdit, TextRange, TextToken,
    TokenId,
};
use ropey::Rope;
use std::ops::Range;
use std::sync::Arc;

/// What a document was opened with, and so what edits it takes.
#[derive(Clone, Debug)]
pub enum DocumentText {
    /// Text; the tokens follow from it (T1).
    Text(Rope),
    /// Tokens of a client that tokenizes itself. They are no tokenization of any text in general, so none is kept.
    TokensOnly,
}

/// How the tokens of a text are found after an edit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokenizing {
    /// Around the edit only.
    AroundEdits,
    /// All of them.
    Whole {
        /// What is not known to be safe.
        why: String,
    },
}

/// Text and tokens of one session.
#[derive(Debug)]
pub struct Document {
    tokenizer: Arc<Tokenizer>,
    content: DocumentText,
    /// Before the text.
    lead: Arc<Lead>,
    /// T1: what `tokenizer` makes of the text, without its prefix; in a document of tokens, all of them.
    tokens: TokenStore,
    revision: Revision,
    /// The latest edits of the text, for whoever writes on in their sense.
    bursts: Bursts,
    bytes_limit: usize,
    identity: Arc<()>,
}

/// Token indices and piece lengths are 32 bits wide.
const LARGEST_LIMIT: usize = (u32::MAX / 2) as usize;

impl Document {
    /// Opens a document with a text of at most `bytes_limit` bytes, at revision 0.
    ///
    /// # Errors
    /// [`TextError::TooLong`], and [`TextError::Tokenizer`] where the tokenizer refuses the text.
    pub fn open(tokenizer: Arc<Tokenizer>, text: &str, bytes_limit: usize) -> Result<Self, TextError> {
        let bytes_limit = bytes_limit.min(LARGEST_LIMIT);
        check_length(text.len(), bytes_limit)?;
        let text = Rope::from_str(text);
        let tokens = TokenStore::new(tokenizer.entries(&text)?);
        Ok(Self::new(tokenizer, DocumentText::Text(text), tokens, bytes_limit))
    }

    /// Opens a document with a text whose tokens are known: those that a tokenizer of the same [fingerprint](Tokenizer::fingerprint)
    /// [found](Document::entries). Tokens that do not cover the text are not believed.
    ///
    /// # Errors
    /// As [`Document::open`].
    pub fn restore(
        tokenizer: Arc<Tokenizer>,
        text: &str,
        entries: Vec<TextToken>,
        bytes_limit: usize,
    ) -> Result<Self, TextError> {
        let tokens = TokenStore::new(entries);
        if !tokens.is_whole(text.len()) || (tokens.len() == 0 && !text.is_empty()) {
            return Self::open(tokenizer, text, bytes_limit);
        }
        let bytes_limit = bytes_limit.min(LARGEST_LIMIT);
        check_length(text.len(), bytes_limit)?;
        Ok(Self::new(tokenizer, DocumentText::Text(Rope::from_str(text)), tokens, bytes_limit))
    }

    /// The tokens of its text, without what stands before every text, and where pieces start.
    pub fn entries(&self) -> impl Iterator<Item = TextToken> + '_ {
        self.tokens.iter().copied()
    }

    /// Of the tokenizer that reads it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.tokenizer.fingerprint()
    }

    /// Opens a document with tokens alone, at revision 0. No prefix is added: the client tokenizes.
    ///
    /// # Errors
    /// [`TextError::TooLong`] where indices would not fit in 32 bits.
    pub fn open_tokens(tokenizer: Arc<Tokenizer>, tokens: Vec<TokenId>) -> Result<Self, TextError> {
        check_length(tokens.len(), LARGEST_LIMIT)?;
        let entries = tokens.into_iter().map(|id| TextToken { id, piece_bytes: 0 }).collect();
        Ok(Self::new(tokenizer, DocumentText::TokensOnly, TokenStore::new(entries), LARGEST_LIMIT))
    }

    fn new(tokenizer: Arc<Tokenizer>, content: DocumentText, tokens: TokenStore, bytes_limit: usize) -> Self {
        let (revision, identity, lead) = (Revision::default(), Arc::new(()), Arc::new(Lead::of(&tokenizer)));
        Self { tokenizer, content, lead, tokens, revision, bursts: Bursts::default(), bytes_limit, identity }
    }

    /// The same document at a revision that it had elsewhere, so that its client's next edit fits.
    #[must_use]
    pub fn at_revision(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// The same document with texts in front of it.
    ///
    /// # Errors
    /// [`TextError::TokensOnly`] in a document of tokens, [`TextError::Tokenizer`].
    pub fn with_parts(self, parts: &Parts) -> Result<Self, TextError> {
        if parts.list.is_empty() {
            return Ok(self);
        }
        self.rope().ok_or(TextError::TokensOnly)?;
        Ok(Self { lead: Arc::new(self.lead.with(&self.tokenizer, parts)?), ..self })
    }

    /// What stands in front of it.
    pub fn parts(&self) -> &Parts {
        &self.lead.parts
    }

    /// Tokens before the text: those before every text, and its parts'.
    pub fn leading(&self) -> usize {
        self.prefix().len()
    }

    /// How many edits were applied.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The text or the lack of one.
    pub fn content(&self) -> &DocumentText {
        &self.content
    }

    /// The whole text; `None` for a document of tokens.
    pub fn text(&self) -> Option<String> {
        self.rope().map(Rope::to_string)
    }

    /// The bytes `start..end` of the text.
    ///
    /// # Errors
    /// As for an edit with this range; a document of tokens has no text.
    pub fn slice(&self, start: usize, end: usize) -> Result<String, TextError> {
        let text = self.rope().ok_or(TextError::TokensOnly)?;
        let (start, end) = crate::edit::bytes(text, 0, TextRange::Bytes { start, end })?;
        Ok(text.byte_slice(start..end).to_string())
    }

    /// Bytes of the text; 0 for a document of tokens.
    pub fn len_bytes(&self) -> usize {
        self.rope().map_or(0, Rope::len_bytes)
    }

    /// Lines of the text by LSP's rule, the one behind the last line break included; 0 for a document of tokens.
    pub fn lines(&self) -> usize {
        self.rope().map_or(0, Rope::len_lines)
    }

    /// Tokens, the prefix included.
    pub fn token_count(&self) -> usize {
        self.prefix().len() + self.tokens.len()
    }

    /// Its tokenizer, for texts that are text whatever they spell.
    pub(crate) fn text_tokenizer(&self) -> Arc<Tokenizer> {
        self.tokenizer.reading(Spellings::Text)
    }

    /// Tokens of the text alone.
    pub(crate) fn text_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// All tokens, the prefix included.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.prefix().iter().copied().chain(self.tokens.iter().map(|entry| entry.id))
    }

    /// The tokens in a range of indices, the prefix counted.
    pub fn tokens_in(&self, range: Range<usize>) -> impl Iterator<Item = TokenId> + '_ {
        let prefix = self.prefix();
        let own = range.start.saturating_sub(prefix.len());
        let own = self.tokens.iter_from(own).map(|entry| entry.id);
        prefix.iter().copied().skip(range.start).chain(own).take(range.len())
    }

    /// Checks edits and works out what they do to the tokens; changes nothing. All edits are in offsets of the current
    /// text; two insertions at one place go in the order of the request. Edits that leave the text as it is keep the revision.
    ///
    /// # Errors
    /// [`TextError`] names the edit that is wrong, why, and what to do.
    pub fn prepare(&self, base: Revision, edits: &[TextEdit]) -> Result<DocumentChange, TextError> {
        let text = self.rope().ok_or(TextError::TokensOnly)?;
        self.check_revision(base)?;
        self.replaced(text, place(text, edits)?)
    }

    /// What edits do to the tokens, as far as they change the text. What changes nothing makes no revision.
    fn replaced(&self, text: &Rope, edits: Vec<CheckedEdit>) -> Result<DocumentChange, TextError> {
        let mut edits = narrowed(text, edits);
        edits.retain(|edit| text.byte_slice(edit.start..edit.end) != edit.insert);
        let revision = if edits.is_empty() { self.revision } else { self.revision.next() };
        self.change(text, &edits, revision)
    }

    /// The same with edits that follow each other: each counts in the text that those before it left, as in an editor's
    /// didChange. Each looks at what those before it changed, so callers bound their number.
    ///
    /// # Errors
    /// [`TextError`] names the edit that is wrong, why, and what to do.
    pub fn prepare_sequential(
        &self,
        base: Revision,
        edits: &[TextEdit],
    ) -> Result<DocumentChange, TextError> {
        let text = self.rope().ok_or(TextError::TokensOnly)?;
        self.check_revision(base)?;
        self.prepare(base, &composed(text, edits)?)
    }

    /// The same with token splices, for a document of tokens.
    ///
    /// # Errors
    /// [`TextError`] names the splice that is wrong, why, and what to do.
    pub fn prepare_tokens(&self, base: Revision, splices: Splices) -> Result<DocumentChange, TextError> {
        if self.rope().is_some() {
            return Err(TextError::TextOnly);
        }
        self.check_revision(base)?;
        splices.fits(self.token_count()).map_err(|error| match error {
            SpliceError::OutOfBounds { index, end, length, .. } => {
                TextError::SpliceOutOfBounds { edit: index, end, length }
            }
            SpliceError::Overlap { index, at, previous_end } => TextError::EditsOverlap {
                edit: index,
                other: index.saturating_sub(1),
                start: at as usize,
                end: previous_end as usize,
            },
        })?;
        check_length(self.token_count() - splices.deleted() + splices.inserted(), LARGEST_LIMIT)?;
        let stays = |splice: &Splice| {
            let there = self.tokens.iter_from(splice.at.usize()).take(splice.delete as usize);
            there.map(|entry| entry.id).eq(splice.insert.iter().copied())
        };
        if splices.iter().all(stays) {
            return Ok(self.changed(base, Splices::default(), EditStats::default(), Next::Tokens));
        }
        Ok(self.changed(base.next(), splices, EditStats::default(), Next::Tokens))
    }

    /// What its text means where it spells control tokens. One of tokens says what it means.
    pub fn spellings(&self) -> Spellings {
        match self.content {
            DocumentText::Text(_) => self.tokenizer.spellings(),
            DocumentText::TokensOnly => Spellings::Text,
        }
    }

    /// How its tokens are found after an edit, as it is now; `None` where a client sends them.
    pub fn tokenizing(&self) -> Option<Tokenizing> {
        self.rope()?;
        let why = match self.tokenizer.restart_kind() {
            RestartKind::WholeText { why } => why.clone(),
            _ if self.tokens.bytes() == self.len_bytes() => return Some(Tokenizing::AroundEdits),
            RestartKind::Piece(_) => "the text ends with characters that have no tokens".to_owned(),
            RestartKind::PieceOfPlainText(_) => {
                "the text has characters that the tokenizer's normalizer, NFC, may compose or reorder"
                    .to_owned()
            }
        };
        Some(Tokenizing::Whole { why })
    }

    /// Whether an edit that inserts these texts costs what they cost: where pieces start is known, and stays so. Else the whole
    /// text is tokenized again.
    pub fn restarts_around<'a>(&self, inserted: impl Iterator<Item = &'a str>) -> bool {
        self.tokens.bytes() == self.len_bytes() && self.tokenizer.reach_in(inserted).is_some()
    }

    /// The same document, to prepare a change on elsewhere: it can be committed here as long as nothing else was.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self {
            tokenizer: self.tokenizer.clone(),
            content: self.content.clone(),
            lead: self.lead.clone(),
            tokens: self.tokens.clone(),
            revision: self.revision,
            bursts: self.bursts.clone(),
            bytes_limit: self.bytes_limit,
            identity: self.identity.clone(),
        }
    }

    /// It takes no more bytes of text than this.
    #[must_use]
    pub fn limited(self, bytes: usize) -> Self {
        Self { bytes_limit: self.bytes_limit.min(bytes), ..self }
    }

    /// Whether a prepared change can be made.
    ///
    /// # Errors
    /// As of [`Document::commit`].
    pub fn accepts(&self, change: &DocumentChange) -> Result<(), TextError> {
        if !Arc::ptr_eq(&self.identity, &change.document) {
            return Err(TextError::ForeignChange);
        }
        self.check_revision(change.base)
    }

    /// Whether text and tokens belong together, as far as counting tells: what a panic in the middle of a change could break.
    pub fn is_whole(&self) -> bool {
        self.tokens.is_whole(self.len_bytes())
    }

    /// Makes a prepared change.
    ///
    /// # Errors
    /// [`TextError::RevisionMismatch`] if another change was made since, [`TextError::ForeignChange`] if another
    /// document prepared it. The document is unchanged then.
    pub fn commit(&mut self, change: DocumentChange) -> Result<(), TextError> {
        self.accepts(&change)?;
        match change.next {
            Next::Text { text, replacements, rewrites } => {
                if let DocumentText::Text(old) = &self.content {
                    self.bursts.follow(old, &text, &rewrites);
                }
                self.content = DocumentText::Text(text);
                for replacement in replacements.into_iter().rev() {
                    self.tokens.replace(replacement.start, replacement.end, replacement.entries);
                }
            }
            Next::Reading { text, tokens, tokenizer } => {
                self.content = DocumentText::Text(text);
                (self.tokens, self.tokenizer) = (tokens, tokenizer);
            }
            Next::Lead(lead) => self.lead = lead,
            Next::Tokens => {
                for splice in change.splices.iter().rev() {
                    let entries =
                        splice.insert.iter().map(|id| TextToken { id: *id, piece_bytes: 0 }).collect();
                    self.tokens.replace(splice.at.usize(), splice.end().usize(), entries);
                }
            }
        }
        self.revision = change.revision;
        Ok(())
    }

    pub(crate) fn change(
        &self,
        text: &Rope,
        edits: &[CheckedEdit],
        revision: Revision,
    ) -> Result<DocumentChange, TextError> {
        let inserted: usize = edits.iter().map(|edit| edit.insert.len()).sum();
        let deleted: usize = edits.iter().map(|edit| edit.end - edit.start).sum();
        check_length(text.len_bytes() - deleted + inserted, self.bytes_limit)?;
        let new = apply(text, edits);
        let replacements = self.replacements(text, &new, edits)?;
        let prefix = self.prefix().len();
        let list =
            replacements.iter().map(|replacement| trimmed(&self.tokens, replacement, prefix)).collect();
        let splices = Splices::new(list, self.token_count())
            .expect("replacements are sorted, disjoint and of these tokens");
        let stats = EditStats::of(&replacements);
        let rewrite =
            |edit: &CheckedEdit| Rewrite { start: edit.start, end: edit.end, text: edit.insert.to_owned() };
        let rewrites = edits.iter().map(rewrite).collect();
        Ok(self.changed(revision, splices, stats, Next::Text { text: new, replacements, rewrites }))
    }

    fn replacements(
        &self,
        old: &Rope,
        new: &Rope,
        edits: &[CheckedEdit],
    ) -> Result<Vec<Replacement>, TextError> {
        // Where pieces start is known in a text that was not tokenized whole.
        let has_pieces = self.tokens.bytes() == old.len_bytes();
        let inserted = edits.iter().map(|edit| edit.insert);
        if let Some(reach) = self.tokenizer.reach_in(inserted).filter(|_| has_pieces) {
            let (tokenizer, tokens) = (&*self.tokenizer, &self.tokens);
            return Retokenizer { tokenizer, reach, old, tokens, new, edits }.run();
        }
        let (entries, bytes_scanned) = (self.tokenizer.entries(new)?, new.len_bytes());
        Ok(vec![Replacement { start: 0, end: self.tokens.len(), entries, bytes_scanned }])
    }

    fn changed(&self, revision: Revision, splices: Splices, stats: EditStats, next: Next) -> DocumentChange {
        DocumentChange {
            base: self.revision,
            revision,
            splices,
            stats,
            next,
            document: self.identity.clone(),
        }
    }

    fn check_revision(&self, base: Revision) -> Result<(), TextError> {
        if base == self.revision {
            return Ok(());
        }
        Err(TextError::RevisionMismatch { base, current: self.revision })
    }

    /// The latest edits.
    pub(crate) fn bursts(&self) -> &Bursts {
        &self.bursts
    }

    pub(crate) fn rope(&self) -> Option<&Rope> {
        match &self.content {
            DocumentText::Text(text) => Some(text),
            DocumentText::TokensOnly => None,
        }
    }

    fn prefix(&self) -> &[TokenId] {
        match &self.content {
            DocumentText::Text(_) => &self.lead.tokens,
            DocumentText::TokensOnly => &[],
        }
    }
}

fn check_length(bytes: usize, limit: usize) -> Result<(), TextError> {
    if bytes > limit {
        return Err(TextError::TooLong { bytes, limit });
    }
    Ok(())
}
