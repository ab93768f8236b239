//! The owner's stepping: what goes into the next plan, and what a report means.

use super::pace::Load;
use super::tables::{Op, Placed};
use super::{Core, Replica, fail};
use crate::completion::{After, Before, Completion, Since};
use crate::faults;
use crate::layout::Layout;
use crate::session::{Residence, Session, count};
use crate::spans::{Recorded, Waits};
use crate::stats::Outcome;
use pie_plan::schedule::{Demand, Lane, Want, schedule};
use pie_plan::{
    Change, DigestWanted, Plan, PlanError, Run, Seq, SessionId, Staged, Then, TokenId, TokenIndex,
};
use pie_proto::plan::Step;
use pie_proto::{Fault, worker_v1};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Staged changes that are sent even if nobody wants a forward pass.
const CHANGES_LIMIT: usize = 64;
/// Plans between two comparisons of the ranks' digests (P4).
const DIGEST_EVERY: u64 = 256;

/// The plan that the ranks are working on.
pub(super) struct InFlight {
    seq: Seq,
    passes: u32,
    /// Of its first pass.
    load: Load,
    reported: u32,
    /// The completions that sample in it.
    completions: BTreeMap<SessionId, u64>,
    /// Sessions whose logits were no numbers.
    undrawn: BTreeSet<SessionId>,
    /// Something of it is not wanted any more, and the ranks do not know.
    stray: bool,
    interrupted: bool,
}

/// How a completion's context stands in its session's table.
pub(super) enum Planned {
    /// It is the document.
    Document,
    /// The document with markers.
    Fim(Layout),
    /// Beside the document: behind its first tokens, and with some of its own.
    Branch { kept: usize, front: Vec<TokenId> },
}

impl Planned {
    /// Tokens of the context, in a document that has `tokens`.
    pub fn context(&self, tokens: usize) -> usize {
        match self {
            Self::Document => tokens,
            Self::Fim(layout) => layout.length(tokens),
            Self::Branch { kept, front } => kept + front.len(),
        }
    }
}

impl Core {
    /// The next step, if the group is free and somebody wants one. The owner's tables have then applied it already.
    ///
    /// # Errors
    /// A plan that the owner's own tables refuse is a bug; the group must be formed again.
    pub fn next_step(&mut self, now: Instant) -> Result<Option<Step>, PlanError> {
        self.at(now);
        if self.in_flight.is_some() || self.epoch().is_none() {
            return Ok(None);
        }
        self.flush()?;
        self.drop_abandoned();
        self.end_at_limit();
        self.begin_completions()?;
        self.refresh()?;
        let (sessions, tenants) = (self.sessions.len(), self.tenants.with_sessions());
        let limits = self.pace.limits(self.settings.limits, self.settings.prefill, sessions, tenants);
        let mut chosen = schedule(&self.demands(), limits);
        while chosen.is_none() && self.wake_one()? {
            chosen = schedule(&self.demands(), limits);
        }
        // Changes alone can wait, but for the last: ranks that hold nothing should know it, and may then be stopped.
        let wait = self.staged.is_empty() || (self.staged.len() < CHANGES_LIMIT && !self.sessions.is_empty());
        if chosen.is_none() && wait {
            return Ok(None);
        }
        let (mut runs, mut passes) = chosen.map_or((Vec::new(), 1), |chosen| (chosen.runs, chosen.passes));
        self.refuse_beyond(&mut runs)?;
        if !runs.iter().any(|run| matches!(run, Run::Sample { .. })) {
            passes = 1;
        }
        // Generated tokens need slots too: first fewer passes, then others make room, then fewer completions.
        while let Some(Err(PlanError::OutOfSlots { .. })) =
            self.group().map(|group| group.check_runs(&runs, passes))
        {
            if passes > 1 {
                passes /= 2;
                continue;
            }
            let Some(index) = self.first_to_fail(&runs) else { break };
            if !self.make_room(runs[index].session())? {
                let refused = runs.remove(index).session();
                self.fail_front(refused, &faults::no_slot_for_token());
            }
        }
        // Who made room may have been going to run.
        let group = self.group();
        runs.retain(|run| group.is_some_and(|group| group.table(run.session()).is_some()));
        if !runs.iter().any(|run| matches!(run, Run::Sample { .. })) {
            passes = 1;
        }
        let Replica::Serving(group) = &mut self.replica else { return Ok(None) };
        let seq = group.next_seq();
        let work = group.start(&runs, passes)?;
        let changes = std::mem::take(&mut self.staged);
        let digest =
            if seq.0.is_multiple_of(DIGEST_EVERY) { DigestWanted::Report } else { DigestWanted::Skip };
        let plan = Plan { epoch: group.epoch(), seq, changes, runs, passes, digest };
        Ok(Some(self.dispatch(plan, &work, now)))
    }

