//! Tables on their way from a rank to the group's next owner, with all that a digest covers.

use crate::group::Group;
use crate::invariant::{Invariant, Violation};
use crate::rows::{Freshness, RowState, Rows};
use crate::slots::Slots;
use crate::spans::Spans;
use crate::table::{Branch, Origin, Settling, Table};
use pie_words::{Epoch, Seq, SessionId, Slot, TokenId};

/// One session's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableImage {
    /// Whose.
    pub session: SessionId,
    /// The document's rows.
    pub document: RowsImage,
    /// What a completion generated.
    pub branch: Option<BranchImage>,
    /// What becomes of keys that stand elsewhere than their index.
    pub keys: KeysImage,
    /// Rows from here on are in no other table.
    pub shared_until: u32,
}

/// Rows in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowsImage {
    /// By index.
    pub tokens: Vec<TokenId>,
    /// By index, as many.
    pub slots: Vec<Slot>,
    /// What neighbours have in common, as many rows in all.
    pub spans: Vec<SpanImage>,
}

/// Neighbouring rows that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanImage {
    /// How many.
    pub rows: u32,
    /// What they wait for.
    pub state: StateImage,
}

/// What a row waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateImage {
    /// To be encoded.
    Pending,
    /// Nothing but this turn.
    Fresh {
        /// Positions.
        owes: i32,
    },
    /// To be encoded again, when there is time; something on its left has changed.
    Stale {
        /// Positions.
        owes: i32,
    },
}

/// A branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchImage {
    /// Tokens of the document that it stands behind.
    pub share: u32,
    /// Its own.
    pub rows: RowsImage,
    /// Whether the document before it is as it was when it began.
    pub front: FrontImage,
}

/// What stands before a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontImage {
    /// What stood there when it began.
    Same,
    /// Something else.
    Edited,
}

/// What becomes of keys whose rotation is not that of their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysImage {
    /// They are turned with the next run.
    Turned,
    /// They stay as they are.
    Left,
}

impl Group {
    /// All tables, in order of their sessions.
    pub fn images(&self) -> impl Iterator<Item = TableImage> + '_ {
        self.sessions().map(|(session, table)| image(session, table))
    }

    /// The group that has these tables, after a plan.
    ///
    /// # Errors
    /// Tables that break K1 or K2: they were not those of one group.
    pub fn of_images(
        epoch: Epoch,
        applied: Seq,
        capacity: u32,
        images: Vec<TableImage>,
    ) -> Result<Self, Violation> {
        let broken = |session: SessionId, what: &str| Violation {
            invariant: Invariant::K2,
            what: format!("the table of session {session} {what}"),
        };
        let mut group = Self::new(epoch, capacity);
        group.applied = applied;
        let mut held = Vec::new();
        for image in images {
            let session = image.session;
            let table = table(image).ok_or_else(|| broken(session, "has columns of different lengths"))?;
            held.extend(table.slots().iter().chain(table.branch_slots()).copied());
            if group.sessions.insert(session, table).is_some() {
                return Err(broken(session, "is there twice"));
            }
        }
        group.slots = Slots::held(capacity, held);
        group.check()?;
        Ok(group)
    }

    /// The same tables in another epoch, whose plans are numbered from 1 again.
    pub fn renew(&mut self, epoch: Epoch) {
        (self.epoch, self.applied) = (epoch, Seq(0));
    }

    /// The last plan that was applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }
}

fn image(session: SessionId, table: &Table) -> TableImage {
    TableImage {
        session,
        document: rows_image(&table.document),
        branch: table.branch.as_ref().map(|branch| BranchImage {
            share: count(branch.share),
            rows: rows_image(&branch.rows),
            front: match branch.origin {
                Origin::Same => FrontImage::Same,
                Origin::Edited => FrontImage::Edited,
            },
        }),
        keys: match table.settling {
            Settling::Turn => KeysImage::Turned,
            Settling::Leave => KeysImage::Left,
        },
        shared_until: count(table.shared_until),
    }
}

/// Documents have fewer tokens than 32 bits count.
fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

fn rows_image(rows: &Rows) -> RowsImage {
    let span = |(range, state): (std::ops::Range<usize>, RowState)| {
        let state = match state {
            RowState::Pending => StateImage::Pending,
            RowState::Encoded { owes, age: Freshness::Fresh } => StateImage::Fresh { owes },
            RowState::Encoded { owes, age: Freshness::Stale } => StateImage::Stale { owes },
        };
        SpanImage { rows: count(range.len()), state }
    };
    let spans = rows.states.iter().map(span).collect();
    RowsImage { tokens: rows.tokens.clone(), slots: rows.slots.clone(), spans }
}

/// `None` where the columns do not agree.
fn table(image: TableImage) -> Option<Table> {
    let branch = image.branch.map(|branch| Branch {
        share: branch.share as usize,
        rows: rows(branch.rows),
        origin: match branch.front {
            FrontImage::Same => Origin::Same,
            FrontImage::Edited => Origin::Edited,
        },
    });
    let settling = match image.keys {
        KeysImage::Turned => Settling::Turn,
        KeysImage::Left => Settling::Leave,
    };
    let shared_until = image.shared_until as usize;
    let table = Table { document: rows(image.document), branch, settling, shared_until };
    table.columns_agree().then_some(table)
}

fn rows(image: RowsImage) -> Rows {
    let mut states = Spans::default();
    for SpanImage { rows, state } in image.spans {
        let state = match state {
            StateImage::Pending => RowState::Pending,
            StateImage::Fresh { owes } => RowState::Encoded { owes, age: Freshness::Fresh },
            StateImage::Stale { owes } => RowState::Encoded { owes, age: Freshness::Stale },
        };
        states.extend(rows as usize, state);
    }
    Rows { tokens: image.tokens, slots: image.slots, states }
}
