//! A completion whose stream breaks off goes on where it was: whatever it is, and wherever it breaks, both streams together say what
//! one says that does not break.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, SETTINGS, SUFFIX_FIRST, TEXT, facts, name};
use pie_group::call::MessageStream;
use pie_group::tenants::Tenant;
use pie_proto::Reason;
use pie_proto::request::{Complete, Exactness, Mode};
use pie_proto::v1::{self, FinishReason};
use pie_text::{Document, Tokenizer};
use pie_words::{AskedFollowing, Cursor, Revision, TokenId};
use std::sync::Arc;
use std::time::Instant;

/// What the model writes: words, parts of characters, and what stop strings are made of.
const WRITTEN: &str = "let x = grö🙂 日本 END; STOP\n";
const TOKENS: u32 = 70;

/// What a reader has of a completion.
#[derive(Clone, Debug, Default, PartialEq)]
struct ReaderTranscript {
    text: String,
    tokens: Vec<v1::CompletedToken>,
    finish: FinishReason,
    revision: u64,
    seed: Option<u64>,
    timings: Option<v1::Timings>,
    messages: usize,
}

impl ReaderTranscript {
    /// Reads on, to the end or until it has so many tokens.
    fn on(&mut self, stream: &mut MessageStream, most: usize) {
        while self.tokens.len() < most
            && let Ok(message) = stream.try_recv()
        {
            let message = message.expect("no failure");
            assert_eq!(self.finish, FinishReason::Unspecified, "nothing follows the last message");
            self.text.push_str(&message.text_delta);
            self.finish = message.finish_reason();
            self.revision = message.revision;
            self.seed = message.seed.or(self.seed);
            self.timings = message.timings.or(self.timings);
            self.tokens.extend(message.tokens);
            self.messages += 1;
        }
    }

    fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|token| TokenId(token.id)).collect()
    }

    /// Without what a second stream says for itself.
    fn said(&self) -> (&str, &[v1::CompletedToken], FinishReason, u64, Option<u64>) {
        (&self.text, &self.tokens, self.finish, self.revision, self.seed)
    }
}

struct Case {
    name: &'static str,
    tokenizer: Arc<Tokenizer>,
    text: String,
    stop: &'static [&'static str],
    /// So many of what the model writes end it.
    ends: usize,
    change: fn(&mut Complete),
}

fn seeded(request: &mut Complete) {
    (request.sampling.temperature, request.sampling.seed) = (0.8, 7);
}

fn cases() -> Vec<Case> {
    let fim = |request: &mut Complete| request.mode = Mode::FillInTheMiddle;
    let at = |request: &mut Complete| request.at = Some(Cursor::Byte(20));
    let filling = |fim| Pool::filling(8, SETTINGS, facts(), fim).tokenizer;
    let plain = filling("deepseek-coder");
    let case = |name, change: fn(&mut Complete)| Case {
        name,
        tokenizer: plain.clone(),
        text: TEXT.to_owned(),
        stop: &[],
        ends: 0,
        change,
    };
    vec![
        case("greedy", |_| {}),
        case("seeded", seeded),
        case("with alternatives", |request| {
            seeded(request);
            request.sampling.top_logprobs = 3;
        }),
        case("exact", |request| request.exactness = Exactness::Exact),
        case("at a cursor", at),
        case("at a cursor, seeded", |request| {
            seeded(request);
            request.at = Some(Cursor::Byte(21));
        }),
        case("behind nothing", |request| request.at = Some(Cursor::Byte(0))),
        case("at the end by a cursor", |request| request.at = Some(Cursor::Byte(TEXT.len()))),
        case("filling", |request| {
            request.mode = Mode::FillInTheMiddle;
            request.at = Some(Cursor::Byte(20));
        }),
        case("filling at the end", fim),
        case("filling at the beginning, seeded", |request| {
            seeded(request);
            request.mode = Mode::FillInTheMiddle;
            request.at = Some(Cursor::Byte(0));
        }),
        Case {
            tokenizer: filling(SUFFIX_FIRST[0]),
            ..case("turned", |request| {
                request.mode = Mode::FillInTheMiddle;
                request.at = Some(Cursor::Byte(20));
            })
        },
        Case {
            tokenizer: filling(SUFFIX_FIRST[1]),
            ..case("turned without a marker", |request| {
                request.mode = Mode::FillInTheMiddle;
                request.at = Some(Cursor::Byte(21));
            })
        },
        Case { text: TEXT.repeat(12), ..case("in a document of many steps", at) },
        Case { text: TEXT.repeat(12), ..case("behind a document of many steps", seeded) },
        Case { stop: &["END;", "ST", "x =日"], ..case("with stop strings", seeded) },
        Case {
            stop: &["STOPEND", "🙂END🙂", "日本END"], ..case("with stop strings that hold back", |_| {})
        },
        Case { ends: 1, ..case("with stop tokens", seeded) },
    ]
}

