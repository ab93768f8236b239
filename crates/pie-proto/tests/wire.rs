//! Nothing is lost or bent between owner and rank, and no public request that makes no sense gets in.

use pie_plan::blocks::{Block, PlanBlocks, Realm};
use pie_plan::{Change, DigestWanted, Plan, Run};
use pie_proto::plan::{Sampling, Step};
use pie_proto::reason::{detail_of, reason_of};
use pie_proto::request::{ApplyEdits, Complete, OpenSession};
use pie_proto::{Fault, Reason, v1, worker_v1};
use pie_words::{Epoch, SamplingParameters, Seq, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use std::collections::BTreeMap;

fn change() -> impl proptest::strategy::Strategy<Value = Change> {
    let splice =
        (0..99_u32, 1..9_u32, prop::collection::vec(any::<u32>(), 0..4)).prop_map(|(at, delete, insert)| {
            Splice { at: TokenIndex(at * 10), delete, insert: insert.into_iter().map(TokenId).collect() }
        });
    let strategy = prop_oneof![Just(Strategy::Pie), Just(Strategy::Conflict), Just(Strategy::Full)];
    let session = any::<u64>().prop_map(SessionId);
    prop_oneof![
        session.clone().prop_map(|session| Change::Open { session }),
        session.clone().prop_map(|session| Change::EndBranch { session }),
        session.clone().prop_map(|session| Change::Close { session }),
        (session, prop::collection::btree_map(0..99_u32, splice, 0..4), strategy).prop_map(
            |(session, map, strategy)| {
                let list = map
                    .into_iter()
                    .map(|(at, splice)| Splice { at: TokenIndex(at * 10), ..splice })
                    .collect();
                let splices = Splices::new(list, 2000).expect("ten apart, at most eight long");
                Change::Splice { session, splices, strategy }
            }
        ),
    ]
}

fn sampling() -> impl proptest::strategy::Strategy<Value = Sampling> {
    (0.0..2.0_f32, 0.01..1.0_f32, 0..99_u32, any::<u64>(), prop::collection::vec(any::<u32>(), 0..3))
        .prop_map(|(temperature, top_p, top_k, seed, stop)| Sampling {
            parameters: SamplingParameters { temperature, top_p, top_k, seed, top_logprobs: top_k % 20 },
            step: seed / 2,
            stop_tokens: stop.into_iter().map(TokenId).collect(),
            max_tokens: top_k + 1,
            drafts: top_k / 2,
            expected: vec![TokenId(top_k); top_k as usize / 30],
        })
}

fn blocks() -> impl proptest::strategy::Strategy<Value = Vec<Block>> {
    let block = |(session, end, realm)| Block {
        session: SessionId(session),
        end: TokenIndex(end),
        realm: Realm(realm),
    };
    prop::collection::vec(any::<(u64, u32, u64)>().prop_map(block), 0..3)
}

proptest! {
    #[test]
    fn a_plan_travels_unchanged(
        changes in prop::collection::vec(change(), 0..6),
        encodes in prop::collection::btree_map(0..50_u64, any::<u32>(), 0..4),
        samples in prop::collection::btree_map(50..99_u64, sampling(), 0..4),
        (spilled, reloaded) in (blocks(), blocks()),
        (epoch, seq, passes, digest) in (any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>()),
    ) {
        let mut runs: Vec<_> =
            encodes.into_iter().map(|(session, limit)| Run::Encode { session: SessionId(session), limit }).collect();
        runs.extend(samples.keys().map(|session| Run::Sample { session: SessionId(*session) }));
        let sampling: BTreeMap<_, _> = samples.into_iter().map(|(id, sampling)| (SessionId(id), sampling)).collect();
        let digest = if digest { DigestWanted::Report } else { DigestWanted::Skip };
        let step = Step { plan: Plan { epoch: Epoch(epoch), seq: Seq(seq), changes, runs, passes, digest, blocks: PlanBlocks { spilled, reloaded } }, sampling };
        prop_assert_eq!(Step::try_from(worker_v1::Plan::from(&step)).expect("a right plan"), step);
    }
}

#[test]
fn a_reason_travels_with_its_details() {
    for reason in Reason::ALL {
        let status = tonic::Status::from(Fault::new(*reason, "what, where, what to do").with("edit", 3));
        assert_eq!((status.code(), reason_of(&status)), (reason.code(), Some(*reason)));
        assert_eq!(detail_of(&status, "edit").as_deref(), Some("3"));
        assert_eq!(Reason::of(reason.as_str()), Some(*reason));
        assert!(reason.advice().len() > 40, "{reason} has advice");
    }
    let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(codes.len(), Reason::ALL.len(), "no reason twice");
}

#[test]
fn requests_that_make_no_sense_are_refused_by_name() {
    let open = |request: v1::OpenSessionRequest| {
        OpenSession::try_from(request).map(drop).map_err(|fault| fault.reason)
    };
    let edit = |request: v1::ApplyEditsRequest| {
        ApplyEdits::try_from(request).map(drop).map_err(|fault| fault.reason)
    };
    let complete =
        |request: v1::CompleteRequest| Complete::try_from(request).map(drop).map_err(|fault| fault.reason);
    let text = Some(v1::open_session_request::Content::Text(String::new()));
    let named = |session: &str| v1::OpenSessionRequest {
        session: session.into(),
        content: text.clone(),
        strategy: 0,
        ..Default::default()
    };
    assert_eq!(open(named("")), Ok(()), "the pool chooses");
    assert_eq!(open(named(&"x".repeat(256))), Ok(()));
    assert_eq!(open(named(&"x".repeat(257))), Err(Reason::BadSessionName));
    assert_eq!(open(named("a\u{7}b")), Err(Reason::BadSessionName));
    assert_eq!(open(v1::OpenSessionRequest { content: None, ..named("a") }), Err(Reason::FieldMissing));
    assert_eq!(open(v1::OpenSessionRequest { strategy: 9, ..named("a") }), Err(Reason::FieldInvalid));

    let edits = |edits| v1::ApplyEditsRequest {
        session: "a".into(),
        edits: Some(v1::apply_edits_request::Edits::Text(v1::TextEdits { edits, ..Default::default() })),
        ..Default::default()
    };
    let half = v1::LspRange { start: Some(v1::LspPosition::default()), end: None };
    let half = v1::TextEdit { range: Some(v1::text_edit::Range::Lsp(half)), text: String::new() };
    assert_eq!(edit(edits(vec![])), Ok(()));
    assert_eq!(edit(edits(vec![v1::TextEdit::default()])), Err(Reason::FieldMissing));
    assert_eq!(edit(edits(vec![half])), Err(Reason::FieldMissing));
    let ways = |number: usize, sequential, position_encoding| {
        let each = v1::TextEdit {
            range: Some(v1::text_edit::Range::Bytes(Default::default())),
            ..Default::default()
        };
        let edits = v1::TextEdits { edits: vec![each; number], sequential, position_encoding };
        edit(v1::ApplyEditsRequest {
            session: "a".into(),
            edits: Some(v1::apply_edits_request::Edits::Text(edits)),
            ..Default::default()
        })
    };
    assert_eq!((ways(8192, false, 1), ways(8192, true, 3)), (Ok(()), Ok(())));
    assert_eq!(ways(8193, false, 1), Err(Reason::TooMany));
    assert_eq!((ways(8193, true, 0), ways(1, true, 4)), (Err(Reason::TooMany), Err(Reason::FieldInvalid)));
    assert_eq!(edit(v1::ApplyEditsRequest { edits: None, ..edits(vec![]) }), Err(Reason::FieldMissing));
    assert_eq!(
        edit(v1::ApplyEditsRequest { session: String::new(), ..edits(vec![]) }),
        Err(Reason::BadSessionName)
    );

    let right = v1::CompleteRequest { session: "a".into(), ..Default::default() };
    assert_eq!(complete(right.clone()), Ok(()));
    let wrong = [
        v1::CompleteRequest { temperature: -0.1, ..right.clone() },
        v1::CompleteRequest { temperature: f32::NAN, ..right.clone() },
        v1::CompleteRequest { top_p: Some(0.0), ..right.clone() },
        v1::CompleteRequest { top_p: Some(1.1), ..right.clone() },
        v1::CompleteRequest { top_logprobs: 21, ..right.clone() },
        v1::CompleteRequest { stop: vec![String::new()], ..right.clone() },
        v1::CompleteRequest { stop: vec!["x".into(); 17], ..right },
    ];
    for request in wrong {
        assert_eq!(complete(request.clone()), Err(Reason::BadSampling), "{request:?}");
    }
}
