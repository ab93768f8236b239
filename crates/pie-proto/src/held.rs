//! What ranks hold, on its way to a group's next owner: the ledger of documents, and the tables.

use crate::reason::{Fault, Reason};
use crate::worker_v1 as wire;
use pie_plan::image::{BranchImage, FrontImage, KeysImage, RowsImage, SpanImage, StateImage, TableImage};
use pie_plan::ledger::{Entry, Position};
use pie_plan::takeover::{Activity, RankSurvey, TablesAt};
use pie_words::{Epoch, Seq, SessionId, Slot, TokenId};

impl From<Position> for wire::LedgerPosition {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch.0, number: position.number }
    }
}

impl From<TablesAt> for wire::TablesAt {
    fn from(tables: TablesAt) -> Self {
        let TablesAt { epoch, applied, slots, activity } = tables;
        let (digest, busy) = match activity {
            Activity::Idle { digest } => (digest, false),
            Activity::Busy => (0, true),
        };
        Self { epoch: epoch.0, applied: applied.0, digest, slots, busy }
    }
}

impl From<RankSurvey> for wire::SurveyResponse {
    fn from(standing: RankSurvey) -> Self {
        let RankSurvey { ledger, tables } = standing;
        Self { ledger: ledger.map(wire::LedgerPosition::from), tables: tables.map(wire::TablesAt::from) }
    }
}

impl From<wire::SurveyResponse> for RankSurvey {
    fn from(answer: wire::SurveyResponse) -> Self {
        let position =
            |wire: wire::LedgerPosition| Position { epoch: Epoch(wire.epoch), number: wire.number };
        let tables = |wire: wire::TablesAt| TablesAt {
            epoch: Epoch(wire.epoch),
            applied: Seq(wire.applied),
            slots: wire.slots,
            activity: if wire.busy { Activity::Busy } else { Activity::Idle { digest: wire.digest } },
        };
        Self { ledger: answer.ledger.map(position), tables: answer.tables.map(tables) }
    }
}

/// An entry of a session, to be kept.
pub fn entry_to_wire(session: SessionId, entry: Entry) -> wire::LedgerEntry {
    use wire::ledger_entry::Kind;
    let kind = match entry {
        Entry::Whole(memo) => Kind::Whole(memo),
        Entry::More(memo) => Kind::More(memo),
        Entry::Gone => Kind::Gone(true),
    };
    wire::LedgerEntry { session: session.0, kind: Some(kind) }
}

/// An entry as a rank gets it.
///
/// # Errors
/// One of no known kind.
pub fn entry(entry: wire::LedgerEntry) -> Result<(SessionId, Entry), Fault> {
    use wire::ledger_entry::Kind;
    let kind = match entry.kind {
        Some(Kind::Whole(memo)) => Entry::Whole(memo),
        Some(Kind::More(memo)) => Entry::More(memo),
        Some(Kind::Gone(_)) => Entry::Gone,
        None => return Err(broken("an entry of no known kind")),
    };
    Ok((SessionId(entry.session), kind))
}

impl From<TableImage> for wire::Table {
    fn from(image: TableImage) -> Self {
        let branch = |branch: BranchImage| wire::table::Branch {
            share: branch.share,
            rows: Some(rows_to_wire(branch.rows)),
            edited: branch.front == FrontImage::Edited,
        };
        Self {
            session: image.session.0,
            document: Some(rows_to_wire(image.document)),
            branch: image.branch.map(branch),
            keys_left: image.keys == KeysImage::Left,
            shared_until: image.shared_until,
        }
    }
}

impl TryFrom<wire::Table> for TableImage {
    type Error = Fault;

    fn try_from(table: wire::Table) -> Result<Self, Fault> {
        let branch = |branch: wire::table::Branch| {
            let front = if branch.edited { FrontImage::Edited } else { FrontImage::Same };
            Ok(BranchImage { share: branch.share, rows: rows(branch.rows)?, front })
        };
        Ok(Self {
            session: SessionId(table.session),
            document: rows(table.document)?,
            branch: table.branch.map(branch).transpose()?,
            keys: if table.keys_left { KeysImage::Left } else { KeysImage::Turned },
            shared_until: table.shared_until,
        })
    }
}

fn rows_to_wire(rows: RowsImage) -> wire::table::Rows {
    use wire::table::span::State;
    let span = |span: SpanImage| {
        let (state, owes) = match span.state {
            StateImage::Pending => (State::Pending, 0),
            StateImage::Fresh { owes } => (State::Fresh, owes),
            StateImage::Stale { owes } => (State::Stale, owes),
        };
        wire::table::Span { rows: span.rows, state: state.into(), owes }
    };
    wire::table::Rows {
        tokens: rows.tokens.into_iter().map(|token| token.0).collect(),
        slots: rows.slots.into_iter().map(|slot| slot.0).collect(),
        spans: rows.spans.into_iter().map(span).collect(),
    }
}

fn rows(rows: Option<wire::table::Rows>) -> Result<RowsImage, Fault> {
    use wire::table::span::State;
    let rows = rows.ok_or_else(|| broken("a table without rows"))?;
    let span = |span: wire::table::Span| {
        let owes = span.owes;
        let state = match span.state() {
            State::Pending => StateImage::Pending,
            State::Fresh => StateImage::Fresh { owes },
            State::Stale => StateImage::Stale { owes },
            State::Unspecified => return Err(broken("rows of no known state")),
        };
        Ok(SpanImage { rows: span.rows, state })
    };
    Ok(RowsImage {
        tokens: rows.tokens.into_iter().map(TokenId).collect(),
        slots: rows.slots.into_iter().map(Slot).collect(),
        spans: rows.spans.into_iter().map(span).collect::<Result<_, _>>()?,
    })
}

fn broken(what: &str) -> Fault {
    Fault::new(
        Reason::Internal,
        format!("what a rank holds has {what}: owner and rank must be of one release"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_the_same_behind_the_wire() {
        let rows = |tokens: &[u32], spans: &[SpanImage]| RowsImage {
            tokens: tokens.iter().copied().map(TokenId).collect(),
            slots: tokens.iter().map(|token| Slot(token + 1)).collect(),
            spans: spans.to_vec(),
        };
        let span = |rows, state| SpanImage { rows, state };
        let spans = [
            span(1, StateImage::Fresh { owes: 0 }),
            span(1, StateImage::Stale { owes: -3 }),
            span(1, StateImage::Pending),
        ];
        let branch = |front| BranchImage { share: 2, rows: rows(&[9], &spans[2..]), front };
        for (keys, branch) in [
            (KeysImage::Turned, None),
            (KeysImage::Left, Some(branch(FrontImage::Same))),
            (KeysImage::Turned, Some(branch(FrontImage::Edited))),
        ] {
            let image = TableImage {
                session: SessionId(7),
                document: rows(&[1, 2, 3], &spans),
                branch,
                keys,
                shared_until: 1,
            };
            assert_eq!(TableImage::try_from(wire::Table::from(image.clone())), Ok(image));
        }
        for kind in [Entry::Whole(vec![1]), Entry::More(vec![]), Entry::Gone] {
            let there = entry_to_wire(SessionId(3), kind.clone());
            assert_eq!(entry(there), Ok((SessionId(3), kind)));
        }
    }
}
