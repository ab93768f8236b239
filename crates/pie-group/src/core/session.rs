//! A session: one open document.

use super::drafting::Removed;
use super::journal::MemoBytes;
use crate::tenants::Tenant;
use pie_proto::request::{Identity, SessionName};
use pie_text::Document;
use pie_words::{Following, Revision, SessionId};
use std::time::Instant;

/// One open document, whoever serves it: what the ranks hold of it is in [`super::tables`].
pub(crate) struct Session {
    /// Its name among the tenant's.
    pub name: SessionName,
    /// Its name in plans.
    pub id: SessionId,
    /// Which life of the name this is.
    pub identity: Identity,
    /// Whose it is.
    pub tenant: Tenant,
    /// Whether it may be used.
    pub standing: Availability,
    /// When its client was last heard of.
    pub used: Instant,
    /// Its text, or its tokens alone.
    pub document: Document,
    /// How its cache follows edits that do not say.
    pub following: Following,
    /// When the latest edit came in since a completion began.
    pub edited: Option<Instant>,
    /// What its latest edits removed.
    pub removed: Removed,
    /// How much of it the ranks were given to keep.
    pub memo: MemoBytes,
}

/// Whether a session may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    /// It may.
    Here,
    /// It is on its way since then: whoever asks for it is to ask again.
    Leaving(Instant),
}

impl Session {
    /// Tokens of the document, with what the model wants before a text.
    pub fn tokens(&self) -> usize {
        self.document.token_count()
    }

    /// The revision that the next edit must name.
    pub fn revision(&self) -> Revision {
        self.document.revision()
    }
}

/// Counts on the wire have 32 bits; documents are far below.
pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
