//! Documents that nobody uses go to disk, and what is there is not encoded again.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{HEALING, Pool, SETTINGS, SUFFIX_FIRST, TEXT, drain, facts};
use pie_group::call::ModelFacts;
use pie_group::core::{Healing, RepairPolicy, Settings};
use pie_group::tenants::{Sharing, Tenant};
use pie_plan::blocks::BLOCK;
use pie_proto::reason::reason_of;
use pie_proto::request::Mode;
use pie_text::Document;
use pie_words::{AskedFollowing, Strategy, TokenId};
use std::time::{Duration, Instant};

fn spilling() -> ModelFacts {
    ModelFacts { spills: true, ..facts() }
}

fn pool() -> Pool {
    let healing = Healing { repairs: RepairPolicy::WhenIdle, ..HEALING };
    Pool::of(4000, Settings { healing, ..SETTINGS }, spilling())
}

fn text() -> String {
    (0..60).map(|line| format!("let answer_{line} = {line};\n{TEXT}")).collect::<String>()[..3000].to_owned()
}

/// Opens a document, and gives its whole blocks.
fn open(pool: &mut Pool, text: &str) -> usize {
    let tokens = pool.open("a", text).expect("there is room").tokens as usize;
    pool.answer("a", 1);
    assert!(tokens / BLOCK >= 3 && !tokens.is_multiple_of(BLOCK), "{tokens} tokens are some blocks and more");
    tokens / BLOCK
}

fn reloaded(pool: &Pool) -> usize {
    pool.desk.describe().groups[0].counters.expect("counted").tokens_reloaded as usize
}

/// Nobody does anything until nothing is due any more.
fn leave(pool: &mut Pool) {
    pool.run();
    while let Some(due) = pool.desk.core().due() {
        pool.later += due.saturating_duration_since(Instant::now() + pool.later);
        pool.run();
    }
}

/// Opens the same text in a group that has no rows, and completes it: the tokens that were encoded.
fn encoded_again(pool: &mut Pool, complete: impl FnOnce(&mut Pool)) -> usize {
    pool.close("a").expect("it is open");
    pool.run();
    let before = pool.ranks.encoded;
    pool.open("a", &text()).expect("there is room");
    complete(pool);
    pool.ranks.encoded - before
}

#[test]
fn a_document_that_nobody_uses_is_written_once_and_read_again() {
    let mut pool = pool();
    let blocks = open(&mut pool, &text());
    assert!(pool.ranks.disk.is_empty(), "it is in use");
    leave(&mut pool);
    assert!(pool.later > Duration::from_secs(10), "it may be in use again in a moment");
    assert_eq!(pool.ranks.disk.len(), blocks);
    let passes = pool.ranks.passes;
    leave(&mut pool);
    assert_eq!(pool.ranks.passes, passes, "nothing more is to be done");

    let tokens = pool.core_tokens("a") as usize;
    let encoded = encoded_again(&mut pool, |pool| assert!(pool.answer("a", 1).tokens_encoded > 0));
    assert_eq!(encoded, tokens - blocks * BLOCK, "what no block has");
    assert_eq!(reloaded(&pool), blocks * BLOCK);
}

#[test]
fn an_edit_makes_the_blocks_behind_it_others() {
    let mut pool = pool();
    let blocks = open(&mut pool, &text());
    leave(&mut pool);
    pool.edit("a", 0, 1500, "// new\n").expect("it is right");
    pool.answer("a", 1);
    leave(&mut pool);
    let new = pool.ranks.disk.len() - blocks;
    assert!(0 < new && new < blocks, "{new} of {blocks} are written anew");
    let encoded = encoded_again(&mut pool, |pool| assert!(pool.answer("a", 1).tokens_encoded > 0));
    assert!(encoded < BLOCK, "the older text is there too: {encoded}");
}

/// Markers for filling in the middle stand in the table, the hole does not.
#[test]
fn a_document_with_markers_is_found_with_them() {
    let mut pool = pool();
    let blocks = open(&mut pool, &text());
    let fill = |pool: &mut Pool, at| {
        let mut stream = pool.complete_at("a", 2, at, Mode::FillInTheMiddle).expect("the model has markers");
        pool.run();
        drain(&mut stream).3.expect("with the first token")
    };
    fill(&mut pool, 1500);
    leave(&mut pool);
    assert_eq!(pool.ranks.disk.len(), blocks);
    encoded_again(&mut pool, |pool| {
        let timings = fill(pool, 700);
        assert!(
            timings.tokens_encoded <= BLOCK as u32,
            "what no block has, and a hole elsewhere: {timings:?}"
        );
    });
    assert_eq!(reloaded(&pool), blocks * BLOCK);
}