impl Case {
    fn pool(&self) -> (Pool, u64) {
        let mut pool = Pool::reading(self.tokenizer.clone(), 4000, SETTINGS, facts());
        pool.ranks.reads = pool.tokenizer.encode(WRITTEN).expect("a short text");
        let prefix = pool.tokenizer.prefix().len();
        pool.ranks.reads.drain(..prefix);
        let born = pool.open("a", "fn main").expect("there is room").revision;
        // Edited, so that rows have turned and are stale.
        pool.run();
        let edited = pool.replace("a", born, 0..7, &self.text).expect("it fits");
        (pool, edited.revision)
    }

    fn ask(&self, pool: &mut Pool, change: impl FnOnce(&mut Complete)) -> MessageStream {
        let ends = pool.ranks.reads[..self.ends].to_vec();
        let asked = pool.ask_completion("a", TOKENS, self.stop, |request| {
            (self.change)(request);
            request.stop_tokens = ends;
            change(request);
        });
        asked.expect("it is a right one")
    }

    fn unbroken(&self) -> ReaderTranscript {
        let (mut pool, _) = self.pool();
        let (mut stream, mut read) = (self.ask(&mut pool, |_| {}), ReaderTranscript::default());
        while pool.step() {
            read.on(&mut stream, usize::MAX);
        }
        read.on(&mut stream, usize::MAX);
        assert_ne!(read.finish, FinishReason::Unspecified, "{}", self.name);
        read
    }
}

/// What happens to the one who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// The ranks have gone, and others hold nothing.
    GroupLost,
    /// Only the stream did: its branch is still there.
    StreamLost,
}

#[test]
fn a_stream_that_breaks_goes_on_where_it_was() {
    let mut finishes = Vec::new();
    for case in cases() {
        let whole = case.unbroken();
        finishes.push((case.name, whole.tokens.len(), whole.finish));
        // Behind the last token there is nothing to go on with.
        for told in 0..whole.tokens.len() {
            for how in [Break::GroupLost, Break::StreamLost] {
                let of = format!("{}, {how:?} after {told} tokens", case.name);
                let (mut pool, revision) = case.pool();
                let (mut stream, mut read) = (case.ask(&mut pool, |_| {}), ReaderTranscript::default());
                while read.tokens.len() < told {
                    assert!(pool.step(), "{of}");
                    read.on(&mut stream, told);
                }
                drop(stream);
                let (before, first) = (read.messages, read.timings);
                if how == Break::GroupLost {
                    pool.form_again(2, facts());
                }
                read.timings = None;
                let generated = read.ids();
                let mut stream = case.ask(&mut pool, |request| {
                    (request.revision, request.generated) = (Some(Revision(revision)), generated);
                });
                while pool.step() {
                    read.on(&mut stream, usize::MAX);
                }
                read.on(&mut stream, usize::MAX);
                assert_eq!(read.said(), whole.said(), "{of}");
                // One message for each token, and for what the end of a text holds back none of its own.
                assert_eq!((before, read.messages), (told, whole.messages), "{of}");
                let (again, first) = (read.timings.expect("told"), first.or(whole.timings).expect("told"));
                let context = |timings: v1::Timings| timings.tokens_encoded + timings.tokens_reused;
                let on_branch = told.min(SETTINGS.limits.rows as usize / 2) as u32;
                assert_eq!(context(again), context(first) + on_branch, "N1: {of}");
            }
        }
    }
    let ends = |finish| finishes.iter().filter(|(_, _, found)| *found == finish).count();
    assert!(ends(FinishReason::Stop) >= 2 && ends(FinishReason::Length) >= 10, "{finishes:?}");
}

/// What was edited meanwhile ends it, as it would have ended the stream that broke: with what that had held back.
#[test]
fn a_stream_that_would_have_met_an_edit_ends_so() {
    for case in cases() {
        let whole = case.unbroken();
        for told in 1..whole.tokens.len() {
            let (mut pool, revision) = case.pool();
            let (mut stream, mut read) = (case.ask(&mut pool, |_| {}), ReaderTranscript::default());
            while read.tokens.len() < told {
                assert!(pool.step());
                read.on(&mut stream, told);
            }
            pool.edit("a", revision, 0, "// ").expect("it fits");
            let generated = read.ids();
            let mut stream = case.ask(&mut pool, |request| {
                (request.revision, request.generated) = (Some(Revision(revision)), generated);
            });
            read.on(&mut stream, usize::MAX);
            let text = pool.tokenizer.decode(&read.ids());
            assert_eq!((read.finish, read.revision), (FinishReason::Edited, revision), "{}", case.name);
            assert_eq!((read.text, read.tokens.len()), (text, told), "{}", case.name);
        }
    }
}

