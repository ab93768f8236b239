//! An owner that dies between any two steps, and another one that has nothing but what the ranks hold: their ledgers and their tables.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, SETTINGS, SUFFIX_FIRST, TEXT, drain, facts};
use pie_group::call::ImportedSession;
use pie_group::core::{Core, Recalled, Recollection};
use pie_group::desk::Desk;
use pie_group::tenants::{Quotas, Tenant};
use pie_plan::Group;
use pie_plan::image::TableImage;
use pie_plan::ledger::{Beginning, Ledger};
use pie_proto::memo::{self, SessionMemo};
use pie_proto::request::{Content, Mode};
use pie_text::{Document, Tokenizer};
use pie_words::{Epoch, SessionId};
use std::sync::Arc;

/// A pool, and the ledger of its ranks.
struct RecallFixture {
    pool: Pool,
    ledger: Ledger,
    epoch: Epoch,
    /// Whether the owner of this epoch has written anything.
    is_begun: bool,
    random: u64,
}

impl RecallFixture {
    fn new(fim: &str, slots: u32, random: u64) -> Self {
        let pool = Pool::filling(slots, SETTINGS, facts(), fim);
        let mut ledger = Ledger::default();
        ledger.fence(Epoch(1)).expect("it is the first");
        ledger.begin(Epoch(1), Beginning::Anew, 0).expect("it is fenced");
        ledger.complete(Epoch(1)).expect("it was begun");
        Self { pool, ledger, epoch: Epoch(1), is_begun: true, random }
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) % sides as u64) as usize
    }

    /// What happened goes to the ranks.
    fn keep(&mut self) {
        if let Some(written) = self.pool.desk.written() {
            if !std::mem::replace(&mut self.is_begun, true) {
                self.ledger.begin(self.epoch, Beginning::GoOn, written.first - 1).expect("it is fenced");
            }
            for (number, (session, entry)) in (written.first..).zip(written.entries) {
                self.ledger.add(self.epoch, number, session, entry).expect("entries have no gaps");
            }
        }
    }

    /// The owner is gone; the next one recalls documents and tables.
    fn take_over(&mut self) {
        self.keep();
        self.epoch = Epoch(self.epoch.0 + 1);
        let position = self.ledger.fence(self.epoch).expect("it is later").expect("it is complete");
        let tokenizer = self.pool.tokenizer.clone();
        let recalled = |(id, pieces): (&SessionId, &Vec<Vec<u8>>)| {
            let kept = memo::session(pieces).expect("an owner wrote it");
            Recalled { id: *id, taken: taken(kept, &tokenizer) }
        };
        let sessions = self.ledger.memos().iter().map(recalled).collect();
        let mut core = Core::new(tokenizer.clone(), SETTINGS, Quotas::default(), Arc::default());
        core.recall(Recollection { position, sessions });

        let images: Vec<TableImage> = self.pool.ranks.group.images().collect();
        let (applied, slots) = (self.pool.ranks.group.applied(), self.pool.ranks.group.capacity() as u32);
        let present = self.pool.ranks.group.epoch();
        let mut group = Group::of_images(present, applied, slots, images).expect("they are of one group");
        assert_eq!(group.digest(), self.pool.ranks.group.digest(), "what travels is what is there");
        group.renew(self.epoch);
        self.pool.ranks.group.renew(self.epoch);
        core.serve(group, facts());
        self.pool.desk = Desk::new(core, "g".to_owned());
        self.is_begun = false;
        assert!(self.pool.desk.written().is_none(), "a document that was recalled is not written again");
    }
}

/// As a router reads it: tokens that the same tokenizer found are not looked for again.
fn taken(kept: SessionMemo, tokenizer: &Arc<Tokenizer>) -> ImportedSession {
    let SessionMemo { session, tokens, fingerprint } = kept;
    assert_eq!(fingerprint, tokenizer.fingerprint().0);
    let Content::Text(text) = &session.content else { panic!("it was opened with a text") };
    let document = Document::restore(tokenizer.clone(), text, tokens, 1 << 20).expect("a short text");
    let anew = Document::open(tokenizer.clone(), text, 1 << 20).expect("a short text");
    assert!(document.tokens().eq(anew.tokens()), "T1: the tokens that were kept are those of the text");
    let identity = session.identity.expect("every session has one");
    let document = Box::new(document.at_revision(session.revision));
    ImportedSession {
        tenant: Tenant::default(),
        name: session.name,
        identity,
        following: session.following,
        document,
    }
}

