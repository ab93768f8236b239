//! Random people on a group with few slots and a short context: whatever they do, the ranks can see what they are sent, their
//! tables hold the documents, and no slot leaks.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, SETTINGS, SUFFIX_FIRST, facts};
use pie_group::call::{MessageStream, ModelFacts};
use pie_group::core::{Healing, RepairPolicy, Settings};
use pie_proto::Reason;
use pie_proto::request::{Complete, Exactness, Mode, OnEdit};
use pie_words::Cursor;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// So short that documents and completions meet it.
const CONTEXT: u32 = 150;
const LINE: &str = "    let total = width * height; // größe 🙂\n";

#[derive(Clone, Debug)]
enum Action {
    Open {
        who: usize,
        lines: usize,
    },
    Edit {
        who: usize,
        at: u16,
        delete: u8,
        insert: String,
    },
    Complete {
        who: usize,
        at: Option<u16>,
        mode: Mode,
        go_on: bool,
        exact: bool,
        tokens: u32,
    },
    Cancel {
        who: usize,
    },
    Close {
        who: usize,
    },
    Steps(u8),
    /// Nobody does anything for a while: documents are written to disk.
    Leave,
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        3 => Just(Mode::Continue),
        3 => Just(Mode::FillInTheMiddle),
        2 => Just(Mode::Rewrite),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let who = || 0..NAMES.len();
    let insert = prop_oneof![
        Just(String::new()),
        Just("x".to_owned()),
        Just("\n".to_owned()),
        Just("fn f() {}\n".to_owned()),
        (1..12_usize).prop_map(|lines| LINE.repeat(lines)),
    ];
    prop_oneof![
        2 => (who(), 0..5_usize).prop_map(|(who, lines)| Action::Open { who, lines }),
        8 => (who(), any::<u16>(), 0..30_u8, insert)
            .prop_map(|(who, at, delete, insert)| Action::Edit { who, at, delete, insert }),
        6 => (who(), any::<Option<u16>>(), mode(), any::<bool>(), any::<bool>(), 1..CONTEXT)
            .prop_map(|(who, at, mode, go_on, exact, tokens)| {
                Action::Complete { who, at, mode, go_on, exact, tokens }
            }),
        1 => who().prop_map(|who| Action::Cancel { who }),
        1 => who().prop_map(|who| Action::Close { who }),
        6 => (1..6_u8).prop_map(Action::Steps),
        1 => Just(Action::Leave),
    ]
}

fn healing() -> impl Strategy<Value = Healing> {
    let repairs =
        prop_oneof![Just(RepairPolicy::WithEdits), Just(RepairPolicy::WhenIdle), Just(RepairPolicy::Always)];
    (repairs, 0..20_u32, 0..40_u32).prop_map(|(repairs, window, free)| Healing {
        repairs,
        window,
        free_rows: Some(free),
    })
}

fn is_a_limit(reason: Reason) -> bool {
    matches!(reason, Reason::KvExhausted | Reason::DocumentTooLong)
}

