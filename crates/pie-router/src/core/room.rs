//! Who makes room when slots run short. Tenants pay for what they hold: one that opens document after document, or completes in many at
//! a time, drops its own, and never the one that another types into.

use super::rows::Rows;
use super::tables::Tables;
use crate::tenants::Tenant;
use pie_plan::Run;
use pie_words::SessionId;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spare {
    /// What is encoded anew beside a session's rows.
    Shadow(SessionId),
    /// What an ended completion left.
    Branch(SessionId),
    /// The rows of a document that waits for nothing.
    Document(SessionId),
    /// The rows of one that is being completed.
    Busy(SessionId),
}

impl Tables {
    /// What goes first, for a session that needs slots: what is encoded anew beside old rows, then what ended completions left,
    /// then documents that wait for nothing, those that are idle longest, of the tenant that holds most. If all are busy, a session
    /// of a tenant that holds more than the one who asks.
    pub fn spare(&self, asks: SessionId, is_completed: impl Fn(SessionId) -> bool) -> Option<Spare> {
        if let Some((id, _)) = self.all().find(|(_, rows)| rows.shadow.is_some()) {
            return Some(Spare::Shadow(id));
        }
        let held = self.rows_by_tenant();
        let of = |rows: &Rows| held.get(&rows.tenant).copied().unwrap_or(0);
        let own = self.rows(asks).map_or(0, of);
        let is_idle = |(id, rows): &(SessionId, &Rows)| !is_completed(*id) && of(rows) >= own;
        let most_then_longest = |(_, rows): &(SessionId, &Rows)| (Reverse(of(rows)), rows.ticket);
        let branches = self.all().filter(|(id, _)| self.branch_rows(*id) > 0);
        if let Some((id, _)) = branches.filter(is_idle).min_by_key(most_then_longest) {
            return Some(Spare::Branch(id));
        }
        let others = || {
            let holds = |rows: &Rows, id| rows.layout.is_some() && self.document_rows(id) > 0;
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
        let held = self.rows_by_tenant();
        let samples = runs.iter().enumerate().filter(|(_, run)| matches!(run, Run::Sample { .. }));
        let rows = |run: &Run| self.rows(run.session()).and_then(|rows| held.get(&rows.tenant));
        samples.max_by_key(|(index, run)| (rows(run), *index)).map(|(index, _)| index)
    }

    fn rows_by_tenant(&self) -> BTreeMap<&Tenant, usize> {
        let mut held = BTreeMap::new();
        for (id, rows) in self.all() {
            *held.entry(&rows.tenant).or_default() += self.document_rows(id) + self.branch_rows(id);
        }
        held
    }
}
