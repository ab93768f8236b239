//! What the ranks report of each plan: tokens, times, and digests, which must be equal.

use super::Task;
use crate::spans::StepSpans;
use crate::stats::RankTimes;
use pie_proto::plan::Report;
use pie_proto::v1;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Instant;

/// The ranks of the latest epoch, and the plans on their way, as far as those have reported.
pub(super) struct Reports {
    /// For DescribePool.
    pub ranks: Vec<v1::Rank>,
    plans: BTreeMap<u64, Said>,
    /// The traces that the plans are in.
    pub spans: StepSpans,
    times: Arc<[RankTimes]>,
}

/// What is said of a plan.
#[derive(Default)]
struct Said {
    ranks: Vec<RankSaid>,
    /// P4: of the owner's own tables, where the ranks' are compared.
    owners_tables: Option<u64>,
}

struct RankSaid {
    rank: u32,
    /// P3: the digest of what it sampled.
    sampled: u64,
    /// P4: of its tables.
    tables: Option<u64>,
    /// Its work without waiting for others, microseconds.
    work_us: u64,
}

impl Said {
    /// P3 and P4: all ranks sampled the same tokens, and have the same tables as the owner.
    fn violation(&self) -> Option<&'static str> {
        let sampled = self.ranks.iter().map(|said| said.sampled);
        let tables = self.ranks.iter().map(|said| said.tables);
        match () {
            () if differ(sampled) => Some("P3: the ranks sampled different tokens"),
            () if differ(tables.chain(self.owners_tables.map(Some))) => Some("P4: the ranks' tables differ"),
            () => None,
        }
    }

    /// By how much the slowest rank worked longer than the fastest.
    fn skew_us(&self) -> u64 {
        let work = || self.ranks.iter().map(|said| said.work_us);
        work().max().unwrap_or(0) - work().min().unwrap_or(0)
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for RankSaid { rank, sampled, tables, .. } in &self.ranks {
            write!(f, "rank {rank} sampled {sampled:x} with tables {tables:x?}; ")?;
        }
        write!(f, "the owner's tables {:x?}", self.owners_tables)
    }
}

fn differ<T: PartialEq>(mut all: impl Iterator<Item = T>) -> bool {
    all.next().is_some_and(|first| all.any(|other| other != first))
}

impl Reports {
    /// Nothing is on its way yet.
    pub fn new(times: Arc<[RankTimes]>) -> Self {
        Self { ranks: Vec::new(), plans: BTreeMap::new(), spans: StepSpans::default(), times }
    }

    /// An epoch begins: plans of the one before are not reported any more.
    pub fn begin(&mut self, ranks: Vec<v1::Rank>) {
        self.plans.clear();
        self.ranks = ranks;
    }

    /// A rank has done a plan.
    fn note(&mut self, rank: u32, report: &Report) {
        let work_us = report.compute_us.saturating_sub(report.collective_us);
        if let Some(times) = self.times.get(rank as usize) {
            times.compute_us.add(work_us);
            times.collective_us.add(report.collective_us);
        }
        let (sampled, tables) = (report.sampled_digest, report.digest);
        self.plans.entry(report.seq.0).or_default().ranks.push(RankSaid { rank, sampled, tables, work_us });
    }
}

impl Task {
    pub(super) fn report(&mut self, rank: u32, report: Report) {
        let (seq, done, compares) = (report.seq.0, report.is_done, report.digest.is_some());
        if done {
            self.reports.note(rank, &report);
        }
        if rank == 0 {
            if let Err(error) = self.desk.act(|core| core.report(report, Instant::now())) {
                return self.lose(&format!("rank 0's report does not fit the owner's tables: {error}"));
            }
            if compares {
                self.reports.plans.entry(seq).or_default().owners_tables = self.desk.core().digest();
            }
        }
        if done {
            self.compare(seq);
        }
    }

    /// Once all ranks have reported a plan.
    fn compare(&mut self, seq: u64) {
        let world_size = self.formed.as_ref().map_or(0, |formed| formed.world_size());
        let said = match self.reports.plans.entry(seq) {
            Entry::Occupied(plan) if plan.get().ranks.len() >= world_size => plan.remove(),
            _ => return,
        };
        self.reports.spans.end(seq);
        self.stats.steps.skew.observe_us(said.skew_us());
        if let Some(what) = said.violation() {
            self.lose(&format!("invariant {what} in plan {seq}: {said}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let rank = |rank, sampled, tables| RankSaid { rank, sampled, tables, work_us: u64::from(rank) * 10 };
        let cases = [
            ([rank(0, 7, None), rank(1, 7, None)], None, None),
            ([rank(0, 7, Some(1)), rank(1, 7, Some(1))], Some(1), None),
            ([rank(0, 7, Some(1)), rank(1, 8, Some(2))], Some(1), Some("P3")),
            ([rank(0, 7, Some(1)), rank(1, 7, Some(2))], Some(1), Some("P4")),
            ([rank(0, 7, Some(2)), rank(1, 7, Some(2))], Some(1), Some("P4")),
            ([rank(0, 7, Some(1)), rank(1, 7, None)], None, Some("P4")),
        ];
        for (ranks, owners_tables, wanted) in cases {
            let said = Said { ranks: ranks.into(), owners_tables };
            assert_eq!(said.violation().map(|what| &what[..2]), wanted, "{said}");
            assert_eq!(said.skew_us(), 10);
        }
    }
}
