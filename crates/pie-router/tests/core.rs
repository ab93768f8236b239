//! The owner's core on simulated ranks: a second replica that applies the same plans, and a "model" that counts.

use pie_plan::schedule::Limits;
use pie_plan::{Epoch, Group, SessionId, Strategy, Then, TokenId, Work};
use pie_proto::plan::Step;
use pie_proto::request::{
    ApplyEdits, At, Complete, Edits, Mode, OnEdit, SamplingRequest, SessionName, TextEdit, TextRange,
};
use pie_proto::{Reason, v1, worker_v1};
use pie_router::call::{Call, ModelFacts, Reply, Stream};
use pie_router::core::{Core, Settings};
use pie_router::tenants::{Tenant, TenantLimits};
use pie_text::{Document, Tokenizer};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

const SETTINGS: Settings = Settings {
    limits: Limits { rows: 64, prefill_rows: 32, decode_passes: 4 },
    tenant: TenantLimits::NONE,
    completions: 100,
    rotations: 30,
};

/// Tokens of the fake model: of no special meaning, and whole characters.
fn next_token(context: usize) -> TokenId {
    TokenId(100 + (context as u32 * 7) % 90)
}

/// The ranks: one replica that does as it is told.
struct Ranks {
    group: Group,
    /// What the model writes from an index on, if it is to write something certain.
    writes: Option<(usize, Vec<TokenId>)>,
    encoded: usize,
    passes: u32,
}

impl Ranks {
    fn step(&mut self, step: &Step) -> worker_v1::Report {
        let mut work = self.group.apply(&step.plan).expect("the owner sends right plans only");
        let mut passes = Vec::new();
        loop {
            self.passes += 1;
            self.encoded += work.rows.len();
            let sampled = self.sample(&work);
            if sampled.is_empty() {
                break;
            }
            self.group.append(&sampled).expect("reserved");
            let token = |(session, token): &(SessionId, TokenId)| worker_v1::Sampled {
                session: session.0,
                token: token.0,
                logprob: -1.0,
                top: vec![],
            };
            passes.push(worker_v1::Pass { sampled: sampled.iter().map(token).collect() });
            let taken = passes.len() as u32;
            let goes_on = |session: &SessionId| taken < step.sampling[session].max_tokens;
            let going: Vec<_> = sampled.iter().map(|(session, _)| *session).filter(goes_on).collect();
            if going.is_empty() || taken == step.plan.passes {
                break;
            }
            work = self.group.decode(&going).expect("they sampled");
        }
        worker_v1::Report {
            epoch: step.plan.epoch.0,
            seq: step.plan.seq.0,
            passes,
            done: true,
            ..Default::default()
        }
    }

    fn sample(&self, work: &Work) -> Vec<(SessionId, TokenId)> {
        let sampled = work.sequences.iter().filter(|sequence| sequence.then == Then::Sample);
        let next = |position: usize| match &self.writes {
            Some((from, tokens)) => tokens[(position + 1 - from) % tokens.len()],
            None => next_token(position),
        };
        sampled
            .map(|sequence| (sequence.session, next(work.rows[sequence.rows.end - 1].position.usize())))
            .collect()
    }
}

struct Pool {
    core: Core,
    ranks: Ranks,
    tokenizer: Arc<Tokenizer>,
}

impl Pool {
    fn new(slots: u32) -> Self {
        Self::with(slots, SETTINGS)
    }

    fn with(slots: u32, settings: Settings) -> Self {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tiny-code/tokenizer.json");
        let tokenizer = Arc::new(Tokenizer::from_file(std::path::Path::new(file)).expect("it ships"));
        let mut core = Core::new(tokenizer.clone(), settings, "g".to_owned());
        core.formed(Epoch(1), slots, facts());
        Self { core, ranks: Ranks { group: Group::new(Epoch(1), slots), encoded: 0, passes: 0, writes: None }, tokenizer }
    }

