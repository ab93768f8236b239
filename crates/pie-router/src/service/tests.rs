//! Large texts, while others are tokenized: what they make wait, and what they do not.

use super::preparing::Opening;
use crate::directory::{Directory, Groups};
use crate::group::{Asker, LocalGroup, Router};
use crate::server::Phase;
use pie_group::call::{BusySessionPolicy, Call, Departure, EditReply, GiveReply, Why};
use pie_group::carrying;
use pie_group::owner::OwnerHandle;
use pie_group::peers::Peers;
use pie_group::tenants::Tenant;
use pie_group::testing::{self, tokenizer};
use pie_group::testing::{ask, edit, name, owner, serving, text};
use pie_group::tokenizing::{ALL, AdmissionWait};
use pie_placement::{Embedded, RouterId};
use pie_proto::request::{ApplyEdits, Content, Edits};
use pie_proto::{Fault, Reason, peer_v1, v1};
use pie_words::{AskedFollowing, Revision, Spellings, TextEdit, TextRange, TokenId};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::sync::watch;

const EVERYTHING: usize = 1 << 30;

/// The group of an owner, in a router of its own.
fn group_of(owner: &OwnerHandle) -> LocalGroup {
    let id = RouterId::new("me").expect("a right name");
    let placement = Arc::new(Embedded::new());
    let groups = Groups::new(placement.clone(), id, BTreeMap::new(), Peers::default());
    let directory = Directory::new(placement, groups.clone());
    let router = Router {
        groups,
        directory,
        tokenizer: tokenizer(),
        document_limit: 16 << 20,
        phase: watch::channel(Phase::Serving).1,
        streams: watch::Sender::new(0),
        stats: Arc::default(),
    };
    LocalGroup { router: Arc::new(router), id: testing::group("g0"), owner: owner.clone() }
}

async fn open(group: &LocalGroup, text: String) -> Result<v1::OpenSessionResponse, Fault> {
    open_reading(group, text, Spellings::Text).await
}

async fn open_reading(
    group: &LocalGroup,
    text: String,
    spellings: Spellings,
) -> Result<v1::OpenSessionResponse, Fault> {
    let (tenant, name, content) = (Tenant::default(), name(), Content::Text(text));
    group.open(Opening { tenant, name, content, spellings, following: AskedFollowing::default() }).await
}

fn insertion(base_revision: u64, text: String) -> ApplyEdits {
    let edit = TextEdit { range: TextRange::Bytes { start: 0, end: 0 }, insert: text };
    let (base_revision, edits) = (Revision(base_revision), Edits::Text(vec![edit]));
    ApplyEdits { session: name(), identity: None, base_revision, edits, following: AskedFollowing::default() }
}

async fn insert(
    group: &LocalGroup,
    base_revision: u64,
    text: String,
) -> Result<v1::ApplyEditsResponse, Fault> {
    let asker = Asker { tenant: Tenant::default(), arrived: Instant::now() };
    group.edit(asker, insertion(base_revision, text)).await
}

/// Neither a tokenizer nor the owner hears of what no context can hold: the answer is there as soon as it is asked for, while
/// others' texts keep all tokenizers busy and others' calls wait for the owner.
#[tokio::test]
async fn what_no_context_can_hold_is_refused_before_anybody_is_asked() {
    let group = group_of(&serving(16_384).await);
    let born = open(&group, "fn main() {}".to_owned()).await.expect("a short text").revision;
    let others = ALL.admit(EVERYTHING, AdmissionWait::Always).await.expect("nobody closes it");
    let text = || "let x = 1;\n".repeat((8 << 20) / 11);
    let (edited, opened) = (pin!(insert(&group, born, text())), pin!(open(&group, text())));
    let nobody = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(Err(edited)) = edited.poll(nobody) else { panic!("the edit waits for somebody") };
    let Poll::Ready(Err(opened)) = opened.poll(nobody) else { panic!("the text waits for somebody") };
    assert_eq!([edited.reason, opened.reason], [Reason::DocumentTooLong; 2]);
    drop(others);
    let ids = vec![TokenId(1); 16_384];
    let opening = Opening {
        tenant: Tenant::default(),
        name: name(),
        content: Content::Tokens(ids),
        spellings: Spellings::Text,
        following: AskedFollowing::default(),
    };
    let Poll::Ready(Err(opened)) = pin!(group.open(opening)).poll(nobody) else { panic!("the tokens wait") };
    assert_eq!(opened.reason, Reason::DocumentTooLong);
}

#[tokio::test]
async fn large_texts_wait_for_their_turn_and_nobody_waits_for_them() {
    let owner = owner().await;
    let group = group_of(&owner);
    let born = open(&group, "fn main() {}".to_owned()).await.expect("a short text").revision;

    // Somebody else's text is being tokenized: small edits and reads do not wait for it, large ones do.
    let others = ALL.admit(EVERYTHING, AdmissionWait::Always).await.expect("nobody closes it");
    let large = "let x = 1;\n".repeat(1000);
    let (waiting, inserted) = (group.clone(), large.clone());
    let large_edit = tokio::spawn(async move { insert(&waiting, born + 1, inserted).await });
    edit(&owner, born).await.expect("the owner serves");
    assert_eq!(text(&owner).await.as_deref(), Some("xfn main() {}"));
    assert!(!large_edit.is_finished());
    drop(others);
    // The copy that it was prepared on may have been of either revision; both answers are right, but nothing between.
    match large_edit.await.expect("no panic") {
        Ok(edited) => {
            assert_eq!(edited.revision, born + 2);
            assert_eq!(text(&owner).await, Some(format!("{large}xfn main() {{}}")));
        }
        Err(fault) => assert_eq!(fault.reason, Reason::RevisionMismatch, "{fault}"),
    }
}