    /// The first completion of each session takes its place: rows where there are none, a branch at its cursor, markers.
    fn begin_completions(&mut self) -> Result<(), PlanError> {
        let waits = |id: &SessionId| self.front(*id).is_some_and(|front| !front.has_begun());
        let waiting: Vec<_> = self.active.iter().copied().filter(waits).collect();
        for id in waiting {
            // Who came before may have needed its rows.
            if self.front(id).is_none() {
                continue;
            }
            self.restore(id)?;
            // One that cannot begin fails, and leaves its place to the next.
            while self.front(id).is_some_and(|front| !front.has_begun()) {
                let resident =
                    self.sessions.get(&id).is_some_and(|session| session.residence == Residence::Resident);
                let begun = if resident { self.begin(id)? } else { Placed::NoRoom };
                if let Placed::NoRoom = begun {
                    self.fail_front(id, &faults::all_busy());
                }
            }
        }
        Ok(())
    }

    fn front(&self, id: SessionId) -> Option<&Completion> {
        self.sessions.get(&id)?.completions.front()
    }

    fn begin(&mut self, id: SessionId) -> Result<Placed, PlanError> {
        let Some(session) = self.sessions.get(&id) else { return Ok(Placed::NoRoom) };
        let Some(front) = session.completions.front() else { return Ok(Placed::NoRoom) };
        let end_branch = Change::EndBranch { session: id };
        let planned = self.layout(session, &front.place, front.mode());
        let context = planned.context(session.tokens());
        let room = self.room(context);
        // Before anything of it is staged: the table stays as it is.
        if room == 0 {
            self.fail_front(id, &faults::too_long(context, self.model.context_limit as usize));
            return Ok(Placed::In(Staged::default()));
        }
        let (layout, branch) = match planned {
            Planned::Document => (Layout::Plain, end_branch),
            Planned::Fim(layout) => (layout, end_branch),
            Planned::Branch { kept, front } => {
                // The last token before the cursor is encoded again (W1), on the branch: the document's own row stays.
                let share = if front.is_empty() { kept.saturating_sub(1) } else { kept };
                let given = session.document.tokens().skip(share).take(kept - share);
                let tokens: Vec<TokenId> = given.chain(front).collect();
                (Layout::Plain, Change::Branch { session: id, at: TokenIndex(count(share)), tokens })
            }
        };
        if let Placed::NoRoom = self.lay_out(id, layout)? {
            return Ok(Placed::NoRoom);
        }
        let placed = self.stage_in_room(&[branch], id)?;
        if let Placed::NoRoom = placed {
            return Ok(placed);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            let (encoded, rotated) = session.ahead.take();
            let before = Before {
                edited: session.edited.take(),
                encoded,
                adopted: std::mem::take(&mut session.adopted),
            };
            if let Some(front) = session.completions.front_mut() {
                front.begin((count(context), count(room)), before, rotated);
            }
        }
        Ok(placed)
    }

    /// Books what the plan does for each session, and adds the sampling parameters.
    fn dispatch(&mut self, plan: Plan, work: &pie_plan::Work, now: Instant) -> Step {
        let (mut sampling, mut completions) = (BTreeMap::new(), BTreeMap::new());
        self.stats.steps.add(1);
        self.stats.tokens_rotated.add(work.turns.slots.len() as u64);
        for sequence in &work.sequences {
            let id = sequence.session;
            let (encoded, rotated) = (count(sequence.rows.len()), count(sequence.turned));
            let ticket = self.ticket();
            let worn = sequence.turned > 0 && self.is_worn(id);
            let Some(session) = self.sessions.get_mut(&id) else {
                // A shadow.
                self.stats.tokens_refreshed.add(u64::from(encoded));
                continue;
            };
            if worn {
                self.worn.insert(id);
            }
            session.ticket = ticket;
            let begun = session.completions.front_mut().filter(|completion| completion.has_begun());
            let Some(completion) = begun else {
                self.stats.tokens_encoded.add(u64::from(encoded));
                session.ahead.encoded += encoded;
                session.ahead.rotated += rotated;
                continue;
            };
            if completion.waits_for_first_token() {
                self.stats.tokens_encoded.add(u64::from(encoded));
                completion.cost.encoded += encoded;
                completion.cost.rotated += rotated;
            }
            completion.start(now);
            completions.insert(id, completion.id);
            if sequence.then == Then::Sample {
                sampling.insert(id, completion.sampling());
            }
        }
        let keys = work.rows.iter().map(|row| u64::from(row.position.0) + 1).sum();
        let (seq, passes, rows) = (plan.seq, plan.passes, count(work.rows.len()));
        let (group, epoch, sessions) = (&self.group_name, plan.epoch.0, work.sequences.len());
        tracing::debug!(group, epoch, seq = seq.0, rows, sessions, passes, "a step");
        self.in_flight = Some(InFlight {
            seq,
            passes,
            load: Load { rows, keys },
            reported: 0,
            completions,
            undrawn: BTreeSet::new(),
            stray: false,
            interrupted: false,
        });
        Step { plan, sampling }
    }