    /// One step of the group; false when nobody wants one.
    fn step(&mut self) -> bool {
        let Some(step) = self.core.next_step(Instant::now()).expect("the owner makes right plans") else {
            return false;
        };
        let report = self.ranks.step(&step);
        self.core.report(report, Instant::now()).expect("the report fits");
        assert_eq!(self.core.digest(), Some(self.ranks.group.digest()), "P4");
        self.ranks.group.check().expect("K1 and K2");
        true
    }

    fn run(&mut self) {
        for _ in 0..10_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the group never comes to rest");
    }

    fn ask<T>(&mut self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Reason> {
        let (reply, mut answer) = oneshot::channel();
        self.core.call(call(reply));
        answer.try_recv().expect("calls are answered at once").map_err(|fault| fault.reason)
    }

    fn open(&mut self, session: &str, text: &str) -> Result<v1::OpenSessionResponse, Reason> {
        let document = Document::open(self.tokenizer.clone(), text, 1 << 20).expect("a short text");
        let (name, document) = (Some(name(session)), Box::new(document));
        let tenant = Tenant::default();
        self.ask(|reply| Call::Open { tenant, name, document, strategy: Strategy::Pie, reply })
    }

    fn edit(
        &mut self,
        session: &str,
        base: u64,
        at: u64,
        text: &str,
    ) -> Result<v1::ApplyEditsResponse, Reason> {
        let edit = TextEdit { range: TextRange::Bytes { start: at, end: at }, text: text.to_owned() };
        let request = ApplyEdits {
            session: name(session),
            base_revision: base,
            edits: Edits::Text(vec![edit]),
            strategy: None,
        };
        self.ask(|reply| Call::Edit { request, arrived: Instant::now(), reply })
    }

    fn complete(&mut self, session: &str, max_tokens: u32, stop: &[&str]) -> Result<Stream, Reason> {
        self.ask_completion(session, max_tokens, stop, |_| {})
    }

    /// A completion from beginning to end.
    fn answer(&mut self, session: &str, max_tokens: u32) -> v1::Timings {
        let mut stream = self.complete(session, max_tokens, &[]).expect("it is open");
        self.run();
        drain(&mut stream).3.expect("with the first token")
    }

    fn complete_at(&mut self, session: &str, max_tokens: u32, at: u64, mode: Mode) -> Result<Stream, Reason> {
        self.ask_completion(session, max_tokens, &[], |request| {
            (request.at, request.mode) = (Some(At::Byte(at)), mode);
        })
    }

    fn ask_completion(
        &mut self,
        session: &str,
        max_tokens: u32,
        stop: &[&str],
        change: impl FnOnce(&mut Complete),
    ) -> Result<Stream, Reason> {
        let sampling = SamplingRequest { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, top_logprobs: 0 };
        let mut request = Complete {
            session: name(session),
            revision: None,
            max_tokens,
            sampling,
            stop: stop.iter().map(|stop| (*stop).to_owned()).collect(),
            stop_tokens: vec![],
            at: None,
            mode: Mode::Continue,
            on_edit: OnEdit::End,
        };
        change(&mut request);
        self.ask(|reply| Call::Complete { request, arrived: Instant::now(), reply })
    }
}

fn name(session: &str) -> SessionName {
    SessionName::new(session.to_owned()).expect("a right name")
}

fn facts() -> ModelFacts {
    ModelFacts {
        name: "counting".into(),
        parameters: 0,
        context_limit: 2000,
        vocabulary: 8192,
        end_of_text: vec![],
    }
}

/// All messages so far: the text, the tokens, the last finish reason, the timings.
fn drain(stream: &mut Stream) -> (String, usize, v1::FinishReason, Option<v1::Timings>) {
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

const TEXT: &str = "fn main() {\n    let answer = 42;\n    println!(\"{answer}\");\n}\n";

#[test]
fn ten_edits_and_a_completion_cost_one_pass_and_what_they_insert() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 3, &[]).expect("it is open");
    pool.run();
    let (_, tokens, finish, timings) = drain(&mut stream);
    assert_eq!((tokens, finish), (3, v1::FinishReason::Length));
    let timings = timings.expect("with the first token");
    let length = pool.core_tokens("a");
    assert_eq!(timings.tokens_encoded + timings.tokens_reused, length, "N1");