/// At rest nothing is encoded again but the last token of a context, wherever the cursor was.
#[test]
fn a_new_owner_goes_on_with_the_rows_that_are_there() {
    for fim in ["deepseek-coder", SUFFIX_FIRST[0]] {
        let mut kind = RecallFixture::new(fim, 2000, 3);
        let text = TEXT.repeat(6);
        for name in ["plain", "typed", "filled"] {
            kind.pool.open(name, &text).expect("there is room");
        }
        let base = kind.pool.get("typed").session.expect("described").revision;
        kind.pool.edit("typed", base, 30, "// more\n").expect("it fits");
        for name in ["plain", "typed"] {
            kind.pool.answer(name, 4);
        }
        let mut stream = kind.pool.complete_at("filled", 3, 100, Mode::FillInTheMiddle).expect("it is open");
        kind.pool.run();
        drain(&mut stream);
        let before = ["plain", "typed", "filled"].map(|name| kind.pool.get(name));
        let encoded = kind.pool.ranks.encoded;
        kind.take_over();
        for (name, before) in ["plain", "typed", "filled"].into_iter().zip(before) {
            let after = kind.pool.get(name);
            assert_eq!((after.text, after.tokens), (before.text, before.tokens), "{fim}: {name}");
            let (after, before) = (after.session.expect("described"), before.session.expect("described"));
            assert_eq!((after.revision, after.identity), (before.revision, before.identity), "{fim}: {name}");
        }
        for name in ["plain", "typed"] {
            assert_eq!(kind.pool.answer(name, 1).tokens_encoded, 1, "{fim}: {name}");
        }
        assert_eq!(kind.pool.ranks.encoded, encoded + 2, "{fim}: no row is encoded again");
        if fim == "deepseek-coder" {
            let mut stream =
                kind.pool.complete_at("filled", 3, 100, Mode::FillInTheMiddle).expect("it is open");
            kind.pool.run();
            let again = drain(&mut stream).3.expect("with the first token");
            assert!(
                again.tokens_encoded <= 4,
                "the marker in the hole, and what stands around it: {again:?}"
            );
        }
    }
}

/// Whatever was going on, the documents are those that were there, and tables follow them again.
#[test]
fn an_owner_may_die_between_any_two_steps() {
    for seed in 0..120 {
        let fim = ["deepseek-coder", SUFFIX_FIRST[0]][seed as usize % 2];
        // With few slots documents push each other out.
        let mut kind = RecallFixture::new(fim, [600, 2000][(seed / 2) as usize % 2], seed * 7 + 1);
        let mut names: Vec<String> = Vec::new();
        let mut streams = Vec::new();
        for step in 0..60 {
            match kind.roll(12) {
                0 | 1 if names.len() < 5 => {
                    let name = format!("s{step}");
                    let text = TEXT.repeat(1 + kind.roll(5));
                    kind.pool.open(&name, &text).expect("there is room");
                    names.push(name);
                }
                2 if names.len() > 1 => {
                    let gone = kind.roll(names.len());
                    kind.pool.close(&names.remove(gone)).expect("it is open");
                }
                3..=5 if !names.is_empty() => {
                    let name = names[kind.roll(names.len())].clone();
                    let got = kind.pool.get(&name);
                    let (length, revision) = (got.text().len(), got.session.expect("described").revision);
                    let start = kind.roll(length + 1);
                    let end = (start + kind.roll(9)).min(length);
                    let text = ["x", "", "// naïve\n", "answer"][kind.roll(4)];
                    let is_char =
                        |at: usize| got.text.as_deref().is_some_and(|text| text.is_char_boundary(at));
                    if is_char(start) && is_char(end) {
                        kind.pool.replace(&name, revision, start..end, text).expect("it fits");
                    }
                }
                6 | 7 if !names.is_empty() => {
                    let name = names[kind.roll(names.len())].clone();
                    let mode = [Mode::Continue, Mode::FillInTheMiddle][kind.roll(2)];
                    streams.extend(kind.pool.complete_at(&name, 5, 12, mode));
                }
                8 => {
                    let documents: Vec<_> = names.iter().map(|name| kind.pool.get(name)).collect();
                    kind.take_over();
                    for (name, before) in names.iter().zip(documents) {
                        let after = kind.pool.get(name);
                        assert_eq!(
                            (after.text, after.tokens),
                            (before.text, before.tokens),
                            "{seed}: {name}"
                        );
                    }
                    assert_eq!(kind.pool.desk.describe().groups[0].sessions as usize, names.len(), "{seed}");
                    streams.clear();
                }
                _ => {
                    kind.pool.step();
                }
            }
            kind.keep();
        }
        kind.take_over();
        for name in &names {
            let mut stream = kind.pool.complete(name, 2, &[]).expect("it is open");
            kind.pool.run();
            assert!(drain(&mut stream).1 > 0, "{seed}: {name} is completed");
            // Its context was all of its tokens, wherever they came from.
            let tokens: Vec<u32> = kind.pool.get(name).tokens.map(|tokens| tokens.ids).unwrap_or_default();
            let mut tables = kind.pool.ranks.group.sessions();
            let holds = |table: &pie_plan::Table| {
                table.tokens().iter().map(|token| token.0).eq(tokens.iter().copied())
            };
            assert!(tables.any(|(_, table)| holds(table)), "{seed}: {name}'s table is its document");
        }
    }
}
