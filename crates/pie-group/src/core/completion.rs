//! A running completion: turns sampled tokens into text, and knows when it is over.

use super::drafting::Lookahead;
use super::text::Text;
use crate::call::ModelFacts;
use crate::faults;
use pie_proto::Fault;
use pie_proto::plan::{SampledToken, Sampling, Speculated};
use pie_proto::request::{Complete, Exactness, Mode, OnEdit};
use pie_text::{Cut, Tokenizer};
use pie_words::{Revision, SessionId, TokenId};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Names a completion within its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompletionId {
    /// Whose document it completes.
    pub session: SessionId,
    /// Counts the owner's completions.
    pub number: u64,
}

/// What whoever reads a completion is told.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It is the session's turn to wait for a token.
    Began,
    /// Its first step, planned from this time on, is on its way.
    Planned(Instant),
    /// More text, or the end.
    Message(CompletionUpdate),
    /// It failed.
    Failed {
        /// Why.
        fault: Fault,
        /// D1: the revision that it continued.
        revision: Revision,
        /// Tokens so far.
        produced: u32,
    },
    /// Its reader went away.
    Abandoned,
}

impl News {
    /// Nothing follows it.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Began | Self::Planned(_) => false,
            Self::Message(message) => message.finish.is_some(),
            Self::Failed { .. } | Self::Abandoned => true,
        }
    }
}

/// What a token adds to the text, or how the text ends.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionUpdate {
    /// D1: the revision that the text continues.
    pub revision: Revision,
    /// Whole characters.
    pub text: String,
    /// The token, if one was drawn.
    pub token: Option<Token>,
    /// Tokens so far.
    pub produced: u32,
    /// Why it is the last.
    pub finish: Option<Finish>,
}

/// A token that was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// As the ranks drew it.
    pub sampled: SampledToken,
    /// What it took.
    pub took: Took,
}

/// What a token took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took {
    /// The first one.
    First(FirstToken),
    /// The time since the one before.
    Next(Duration),
}

/// What the first token of a completion took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstToken {
    /// From the call to its first step.
    pub queue: Duration,
    /// From the call to the token.
    pub since_call: Duration,
    /// From the latest edit to the token, if there was one since the completion before.
    pub since_edit: Option<Duration>,
    /// Work since the call.
    pub cost: Cost,
    /// Work before it.
    pub before: Before,
    /// N1: encoded + reused = length.
    pub reused: u32,
    /// Of the draws, if they are not greedy.
    pub seed: Option<u64>,
    /// Whether it is the completion's first token, too.
    pub of: StreamKind,
}

/// A completion may have several streams, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// The first.
    New,
    /// One that goes on behind what an earlier one gave.
    Later,
}

/// Work for the first token of a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Context tokens encoded since the completion was asked for.
    pub encoded: u32,
    /// Context tokens turned since the edit before it.
    pub rotated: u32,
    /// Context tokens encoded again in its passes.
    pub repaired: u32,
    /// Context tokens that were stale when the first token was drawn.
    pub stale: u32,
    /// Rank 0's time in the steps since then.
    pub compute_us: u64,
}

/// What happened before a completion began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// When the latest edit since the completion before came in.
    pub edited: Option<Instant>,
    /// Tokens encoded since that edit, ahead of the call.
    pub encoded: u32,
    /// Tokens adopted.
    pub adopted: u32,
}

/// How a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By a token that ends texts.
    StopToken,
    /// By a stop string, which the ranks do not know: they go on until they are told.
    StopString,
    /// It has as many tokens as it may have.
    Length,
    /// By a newer edit.
    Edited,
}

/// Where a completion writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertionPoint {
    /// At the document's end, wherever that is when it begins.
    End,
    /// At a cursor in the document's present revision.
    Cursor(Cut),
    /// Behind the document and what its model is told of it: never empty.
    Behind(Vec<TokenId>),
}