    let (encoded, passes) = (pool.ranks.encoded, pool.ranks.passes);
    for revision in 0..10 {
        pool.edit("a", revision, 12, "x").expect("the revision is right");
    }
    assert!(!pool.step(), "small edits wait for the completion that follows");
    let mut stream = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    let timings = drain(&mut stream).3.expect("with the first token");
    assert_eq!(pool.ranks.passes - passes, 1, "edits and next token cost one pass");
    assert_eq!(pool.ranks.encoded - encoded, timings.tokens_encoded as usize);
    assert!(timings.tokens_encoded < 15 && timings.tokens_rotated > 5, "{timings:?}");
    assert_eq!(timings.tokens_encoded + timings.tokens_reused, pool.core_tokens("a"), "N1");
}

impl Pool {
    fn get(&mut self, session: &str) -> v1::GetSessionResponse {
        let session = name(session);
        self.ask(|reply| Call::Get { session, content: true, reply }).expect("it is open")
    }

    fn core_tokens(&mut self, session: &str) -> u32 {
        self.get(session).session.expect("described").tokens
    }
}

/// R1, R2, D1: a stale edit changes nothing; a newer one ends the running completion, whose text names its revision.
#[test]
fn a_newer_edit_ends_a_completion_and_a_stale_one_changes_nothing() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 100, &[]).expect("it is open");
    pool.step();
    pool.step();
    let before = pool.get("a");
    assert_eq!(pool.edit("a", 7, 0, "x").map(drop), Err(Reason::RevisionMismatch));
    assert_eq!(pool.edit("a", 0, 999, "x").map(drop), Err(Reason::RangeOutOfBounds));
    assert_eq!(pool.get("a"), before, "R2: a refused edit has changed nothing");
    assert_eq!(drain(&mut stream).2, v1::FinishReason::Unspecified, "the completion runs on");

    // The next step is on its way when the edit comes in.
    let step = pool.core.next_step(Instant::now()).expect("right").expect("it decodes");
    pool.edit("a", 0, 0, "// new\n").expect("the revision is right");
    let report = pool.ranks.step(&step);
    pool.core.report(report, Instant::now()).expect("it fits though nobody wants its tokens");
    let (_, tokens, finish, _) = drain(&mut stream);
    assert_eq!((tokens, finish), (0, v1::FinishReason::Edited));
    let mut next = pool.complete("a", 2, &[]).expect("it is open");
    pool.run();
    let revisions: Vec<_> =
        std::iter::from_fn(|| next.try_recv().ok()).map(|message| message.expect("fine").revision).collect();
    assert_eq!(revisions, [1, 1], "D1");
}

#[test]
fn a_client_that_goes_away_frees_its_work_and_slots() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let tokens = pool.core_tokens("a") as usize;
    let stream = pool.complete("a", 500, &[]).expect("it is open");
    pool.step();
    pool.step();
    drop(stream);
    pool.run();
    let mut other = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    assert_eq!(drain(&mut other).1, 1);
    pool.open("b", "x").expect("there is room");
    pool.complete("b", 1, &[]).expect("it is open");
    pool.run();
    let held: usize = pool.ranks.group.sessions().map(|(_, table)| table.branch().len()).sum();
    assert!(held <= 2, "only what the latest completion of each session left: {held}");
    assert!(pool.ranks.group.free_slots() + tokens + 8 >= 1000);
}