/// A place between two characters.
fn place(text: &str, at: u16) -> usize {
    let at = at as usize % (text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

struct People {
    pool: Pool,
    documents: BTreeMap<&'static str, (String, u64)>,
    streams: Vec<(&'static str, MessageStream)>,
    /// How much longer texts are than actions say.
    scale: usize,
}

impl People {
    fn act(&mut self, action: &Action) {
        match action {
            Action::Open { who, lines } => self.open(NAMES[*who], *lines),
            Action::Edit { who, at, delete, insert } => self.edit(NAMES[*who], *at, *delete, insert),
            Action::Complete { who, at, mode, go_on, exact, tokens } => {
                let at = at.map(|at| place(&self.text(NAMES[*who]), at));
                self.complete(NAMES[*who], *tokens, |request| {
                    request.at = at.map(Cursor::Byte);
                    request.mode = *mode;
                    request.on_edit = if *go_on { OnEdit::GoOn } else { OnEdit::End };
                    request.exactness = if *exact { Exactness::Exact } else { Exactness::AsItIs };
                });
            }
            Action::Cancel { who } => self.streams.retain(|(name, _)| *name != NAMES[*who]),
            Action::Close { who } => {
                let session = NAMES[*who];
                let closed = self.pool.close(session);
                assert_eq!(closed.is_ok(), self.documents.remove(session).is_some());
            }
            Action::Steps(count) => {
                for _ in 0..*count {
                    self.pool.step();
                }
            }
            Action::Leave => {
                for _ in 0..30 {
                    self.pool.later += Duration::from_secs(2);
                    self.pool.step();
                }
            }
        }
    }

    fn open(&mut self, session: &'static str, lines: usize) {
        let text = format!("// {lines}\n{}", LINE.repeat(self.scale * lines));
        match self.pool.open(session, &text) {
            Ok(opened) => drop(self.documents.insert(session, (text, opened.revision))),
            Err(reason) => assert!(is_a_limit(reason), "{reason}"),
        }
    }

    fn edit(&mut self, session: &'static str, at: u16, delete: u8, insert: &str) {
        let Some((text, revision)) = self.documents.get(session).cloned() else { return };
        let start = place(&text, at);
        let end =
            place(&text, u16::try_from((start + delete as usize).min(text.len())).expect("short")).max(start);
        match self.pool.replace(session, revision, start..end, insert) {
            Ok(edited) => {
                let new = format!("{}{insert}{}", &text[..start], &text[end..]);
                self.documents.insert(session, (new, edited.revision));
            }
            Err(reason) => assert!(is_a_limit(reason), "{reason}"),
        }
    }

    fn text(&self, session: &str) -> String {
        self.documents.get(session).map(|(text, _)| text.clone()).unwrap_or_default()
    }

    fn complete(&mut self, session: &'static str, tokens: u32, change: impl FnOnce(&mut Complete)) {
        if !self.documents.contains_key(session) {
            return;
        }
        let mut has_more = false;
        let asked = self.pool.ask_completion(session, tokens, &[], |request| {
            change(request);
            has_more = request.mode != Mode::Continue;
        });
        match asked {
            Ok(stream) => self.streams.push((session, stream)),
            Err(reason) => {
                let of_another_kind = matches!(reason, Reason::Overloaded | Reason::ContextEmpty);
                assert!(of_another_kind || (has_more && is_a_limit(reason)), "{reason}");
            }
        }
    }

    /// Everything has come to rest: what the ranks hold of a document is the document.
    fn check(&mut self) {
        for (session, (text, revision)) in self.documents.clone() {
            let held = self.pool.get(session);
            assert_eq!(held.text.as_deref(), Some(text.as_str()));
            let described = held.session.expect("described");
            assert_eq!(described.revision, revision);
            // What each table holds is seen by completing: from its end, with nothing but its own tokens.
            let timings = self.pool.answer(session, 1);
            assert_eq!(timings.tokens_encoded + timings.tokens_reused, described.tokens, "N1 of {session}");
            let ids = self.pool.get(session).tokens.expect("asked for").ids;
            let mut tables = self.pool.ranks.group.sessions();
            let is_it =
                |tokens: &[pie_words::TokenId]| tokens.iter().map(|token| token.0).eq(ids.iter().copied());
            assert!(tables.any(|(_, table)| is_it(table.tokens())), "{session}'s table is not its document");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn tables_hold_the_documents_whatever_people_do(
        slots in 60..400_u32, healing in healing(), gives_up in 0..4_u32, fim in 0..3_usize, disk in any::<bool>(),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        // Blocks are longer than the small context.
        let scale = if disk { 8 } else { 1 };
        let (context_limit, slots) = (CONTEXT * scale, slots * scale);
        let model = ModelFacts { context_limit, spills: disk, ..facts() };
        let fim = ["deepseek-coder", SUFFIX_FIRST[0], SUFFIX_FIRST[1]][fim];
        let mut pool = Pool::filling(slots, Settings { healing, ..SETTINGS }, model, fim);
        pool.ranks.gives_up = gives_up;
        let mut people = People { pool, documents: BTreeMap::new(), streams: Vec::new(), scale: scale as usize };
        for action in &actions {
            people.act(action);
        }
        // Who gives up each repair comes to no rest.
        people.pool.ranks.gives_up = if gives_up == 1 { 0 } else { gives_up };
        people.pool.run();
        if healing.repairs != RepairPolicy::WithEdits {
            for session in people.documents.keys() {
                let session = people.pool.get(session).session.expect("described");
                prop_assert!(session.tokens_pending > 0 || session.tokens_stale == 0, "{:?}", session);
            }
        }
        people.streams.clear();
        people.check();
        for session in people.documents.keys() {
            people.pool.close(session).expect("it is open");
        }
        people.pool.open("last", "x").expect("there is room");
        people.pool.answer("last", 1);
        let used = people.pool.ranks.group.capacity() - people.pool.ranks.group.free_slots();
        prop_assert!(used <= 4, "{used} slots are still taken");
        prop_assert_eq!(people.pool.desk.describe().groups[0].sessions, 1);
    }
}
