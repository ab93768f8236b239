//! The owner's stepping: what goes into the next plan, and what a report means.

use super::{CHANGES_LIMIT, Core, DIGEST_EVERY, Replica};
use crate::completion::{After, Completion};
use crate::faults;
use crate::session::{Session, count};
use pie_plan::schedule::{Demand, Want, schedule};
use pie_plan::{DigestWanted, Plan, PlanError, Run, SessionId, TokenId};
use pie_proto::plan::Step;
use pie_proto::{Fault, worker_v1};
use std::collections::BTreeMap;
use std::time::Instant;

impl Core {
    /// The next step, if the group is free and somebody wants one. The owner's tables have then applied it already.
    ///
    /// # Errors
    /// A plan that the owner's own tables refuse is a bug; the group must be formed again.
    pub fn next_step(&mut self, now: Instant) -> Result<Option<Step>, PlanError> {
        if self.in_flight.is_some() || self.epoch().is_none() {
            return Ok(None);
        }
        self.drop_abandoned();
        let chosen = schedule(&self.demands(), self.limits);
        if chosen.is_none() && self.queued.len() < CHANGES_LIMIT {
            return Ok(None);
        }
        let (mut runs, mut passes) = chosen.map_or((Vec::new(), 1), |chosen| (chosen.runs, chosen.passes));
        let Replica::Serving(group) = &mut self.replica else { return Ok(None) };
        let seq = group.next_seq();
        let changes = std::mem::take(&mut self.queued);
        let digest =
            if seq.0.is_multiple_of(DIGEST_EVERY) { DigestWanted::Report } else { DigestWanted::Skip };
        let mut plan = Plan { epoch: group.epoch(), seq, changes, runs: runs.clone(), passes, digest };
        // Generated tokens need slots too: first fewer passes, then fewer completions.
        let mut refused = Vec::new();
        while let Err(PlanError::OutOfSlots { .. }) = group.validate(&plan) {
            if passes > 1 {
                passes = 1;
            } else if let Some(index) = runs.iter().rposition(|run| matches!(run, Run::Sample { .. })) {
                refused.push(runs.remove(index).session());
            } else {
                break;
            }
            plan.runs.clone_from(&runs);
            plan.passes = passes;
        }
        let work = group.apply(&plan)?;
        let reserved = passes as usize * runs.iter().filter(|run| matches!(run, Run::Sample { .. })).count();
        self.projected_free = group.free_slots().saturating_sub(reserved);
        for session in refused {
            self.fail_front(session, &faults::no_slot_for_token());
        }
        Ok(Some(self.dispatch(plan, &work, now)))
    }

    /// Books what the plan does for each session, and adds the sampling parameters.
    fn dispatch(&mut self, plan: Plan, work: &pie_plan::Work, now: Instant) -> Step {
        let mut sampling = BTreeMap::new();
        let mut in_flight = BTreeMap::new();
        for sequence in &work.sequences {
            let ticket = self.ticket();
            let Some(session) = self.sessions.get_mut(&sequence.session) else { continue };
            session.ticket = ticket;
            session.pending = session.pending.saturating_sub(sequence.rows.len());
            let (encoded, rotated) = (count(sequence.rows.len()), count(sequence.turned));
            let Some(completion) = session.completions.front_mut() else {
                session.ahead.encoded += encoded;
                session.ahead.rotated += rotated;
                continue;
            };
            if completion.waits_for_first_token() {
                completion.cost.encoded += encoded;
                completion.cost.rotated += rotated;
            }
            completion.start(now);
            in_flight.insert(sequence.session, completion.id);
            if sequence.then == pie_plan::Then::Sample {
                sampling.insert(sequence.session, completion.sampling());
            }
        }
        if let Replica::Serving(group) = &self.replica {
            for change in &plan.changes {
                let session = change.session();
                if let (Some(session), Some(table)) = (self.sessions.get_mut(&session), group.table(session))
                {
                    session.pending = table.pending();
                }
            }
        }
        self.in_flight = Some(in_flight);
        Step { plan, sampling }
    }

    /// Rank 0 has done the step in flight.
    ///
    /// # Errors
    /// A report that the owner's tables refuse: the replicas differ, and the group must be formed again.
    pub fn report(&mut self, report: worker_v1::Report, now: Instant) -> Result<(), PlanError> {
        let Some(in_flight) = self.in_flight.take() else { return Ok(()) };
        for (session, id) in &in_flight {
            if let Some(completion) = self.running(*session, *id) {
                completion.cost.compute_us += report.compute_us;
            }
        }
        for (index, pass) in report.passes.into_iter().enumerate() {
            let tokens: Vec<_> = pass
                .sampled
                .iter()
                .map(|sampled| (SessionId(sampled.session), TokenId(sampled.token)))
                .collect();
            if let Replica::Serving(group) = &mut self.replica {
                if index > 0 {
                    let sessions: Vec<_> = tokens.iter().map(|(session, _)| *session).collect();
                    group.decode(&sessions)?;
                }
                group.append(&tokens)?;
            }
            for sampled in pass.sampled {
                let session = SessionId(sampled.session);
                if let Some(id) = in_flight.get(&session) {
                    self.deliver(session, *id, sampled, now);
                }
            }
        }
        if let Replica::Serving(group) = &self.replica
            && self.queued.is_empty()
        {
            self.projected_free = group.free_slots();
        }
        Ok(())
    }

    fn deliver(&mut self, session: SessionId, id: u64, sampled: worker_v1::Sampled, now: Instant) {
        let Some(completion) = self.running(session, id) else { return };
        if completion.take(sampled, now) == After::Over {
            self.end_front(session);
        }
    }

    fn running(&mut self, session: SessionId, id: u64) -> Option<&mut Completion> {
        let completion = self.sessions.get_mut(&session)?.completions.front_mut()?;
        (completion.id == id).then_some(completion)
    }

    /// The digest of the owner's tables, to compare with the ranks' (P4). Valid between a report and the next step.
    pub fn digest(&self) -> Option<u64> {
        match &self.replica {
            Replica::Serving(group) => Some(group.digest()),
            Replica::Lost(_) => None,
        }
    }

    fn demands(&self) -> Vec<Demand> {
        let demand = |session: &Session| {
            let want = match session.completions.front() {
                Some(completion) if completion.waits_for_first_token() => Want::FirstToken,
                Some(_) => Want::NextToken,
                None if session.ahead.wanted => Want::Encoding,
                None => return None,
            };
            Some(Demand {
                session: session.id,
                pending: count(session.pending),
                want,
                ticket: session.ticket,
            })
        };
        self.sessions.values().filter_map(demand).collect()
    }

    /// Frees the work of clients that went away.
    fn drop_abandoned(&mut self) {
        let mut ended = Vec::new();
        for session in self.sessions.values_mut() {
            let front = session.completions.front().map(|completion| completion.id);
            session.completions.retain(|completion| !completion.is_abandoned());
            if front != session.completions.front().map(|completion| completion.id) {
                ended.push(session.id);
            }
        }
        for session in ended {
            self.end_branch(session);
        }
    }

    fn end_front(&mut self, session: SessionId) -> Option<Completion> {
        let completion = self.sessions.get_mut(&session)?.completions.pop_front()?;
        self.end_branch(session);
        Some(completion)
    }

    fn fail_front(&mut self, session: SessionId, fault: &Fault) {
        if let Some(completion) = self.end_front(session) {
            completion.fail(fault.clone());
        }
    }
}