#[test]
fn slots_run_out_for_one_session_only_and_the_length_is_limited() {
    let mut pool = Pool::new(60);
    pool.open("a", TEXT).expect("there is room");
    assert_eq!(pool.open("b", &TEXT.repeat(3)).map(drop), Err(Reason::KvExhausted));
    assert_eq!(pool.edit("a", 0, 0, &TEXT.repeat(3)).map(drop), Err(Reason::KvExhausted));
    let mut stream = pool.complete("a", 500, &[]).expect("it is open");
    pool.run();
    let mut failed = None;
    while let Ok(message) = stream.try_recv() {
        failed = message.err();
    }
    let status = failed.expect("the branch outgrows the cache");
    assert_eq!(pie_proto::reason::reason_of(&status), Some(Reason::KvExhausted));
    let mut stream = pool.complete("a", 2, &[]).expect("the session lives");
    pool.run();
    assert_eq!(drain(&mut stream).1, 2);

    let mut pool = Pool::new(9000);
    assert_eq!(pool.open("a", &"word ".repeat(2100)).map(drop), Err(Reason::DocumentTooLong));
    assert_eq!(pool.complete("a", 1, &[]).map(drop), Err(Reason::SessionUnknown));
    let opened = pool.open("a", &"word ".repeat(1900)).expect("there is room");
    let mut stream = pool.complete("a", 500, &[]).expect("it is open");
    pool.run();
    let (_, tokens, finish, _) = drain(&mut stream);
    let room = (facts().context_limit - opened.tokens) as usize;
    assert!(room < 150, "{room}");
    assert_eq!((tokens, finish), (room, v1::FinishReason::Length), "the context ends it");
}

#[test]
fn a_lost_group_fails_completions_keeps_documents_and_encodes_them_again() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 100, &[]).expect("it is open");
    pool.step();
    pool.core.lost("rank 3 is lost: killed");
    let last = std::iter::from_fn(|| stream.try_recv().ok()).last().expect("a last message");
    let status = last.expect_err("the completion fails");
    assert_eq!(pie_proto::reason::reason_of(&status), Some(Reason::GroupLost));
    assert!(status.message().contains("rank 3"), "{status}");
    assert_eq!(pool.complete("a", 1, &[]).map(drop), Err(Reason::GroupLost));
    pool.edit("a", 0, 0, "// while it was away\n").expect("documents live on");

    pool.core.formed(Epoch(2), 1000, facts());
    pool.ranks.group = Group::new(Epoch(2), 1000);
    let mut stream = pool.complete("a", 2, &[]).expect("it serves again");
    pool.run();
    assert_eq!(drain(&mut stream).1, 2);
    let held: Vec<_> = pool.ranks.group.sessions().map(|(_, table)| table.tokens().len()).collect();
    assert_eq!(held, [pool.core_tokens("a") as usize]);
}

#[test]
fn reopening_costs_the_difference_and_stop_strings_cut() {
    let mut pool = Pool::new(1000);
    let opened = pool.open("a", TEXT).expect("there is room");
    let mut stream = pool.complete("a", 12, &[]).expect("it is open");
    pool.run();
    let whole = drain(&mut stream).0;
    let changed = TEXT.replace("42", "43");
    let again = pool.open("a", &changed).expect("it is open");
    assert!(again.reused + 3 >= opened.tokens && again.revision == 1, "{again:?}");
    assert_eq!(pool.get("a").text.as_deref(), Some(changed.as_str()));

    let middle = whole.char_indices().nth(4).expect("a text").0;
    let stop = &whole[middle..middle + whole[middle..].chars().take(2).map(char::len_utf8).sum::<usize>()];
    let mut stream = pool.complete("a", 12, &[stop]).expect("it is open");
    pool.run();
    let (text, _, finish, _) = drain(&mut stream);
    assert_eq!(finish, v1::FinishReason::Stop);
    assert_eq!(text, whole[..whole.find(stop).expect("it is in there")]);
}

