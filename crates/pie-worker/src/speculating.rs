//! A pass with drafts: what it encodes beside the rows of its plan, and the plain passes that it stands for.

use crate::error::WorkerError;
use pie_kv::View;
use pie_model::Batch;
use pie_plan::speculation::SessionDraft;
use pie_plan::{Copies, Group, PlanError, SequenceRows, Then, Work};
use pie_proto::plan::{SampledToken, Speculated, Step};
use pie_words::{SessionId, Slot, TokenId, TokenIndex};
use std::collections::BTreeMap;

/// What the forward passes of a step have done so far.
#[derive(Debug, Default)]
pub(crate) struct StepProgress {
    /// The tokens of each pass, as plain passes would have drawn them.
    pub passes: Vec<Vec<SampledToken>>,
    /// Forward passes: fewer, where drafts were drawn.
    pub forwards: u32,
    /// Rows that were encoded.
    pub encoded: usize,
    /// Keys that were turned.
    pub rotated: usize,
    /// Sessions without a token, or with one that is none.
    pub refused: Vec<SessionId>,
    drawn: BTreeMap<SessionId, u32>,
    speculated: BTreeMap<SessionId, Speculated>,
}

impl StepProgress {
    /// Nothing, but for sessions that are left out.
    pub fn new(refused: Vec<SessionId>) -> Self {
        Self { refused, ..Self::default() }
    }

    /// Tokens that a session has drawn in this step.
    pub fn drawn(&self, session: SessionId) -> u32 {
        self.drawn.get(&session).copied().unwrap_or(0)
    }

    /// Tokens that a session may yet draw in this step.
    pub fn left(&self, step: &Step, session: SessionId) -> u32 {
        let most = step.sampling.get(&session).map_or(0, |sampling| sampling.max_tokens);
        most.min(step.plan.passes).saturating_sub(self.drawn(session))
    }

    /// What was looked up for each session.
    pub fn speculated(&self) -> Vec<Speculated> {
        self.speculated.values().copied().collect()
    }

    fn take(&mut self, pass: Vec<SampledToken>) {
        for sampled in &pass {
            *self.drawn.entry(sampled.session).or_default() += 1;
            if !sampled.is_drawn() {
                self.refused.push(sampled.session);
            }
        }
        self.passes.push(pass);
    }

    fn looked_up(&mut self, draft: &SessionDraft, accepted: usize, missed: bool) {
        let none = Speculated { session: draft.session, drafted: 0, accepted: 0, missed: 0 };
        let all = self.speculated.entry(draft.session).or_insert(none);
        all.drafted += u32::try_from(draft.tokens.len()).unwrap_or(u32::MAX);
        all.accepted += u32::try_from(accepted).unwrap_or(u32::MAX);
        all.missed += u32::from(missed);
    }
}

/// What a session draws in a pass: a token behind its last row, and one behind each of its drafts.
pub(crate) struct DrawnTokens {
    /// Which session.
    pub session: SessionId,
    /// Its tokens.
    pub tokens: Vec<SampledToken>,
}

/// The drafts of a pass.
pub(crate) struct Drafts {
    of: BTreeMap<SessionId, SessionDraft>,
    /// The branch's slots of each of these sessions, and those of its drafts.
    behind: BTreeMap<SessionId, Vec<Slot>>,
}

impl Drafts {
    /// Of what was looked up in a group's tables.
    pub fn new(group: &Group, drafts: Vec<SessionDraft>) -> Self {
        let behind = |draft: &SessionDraft| {
            let branch = group.table(draft.session).map_or(&[][..], |table| table.branch_slots());
            (draft.session, [branch, &draft.slots].concat())
        };
        let behind = drafts.iter().map(behind).collect();
        Self { of: drafts.into_iter().map(|draft| (draft.session, draft)).collect(), behind }
    }

    /// The tokens that were looked up for a session.
    pub fn tokens(&self, session: SessionId) -> &[TokenId] {
        self.of.get(&session).map_or(&[], |draft| &draft.tokens)
    }

    /// Rows that they take.
    pub fn rows(&self) -> usize {
        self.of.values().map(|draft| draft.tokens.len()).sum()
    }

