//! Simulated ranks: a second replica that applies the same plans, and a "model" that counts.

use pie_group::call::{
    Call, Departure, EditReply, MessageStream, ModelFacts, Prepared, Reply, Why, WorkedOut,
};
use pie_group::core::{Ack, Core, Healing, Idle, RepairPolicy, Settings};
use pie_group::desk::Desk;
use pie_group::tenants::{Quotas, Sharing, Tenant, TenantLimits};
use pie_plan::blocks::Block;
use pie_plan::schedule::Limits;
use pie_plan::{Group, Then, Work};
use pie_proto::plan::{Report, SampledToken, Step};
use pie_proto::request::{ApplyEdits, Complete, Edits, Exactness, Identity, Mode, OnEdit, SessionName};
use pie_proto::{Reason, v1};
use pie_text::{Document, DocumentChange, Tokenizer, TokenizerSettings};
use pie_words::{
    AskedFollowing, Cursor, Epoch, RegionLines, Revision, SamplingParameters, SessionId, Strategy, TextEdit,
    TextRange, TokenId,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub const SETTINGS: Settings = Settings {
    limits: Limits { rows: 64, prefill_rows: 32, decode_passes: 4, ..Limits::NONE },
    prefill: std::time::Duration::from_millis(30),
    tenant: TenantLimits::NONE,
    sharing: Sharing::WithinTenant,
    sessions: 100,
    completions: 100,
    healing: HEALING,
    draft_tokens: 4,
    idle: IDLE,
    ack: Ack::Owner,
};

/// Nothing is repaired but what edits ask for: tests count what is encoded.
pub const HEALING: Healing = Healing { repairs: RepairPolicy::WithEdits, window: 16, free_rows: Some(0) };

/// Templates of models that read the text behind the cursor first: as Seed-Coder, and, without a marker behind it, as Codestral.
pub const SUFFIX_FIRST: [&str; 2] = [
    "<｜fim▁hole｜>{suffix}<｜fim▁begin｜>{prefix}<｜fim▁end｜>",
    "<｜fim▁hole｜>{suffix}<｜fim▁begin｜>{prefix}",
];

pub const IDLE: Idle = Idle {
    closed_after: Some(std::time::Duration::from_secs(100)),
    makes_room_after: Some(std::time::Duration::from_secs(10)),
};

/// Tokens of the fake model: of no special meaning, and whole characters.
pub fn next_token(context: usize) -> TokenId {
    TokenId(100 + (context as u32 * 7) % 90)
}

/// The ranks: one replica that does as it is told.
pub struct Ranks {
    pub group: Group,
    /// What the model can see: rows beyond it end the epoch, as on a true rank.
    pub model: ModelFacts,
    /// What the model writes from an index on, if it is to write something certain.
    pub writes: Option<(usize, Vec<TokenId>)>,
    /// What the model may write, if that is to depend on all that it sees, and on the draw.
    pub reads: Vec<TokenId>,
    /// Whose rows it does not take.
    pub refuses: Vec<SessionId>,
    pub encoded: usize,
    pub passes: u32,
    /// Each how manyth plan that only repairs is given up; none if 0.
    pub gives_up: u32,
    /// Blocks that were written: whose they are, and the tokens up to their ends.
    pub disk: BTreeSet<(u64, Vec<TokenId>)>,
}

impl Ranks {
    pub fn step(&mut self, step: &Step) -> Report {
        let mut work = self.group.apply(&step.plan).expect("the owner sends right plans only");
        let reloaded = self.use_disk(step);
        let mut passes = Vec::new();
        if step.plan.only_repairs()
            && self.gives_up > 0
            && (step.plan.seq.0 as u32).is_multiple_of(self.gives_up)
        {
            self.group.give_up(&step.plan, &work).expect("it was applied");
            let (seq, is_done, is_given_up) = (step.plan.seq, true, true);
            return Report { seq, is_done, is_given_up, reloaded, ..Default::default() };
        }
        loop {
            for row in &work.rows {
                let (position, token) = (row.position.0, row.token.0);
                assert!(position < self.model.context_limit, "position {position} is beyond the context");
                assert!(token < self.model.vocabulary, "token {token} is beyond the vocabulary");
            }
            self.passes += 1;
            self.encoded += work.rows.len();
            let sampled = self.sample(&work, step, passes.len() as u64);
            if sampled.is_empty() {
                break;
            }
            let token = |(session, token): &(SessionId, TokenId)| self.token(*session, *token, step);
            passes.push(sampled.iter().map(token).collect());
            self.group.append(&sampled).expect("reserved");
            let taken = passes.len() as u32;
            let goes_on = |(session, token): &&(SessionId, TokenId)| {
                let sampling = &step.sampling[session];
                taken < sampling.max_tokens && !sampling.stop_tokens.contains(token)
            };
            let going: Vec<_> = sampled.iter().filter(goes_on).map(|(session, _)| *session).collect();
            if going.is_empty() || taken == step.plan.passes {
                break;
            }
            work = self.group.decode(&going).expect("they sampled");
        }
        Report {
            seq: step.plan.seq,
            passes,
            is_done: true,
            refused: self.refuses.clone(),
            reloaded,
            ..Default::default()
        }
    }

    /// Reads the blocks of a plan that are there, and writes the others.
    fn use_disk(&mut self, step: &Step) -> Vec<SessionId> {
        let named = |group: &Group, block: &Block| {
            let table = group.table(block.session).expect("it is open");
            (block.realm.0, table.tokens()[..block.end.usize()].to_vec())
        };
        let mut reloaded = Vec::new();
        for block in &step.plan.blocks.reloaded {
            if self.disk.contains(&named(&self.group, block)) {
                self.group
                    .reloaded(std::slice::from_ref(block))
                    .expect("the owner asks for right blocks only");
                reloaded.push(block.session);
            }
        }
        self.disk.extend(step.plan.blocks.spilled.iter().map(|block| named(&self.group, block)));
        reloaded
    }

    /// With a log probability, and as many others as are asked for, by the context.
    fn token(&self, session: SessionId, token: TokenId, step: &Step) -> SampledToken {
        let mark = self.mark(session, 0);
        let other = |other: u32| (TokenId(other), -((mark % 89) as f32) - other as f32);
        let top = (0..step.sampling[&session].parameters.top_logprobs).map(other).collect();
        SampledToken { session, token, logprob: -1.0 - (mark % 97) as f32, top }
    }

    /// Of all that a session's next token depends on.
    fn mark(&self, session: SessionId, draw: u64) -> u64 {
        let table = self.group.table(session).expect("it samples");
        let seen = table.tokens()[..table.share()].iter().chain(table.branch());
        let mix = |mark: u64, next: u64| (mark ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        seen.fold(mix(1, draw), |mark, token| mix(mark, token.0.into()))
    }

    pub fn sample(&self, work: &Work, step: &Step, pass: u64) -> Vec<(SessionId, TokenId)> {
        let sampled = work.sequences.iter().filter(|sequence| sequence.then == Then::Sample);
        let sampled = sampled.filter(|sequence| !self.refuses.contains(&sequence.session));
        let next = |session: SessionId, position: usize| match &self.writes {
            Some((from, tokens)) => tokens[(position + 1 - from) % tokens.len()],
            None if self.reads.is_empty() => next_token(position),
            None => {
                let sampling = &step.sampling[&session];
                let draw = sampling.parameters.seed.wrapping_mul(31) + sampling.step + pass + 1;
                let draw = if sampling.parameters.temperature > 0.0 { draw } else { 0 };
                self.reads[self.mark(session, draw) as usize % self.reads.len()]
            }
        };
        let last = |rows: &std::ops::Range<usize>| work.rows[rows.end - 1].position.usize();
        sampled.map(|sequence| (sequence.session, next(sequence.session, last(&sequence.rows)))).collect()
    }
}

pub struct Pool {
    pub desk: Desk,
    pub ranks: Ranks,
    pub tokenizer: Arc<Tokenizer>,
    /// How often something was opened.
    pub opened: u128,
    /// So much later is it than the clock says.
    pub later: Duration,
}

impl Pool {
    pub fn new(slots: u32) -> Self {
        Self::with(slots, SETTINGS)
    }

    pub fn with(slots: u32, settings: Settings) -> Self {
        Self::of(slots, settings, facts())
    }

    /// A pool of another model.
    pub fn of(slots: u32, settings: Settings, model: ModelFacts) -> Self {
        Self::filling(slots, settings, model, "deepseek-coder")
    }

    /// A pool whose model fills in the middle so.
    pub fn filling(slots: u32, settings: Settings, model: ModelFacts, fim: &str) -> Self {
        let folder = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code"));
        let fim = fim.parse().expect("is a template");
        let tokenizer = Arc::new(
            Tokenizer::open_with(folder, TokenizerSettings { fim: Some(&fim), form: None })
                .expect("it ships"),
        );
        Self::reading(tokenizer, slots, settings, model)
    }

    /// A pool with a tokenizer that is there.
    pub fn reading(tokenizer: Arc<Tokenizer>, slots: u32, settings: Settings, model: ModelFacts) -> Self {
        let mut core = Core::new(tokenizer.clone(), settings, Quotas::default(), Arc::default());
        core.serve(Group::new(Epoch(1), slots), model.clone());
        let desk = Desk::new(core, "g".to_owned());
        let group = Group::new(Epoch(1), slots);
        let ranks = Ranks {
            group,
            model,
            refuses: vec![],
            encoded: 0,
            passes: 0,
            gives_up: 0,
            writes: None,
            reads: vec![],
            disk: BTreeSet::new(),
        };
        Self { desk, ranks, tokenizer, opened: 0, later: Duration::ZERO }
    }

    /// The group is lost, and there again, with ranks of a model.
    pub fn form_again(&mut self, epoch: u64, model: ModelFacts) {
        let slots = self.ranks.group.capacity() as u32;
        self.desk.act(|core| core.lost("a test"));
        self.desk.act(|core| core.serve(Group::new(Epoch(epoch), slots), model.clone()));
        (self.ranks.group, self.ranks.model) = (Group::new(Epoch(epoch), slots), model);
    }

    /// One step of the group; false when nobody wants one.
    pub fn step(&mut self) -> bool {
        let now = Instant::now() + self.later;
        let Some(step) = self.desk.next_step(now).expect("the owner makes right plans") else {
            return false;
        };
        let report = self.ranks.step(&step);
        self.desk.act(|core| core.report(report, Instant::now())).expect("the report fits");
        assert_eq!(self.desk.core().digest(), Some(self.ranks.group.digest()), "P4");
        self.ranks.group.check().expect("K1 and K2");
        let stale: usize = self.ranks.group.sessions().map(|(_, table)| table.stale_rows()).sum();
        assert_eq!(self.desk.describe().groups[0].tokens_stale, stale as u64);
        true
    }

    pub fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the group never comes to rest");
    }

    pub fn ask<T>(&mut self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Reason> {
        let (reply, mut answer) = oneshot::channel();
        self.desk.call(call(reply));
        answer.try_recv().expect("calls are answered at once").map_err(|fault| fault.reason)
    }

    pub fn open(&mut self, session: &str, text: &str) -> Result<v1::OpenSessionResponse, Reason> {
        let document = Document::open(self.tokenizer.clone(), text, 1 << 20).expect("a short text");
        let following = AskedFollowing { strategy: Some(Strategy::Pie), window: None };
        self.open_document(Tenant::default(), session, document, following)
    }

    pub fn open_document(
        &mut self,
        tenant: Tenant,
        session: &str,
        document: Document,
        following: AskedFollowing,
    ) -> Result<v1::OpenSessionResponse, Reason> {
        self.opened += 1;
        let (name, identity) = (name(session), Identity::of_bits(self.opened));
        let (owner, session) = (tenant.clone(), name.clone());
        let prepared = match self.ask(|reply| Call::Look { tenant: owner, session, reply })? {
            None => Prepared::New { identity, document: Box::new(document) },
            Some(held) => {
                let range = TextRange::Bytes { start: 0, end: held.len_bytes() };
                let whole = TextEdit { range, insert: document.text().expect("a text") };
                let change = held.prepare(held.revision(), &[whole]).expect("it takes any text");
                Prepared::Again(Box::new(change))
            }
        };
        self.ask(|reply| Call::Open { tenant, name, prepared, following, reply })
    }

    pub fn close(&mut self, session: &str) -> Result<(), Reason> {
        self.close_of(Tenant::default(), session, None)
    }

    /// As a client has it closed, but for its home.
    pub fn close_of(
        &mut self,
        tenant: Tenant,
        session: &str,
        identity: Option<Identity>,
    ) -> Result<(), Reason> {
        let session = name(session);
        let resident = self.ask(|reply| Call::Vacate { tenant, session, identity, reply })?;
        self.desk.call(Call::Depart { resident, departure: Departure::Closed(Why::Client) });
        Ok(())
    }

    pub fn edit(
        &mut self,
        session: &str,
        base: u64,
        at: u64,
        text: &str,
    ) -> Result<v1::ApplyEditsResponse, Reason> {
        self.replace(session, base, at as usize..at as usize, text)
    }

    pub fn replace(
        &mut self,
        session: &str,
        base: u64,
        range: std::ops::Range<usize>,
        text: &str,
    ) -> Result<v1::ApplyEditsResponse, Reason> {
        self.replace_with(session, base, range, text, |_| {})
    }

    /// The same, by a request that says more.
    pub fn replace_with(
        &mut self,
        session: &str,
        base: u64,
        range: std::ops::Range<usize>,
        text: &str,
        change: impl FnOnce(&mut ApplyEdits),
    ) -> Result<v1::ApplyEditsResponse, Reason> {
        let range = TextRange::Bytes { start: range.start, end: range.end };
        let edit = TextEdit { range, insert: text.to_owned() };
        let mut request = ApplyEdits {
            session: name(session),
            identity: None,
            base_revision: Revision(base),
            edits: Edits::Text(vec![edit]),
            following: AskedFollowing::default(),
        };
        change(&mut request);
        self.apply(request, None)
    }

    /// As the service does: what takes more than a moment is worked out on a copy.
    fn apply(
        &mut self,
        request: ApplyEdits,
        prepared: Option<Box<DocumentChange>>,
    ) -> Result<v1::ApplyEditsResponse, Reason> {
        let (tenant, arrived) = (Tenant::default(), Instant::now());
        match self.ask(|reply| Call::Edit { tenant, request, prepared, arrived, reply })? {
            EditReply::Done(answer) => Ok(answer),
            EditReply::Beside { document, request, .. } => {
                let Edits::Text(edits) = &request.edits else { panic!("it was a text") };
                let change = document.prepare(request.base_revision, edits).expect("it fits");
                self.apply(*request, Some(Box::new(change)))
            }
        }
    }

    pub fn complete(
        &mut self,
        session: &str,
        max_tokens: u32,
        stop: &[&str],
    ) -> Result<MessageStream, Reason> {
        self.ask_completion(session, max_tokens, stop, |_| {})
    }

    /// A completion from beginning to end.
    pub fn answer(&mut self, session: &str, max_tokens: u32) -> v1::Timings {
        let mut stream = self.complete(session, max_tokens, &[]).expect("it is open");
        self.run();
        drain(&mut stream).3.expect("with the first token")
    }

    pub fn complete_at(
        &mut self,
        session: &str,
        max_tokens: u32,
        at: u64,
        mode: Mode,
    ) -> Result<MessageStream, Reason> {
        self.ask_completion(session, max_tokens, &[], |request| {
            (request.at, request.mode) = (Some(Cursor::Byte(at as usize)), mode);
        })
    }

    pub fn ask_completion(
        &mut self,
        session: &str,
        max_tokens: u32,
        stop: &[&str],
        change: impl FnOnce(&mut Complete),
    ) -> Result<MessageStream, Reason> {
        self.ask_completion_of(Tenant::default(), session, max_tokens, stop, change)
    }

    pub fn ask_completion_of(
        &mut self,
        tenant: Tenant,
        session: &str,
        max_tokens: u32,
        stop: &[&str],
        change: impl FnOnce(&mut Complete),
    ) -> Result<MessageStream, Reason> {
        let sampling = SamplingParameters::greedy(0);
        let mut request = Complete {
            session: name(session),
            identity: None,
            revision: None,
            max_tokens,
            sampling,
            stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
            stop_tokens: vec![],
            at: None,
            mode: Mode::Continue,
            on_edit: OnEdit::End,
            exactness: Exactness::AsItIs,
            generated: vec![],
            prediction: String::new(),
            lines: RegionLines::default(),
        };
        change(&mut request);
        // What a model is told of a document is no matter here.
        let told = if request.mode == Mode::Rewrite { self.tokenizer.encode(TOLD) } else { Ok(Vec::new()) };
        let worked_out = WorkedOut { expected: Vec::new(), prompt: told.expect("it is text") };
        self.ask(|reply| Call::Complete { tenant, request, worked_out, arrived: Instant::now(), reply })
    }
}

pub fn name(session: &str) -> SessionName {
    SessionName::new(session.to_owned()).expect("a right name")
}

pub fn facts() -> ModelFacts {
    ModelFacts {
        name: "counting".into(),
        parameters: 0,
        context_limit: 2000,
        vocabulary: 8192,
        end_of_text: vec![],
        spills: false,
    }
}

/// All messages so far: the text, the tokens, the last finish reason, the timings.
pub fn drain(stream: &mut MessageStream) -> (String, usize, v1::FinishReason, Option<v1::Timings>) {
    let (mut text, mut tokens, mut finish, mut timings) =
        (String::new(), 0, v1::FinishReason::Unspecified, None);
    while let Ok(message) = stream.try_recv() {
        let message = message.expect("no failure");
        text.push_str(&message.text_delta);
        tokens += message.tokens.len();
        finish = message.finish_reason();
        timings = message.timings.or(timings);
    }
    (text, tokens, finish, timings)
}

/// What a model is told behind a document.
pub const TOLD: &str = "the lines, with what the edits ask for:\n";

pub const TEXT: &str = "fn main() {\n    let answer = 42;\n    println!(\"{answer}\");\n}\n";

impl Pool {
    pub fn get(&mut self, session: &str) -> v1::GetSessionResponse {
        let session = name(session);
        self.ask(|reply| Call::Get {
            tenant: Tenant::default(),
            session,
            identity: None,
            content: true,
            reply,
        })
        .expect("it is open")
    }

    pub fn core_tokens(&mut self, session: &str) -> u32 {
        self.get(session).session.expect("described").tokens
    }
}
