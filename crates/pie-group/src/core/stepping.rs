//! The next step: who takes part in it, and what a report of it means.

use super::completion::CompletionId;
use super::completions::TokenEffect;
use super::flight::InFlight;
use super::healing::{RepairEnd, Repairing, RideRoom, repaired_by};
use super::pace::PassLoad;
use super::planner::Planner;
use super::session::count;
use super::sessions::Sessions;
use crate::faults;
use pie_plan::schedule::{Limits, Schedule, schedule, schedule_first_tokens};
use pie_plan::{Change, DigestWanted, Plan, PlanError, Table, Then, Work};
use pie_proto::plan::{Report, Step};
use pie_words::SessionId;
use std::collections::BTreeMap;
use std::time::Instant;

/// Staged changes that are sent even if nobody wants a forward pass.
const CHANGES_LIMIT: usize = 64;
/// Tokens that a plan takes along as what completions are expected to write; what more of them expect is not looked up.
const EXPECTED_TOKENS: usize = 1 << 16;
/// Plans between two comparisons of the ranks' digests (P4).
const DIGEST_EVERY: u64 = 256;

impl Planner {
    /// The next step, if no plan is on its way and somebody wants one. The tables have then applied it already.
    ///
    /// # Errors
    /// A plan that the owner's own tables refuse is a bug; the group must be formed again.
    pub fn next_step(&mut self, sessions: &Sessions, now: Instant) -> Result<Option<Step>, PlanError> {
        if self.in_flight.is_some() {
            return Ok(None);
        }
        self.follow(sessions)?;
        self.allotment.take_forms(sessions)?;
        self.allotment.end_at_limit();
        self.allotment.begin_completions(sessions)?;
        let mut chosen = self.choose(sessions)?;
        let is_idle = chosen.is_none();
        // While rows are read nothing is repaired: who waits for them would have it given up at once.
        if is_idle && self.allotment.asking().next().is_none() {
            if self.healer.repairs_when_idle() {
                self.allotment.close_holes(sessions, now)?;
            }
            let limits = self.limits(sessions);
            chosen = self.healer.repair_one(&mut self.allotment, self.pace, limits, sessions)?;
        }
        // Changes alone can wait, but for the last: ranks that hold nothing should know it, and may then be stopped.
        let staged = self.allotment.tables.staged();
        let may_wait = staged == 0 || (staged < CHANGES_LIMIT && sessions.count() > 0);
        let is_empty = chosen.is_none();
        let Schedule { mut runs, mut passes } = chosen.unwrap_or(Schedule { runs: Vec::new(), passes: 1 });
        self.allotment.refuse_beyond(&mut runs)?;
        self.allotment.fit(&mut runs, &mut passes)?;
        if !is_idle {
            let window = self.limits(sessions).prefill_rows;
            let room = RideRoom { rows: self.settings.limits.rows, free: self.free_rows(), window };
            self.healer.ride(&mut self.allotment, &mut runs, room, sessions)?;
        }
        let blocks = self.allotment.blocks(&runs, sessions, now);
        if is_empty && may_wait && blocks.is_empty() {
            return Ok(None);
        }
        // Who reads rows is nobody's demand, and waits for the next plan.
        if !blocks.reloaded.is_empty() {
            passes = 1;
        }
        let (epoch, seq) = (self.allotment.tables.group().epoch(), self.allotment.tables.group().next_seq());
        let (changes, work) = self.allotment.tables.start(&runs, passes)?;
        let is_compared = seq.0.is_multiple_of(DIGEST_EVERY);
        let digest = if is_compared { DigestWanted::Report } else { DigestWanted::Skip };
        let limits = self.limits(sessions);
        Ok(Some(self.dispatch(Plan { epoch, seq, changes, runs, passes, digest, blocks }, work, limits, now)))
    }

