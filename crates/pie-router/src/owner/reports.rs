//! What the ranks report of each plan: tokens, times, and digests, which must be equal.

use super::Task;
use pie_proto::plan::Report;
use std::time::Instant;

impl Task {
    pub(super) fn report(&mut self, rank: u32, report: Report) {
        let (seq, done) = (report.seq.0, report.is_done);
        if done {
            self.digests.entry(seq).or_default().push((rank, report.sampled_digest, report.digest));
            self.count(rank, &report);
        }
        if rank == 0 {
            let wants_digest = report.digest.is_some();
            if let Err(error) = self.desk.act(|core| core.report(report, Instant::now())) {
                return self.lose(&format!("rank 0's report does not fit the owner's tables: {error}"));
            }
            if wants_digest {
                let own = (u32::MAX, 0, self.desk.core().digest());
                self.digests.entry(seq).or_default().push(own);
            }
        }
        if done {
            self.compare(seq);
        }
    }

    /// Books a rank's time in a step.
    fn count(&mut self, rank: u32, report: &Report) {
        let own = report.compute_us.saturating_sub(report.collective_us);
        if let Some(times) = self.rank_times.get(rank as usize) {
            times.compute_us.add(own);
            times.collective_us.add(report.collective_us);
        }
        let work = self.work.entry(report.seq.0).or_insert((own, own));
        *work = (work.0.min(own), work.1.max(own));
    }

    /// P3 and P4: all ranks sampled the same tokens, and have the same tables as the owner.
    fn compare(&mut self, seq: u64) {
        let world_size = self.formed.as_ref().map_or(0, |formed| formed.world_size());
        let Some(said) = self.digests.get(&seq) else { return };
        let of_ranks: Vec<_> = said.iter().filter(|(rank, ..)| *rank != u32::MAX).collect();
        if of_ranks.len() < world_size {
            return;
        }
        let tokens_differ = of_ranks.windows(2).any(|pair| pair[0].1 != pair[1].1);
        let tables_differ = said.windows(2).any(|pair| pair[0].2 != pair[1].2);
        let violation = match (tokens_differ, tables_differ) {
            (true, _) => Some("P3: the ranks sampled different tokens"),
            (_, true) => Some("P4: the ranks' tables differ"),
            _ => None,
        };
        let violation = violation.map(|what| format!("invariant {what} in plan {seq}: {said:?}"));
        self.digests.remove(&seq);
        self.spans.end(seq);
        if let Some((least, most)) = self.work.remove(&seq) {
            self.stats.steps.skew.observe_us(most - least);
        }
        if let Some(violation) = violation {
            self.lose(&violation);
        }
    }
}