/// Only what a completion may have generated is taken for it.
#[test]
fn what_cannot_have_been_generated_is_refused() {
    let mut pool = Pool::new(1000);
    let revision = pool.open("a", TEXT).expect("there is room").revision;
    let end = *pool.tokenizer.ends().first().expect("it has one");
    let ids = |text: &str| pool.tokenizer.encode(text).expect("a short text");
    let (word, stop) = (ids("let")[pool.tokenizer.prefix().len()..].to_vec(), ids("let x = 1;\n\n"));
    let mut refused = |generated: Vec<TokenId>, stop: &[&str]| {
        let asked = pool.ask_completion("a", 64, stop, |request| {
            (request.revision, request.generated) = (Some(Revision(revision)), generated);
        });
        asked.map(drop).expect_err("it is none")
    };
    assert_eq!(refused(vec![TokenId(1 << 20)], &[]), Reason::TokenUnknown);
    assert_eq!(refused(vec![end], &[]), Reason::BadGenerated);
    assert_eq!(refused(stop, &["= 1"]), Reason::BadGenerated);
    assert_eq!(refused(vec![word[0]; 2000], &[]), Reason::DocumentTooLong);

    // The session is what it was, and a revision that it never had is none that was edited.
    let unknown = pool.ask_completion("a", 64, &[], |request| {
        (request.revision, request.generated) = (Some(Revision(revision + 1)), word.clone());
    });
    assert_eq!(unknown.map(drop), Err(Reason::RevisionMismatch));

    // Tokens that are drawn again, and are others: behind those that one pass encodes.
    let most = SETTINGS.limits.rows as usize / 2;
    let mut stream = pool
        .ask_completion("a", 64, &[], |request| {
            (request.revision, request.generated) = (Some(Revision(revision)), vec![word[0]; most + 1]);
        })
        .expect("nothing is known of it yet");
    pool.run();
    let status = stream.try_recv().expect("told").expect_err("it has other tokens");
    assert_eq!(pie_proto::reason::reason_of(&status), Some(Reason::BadGenerated));
    assert!(stream.try_recv().is_err(), "nothing follows");
    assert_eq!(pool.get("a").session.expect("described").session, name("a").as_str());
    assert_eq!(pool.answer("a", 3).tokens_repaired, 0, "and it is completed as ever");
}

/// Where another tenant might come, a slow step takes a few rows: what was generated is more than that, and is encoded all the same.
#[test]
fn what_goes_on_is_not_put_off_for_ever_on_slow_ranks() {
    let row_time = std::time::Duration::from_millis(10);
    let mut pool = Pool::new(4000);
    let revision = pool.open("a", &TEXT.repeat(12)).expect("there is room").revision;
    let other = Document::open(pool.tokenizer.clone(), TEXT, 1 << 20).expect("a short text");
    let tenant = Tenant::new("other").expect("a name");
    pool.open_document(tenant, "b", other, AskedFollowing::default()).expect("there is room");
    let step = |pool: &mut Pool| {
        let Some(step) = pool.desk.next_step(Instant::now()).expect("the owner makes right plans") else {
            return false;
        };
        let before = pool.ranks.encoded;
        let mut report = pool.ranks.step(&step);
        report.compute_us = row_time.as_micros() as u64 * (pool.ranks.encoded - before) as u64;
        pool.desk.act(|core| core.report(report, Instant::now())).expect("the report fits");
        true
    };
    while step(&mut pool) {}
    pool.form_again(2, facts());
    let generated: Vec<_> = (0..30_u32).map(|index| TokenId(100 + index)).collect();
    let mut stream = pool
        .ask_completion("a", 64, &[], |request| {
            (request.revision, request.generated) = (Some(Revision(revision)), generated);
        })
        .expect("it is a right one");
    let steps = (0..10_000).take_while(|_| step(&mut pool)).count();
    let mut read = ReaderTranscript::default();
    read.on(&mut stream, usize::MAX);
    assert_eq!((read.tokens.len(), read.finish), (34, FinishReason::Length), "after {steps} steps");
}