    fn is_worn(&self, id: SessionId) -> bool {
        let table = self.group().and_then(|group| group.table(id));
        table.is_some_and(|table| table.most_turned() > self.settings.rotations)
    }

    /// Rank 0 has done passes of the step in flight, or all of it.
    ///
    /// # Errors
    /// A report that the owner's tables refuse: the replicas differ, and the group must be formed again.
    pub fn report(&mut self, report: worker_v1::Report, now: Instant) -> Result<(), PlanError> {
        let Some(mut in_flight) = self.in_flight.take() else { return Ok(()) };
        if report.done {
            self.stats.step.observe_us(report.compute_us);
            self.stats.collective.observe_us(report.collective_us);
        }
        for (session, id) in &in_flight.completions {
            if let Some(completion) = self.running(*session, *id) {
                completion.cost.compute_us += report.compute_us;
            }
        }
        for pass in report.passes {
            let token = |sampled: &worker_v1::Sampled| (SessionId(sampled.session), TokenId(sampled.token));
            let tokens: Vec<_> = pass.sampled.iter().map(token).collect();
            if let Replica::Serving(group) = &mut self.replica {
                if in_flight.reported > 0 {
                    let sessions: Vec<_> = tokens.iter().map(|(session, _)| *session).collect();
                    group.decode(&sessions)?;
                }
                group.append(&tokens)?;
            }
            in_flight.reported += 1;
            self.stats.tokens_generated.add(tokens.len() as u64);
            for sampled in pass.sampled {
                let session = SessionId(sampled.session);
                if sampled.logprob.is_nan() {
                    in_flight.undrawn.insert(session);
                    continue;
                }
                if let Some(id) = in_flight.completions.get(&session) {
                    in_flight.stray |= self.deliver(session, *id, sampled, now) == After::Stopped;
                }
            }
        }
        for session in report.refused.into_iter().map(SessionId) {
            let undrawn = in_flight.undrawn.contains(&session);
            let fault = if undrawn { faults::no_numbers() } else { faults::beyond_the_model() };
            self.queued.push_back(Op::Refuse { session, fault });
        }
        if report.done {
            let passes = u64::from(in_flight.reported.max(1));
            self.pace.learn(in_flight.load, report.compute_us / passes);
            self.stats.passes.add(passes);
        } else {
            self.in_flight = Some(in_flight);
        }
        Ok(())
    }

    /// What the step in flight has to do with traces that are recorded; nothing, in most steps.
    pub fn recorded(&self) -> Option<Recorded> {
        let in_flight = self.in_flight.as_ref()?;
        let of = |(session, id): (&SessionId, &u64)| {
            let completion = self.front(*session).filter(|completion| completion.id == *id)?;
            let waits = if completion.waits_for_first_token() { Waits::First } else { Waits::Later };
            Some((completion.span.recorded()?.clone(), waits))
        };
        let calls: Vec<_> = in_flight.completions.iter().filter_map(of).collect();
        let (rows, completions) = (in_flight.load.rows, in_flight.completions.len());
        (!calls.is_empty()).then_some(Recorded { rows, completions, calls })
    }

