//! The completions of a group: in each session one runs and others wait for their turn.
//!
//! **Invariant.** Whoever was accepted is told of its end, once: nothing leaves a queue but with the news that it is over.

use super::completion::{ActiveCompletion, Before, CompletionId, Finish, News};
use pie_proto::Fault;
use pie_proto::plan::SampledToken;
use pie_words::{Revision, SessionId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// What a token meant for its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenEffect {
    /// It wants more, or had ended before.
    GoesOn,
    /// It was the last, and the ranks know.
    Ends,
    /// It was the last, and the ranks do not know: they go on until they are told.
    EndsUnheard,
}

/// By their sessions, each in the order in which they came. No queue is empty.
#[derive(Default)]
pub(super) struct Completions {
    queues: BTreeMap<SessionId, VecDeque<ActiveCompletion>>,
    /// What their readers have not been told yet.
    news: Vec<(CompletionId, News)>,
}

impl Completions {
    /// One more waits for its turn.
    pub fn push(&mut self, completion: ActiveCompletion) {
        self.queues.entry(completion.id.session).or_default().push_back(completion);
    }

    /// Those that run or wait in a session.
    pub fn in_session(&self, session: SessionId) -> impl Iterator<Item = &ActiveCompletion> {
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
    pub fn front(&self, session: SessionId) -> Option<&ActiveCompletion> {
        self.queues.get(&session)?.front()
    }

    /// Those that run, or are the next to.
    pub fn fronts(&self) -> impl Iterator<Item = &ActiveCompletion> {
        self.queues.values().filter_map(VecDeque::front)
    }

    /// The completion of a session that runs, or runs next.
    pub fn front_mut(&mut self, session: SessionId) -> Option<&mut ActiveCompletion> {
        self.queues.get_mut(&session)?.front_mut()
    }

    /// A completion, if it runs.
    pub fn running(&mut self, id: CompletionId) -> Option<&mut ActiveCompletion> {
        self.front_mut(id.session).filter(|front| front.id == id)
    }

    /// Sessions whose next completion has not begun.
    pub fn sessions_to_begin(&self) -> Vec<SessionId> {
        let waits =
            |queue: &VecDeque<ActiveCompletion>| queue.front().is_some_and(|front| !front.has_begun());
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

    /// A token for a completion, if it still runs.
    pub fn take(&mut self, id: CompletionId, sampled: SampledToken, now: Instant) -> TokenEffect {
        let Some(running) = self.running(id) else { return TokenEffect::GoesOn };
        let message = match running.take(sampled, now) {
            Ok(None) => return TokenEffect::GoesOn,
            Ok(Some(message)) => message,
            Err(fault) => {
                self.fail_front(id.session, &fault);
                return TokenEffect::EndsUnheard;
            }
        };
        let finish = message.finish;
        self.news.push((id, News::Message(message)));
        if finish.is_some() {
            self.pop(id.session);
        }
        match finish {
            None => TokenEffect::GoesOn,
            Some(Finish::StopString) => TokenEffect::EndsUnheard,
            Some(Finish::StopToken | Finish::Length | Finish::Edited) => TokenEffect::Ends,
        }
    }

    /// One that goes on where an earlier stream ended, and whose document has been edited since: it is over before it begins.
    pub fn end_edited(&mut self, completion: ActiveCompletion) {
        self.ended(completion, Finish::Edited);
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

    /// The running one is over with what it has written, here or in an earlier stream, as at the end of the model's context. False if that is
    /// nothing.
    pub fn end_front(&mut self, session: SessionId) -> bool {
        let has_any =
            |front: &ActiveCompletion| !front.waits_for_first_token() || !front.generated().is_empty();
        let has_written = self.front(session).is_some_and(has_any);
        if has_written && let Some(front) = self.pop(session) {
            self.ended(front, Finish::Length);
        }
        has_written
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

    fn ended(&mut self, completion: ActiveCompletion, finish: Finish) {
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

    fn pop(&mut self, session: SessionId) -> Option<ActiveCompletion> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::ModelFacts;
    use crate::core::completion::{CompletionUpdate, InsertionPoint};
    use crate::testing::tokenizer;
    use pie_proto::Reason;
    use pie_proto::request::{Complete, Exactness, Mode, OnEdit, SessionName};
    use pie_words::{RegionLines, SamplingParameters, TokenId};

    fn completion(session: u64, number: u64, max_tokens: u32, on_edit: OnEdit) -> ActiveCompletion {
        let request = Complete {
            session: SessionName::new("a".to_owned()).expect("a right name"),
            identity: None,
            revision: None,
            max_tokens,
            sampling: SamplingParameters { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, top_logprobs: 0 },
            stop: vec![],
            stop_tokens: vec![],
            at: None,
            mode: Mode::Continue,
            on_edit,
            exactness: Exactness::AsItIs,
            generated: vec![],
            prediction: String::new(),
            lines: RegionLines::default(),
        };
        let id = CompletionId { session: SessionId(session), number };
        let at = (Revision(1), InsertionPoint::End);
        let model = (&ModelFacts::default(), &*tokenizer());
        ActiveCompletion::new(id, request, at, model, 0, Instant::now())
            .expect("nothing was generated before")
    }

    fn sampled(session: u64) -> SampledToken {
        SampledToken { session: SessionId(session), token: TokenId(100), logprob: -1.0, top: vec![] }
    }

    /// Whatever becomes of a completion, the last that is said of it is its end, and it is said once.
    #[test]
    fn everybody_is_told_of_the_end_once() {
        let mut all = Completions::default();
        let fault = Fault::new(Reason::Internal, "a test");
        let (finishes, is_edited, goes_on, fails, leaves) = (1, 2, 3, 4, 5);
        for number in [finishes, is_edited, goes_on, fails] {
            let on_edit = if number == goes_on { OnEdit::GoOn } else { OnEdit::End };
            all.push(completion(1, number, 1, on_edit));
        }
        all.push(completion(2, leaves, 1, OnEdit::End));
        all.push(completion(3, 6, 1, OnEdit::End));
        assert_eq!((all.count(), all.sessions_to_begin().len()), (6, 3));
        let id = |session, number| CompletionId { session: SessionId(session), number };

        all.begin(SessionId(1), 10, 5, Before::default(), 0);
        all.start(id(1, finishes), Instant::now());
        assert_eq!(all.take(id(1, finishes), sampled(1), Instant::now()), TokenEffect::Ends);
        assert_eq!(all.take(id(1, finishes), sampled(1), Instant::now()), TokenEffect::GoesOn, "it is over");
        all.edited(SessionId(1), Revision(2));
        let stays = all.front(SessionId(1)).expect("it goes on");
        assert_eq!((stays.id.number, stays.revision), (goes_on, Revision(2)), "D1");
        all.abandon(id(2, leaves));
        all.abandon(id(2, leaves));
        all.fail_front(SessionId(1), &fault);
        all.fail_in(SessionId(1), &fault);
        all.fail_all(&fault);
        assert_eq!((all.count(), all.sessions().count()), (0, 0));

        let mut ended = BTreeMap::new();
        for (id, news) in all.take_news() {
            assert!(!ended.contains_key(&id.number), "{id:?}: {news:?} after its end");
            if news.is_last() {
                ended.insert(id.number, news);
            }
        }
        assert_eq!(ended.len(), 6);
        let finish = |number| match &ended[&number] {
            News::Message(message) => message.finish,
            _ => None,
        };
        assert_eq!([finish(finishes), finish(is_edited)], [Some(Finish::Length), Some(Finish::Edited)]);
        assert_eq!(ended[&leaves], News::Abandoned);
        assert!(all.take_news().is_empty());
    }

    /// What edits leave to a completion that goes on may be nothing: then it is over, by its length.
    #[test]
    fn the_models_limit_ends_what_has_begun() {
        let mut all = Completions::default();
        all.push(completion(1, 1, 10, OnEdit::GoOn));
        all.limit_front(SessionId(1), 0);
        assert_eq!(all.count(), 1, "it has not begun: its context is not known yet");
        all.begin(SessionId(1), 10, 5, Before::default(), 0);
        all.limit_front(SessionId(1), 3);
        let left = all.front_mut(SessionId(1)).map(|front| front.sampling(f64::NAN, 0).max_tokens);
        assert_eq!(left, Some(3));
        all.limit_front(SessionId(1), 0);
        assert_eq!(all.count(), 0);
        let last = all.take_news().pop().map(|(_, news)| news);
        assert!(
            matches!(last, Some(News::Message(CompletionUpdate { finish: Some(Finish::Length), .. }))),
            "{last:?}"
        );
    }
}