#[test]
fn accepted_and_typed_through_suggestions_are_adopted() {
    // What is done with the suggestion, in pieces, and how many pieces of tokens are adopted at least.
    let cases: &[(&str, &[usize], u32)] =
        &[("accepted whole", &[12], 10), ("accepted in part", &[5], 4), ("word by word", &[4, 8, 12], 10)];
    for (name, pieces, adopted) in cases {
        let mut pool = Pool::new(1000);
        let start = pool.open("a", TEXT).expect("there is room").tokens as usize;
        let suggestion = "pub fn ask(question: &str) -> u32 {\n    question.len() as u32\n}\n";
        let written = pool.tokenizer.encode(&format!("{TEXT}{suggestion}")).expect("a text");
        pool.ranks.writes = Some((start, written[start..].to_vec()));
        let mut stream = pool.complete("a", 12, &[]).expect("it is open");
        pool.run();
        let tokens: Vec<_> = std::iter::from_fn(|| stream.try_recv().ok())
            .flat_map(|message| message.expect("fine").tokens.into_iter().map(|token| TokenId(token.id)))
            .collect();
        let whole = pool.tokenizer.decode(&tokens);
        let mut typed = 0;
        for (revision, piece) in pieces.iter().enumerate() {
            let text = pool.tokenizer.decode(&tokens[..*piece]);
            pool.edit("a", revision as u64, (TEXT.len() + typed) as u64, &text[typed..]).expect("it is right");
            typed = text.len();
        }
        assert!(whole.starts_with(&pool.get("a").text.expect("a text")[TEXT.len()..]), "{name}");
        let mut stream = pool.complete("a", 1, &[]).expect("it is open");
        pool.run();
        let timings = drain(&mut stream).3.expect("with the first token");
        assert!(timings.tokens_adopted >= *adopted, "{name}: {timings:?}");
        assert!(timings.tokens_encoded <= 3, "{name}: {timings:?}");
        assert_eq!(timings.tokens_encoded + timings.tokens_reused, pool.core_tokens("a"), "N1: {name}");
    }
}

#[test]
fn a_completion_at_a_cursor_costs_its_last_token_and_disturbs_nothing() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    pool.answer("a", 1);
    let mut stream = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    drain(&mut stream);
    let table = |pool: &Pool| pool.ranks.group.sessions().next().expect("open").1.slots().to_vec();
    let (slots, encoded) = (table(&pool), pool.ranks.encoded);
    let at = TEXT.find("42").expect("in there") as u64;
    let mut stream = pool.complete_at("a", 3, at, Mode::Continue).expect("it is open");
    pool.run();
    let (_, tokens, finish, timings) = drain(&mut stream);
    assert_eq!((tokens, finish), (3, v1::FinishReason::Length));
    let timings = timings.expect("with the first token");
    assert!(timings.tokens_encoded <= 2 && pool.ranks.encoded - encoded <= 4, "{timings:?}");
    assert!(timings.tokens_encoded + timings.tokens_reused < pool.core_tokens("a"), "it sees less than all");
    assert_eq!(table(&pool), slots, "the document's slots stay");
    assert_eq!(pool.complete_at("a", 1, 10_000, Mode::Continue).map(drop), Err(Reason::RangeOutOfBounds));
}

