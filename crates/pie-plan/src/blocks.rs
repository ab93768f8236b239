//! Blocks: leading rows of sessions that ranks write to disk and read back, so that a document whose rows went is not encoded again.
//!
//! A block is found by the tokens up to its end, whoever had them. Only exact rows are written (H1), and a block is read only where all rows
//! on its left are exact and its own wait to be encoded: what is read is what encoding them would give. Whether a block is there is known to
//! the ranks alone: they ask each other, and the owner reads in their report what was read.

use crate::group::Group;
use crate::plan::{PlanError, Run};
use crate::table::Table;
use pie_words::{SessionId, Slot, TokenIndex};
use std::ops::Range;

/// Rows of a block.
pub const BLOCK: usize = 256;

/// Whose blocks are found: what one tenant has written is not read for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Realm(pub u64);

/// The last [`BLOCK`] of a session's first `end` rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whose rows.
    pub session: SessionId,
    /// The row behind it: a multiple of [`BLOCK`].
    pub end: TokenIndex,
    /// Who may find it.
    pub realm: Realm,
}

impl Block {
    /// Its rows.
    pub fn rows(&self) -> Range<usize> {
        self.end.usize().saturating_sub(BLOCK)..self.end.usize()
    }
}

/// What a plan has the ranks write and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanBlocks {
    /// To be written. A rank that cannot leaves it.
    pub spilled: Vec<Block>,
    /// To be read by all ranks, or by none; their sessions do not run in the plan.
    pub reloaded: Vec<Block>,
}

impl PlanBlocks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.spilled.is_empty() && self.reloaded.is_empty()
    }
}

impl Table {
    /// How many leading rows could be on disk: whole blocks of exact rows.
    pub fn whole_blocks(&self) -> usize {
        self.frontier() / BLOCK * BLOCK
    }

    /// The rows that a block would fill next: those from the frontier to the end of their block, if all wait to be encoded.
    pub fn missing_block(&self) -> Option<Range<usize>> {
        let start = self.frontier();
        let end = (start / BLOCK + 1) * BLOCK;
        let waiting = self.document.pending(end, usize::MAX).next()?;
        (waiting == (start..end)).then_some(waiting)
    }
}

impl Group {
    /// The slots that a block's rows go to, with the first of those rows: the others are there.
    ///
    /// # Errors
    /// The session is not open, or lacks other rows than these.
    pub fn reload_into(&self, block: &Block) -> Result<(usize, &[Slot]), PlanError> {
        let table = self.table(block.session).ok_or(PlanError::UnknownSession(block.session))?;
        match table.missing_block() {
            Some(rows) if rows.end == block.end.usize() => Ok((rows.start, &table.slots()[rows])),
            _ => Err(PlanError::NoSuchBlock { session: block.session, end: block.end }),
        }
    }

    /// Blocks were read by all ranks.
    ///
    /// # Errors
    /// As [`Group::reload_into`]: the plan was not applied, or the session ran in it.
    pub fn reloaded(&mut self, blocks: &[Block]) -> Result<(), PlanError> {
        for block in blocks {
            let (first, _) = self.reload_into(block)?;
            if let Some(table) = self.sessions.get_mut(&block.session) {
                table.reload(first..block.end.usize(), &self.slots);
            }
        }
        Ok(())
    }

    /// Whether the blocks of a plan are such as it may have. What runs in it is written or read by another one: its last row is to be encoded
    /// again (W1).
    pub(crate) fn check_blocks(&self, blocks: &PlanBlocks, runs: &[Run]) -> Result<(), PlanError> {
        let runs = |session| runs.iter().any(|run| run.session() == session);
        for block in &blocks.spilled {
            let table = self.table(block.session).ok_or(PlanError::UnknownSession(block.session))?;
            let end = block.end.usize();
            if end == 0 || !end.is_multiple_of(BLOCK) || end > table.frontier() {
                return Err(PlanError::NoSuchBlock { session: block.session, end: block.end });
            }
            if runs(block.session) {
                return Err(PlanError::RunsTwice(block.session));
            }
        }
        for (index, block) in blocks.reloaded.iter().enumerate() {
            self.reload_into(block)?;
            let again = blocks.reloaded[..index].iter().any(|other| other.session == block.session);
            if again || runs(block.session) {
                return Err(PlanError::RunsTwice(block.session));
            }
        }
        Ok(())
    }
}