/// A completion that runs or waits for its turn.
pub(crate) struct ActiveCompletion {
    /// Names it among all completions of the owner.
    pub id: CompletionId,
    /// D1: the revision that it continues.
    pub revision: Revision,
    /// Where it writes.
    pub place: InsertionPoint,
    /// What its first token has cost so far.
    pub cost: Cost,
    request: Complete,
    stop_tokens: Vec<TokenId>,
    /// Tokens that it sees; none before it begins.
    context: Option<u32>,
    written: CompletionProgress,
    /// Behind all that the client has.
    text: Text,
    before: Before,
    times: Times,
    lookahead: Lookahead,
}

/// How far it has come.
struct CompletionProgress {
    /// Tokens that stand on its branch.
    produced: u32,
    /// Of what an earlier stream gave, tokens that are drawn once more, and not told again.
    again: VecDeque<TokenId>,
    has_drawn: bool,
}

struct Times {
    arrived: Instant,
    /// Its first step went to the ranks.
    started: Option<Instant>,
    latest_token: Option<Instant>,
}

impl ActiveCompletion {
    /// A completion of a document at a revision. What an earlier stream of it gave is encoded with its first token, in one pass, if
    /// it is no more than `most` tokens; those behind are drawn again, since a pass has so many rows.
    ///
    /// # Errors
    /// What the earlier stream gave is nothing that this completion may have generated.
    pub fn new(
        id: CompletionId,
        mut request: Complete,
        (revision, place): (Revision, InsertionPoint),
        (model, tokenizer): (&ModelFacts, &Tokenizer),
        most: usize,
        arrived: Instant,
    ) -> Result<Self, Fault> {
        let stop_tokens: Vec<_> = model.end_of_text.iter().chain(&request.stop_tokens).copied().collect();
        faults::check_generated(&request.generated, &stop_tokens, model)?;
        let mut text = Text::new(tokenizer, request.stop.clone());
        text.skip(&request.generated)?;
        let again = request.generated.split_off(most.min(request.generated.len()));
        Ok(Self {
            id,
            revision,
            place,
            cost: Cost::default(),
            stop_tokens,
            text,
            written: CompletionProgress {
                produced: u32::try_from(request.generated.len()).unwrap_or(u32::MAX),
                again: again.into(),
                has_drawn: false,
            },
            request,
            context: None,
            before: Before::default(),
            lookahead: Lookahead::new(Vec::new()),
            times: Times { arrived, started: None, latest_token: None },
        })
    }

    /// Its client expects it to write these.
    pub fn expecting(self, expected: Vec<TokenId>) -> Self {
        Self { lookahead: Lookahead::new(expected), ..self }
    }

    /// True until its first token is drawn.
    pub fn waits_for_first_token(&self) -> bool {
        !self.written.has_drawn
    }

    /// Its first tokens, which an earlier stream gave, and which stand on its branch when it begins.
    pub fn generated(&self) -> &[TokenId] {
        &self.request.generated
    }

    /// What it sees.
    pub fn mode(&self) -> Mode {
        self.request.mode
    }

    /// Whether stale tokens will do.
    pub fn exactness(&self) -> Exactness {
        self.request.exactness
    }

    /// Its branch is there, or about to be.
    pub fn has_begun(&self) -> bool {
        self.context.is_some()
    }

    /// It begins, on `context` tokens, with room for `room` more; some keys were turned for it already.
    pub fn begin(&mut self, context: u32, room: u32, before: Before, rotated: u32) {
        self.context = Some(context);
        self.request.max_tokens = self.request.max_tokens.min(self.written.produced.saturating_add(room));
        (self.before, self.cost.rotated) = (before, rotated);
    }

    /// So many tokens may follow those that it wrote; false when it has none left, and is over.
    pub fn fits_in(&mut self, room: usize) -> bool {
        let most = self.written.produced.saturating_add(u32::try_from(room).unwrap_or(u32::MAX));
        self.request.max_tokens = self.request.max_tokens.min(most);
        self.written.produced < self.request.max_tokens
    }