/// The markers move, the keys between them turn, and only what is new is encoded.
#[test]
fn moving_the_cursor_costs_its_markers() {
    let mut pool = Pool::new(1000);
    let text = TEXT.repeat(4);
    pool.open("a", &text).expect("there is room");
    let mut first = pool.complete_at("a", 1, 20, Mode::FillInTheMiddle).expect("the model has markers");
    pool.run();
    assert_eq!(drain(&mut first).1, 1);
    let tokens = pool.core_tokens("a");
    for at in [20, 40, 41, 120, 3, 0, text.len() as u64] {
        let mut stream = pool.complete_at("a", 1, at, Mode::FillInTheMiddle).expect("it is open");
        pool.run();
        let timings = drain(&mut stream).3.expect("with the first token");
        let seen = timings.tokens_encoded + timings.tokens_reused;
        assert!((tokens + 3..tokens + 8).contains(&seen), "both sides and three markers: {timings:?}");
        assert!(timings.tokens_encoded <= 12, "at {at}: {timings:?}");
        let (_, table) = pool.ranks.group.sessions().next().expect("open");
        assert_eq!(table.tokens().len() as u32, seen);
    }
    // An edit, and a plain completion: the markers go, and the document is as it should be.
    pool.edit("a", 0, 5, "x").expect("the revision is right");
    let mut stream = pool.complete("a", 1, &[]).expect("it is open");
    pool.run();
    assert_eq!(drain(&mut stream).1, 1);
    let held = pool.get("a").tokens.expect("asked for").ids;
    let (_, table) = pool.ranks.group.sessions().next().expect("open");
    assert_eq!(table.tokens().iter().map(|token| token.0).collect::<Vec<_>>(), held);
}

#[test]
fn the_longest_idle_make_room_and_come_back() {
    let mut pool = Pool::new(400);
    let text = |name: &str| format!("// {name}\n{}", TEXT.repeat(3));
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        pool.open(name, &text(name)).expect("others make room");
        pool.answer(name, 1);
    }
    let resident = |pool: &mut Pool, name: &str| pool.get(name).session.expect("described").resident;
    assert!(!resident(&mut pool, "a") && resident(&mut pool, "h"), "the longest idle went");
    pool.edit("a", 0, 0, "// while its rows are gone\n").expect("documents live on");
    let mut stream = pool.complete("a", 2, &[]).expect("it is open");
    pool.run();
    let (_, tokens, _, timings) = drain(&mut stream);
    let timings = timings.expect("with the first token");
    assert_eq!((tokens, timings.tokens_encoded + timings.tokens_encoded_ahead), (2, pool.core_tokens("a")));
    let (_, table) = pool.ranks.group.sessions().find(|(_, table)| !table.branch().is_empty()).expect("a's");
    let held: Vec<_> = table.tokens().iter().map(|token| token.0).collect();
    assert_eq!(held, pool.get("a").tokens.expect("asked for").ids);
    assert!(!resident(&mut pool, "b"));
}

#[test]
fn the_same_file_opened_twice_is_encoded_once() {
    let mut pool = Pool::new(1000);
    let text = TEXT.repeat(4);
    pool.open("a", &text).expect("there is room");
    pool.answer("a", 1);
    let encoded = pool.ranks.encoded;
    pool.open("b", &text).expect("there is room");
    let mut stream = pool.complete("b", 1, &[]).expect("it is open");
    pool.run();
    let timings = drain(&mut stream).3.expect("with the first token");
    assert_eq!((timings.tokens_encoded, pool.ranks.encoded - encoded), (1, 1), "{timings:?}");
    let shared = pool.get("b").session.expect("described").tokens_shared;
    assert!(shared + 2 >= pool.core_tokens("b"), "{shared}");
    // One edits; the other's rows stay where they are.
    pool.edit("a", 0, 0, "use std::fmt;\n").expect("the revision is right");
    pool.answer("a", 1);
    assert!(pool.get("b").session.expect("described").tokens_shared < 3);
    for name in ["a", "b"] {
        pool.ask(|reply| Call::Close { session: self::name(name), reply }).expect("it is open");
    }
    pool.open("c", "x").expect("there is room");
    pool.answer("c", 1);
    assert!(pool.ranks.group.free_slots() > 990, "no slot leaks");
}

