//! What a rank keeps of its group's documents, so that nothing is lost with the router that owns the group: a memo of each
//! session, which the owner writes and the rank does not read.
//!
//! E1: entries are numbered, and a rank has those of an epoch up to its number without gaps. So of several ranks the one with the
//! latest number of the latest epoch has all that was ever confirmed. E2: only who fenced a rank last writes its ledger.

use pie_words::{Epoch, SessionId};
use std::collections::BTreeMap;

/// How far a ledger is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Of the owner who wrote it last.
    pub epoch: Epoch,
    /// Entries that this owner has written; the first has number 1.
    pub number: u64,
}

/// What an owner writes of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// All of its memo, in place of what was there.
    Whole(Vec<u8>),
    /// More of it.
    More(Vec<u8>),
    /// The session is closed, or lives elsewhere.
    Gone,
}

/// What an owner begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// What is there is right.
    GoOn,
    /// All of it is written anew. What was there is kept until that is complete.
    Anew,
}

/// Why a ledger takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// E2: somebody else came later.
    #[error("epoch {asked} does not write here any more: epoch {fence} does")]
    Fenced {
        /// Who wants to write.
        asked: Epoch,
        /// Who may.
        fence: Epoch,
    },
    /// E1: an entry is missing.
    #[error("entry {got} does not follow entry {latest} (invariant E1)")]
    Gap {
        /// The number that came.
        got: u64,
        /// The number before it.
        latest: u64,
    },
    /// There is nothing to go on with, or nothing that was begun.
    #[error("the ledger was not begun")]
    NotBegun,
}

impl LedgerError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "EPOCH_FENCED",
            Self::Gap { .. } => "LEDGER_GAP",
            Self::NotBegun => "LEDGER_NOT_BEGUN",
        }
    }
}

/// The pieces of each session's memo, in the order in which they came.
pub type Memos = BTreeMap<SessionId, Vec<Vec<u8>>>;

/// A rank's ledger.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    fence: Epoch,
    /// How far it is; none before the first was complete.
    position: Option<Position>,
    memos: Memos,
    /// Who writes now, and what is not complete yet.
    writer: Option<LedgerWriter>,
}

#[derive(Clone, Debug)]
struct LedgerWriter {
    epoch: Epoch,
    latest: u64,
    /// Written anew; what counts until it is complete is what was there before.
    incoming: Option<Memos>,
}

impl Ledger {
    /// Nobody of an older epoch writes here from now on, and what is not complete is forgotten. Returns how far it is.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`], unless the epoch is greater than all before.
    pub fn fence(&mut self, epoch: Epoch) -> Result<Option<Position>, LedgerError> {
        if epoch <= self.fence {
            return Err(LedgerError::Fenced { asked: epoch, fence: self.fence });
        }
        (self.fence, self.writer) = (epoch, None);
        Ok(self.position)
    }

    /// The epoch that may write.
    pub fn fenced(&self) -> Epoch {
        self.fence
    }

    /// How far it is.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// What is kept.
    pub fn memos(&self) -> &Memos {
        &self.memos
    }

    /// The owner begins to write. The next entry is the one behind `after`.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`], and [`LedgerError::NotBegun`] where there is nothing to go on with.
    pub fn begin(&mut self, epoch: Epoch, beginning: Beginning, after: u64) -> Result<(), LedgerError> {
        self.check(epoch)?;
        let incoming = match beginning {
            Beginning::GoOn if self.position.is_none() => return Err(LedgerError::NotBegun),
            Beginning::GoOn => {
                self.position = Some(Position { epoch, number: after });
                None
            }
            Beginning::Anew => Some(Memos::new()),
        };
        self.writer = Some(LedgerWriter { epoch, latest: after, incoming });
        Ok(())
    }

    /// A piece of a ledger that is written anew, as it was when that began.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`], [`LedgerError::NotBegun`].
    pub fn copy(&mut self, epoch: Epoch, session: SessionId, entry: Entry) -> Result<(), LedgerError> {
        let incoming = self.writer(epoch)?.incoming.as_mut().ok_or(LedgerError::NotBegun)?;
        put(incoming, session, entry);
        Ok(())
    }

    /// All that there was has been copied: from here on this is what the rank keeps.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`], [`LedgerError::NotBegun`].
    pub fn complete(&mut self, epoch: Epoch) -> Result<(), LedgerError> {
        let writer = self.writer(epoch)?;
        let memos = writer.incoming.take().ok_or(LedgerError::NotBegun)?;
        let number = writer.latest;
        (self.memos, self.position) = (memos, Some(Position { epoch, number }));
        Ok(())
    }

    /// The entry of this number.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing has changed then.
    pub fn add(
        &mut self,
        epoch: Epoch,
        number: u64,
        session: SessionId,
        entry: Entry,
    ) -> Result<(), LedgerError> {
        let writer = self.writer(epoch)?;
        if number != writer.latest + 1 {
            return Err(LedgerError::Gap { got: number, latest: writer.latest });
        }
        if writer.incoming.is_some() {
            return Err(LedgerError::NotBegun);
        }
        writer.latest = number;
        put(&mut self.memos, session, entry);
        self.position = Some(Position { epoch, number });
        Ok(())
    }

    fn writer(&mut self, epoch: Epoch) -> Result<&mut LedgerWriter, LedgerError> {
        self.check(epoch)?;
        self.writer.as_mut().filter(|writer| writer.epoch == epoch).ok_or(LedgerError::NotBegun)
    }

    fn check(&self, epoch: Epoch) -> Result<(), LedgerError> {
        if epoch == self.fence {
            return Ok(());
        }
        Err(LedgerError::Fenced { asked: epoch, fence: self.fence })
    }
}

fn put(memos: &mut Memos, session: SessionId, entry: Entry) {
    match entry {
        Entry::Whole(memo) => drop(memos.insert(session, vec![memo])),
        Entry::More(memo) => memos.entry(session).or_default().push(memo),
        Entry::Gone => drop(memos.remove(&session)),
    }
}