    /// Whether it outlives an edit: one that has a cursor and waits does not, since nobody says where the cursor is then.
    /// Markers for filling in the middle are placed anew after an edit, so such a completion ends too.
    pub fn outlives_edits(&self) -> bool {
        let anchored = self.has_begun() || self.place == InsertionPoint::End;
        self.request.on_edit == OnEdit::GoOn && self.request.mode == Mode::Continue && anchored
    }

    /// A step of it is on its way; true for the first one.
    pub fn start(&mut self, now: Instant) -> bool {
        let is_first = self.times.started.is_none();
        self.times.started.get_or_insert(now);
        is_first
    }

    /// How the ranks draw its next tokens, and, where a row more costs `cost` of a pass, how many of at most `most` they look up ahead.
    pub fn sampling(&mut self, cost: f64, most: u32) -> Sampling {
        let drafts = if self.written.has_drawn { self.lookahead.drafts(cost, most) } else { 0 };
        Sampling {
            parameters: self.request.sampling.clone(),
            step: u64::from(self.written.produced),
            stop_tokens: self.stop_tokens.clone(),
            max_tokens: self.request.max_tokens - self.written.produced,
            drafts,
            expected: if drafts > 0 { self.lookahead.expected().to_vec() } else { Vec::new() },
        }
    }

    /// What became of what a plan looked up.
    pub fn looked_up(&mut self, speculated: Speculated) {
        self.lookahead.learn(speculated);
    }

    /// Takes a sampled token: what it adds to the text, and whether that ends it. Nothing, if its client has it already.
    ///
    /// # Errors
    /// Its client has another one.
    pub fn take(&mut self, sampled: SampledToken, now: Instant) -> Result<Option<CompletionUpdate>, Fault> {
        let took = self.took(now);
        self.written.has_drawn = true;
        self.written.produced += 1;
        if let Some(earlier) = self.written.again.pop_front() {
            let differs = || faults::drawn_otherwise(self.written.produced, earlier, sampled.token);
            return if sampled.token == earlier { Ok(None) } else { Err(differs()) };
        }
        self.times.latest_token = Some(now);
        let ends = self.stop_tokens.contains(&sampled.token);
        // A token that ends texts has no place in them.
        let (mut text, stopped) = if ends { (String::new(), false) } else { self.text.push(sampled.token) };
        let finish = match () {
            () if stopped => Some(Finish::StopString),
            () if ends => Some(Finish::StopToken),
            () if self.written.produced >= self.request.max_tokens => Some(Finish::Length),
            () => None,
        };
        if matches!(finish, Some(Finish::StopToken | Finish::Length)) {
            text.push_str(&self.text.rest());
        }
        Ok(Some(self.message(text, Some(Token { sampled, took }), finish)))
    }

    /// It is over, though no token ended it.
    pub fn end(mut self, finish: Finish) -> CompletionUpdate {
        let text = self.text.rest();
        self.message(text, None, Some(finish))
    }

    /// It fails.
    pub fn fail(self, fault: &Fault) -> News {
        News::Failed { fault: fault.clone(), revision: self.revision, produced: self.written.produced }
    }

    fn message(&self, text: String, token: Option<Token>, finish: Option<Finish>) -> CompletionUpdate {
        CompletionUpdate { revision: self.revision, text, token, produced: self.written.produced, finish }
    }

    /// What a token that comes now has taken.
    fn took(&self, now: Instant) -> Took {
        if let Some(latest) = self.times.latest_token {
            return Took::Next(now.saturating_duration_since(latest));
        }
        let arrived = self.times.arrived;
        let sampling = &self.request.sampling;
        Took::First(FirstToken {
            queue: self.times.started.unwrap_or(now).saturating_duration_since(arrived),
            since_call: now.saturating_duration_since(arrived),
            since_edit: self.before.edited.map(|edited| now.saturating_duration_since(edited)),
            cost: self.cost,
            before: self.before,
            reused: self.context.unwrap_or(0).saturating_sub(self.cost.encoded),
            seed: (sampling.temperature > 0.0).then_some(sampling.seed),
            of: if self.request.generated.is_empty() { StreamKind::New } else { StreamKind::Later },
        })
    }
}