/// Past the budget a session is encoded anew, when nobody wants anything, and no answer pays for it.
#[test]
fn worn_sessions_are_encoded_anew_while_idle() {
    let settings = Settings { rotations: 3, ..SETTINGS };
    let mut pool = Pool::with(1000, settings);
    pool.open("a", &TEXT.repeat(4)).expect("there is room");
    for revision in 0..6 {
        pool.edit("a", revision, 0, "use x;\n").expect("the revision is right");
        let mut stream = pool.complete("a", 1, &[]).expect("it is open");
        while drain(&mut stream).1 == 0 && pool.step() {}
    }
    let rotations = |pool: &mut Pool| pool.get("a").session.expect("described").rotations;
    assert!(rotations(&mut pool) > 3);
    let mut stream = pool.complete("a", 2, &[]).expect("it is open");
    pool.step();
    let timings = drain(&mut stream).3.expect("at once");
    assert!(timings.tokens_encoded <= 2, "{timings:?}");
    // An edit while it is going on is in the new rows too.
    for _ in 0..4 {
        pool.step();
    }
    pool.edit("a", 6, 9, "y").expect("the revision is right");
    pool.run();
    assert!(rotations(&mut pool) <= 1, "at most by the edit that came meanwhile");
    let (_, table) = pool.ranks.group.sessions().next().expect("open");
    let held: Vec<_> = table.tokens().iter().map(|token| token.0).collect();
    assert_eq!(held, pool.get("a").tokens.expect("asked for").ids);
    pool.answer("a", 1);
    assert_eq!(pool.ranks.group.sessions().count(), 1, "the shadow is gone");
}

#[test]
fn completions_that_ask_to_outlive_edits_do() {
    let mut pool = Pool::new(1000);
    pool.open("a", TEXT).expect("there is room");
    let go_on = |request: &mut Complete| request.on_edit = OnEdit::GoOn;
    let mut stream = pool.ask_completion("a", 10, &[], go_on).expect("it is open");
    pool.step();
    pool.edit("a", 0, 0, "// new\n").expect("the revision is right");
    pool.run();
    let (_, tokens, finish, _) = drain(&mut stream);
    assert_eq!((tokens, finish), (10, v1::FinishReason::Length));
}

/// Every keystroke asks, and the answer before is not wanted any more: nothing of it stays.
#[test]
fn a_storm_of_cancellations_leaves_nothing() {
    let mut pool = Pool::new(400);
    pool.open("a", TEXT).expect("there is room");
    for revision in 0..200 {
        pool.edit("a", revision, 10, if revision % 9 == 8 { "\n" } else { "x" }).expect("it is right");
        let stream = pool.complete("a", 50, &[]).expect("the one before is gone");
        for _ in 0..revision % 3 {
            pool.step();
        }
        drop(stream);
    }
    pool.run();
    pool.ask(|reply| Call::Close { session: name("a"), reply }).expect("it is open");
    pool.open("b", "x").expect("there is room");
    pool.answer("b", 1);
    let tokens = pool.core_tokens("b") as usize;
    assert!(pool.ranks.group.free_slots() + tokens + 1 >= 400, "{}", pool.ranks.group.free_slots());
}

#[test]
fn each_tenant_has_its_share() {
    let tenant = TenantLimits { sessions: 2, tokens: 100, requests: 1 };
    let mut pool = Pool::with(1000, Settings { tenant, completions: 1, ..SETTINGS });
    pool.open("a", TEXT).expect("the first");
    pool.open("b", "x").expect("the second");
    assert_eq!(pool.open("c", "x").map(drop), Err(Reason::TenantLimit), "sessions");
    assert_eq!(pool.edit("b", 0, 0, &TEXT.repeat(4)).map(drop), Err(Reason::TenantLimit), "tokens");
    let running = pool.complete("a", 5, &[]).expect("the first");
    assert_eq!(pool.complete("b", 5, &[]).map(drop), Err(Reason::Overloaded), "of the whole group");
    drop(running);
    pool.run();
    pool.complete("b", 5, &[]).map(drop).expect("the first is over");
    let mut pool = Pool::with(1000, Settings { tenant, ..SETTINGS });
    pool.open("a", TEXT).expect("the first");
    let _running = pool.complete("a", 5, &[]).expect("the first");
    assert_eq!(pool.complete("a", 5, &[]).map(drop), Err(Reason::TenantLimit), "requests");
}