    /// Completions that are in the step in flight.
    pub(super) fn running_completions(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |in_flight| in_flight.completions.len())
    }

    /// The plan that should end after its present pass, because something that is not in it waits, or what is in it is not
    /// wanted any more. Each plan is named once.
    pub fn to_interrupt(&mut self) -> Option<Seq> {
        let in_flight = self.in_flight.as_ref()?;
        if in_flight.interrupted || in_flight.reported + 1 >= in_flight.passes {
            return None;
        }
        let runs = |session: &Session| {
            let front = session.completions.front();
            front.is_some_and(|front| in_flight.completions.get(&session.id) == Some(&front.id))
        };
        let waits = |session: &Session| !session.completions.is_empty() && !runs(session);
        let abandoned = |session: &Session| session.completions.iter().any(Completion::is_abandoned);
        let active = || self.active.iter().filter_map(|id| self.sessions.get(id));
        let wanted = !self.queued.is_empty()
            || in_flight.stray
            || active().any(|session| waits(session) || abandoned(session));
        if !wanted {
            return None;
        }
        self.stats.interrupts.add(1);
        let in_flight = self.in_flight.as_mut()?;
        in_flight.interrupted = true;
        Some(in_flight.seq)
    }

    fn deliver(&mut self, session: SessionId, id: u64, sampled: worker_v1::Sampled, now: Instant) -> After {
        let Some(completion) = self.running(session, id) else { return After::GoesOn };
        let (since, after) = (completion.since(now), completion.take(sampled, now));
        let reused = completion.reused();
        match since {
            Since::Call { call, edit } => {
                self.stats.tokens_reused.add(u64::from(reused));
                self.stats.first_token.observe(call);
                edit.into_iter().for_each(|edit| self.stats.edit_to_first_token.observe(edit));
            }
            Since::Token(token) => self.stats.inter_token.observe(token),
        }
        if after != After::GoesOn {
            self.stats.ended(Outcome::Finished);
            self.end_front(session);
        }
        after
    }

    fn running(&mut self, session: SessionId, id: u64) -> Option<&mut Completion> {
        let completion = self.sessions.get_mut(&session)?.completions.front_mut()?;
        (completion.id == id).then_some(completion)
    }

    /// What the active sessions want. Those that want nothing are active no longer.
    fn demands(&mut self) -> Vec<Demand> {
        let (mut demands, mut idle) = (Vec::new(), Vec::new());
        let mut lanes = BTreeMap::new();
        for id in &self.active {
            let table = self.group().and_then(|group| group.table(*id));
            let (Some(session), Some(table)) = (self.sessions.get(id), table) else {
                idle.push(*id);
                continue;
            };
            let want = match session.completions.front() {
                Some(completion) if completion.waits_for_first_token() => Want::FirstToken,
                Some(_) => Want::NextToken,
                None if session.ahead.is_wanted() && table.pending() > 0 => {
                    if self.quiet.contains(id) {
                        Want::Refresh
                    } else {
                        Want::Encoding
                    }
                }
                None => {
                    idle.push(*id);
                    continue;
                }
            };
            let pending = table.pending();
            let rows = if want <= Want::NextToken { table.context_pending() } else { pending };
            let (rows, pending, ticket) = (count(rows), count(pending), session.ticket);
            let next_lane = Lane(count(lanes.len()));
            let lane = *lanes.entry(&session.tenant).or_insert(next_lane);
            let row_time = self.pace.row(count(table.context_length()));
            demands.push(Demand { session: *id, lane, rows, pending, want, ticket, row_time });
        }
        for id in idle {
            self.active.remove(&id);
            self.quiet.remove(&id);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.ahead.done();
            }
        }
        demands.extend(self.refreshes());
        demands
    }

    fn refreshes(&self) -> Vec<Demand> {
        let shadow = |id: &SessionId| {
            let session = self.sessions.get(id)?;
            let pending = count(self.group()?.table(session.shadow?)?.pending());
            let (session, ticket) = (session.shadow?, session.ticket);
            let (lane, row_time) = (Lane::default(), self.pace.row(pending));
            Some(Demand { session, lane, rows: pending, pending, want: Want::Refresh, ticket, row_time })
        };
        self.worn.iter().filter_map(shadow).collect()
    }

    /// Frees the work of clients that went away. What was generated for them may still be adopted.
    fn drop_abandoned(&mut self) {
        for id in &self.active {
            if let Some(session) = self.sessions.get_mut(id) {
                let before = session.completions.len();
                session.completions.retain(|completion| !completion.is_abandoned());
                let gone = before - session.completions.len();
                self.completions -= gone;
                if gone > 0 {
                    session.used = self.now;
                }
                (0..gone).for_each(|_| self.stats.ended(Outcome::Abandoned));
            }
        }
    }

    pub(super) fn end_front(&mut self, session: SessionId) -> Option<Completion> {
        let session = self.sessions.get_mut(&session)?;
        session.used = self.now;
        let completion = session.completions.pop_front()?;
        self.completions -= 1;
        Some(completion)
    }

    fn fail_front(&mut self, session: SessionId, fault: &Fault) {
        if let Some(completion) = self.end_front(session) {
            fail(&self.stats, completion, fault);
        }
    }
}
