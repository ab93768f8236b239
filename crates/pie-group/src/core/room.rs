//! Who makes room when slots run short. Tenants pay for what they hold: one that opens document after document, or completes in many at
//! a time, drops its own, and never the one that another types into.

use super::rows::HeldRows;
use super::tables::Tables;
use crate::tenants::Tenant;
use pie_plan::Run;
use pie_words::SessionId;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// What an ended completion left.
    Branch(SessionId),
    /// The rows of a document that waits for nothing.
    Document(SessionId),
    /// The rows of one that is being completed.
    Busy(SessionId),
}

impl Tables {
    /// What goes first, for a session that needs slots: what ended completions left, then documents that wait for nothing, those that are
    /// idle longest, of the tenant that holds most. If all are busy, a session of a tenant that holds more than the one who asks.
    pub fn spare(&self, asks: SessionId, is_completed: impl Fn(SessionId) -> bool) -> Option<Spare> {
        let held = rows_by_tenant(self);
        let of = |rows: &HeldRows| held.get(&rows.tenant).copied().unwrap_or(0);
        let own = self.rows(asks).map_or(0, of);
        let is_idle = |(id, rows): &(SessionId, &HeldRows)| !is_completed(*id) && of(rows) >= own;
        let most_then_longest = |(_, rows): &(SessionId, &HeldRows)| (Reverse(of(rows)), rows.ticket);
        let branches = self.all().filter(|(id, _)| self.branch_rows(*id) > 0);
        if let Some((id, _)) = branches.filter(is_idle).min_by_key(most_then_longest) {
            return Some(Spare::Branch(id));
        }
        let others = || {
            let holds = |rows: &HeldRows, id| rows.layout.is_some() && self.document_rows(id) > 0;
            self.all().filter(move |(id, rows)| *id != asks && holds(rows, *id))
        };
        if let Some((id, _)) = others().filter(is_idle).min_by_key(most_then_longest) {
            return Some(Spare::Document(id));
        }
        // Who has waited least loses least.
        let richer = others().filter(|(_, rows)| of(rows) > own);
        richer.max_by_key(|(_, rows)| (of(rows), rows.ticket)).map(|(id, _)| Spare::Busy(id))
    }

    /// The run that goes first when tokens find no slots: the last that samples, of the tenant that holds most.
    pub fn first_to_fail(&self, runs: &[Run]) -> Option<usize> {
        let held = rows_by_tenant(self);
        let samples = runs.iter().enumerate().filter(|(_, run)| matches!(run, Run::Sample { .. }));
        let rows = |run: &Run| self.rows(run.session()).and_then(|rows| held.get(&rows.tenant));
        samples.max_by_key(|(index, run)| (rows(run), *index)).map(|(index, _)| index)
    }
}

fn rows_by_tenant(tables: &Tables) -> BTreeMap<&Tenant, usize> {
    let mut held = BTreeMap::new();
    for (id, rows) in tables.all() {
        *held.entry(&rows.tenant).or_default() += tables.document_rows(id) + tables.branch_rows(id);
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::session::count;
    use crate::stats::Stats;
    use crate::tenants::Sharing;
    use pie_plan::{Change, Group};
    use pie_words::{Epoch, Strategy, TokenId, TokenIndex};
    use std::sync::Arc;

    /// Sessions of tenants, with so many rows each, the longest idle first.
    fn tables(sessions: &[(&str, usize)]) -> Tables {
        let mut tables =
            Tables::new(Group::new(Epoch(1), 1000), Sharing::WithinTenant, Arc::<Stats>::default());
        for (index, (tenant, rows)) in sessions.iter().enumerate() {
            let id = SessionId(index as u64);
            tables.insert(id, Tenant::new(tenant).expect("a right name"));
            tables.stage(vec![Change::Open { session: id }]).expect("it is new");
            let tokens: Vec<_> = (0..*rows).map(|token| TokenId(count(token))).collect();
            tables.hold(id, &tokens, Strategy::Pie).expect("there is room");
        }
        tables
    }

    #[test]
    fn who_holds_most_makes_room_the_longest_idle_first() {
        let nobody = |_: SessionId| false;
        let everybody = |_: SessionId| true;
        let (first, second, third) = (SessionId(0), SessionId(1), SessionId(2));
        let cases = [
            // Of two tenants the one that holds most, of its sessions the one that waits longest.
            (vec![("a", 20), ("b", 15), ("b", 15)], first, Some(Spare::Document(second))),
            // Who holds most pays with their own.
            (vec![("a", 20), ("b", 40), ("b", 40)], third, Some(Spare::Document(second))),
            // Where all are equal, anybody's does.
            (vec![("a", 20), ("b", 20), ("c", 20)], third, Some(Spare::Document(first))),
            (vec![("a", 20)], first, None),
        ];
        for (sessions, asks, idle) in cases {
            assert_eq!(tables(&sessions).spare(asks, nobody), idle, "{sessions:?}");
        }
        // All are busy: a tenant that holds more than who asks loses the one that has waited least.
        let busy = tables(&[("a", 20), ("b", 40), ("b", 40)]);
        assert_eq!(busy.spare(first, everybody), Some(Spare::Busy(third)));
        assert_eq!(busy.spare(second, everybody), None, "nobody pays for who holds most");
        // What ended completions left goes before any document.
        let mut left = tables(&[("a", 20), ("a", 20)]);
        let branch = Change::Branch { session: second, at: TokenIndex(10), tokens: vec![TokenId(1)] };
        left.stage(vec![branch]).expect("there is room");
        assert_eq!(left.spare(first, nobody), Some(Spare::Branch(second)));
        assert_eq!(
            left.spare(first, |id| id == second),
            None,
            "it runs, and who asks is nobody to make room"
        );
    }
}
