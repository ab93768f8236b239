//! The plan that the ranks are working on.

use super::completion::CompletionId;
use super::healing::Repairing;
use super::pace::PassLoad;
use pie_plan::blocks::PlanBlocks;
use pie_words::{Seq, SessionId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct InFlight {
    /// The plan's number.
    pub seq: Seq,
    /// Passes that it may have.
    pub passes: u32,
    /// Of its first pass.
    pub load: PassLoad,
    /// Passes that rank 0 has reported.
    pub reported: u32,
    /// The completions that sample in it.
    pub completions: BTreeMap<SessionId, CompletionId>,
    /// Sessions whose logits were no numbers.
    pub undrawn: BTreeSet<SessionId>,
    /// Something of it is not wanted any more, and the ranks do not know.
    pub is_stray: bool,
    /// The plan, if it only repairs: it may be given up in its pass.
    pub repairing: Option<Repairing>,
    /// What the ranks write to disk and are asked for. Where there is any, the plan's time says nothing of its passes.
    pub blocks: PlanBlocks,
    is_interrupted: bool,
}

impl InFlight {
    /// A plan that was just sent.
    pub fn new(
        seq: Seq,
        passes: u32,
        load: PassLoad,
        completions: BTreeMap<SessionId, CompletionId>,
    ) -> Self {
        Self {
            seq,
            passes,
            load,
            reported: 0,
            completions,
            undrawn: BTreeSet::new(),
            is_stray: false,
            repairing: None,
            blocks: PlanBlocks::default(),
            is_interrupted: false,
        }
    }

    /// Whether a completion samples in it.
    pub fn runs(&self, id: CompletionId) -> bool {
        self.completions.get(&id.session) == Some(&id)
    }

    /// It should end after its present pass, or in it. Its number, unless it was told so before or ends there anyway.
    pub fn interrupt(&mut self) -> Option<Seq> {
        let ends_anyway = self.reported + 1 >= self.passes && self.repairing.is_none();
        if self.is_interrupted || ends_anyway {
            return None;
        }
        self.is_interrupted = true;
        Some(self.seq)
    }
}