    /// Makes the tables what the calls want; no plan is on its way.
    fn follow(&mut self, sessions: &Sessions) -> Result<(), PlanError> {
        while let Some(change) = self.changes.pop_front() {
            match change {
                Change::Splice { session, splices, strategy } => {
                    self.allotment.splice(session, &splices, strategy, sessions)?;
                }
                change => drop(self.allotment.tables.stage(vec![change])?),
            }
        }
        for (id, fault) in std::mem::take(&mut self.refused) {
            self.allotment.refuse(id, &fault)?;
        }
        let opened = std::mem::take(&mut self.allotment.encoding.opened);
        opened.into_iter().try_for_each(|id| self.allotment.restore(id, sessions))
    }

    pub(super) fn limits(&self, sessions: &Sessions) -> Limits {
        let tenants = sessions.tenants.with_sessions();
        self.pace.limits(self.settings.limits, self.settings.prefill, sessions.count(), tenants)
    }

    /// Who runs, from what the tables say is pending. If nobody wants anything, sessions that sleep are woken.
    fn choose(&mut self, sessions: &Sessions) -> Result<Option<Schedule>, PlanError> {
        let (tenants, limits) = (sessions.tenants.with_sessions(), self.limits(sessions));
        loop {
            let demands = self.allotment.demands(self.pace);
            // Who has waited for others' work once does not wait for it again. That has every other step at least.
            let may_be_short = tenants > 1 && !self.was_short;
            let short = if may_be_short { schedule_first_tokens(&demands, limits) } else { None };
            self.was_short = short.is_some();
            let chosen = short.or_else(|| schedule(&demands, limits));
            let is_served = chosen.is_some() || self.allotment.asking().next().is_some();
            if is_served || !self.allotment.wake_one(sessions)? {
                return Ok(chosen);
            }
        }
    }

    /// Books what the plan does for each session, and adds the sampling parameters.
    fn dispatch(&mut self, plan: Plan, work: Work, limits: Limits, now: Instant) -> Step {
        let (mut sampling, mut completions) = (BTreeMap::new(), BTreeMap::new());
        self.stats.steps.steps.add(1);
        self.stats.tokens.rotated.add(work.turns.slots.len() as u64);
        let keys = work.rows.iter().map(|row| u64::from(row.position.0) + 1).sum();
        let draws = count(work.sequences.iter().filter(|sequence| sequence.then == Then::Sample).count());
        let load = PassLoad { rows: count(work.rows.len()), keys, draws };
        let draft_cost = self.pace.cost_of_draft(load);
        // L1 holds for drafts too.
        let most_rows = limits.rows.saturating_sub(load.rows).min(self.pace.drafts_within(limits.time));
        let most_drafts =
            self.settings.draft_tokens.min(most_rows / draws.max(1)).min(plan.passes.saturating_sub(1));
        let mut room = EXPECTED_TOKENS;
        // What a plan does that only repairs counts when the ranks have not given it up.
        let counted = if plan.only_repairs() { &[][..] } else { &work.sequences[..] };
        for sequence in counted {
            let id = sequence.session;
            let (all, rotated) = (count(sequence.rows.len()), count(sequence.turned));
            let ticket = self.allotment.tables.ticket();
            let stale = self.allotment.tables.table(id).map_or(0, Table::stale_in_context);
            let Some(rows) = self.allotment.tables.rows_mut(id) else { continue };
            rows.ticket = ticket;
            let repaired = rows.repairs(repaired_by(&plan, id), is_edited(&plan, id), all);
            let encoded = all - repaired;
            rows.repaired += u64::from(repaired);
            self.stats.tokens.repaired.add(u64::from(repaired));
            let Some(completion) = self.allotment.completions.front_mut(id).filter(|front| front.has_begun())
            else {
                self.stats.tokens.encoded.add(u64::from(encoded));
                rows.ahead.encoded += encoded;
                rows.ahead.rotated += rotated;
                continue;
            };
            if completion.waits_for_first_token() {
                self.stats.tokens.encoded.add(u64::from(encoded));
                completion.cost.encoded += encoded;
                completion.cost.repaired += repaired;
                completion.cost.stale = count(stale);
                completion.cost.rotated += rotated;
            }
            if sequence.then == Then::Sample {
                let mut own = completion.sampling(draft_cost, most_drafts);
                match room.checked_sub(own.expected.len()) {
                    Some(left) => room = left,
                    None => own.expected.clear(),
                }
                sampling.insert(id, own);
            }
            completions.insert(id, completion.id);
        }
        completions.values().for_each(|id: &CompletionId| self.allotment.completions.start(*id, now));
        let mut in_flight = InFlight::new(plan.seq, plan.passes, load, completions);
        in_flight.blocks.clone_from(&plan.blocks);
        in_flight.repairing = plan.only_repairs().then(|| Repairing { plan: plan.clone(), work });
        self.in_flight = Some(in_flight);
        Step { plan, sampling }
    }