#[test]
fn a_group_that_is_formed_again_reads_what_its_documents_had() {
    let mut pool = pool();
    let blocks = open(&mut pool, &text());
    leave(&mut pool);
    let before = pool.ranks.encoded;
    pool.form_again(2, spilling());
    pool.run();
    let tokens = pool.core_tokens("a") as usize;
    assert_eq!(pool.ranks.encoded - before, tokens - blocks * BLOCK, "when nobody wants anything");
}

#[test]
fn who_edits_while_the_ranks_are_asked_gets_his_text() {
    let mut pool = pool();
    open(&mut pool, &text());
    leave(&mut pool);
    pool.close("a").expect("it is open");
    pool.run();
    pool.open("a", &text()).expect("there is room");
    assert!(pool.step() && pool.step(), "two of its blocks are read");
    pool.edit("a", 0, 100, "// right at the start\n").expect("it is right");
    let timings = pool.answer("a", 1);
    let edited = format!("{}// right at the start\n{}", &text()[..100], &text()[100..]);
    assert_eq!(pool.get("a").text, Some(edited));
    assert_eq!(timings.tokens_encoded + timings.tokens_reused, pool.core_tokens("a"), "N1");
}

#[test]
fn tenants_read_their_own_blocks_alone_unless_they_trust_each_other() {
    for (sharing, is_read) in [(Sharing::WithinTenant, false), (Sharing::AcrossTenants, true)] {
        let mut pool = Pool::of(4000, Settings { sharing, ..SETTINGS }, spilling());
        let blocks = open(&mut pool, &text());
        leave(&mut pool);
        pool.close("a").expect("it is open");
        pool.run();
        let tenant = Tenant::new("another").expect("a right name");
        let document = Document::open(pool.tokenizer.clone(), &text(), 1 << 20).expect("a short text");
        pool.open_document(
            tenant,
            "a",
            document,
            AskedFollowing { strategy: Some(Strategy::Pie), window: None },
        )
        .expect("there is room");
        pool.run();
        assert_eq!(reloaded(&pool), if is_read { blocks * BLOCK } else { 0 });
    }
}

/// Who reads rows is nobody's demand: those who write get no step of many passes meanwhile, or a document would come back as slowly as it is encoded.
#[test]
fn rows_are_read_beside_what_others_write() {
    let mut pool = pool();
    let blocks = open(&mut pool, &text());
    leave(&mut pool);
    pool.close("a").expect("it is open");
    pool.open("b", TEXT).expect("there is room");
    let mut stream = pool.complete("b", 200, &[]).expect("it is open");
    pool.step();
    pool.open("a", &text()).expect("there is room");
    let (passes, mut steps) = (pool.ranks.passes, 0);
    while reloaded(&pool) < blocks * BLOCK {
        assert!(pool.step());
        steps += 1;
    }
    assert_eq!((steps, pool.ranks.passes - passes), (blocks, blocks as u32), "a block and a token in each");
    pool.run();
    assert_eq!(drain(&mut stream).1, 200);
}

/// Whether the ranks have a disk changes no answer: not where markers fill a block that the document does not, nor where there is hardly room.
#[test]
fn what_is_looked_for_in_vain_changes_nothing() {
    let (whole, probe) = (text(), Pool::new(10));
    let tokens = |text: &str| probe.tokenizer.encode(text).expect("a text").len();
    let texts = [252, 253, 254, 255, 256, 300, 511].map(|wanted| {
        let lengths: Vec<usize> = (0..whole.len()).collect();
        &whole[..lengths.partition_point(|length| tokens(&whole[..*length]) < wanted)]
    });
    for family in ["deepseek-coder", SUFFIX_FIRST[0], SUFFIX_FIRST[1]] {
        for (text, room) in texts.iter().flat_map(|text| [(text, 1000), (text, 6), (text, 2)]) {
            for mode in [Mode::FillInTheMiddle, Mode::Continue] {
                let slots = tokens(text) as u32 + 1 + room;
                let answers = [facts(), spilling()].map(|model| {
                    let mut pool = Pool::filling(slots, SETTINGS, model.clone(), family);
                    pool.ranks.reads = (200..260).map(TokenId).collect();
                    pool.open("a", text)?;
                    pool.run();
                    // The ranks hold nothing, and a document that is so short is left alone until it is used.
                    pool.form_again(2, model);
                    let mut stream = pool.complete_at("a", 2, 300, mode)?;
                    pool.run();
                    let messages = std::iter::from_fn(|| stream.try_recv().ok());
                    let read = messages.map(|message| message.map(|message| message.text_delta));
                    read.collect::<Result<String, _>>()
                        .map_err(|status| reason_of(&status).expect("a reason"))
                });
                let case = format!("{family}, {} tokens, room for {room}, {mode:?}", tokens(text));
                assert_eq!(answers[0], answers[1], "{case}");
                assert!(room < 1000 || answers[0].as_ref().is_ok_and(|text| !text.is_empty()), "{case}");
            }
        }
    }
}