/// An edit that was prepared on a document that has changed since, or has another life, is refused and changes nothing.
#[tokio::test]
async fn what_was_prepared_on_another_revision_is_refused() {
    let owner = owner().await;
    let group = group_of(&owner);
    let born = open(&group, "fn main() {}".to_owned()).await.expect("a short text").revision;
    let large = "let x = 1;\n".repeat(300);
    let (tenant, session) = (Tenant::default(), name());
    let look = || {
        let (tenant, session) = (tenant.clone(), session.clone());
        ask(&owner, |reply| Call::Look { tenant, session, reply })
    };
    let prepare = |document: &pie_text::Document| {
        let request = insertion(document.revision().0, large.clone());
        let change = crate::faults::prepare(document, &request, None).expect("it fits");
        (request, Some(Box::new(change)))
    };
    let apply = async |(request, prepared)| {
        let (tenant, arrived) = (tenant.clone(), Instant::now());
        match ask(&owner, move |reply| Call::Edit { tenant, request, prepared, arrived, reply }).await? {
            EditReply::Done(answer) => Ok::<_, Fault>(answer),
            EditReply::Beside { .. } => panic!("it is worked out"),
        }
    };
    let copy = look().await.expect("open").expect("open");
    let (first, second) = (prepare(&copy), prepare(&copy));
    assert_eq!(apply(first).await.expect("as it was").revision, born + 1);
    let overtaken = apply(second).await.expect_err("another was quicker");
    assert_eq!(overtaken.reason, Reason::RevisionMismatch);
    let of_first_life = prepare(&look().await.expect("open").expect("open"));
    let leaving =
        ask(&owner, |reply| Call::Vacate { tenant: tenant.clone(), session: name(), identity: None, reply })
            .await;
    let (resident, departure) = (leaving.expect("it is open"), Departure::Closed(Why::Client));
    owner.tell(Call::Depart { resident, departure }).await.expect("it is there");
    assert!(look().await.expect("no error").is_none());
    let born = open(&group, "fn main() {}".to_owned()).await.expect("a short text").revision;
    edit(&owner, born).await.expect("the revision fits");
    let overtaken = apply(of_first_life).await.expect_err("it is another document");
    assert_eq!(overtaken.reason, Reason::RevisionMismatch);
    assert_eq!(text(&owner).await.as_deref(), Some("xfn main() {}"));

    // A long text that is opened again is compared beside the owner, and an equal one changes nothing.
    let long = "let y = 2;\n".repeat(3000);
    let reopened = open(&group, long.clone()).await.expect("it is compared");
    assert_eq!(reopened.revision, born + 2);
    let again = open(&group, long).await.expect("it is compared");
    assert_eq!((again.revision, again.reused), (born + 2, again.tokens));
}

/// Text is text, unless its client asks for control tokens: for as long as the session lives, wherever it goes.
#[tokio::test]
async fn a_session_may_be_read_with_control_tokens() {
    let owner = owner().await;
    let group = group_of(&owner);
    let content = "let hole = \"<｜fim▁hole｜>\";\n";
    let hole = tokenizer().token_id("<｜fim▁hole｜>").expect("it has one");
    let get = async || {
        let (tenant, session) = (Tenant::default(), name());
        let get = |reply| Call::Get { tenant, session, identity: None, content: true, reply };
        let got = ask(&owner, get).await.expect("it is open");
        let (session, ids) = (got.session.expect("described"), got.tokens.expect("asked for").ids);
        let around =
            session.tokenizing() == v1::Tokenizing::AroundEdits && session.tokenized_whole_because.is_empty();
        assert!(around, "{session:?}");
        (session.control_tokens, ids.iter().filter(|id| **id == hole.0).count())
    };
    let born = open(&group, content.to_owned()).await.expect("is short").revision;
    assert_eq!(get().await, (false, 0));
    for again in [born + 1, born + 1] {
        let opened =
            open_reading(&group, content.to_owned(), Spellings::ControlTokens).await.expect("is short");
        assert_eq!((opened.revision, get().await), (again, (true, 1)));
    }
    insert(&group, born + 1, content.to_owned()).await.expect("the revision fits");
    assert_eq!(get().await, (true, 2), "what is edited in is read so too");

    let (tenant, session, busy) = (Tenant::default(), name(), BusySessionPolicy::Fails);
    let give = |reply| Call::Give { tenant, session, busy, reply };
    let Ok(GiveReply::Carried(carried)) = ask(&owner, give).await else { panic!("nobody is busy") };
    let there = carrying::unpack(peer_v1::Carried::from(*carried), tokenizer(), 1 << 20).await.expect("fits");
    assert_eq!(there.document.spellings(), Spellings::ControlTokens);
    assert_eq!(there.document.tokens().filter(|token| *token == hole).count(), 2);
}