    /// What the pass encodes, and what its rows see of the tables: drafts see those before them.
    pub fn batch<'a>(&'a self, group: &'a Group, work: &Work) -> Result<Batch<'a>, WorkerError> {
        let none = Batch {
            tokens: Vec::new(),
            positions: Vec::new(),
            slots: Vec::new(),
            sequences: Vec::with_capacity(work.sequences.len()),
            logits_of: Vec::new(),
            interrupt: None,
        };
        let mut batch = none;
        for SequenceRows { session, rows, then, .. } in &work.sequences {
            let first = batch.tokens.len();
            for row in &work.rows[rows.clone()] {
                batch.tokens.push(row.token);
                batch.positions.push(row.position);
                batch.slots.push(row.slot);
            }
            let Some(last) = work.rows[rows.clone()].last() else { continue };
            let draft = self.of.get(session).filter(|_| *then == Then::Sample);
            let mut wanted = batch.tokens.len() - 1..batch.tokens.len();
            if let Some(draft) = draft {
                let positions = last.position.0 + 1..;
                batch.tokens.extend(&draft.tokens);
                batch.positions.extend(positions.take(draft.tokens.len()).map(TokenIndex));
                batch.slots.extend(&draft.slots);
                wanted.end += draft.tokens.len();
            }
            if *then == Then::Sample {
                batch.logits_of.extend(wanted);
            }
            let table = group.table(*session).ok_or(PlanError::UnknownSession(*session))?;
            let [front, branch] = table.view(*then);
            let behind = draft.and_then(|_| self.behind.get(session)).map_or(branch, Vec::as_slice);
            let view = View::of_table([front, behind], group.capacity());
            // M1: a row sees the indices up to its own.
            let visible = batch.positions[first..].iter().map(|position| position.0 + 1).collect();
            batch.sequences.push(pie_model::Sequence { rows: first..batch.tokens.len(), view, visible });
        }
        Ok(batch)
    }

    /// The tokens of a pass join their branches as those of as many plain passes do (S2). Says who decodes on in the next forward pass,
    /// and which rows must go from a draft's slot to their own.
    pub fn join(
        &self,
        drawn: &[DrawnTokens],
        group: &mut Group,
        step: &Step,
        positions: usize,
        done: &mut StepProgress,
    ) -> Result<(Vec<SessionId>, Copies), WorkerError> {
        let (mut going, mut copies) = (Vec::new(), Copies::default());
        let mut alive: Vec<&DrawnTokens> = drawn.iter().collect();
        for index in 0_usize.. {
            if let Some(draft) = index.checked_sub(1) {
                let sessions: Vec<SessionId> = alive.iter().map(|drawn| drawn.session).collect();
                self.settle(draft, &group.decode(&sessions)?, &mut copies);
            }
            let pass: Vec<SampledToken> = alive.iter().map(|drawn| drawn.tokens[index].clone()).collect();
            let tokens: Vec<_> = pass.iter().map(|sampled| (sampled.session, sampled.token)).collect();
            group.append(&tokens)?;
            done.take(pass);
            let goes_on = |drawn: &&DrawnTokens| {
                let (session, token) = (drawn.session, drawn.tokens[index].token);
                let ends = step.sampling.get(&session).is_none_or(|own| own.stop_tokens.contains(&token));
                let sees_next = group.table(session).is_some_and(|table| table.context_length() <= positions);
                !ends && sees_next && done.left(step, session) > 0 && !done.refused.contains(&session)
            };
            let is_draft = |drawn: &&DrawnTokens| {
                self.tokens(drawn.session).get(index) == Some(&drawn.tokens[index].token)
            };
            let still = alive.iter().copied().filter(goes_on);
            let (more, others): (Vec<_>, Vec<_>) = still.partition(is_draft);
            going.extend(others.iter().map(|drawn| drawn.session));
            for drawn in alive.iter().filter(|drawn| !more.iter().any(|other| other.session == drawn.session))
            {
                if let Some(draft) = self.of.get(&drawn.session) {
                    let next = draft.tokens.get(index);
                    done.looked_up(draft, index, next.is_some_and(|next| *next != drawn.tokens[index].token));
                }
            }
            if more.is_empty() {
                break;
            }
            alive = more;
        }
        // As in a plan's runs.
        let order = |session: &SessionId| drawn.iter().position(|drawn| drawn.session == *session);
        going.sort_by_key(order);
        Ok((going, copies))
    }

    /// The rows of tokens that were drafts lie in their drafts' slots.
    fn settle(&self, draft: usize, work: &Work, copies: &mut Copies) {
        debug_assert!(work.turns.slots.is_empty(), "keys were turned before the first pass");
        for sequence in &work.sequences {
            let Some(own) = self.of.get(&sequence.session) else { continue };
            let rows = work.rows[sequence.rows.clone()].iter();
            for (from, to) in rows.map(|row| (own.slots[draft], row.slot)).filter(|(from, to)| from != to) {
                copies.from.push(from);
                copies.to.push(to);
            }
        }
    }
}