    /// Rank 0 has done passes of the step in flight, or all of it.
    ///
    /// # Errors
    /// A report that the owner's tables refuse: the replicas differ, and the group must be formed again.
    pub fn report(&mut self, report: Report, now: Instant) -> Result<(), PlanError> {
        let Some(mut in_flight) = self.in_flight.take() else { return Ok(()) };
        for id in in_flight.completions.values() {
            if let Some(completion) = self.allotment.completions.running(*id) {
                completion.cost.compute_us += report.compute_us;
            }
        }
        for sampled in report.passes {
            match in_flight.reported {
                0 => self.allotment.tables.append(&sampled)?,
                _ => self.allotment.tables.decode(&sampled)?,
            }
            in_flight.reported += 1;
            self.stats.tokens.generated.add(sampled.len() as u64);
            for sampled in sampled {
                if !sampled.is_drawn() {
                    in_flight.undrawn.insert(sampled.session);
                } else if let Some(id) = in_flight.completions.get(&sampled.session) {
                    let taken = self.allotment.completions.take(*id, sampled, now);
                    in_flight.is_stray |= taken == TokenEffect::EndsUnheard;
                }
            }
        }
        for id in report.refused {
            let is_undrawn = in_flight.undrawn.contains(&id);
            let fault = if is_undrawn { faults::no_numbers() } else { faults::beyond_the_model() };
            self.refused.push((id, fault));
        }
        if !report.is_done {
            self.in_flight = Some(in_flight);
            return Ok(());
        }
        self.allotment.reloaded(&in_flight.blocks.reloaded, &report.reloaded)?;
        if let Some(repairing) = &in_flight.repairing {
            let end = if report.is_given_up { RepairEnd::GivenUp } else { RepairEnd::Done };
            self.healer.ended(&mut self.allotment, repairing, end, self.settings.limits, &self.stats)?;
        }
        let passes = u64::from(report.forwards.max(1));
        for speculated in &report.speculated {
            self.stats.tokens.drafted.add(u64::from(speculated.drafted));
            self.stats.tokens.accepted.add(u64::from(speculated.accepted));
            let id = in_flight.completions.get(&speculated.session);
            if let Some(completion) = id.and_then(|id| self.allotment.completions.running(*id)) {
                completion.looked_up(*speculated);
            }
        }
        let drafts = report.speculated.iter().map(|speculated| speculated.drafted).sum();
        if !in_flight.blocks.is_empty() {
            // Nothing is learned from a disk's time.
        } else if drafts > 0 {
            self.pace.learn_drafts(in_flight.load, report.forwards, drafts, report.compute_us);
        } else if !report.is_given_up {
            self.pace.learn(in_flight.load, report.compute_us / passes);
        }
        self.stats.steps.time.observe_us(report.compute_us);
        self.stats.steps.collective.observe_us(report.collective_us);
        self.stats.steps.passes.add(passes);
        Ok(())
    }
}

fn is_edited(plan: &Plan, session: SessionId) -> bool {
    plan.changes
        .iter()
        .any(|change| matches!(change, Change::Splice { session: whose, .. } if *whose == session))
}
