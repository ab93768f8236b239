//! The completions of a group: in each session one runs and others wait for their turn.
//!
//! **Invariant.** Whoever was accepted is told of its end, once: nothing leaves a queue but with the news that it is over.

use super::completion::{Before, Completion, CompletionId, Finish, News};
use pie_proto::Fault;
use pie_proto::plan::SampledToken;
use pie_words::{Revision, SessionId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// By their sessions, each in the order in which they came. No queue is empty.
#[derive(Default)]
pub(super) struct Completions {
    queues: BTreeMap<SessionId, VecDeque<Completion>>,
    /// What their readers have not been told yet.
    news: Vec<(CompletionId, News)>,
}

impl Completions {
    /// One more waits for its turn.
    pub fn push(&mut self, completion: Completion) {
        self.queues.entry(completion.id.session).or_default().push_back(completion);
    }

    /// Those that run or wait in a session.
    pub fn of(&self, session: SessionId) -> impl Iterator<Item = &Completion> {
        self.queues.get(&session).into_iter().flatten()
    }

    /// Sessions in which any run or wait.
    pub fn sessions(&self) -> impl Iterator<Item = SessionId> {
        self.queues.keys().copied()
    }

    /// Whether one runs or waits in a session.
    pub fn are_in(&self, session: SessionId) -> bool {
        self.queues.contains_key(&session)
    }

    /// All that run or wait.
    pub fn count(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum()
    }

    /// The one that runs, or is the next to.
    pub fn front(&self, session: SessionId) -> Option<&Completion> {
        self.queues.get(&session)?.front()
    }

    /// Those that run, or are the next to.
    pub fn fronts(&self) -> impl Iterator<Item = &Completion> {
        self.queues.values().filter_map(VecDeque::front)
    }

    pub fn front_mut(&mut self, session: SessionId) -> Option<&mut Completion> {
        self.queues.get_mut(&session)?.front_mut()
    }

    /// A completion, if it runs.
    pub fn running(&mut self, id: CompletionId) -> Option<&mut Completion> {
        self.front_mut(id.session).filter(|front| front.id == id)
    }

    /// Sessions whose next completion has not begun.
    pub fn sessions_to_begin(&self) -> Vec<SessionId> {
        let waits = |queue: &VecDeque<Completion>| queue.front().is_some_and(|front| !front.has_begun());
        self.queues.iter().filter(|(_, queue)| waits(queue)).map(|(session, _)| *session).collect()
    }

    /// A session's next completion begins, on `context` tokens, with room for `room` more.
    pub fn begin(&mut self, session: SessionId, context: u32, room: u32, before: Before, rotated: u32) {
        if let Some(front) = self.front_mut(session) {
            front.begin(context, room, before, rotated);
            let id = front.id;
            self.news.push((id, News::Began));
        }
    }

    /// A step of a completion is on its way.
    pub fn start(&mut self, id: CompletionId, now: Instant) {
        if self.running(id).is_some_and(|running| running.start(now)) {
            self.news.push((id, News::Planned(now)));
        }
    }

    /// A token for a completion, if it still runs. How it ended, if the token is its last.
    pub fn take(&mut self, id: CompletionId, sampled: SampledToken, now: Instant) -> Option<Finish> {
        let message = self.running(id)?.take(sampled, now);
        let finish = message.finish;
        self.news.push((id, News::Message(message)));
        if finish.is_some() {
            self.pop(id.session);
        }
        finish
    }

    /// The running one may write so many tokens more; without any it is over.
    pub fn limit_front(&mut self, session: SessionId, room: usize) {
        let front = self.front_mut(session).filter(|front| front.has_begun());
        if front.is_some_and(|front| !front.fits_in(room))
            && let Some(front) = self.pop(session)
        {
            self.ended(front, Finish::Length);
        }
    }

    /// D1: the document has a newer revision. Completions of the one before end, but for those that go on with it.
    pub fn edited(&mut self, session: SessionId, revision: Revision) {
        for mut completion in self.queues.remove(&session).into_iter().flatten() {
            if !completion.outlives_edits() {
                self.ended(completion, Finish::Edited);
                continue;
            }
            if !completion.has_begun() {
                completion.revision = revision;
            }
            self.push(completion);
        }
    }

    fn ended(&mut self, completion: Completion, finish: Finish) {
        self.news.push((completion.id, News::Message(completion.end(finish))));
    }

    /// The running one, or the next to run, fails.
    pub fn fail_front(&mut self, session: SessionId, fault: &Fault) {
        if let Some(front) = self.pop(session) {
            self.news.push((front.id, front.fail(fault)));
        }
    }

    /// All of a session fail.
    pub fn fail_in(&mut self, session: SessionId, fault: &Fault) {
        let queue = self.queues.remove(&session).into_iter().flatten();
        self.news.extend(queue.map(|completion| (completion.id, completion.fail(fault))));
    }

    /// All fail.
    pub fn fail_all(&mut self, fault: &Fault) {
        let all = std::mem::take(&mut self.queues).into_values().flatten();
        self.news.extend(all.map(|completion| (completion.id, completion.fail(fault))));
    }

    /// Its reader went away: its work is free. What was generated for it may still be adopted.
    pub fn abandon(&mut self, id: CompletionId) {
        let Some(queue) = self.queues.get_mut(&id.session) else { return };
        let before = queue.len();
        queue.retain(|completion| completion.id != id);
        if queue.len() < before {
            self.news.push((id, News::Abandoned));
        }
        if queue.is_empty() {
            self.queues.remove(&id.session);
        }
    }

    fn pop(&mut self, session: SessionId) -> Option<Completion> {
        let queue = self.queues.get_mut(&session)?;
        let front = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&session);
        }
        front
    }

    /// What their readers have not been told yet.
    pub fn take_news(&mut self) -> Vec<(CompletionId, News)> {
        std::mem::take(&mut self.news)
    }
}
