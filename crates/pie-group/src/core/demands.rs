//! What a step could do: who wants to run, and which of the chosen can.

use super::allotment::Allotment;
use super::pace::Pace;
use super::session::count;
use crate::faults;
use pie_plan::schedule::{Demand, Lane, Want};
use pie_plan::{PlanError, Run};
use pie_words::SessionId;
use std::collections::BTreeMap;

impl Allotment {
    /// What the active sessions want. Those that want nothing are active no longer. Each tenant has a lane.
    pub fn demands(&mut self, pace: Pace) -> Vec<Demand> {
        let (mut demands, mut idle, mut lanes) = (Vec::new(), Vec::new(), BTreeMap::new());
        for id in &self.encoding.active {
            // What it has on disk need not be encoded.
            if self.asks_for_rows(*id) {
                continue;
            }
            let (Some(rows), Some(table)) = (self.tables.rows(*id), self.tables.table(*id)) else {
                idle.push(*id);
                continue;
            };
            let want = match self.completions.front(*id) {
                Some(completion) if completion.waits_for_first_token() => Want::FirstToken,
                Some(_) => Want::NextToken,
                None if !rows.ahead.is_wanted() || table.pending() == 0 => {
                    idle.push(*id);
                    continue;
                }
                None if self.encoding.unasked.contains(id) => Want::Refresh,
                None => Want::Encoding,
            };
            let next_lane = Lane(count(lanes.len()));
            let pending = match (count(table.pending()), want) {
                // The last row is encoded with what stands on the branch (W1): chunks can do no more for it.
                (1, Want::FirstToken | Want::NextToken) => 0,
                (pending, _) => pending,
            };
            demands.push(Demand {
                session: *id,
                lane: *lanes.entry(&rows.tenant).or_insert(next_lane),
                rows: if want <= Want::NextToken { count(table.context_pending()) } else { pending },
                pending,
                want,
                ticket: rows.ticket,
                row_time: pace.row(count(table.context_length())),
                token_time: pace.draw(),
            });
        }
        for id in idle {
            self.encoding.active.remove(&id);
            self.encoding.unasked.remove(&id);
            if let Some(rows) = self.tables.rows_mut(id) {
                rows.ahead.done();
            }
        }
        demands
    }

    /// Takes out of a plan what the model could not see. No call leads here: each was checked. But a rank that refuses rows
    /// ends the epoch for everybody, and this refuses one session.
    pub fn refuse_beyond(&mut self, runs: &mut Vec<Run>) -> Result<(), PlanError> {
        let is_beyond = |run: &&Run| self.model.is_beyond(self.tables.group().reach(**run));
        let beyond: Vec<SessionId> = runs.iter().filter(is_beyond).map(Run::session).collect();
        runs.retain(|run| !beyond.contains(&run.session()));
        beyond.into_iter().try_for_each(|id| self.refuse(id, &faults::beyond_the_model()))
    }

    /// Generated tokens need slots too: first there are fewer passes, then others make room, then fewer completions.
    pub fn fit(&mut self, runs: &mut Vec<Run>, passes: &mut u32) -> Result<(), PlanError> {
        loop {
            // Who made room may have been going to run.
            runs.retain(|run| self.tables.table(run.session()).is_some());
            if !runs.iter().any(|run| matches!(run, Run::Sample { .. })) {
                *passes = 1;
            }
            let checked = self.tables.group().check_runs(runs, *passes);
            let Err(PlanError::OutOfSlots { .. }) = checked else { return Ok(()) };
            if *passes > 1 {
                *passes /= 2;
                continue;
            }
            let Some(index) = self.tables.first_to_fail(runs) else { return Ok(()) };
            if !self.make_room(runs[index].session())? {
                let refused = runs.remove(index).session();
                if self.completions.sessions().any(|id| id != refused) {
                    self.completions.fail_front(refused, &faults::no_slot_for_token());
                } else if !self.completions.end_front(refused) {
                    // Nobody else will give slots back, and it has nothing yet: waiting does not help.
                    let capacity = self.tables.group().capacity();
                    self.completions.fail_front(refused, &faults::no_slots(capacity + 1, capacity));
                }
            }
        }
    }
}
