//! Large texts, while others are tokenized: what they make wait, and what they do not.

use super::preparing::Opening;
use super::{Plane, PoolService};
use crate::call::Call;
use crate::directory::Directory;
use crate::owner::Owner;
use crate::owner::tests::{ask, edit, name, owner, text};
use crate::peers::Peers;
use crate::server::Phase;
use crate::stats::Stats;
use crate::tenants::Tenant;
use crate::testing::tokenizer;
use crate::tokenizing::{ALL, Waits};
use pie_placement::{Embedded, RouterId};
use pie_proto::reason::reason_of;
use pie_proto::request::{ApplyEdits, Content, Edits};
use pie_proto::{Reason, v1};
use pie_words::{Revision, TextEdit, TextRange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tonic::Status;

const EVERYTHING: usize = 1 << 30;

fn service() -> PoolService {
    let id = RouterId::new("me").expect("a right name");
    PoolService {
        plane: Plane::Public,
        directory: Directory::new(Arc::new(Embedded::new()), id, BTreeMap::new(), Peers::default()),
        tokenizer: tokenizer(),
        document_limit: 16 << 20,
        phase: watch::channel(Phase::Serving).1,
        stats: Arc::new(Stats::default()),
    }
}

async fn open(service: &PoolService, owner: &Owner, text: String) -> Result<v1::OpenSessionResponse, Status> {
    let (tenant, name, content) = (Tenant::default(), name(), Content::Text(text));
    service.open_here(owner, Opening { tenant, name, content, strategy: None }).await
}

async fn insert(
    service: &PoolService,
    owner: &Owner,
    base_revision: u64,
    text: String,
) -> Result<v1::ApplyEditsResponse, Status> {
    let edit = TextEdit { range: TextRange::Bytes { start: 0, end: 0 }, insert: text };
    let request = ApplyEdits {
        session: name(),
        identity: None,
        base_revision: Revision(base_revision),
        edits: Edits::Text(vec![edit]),
        strategy: None,
    };
    service.edit_here(owner, Tenant::default(), request, Instant::now()).await
}

#[tokio::test]
async fn large_texts_wait_for_their_turn_and_nobody_waits_for_them() {
    let (service, owner) = (service(), owner().await);
    let born = open(&service, &owner, "fn main() {}".to_owned()).await.expect("a short text").revision;

    // Somebody else's text is being tokenized.
    let others = ALL.admit(EVERYTHING, Waits::Always).await.expect("nobody closes it");
    // What cannot fit in the model's context is told at once, before any tokenizer.
    owner.stats().published.context_limit.set(100);
    let beyond = 100 * 1024;
    for refused in [
        open(&service, &owner, "x".repeat(beyond)).await.map(drop),
        insert(&service, &owner, born, "x".repeat(beyond)).await.map(drop),
    ] {
        assert_eq!(reason_of(&refused.expect_err("too long")), Some(Reason::DocumentTooLong));
    }
    // Small edits and reads do not wait for it, large ones do.
    owner.stats().published.context_limit.set(16_384);
    let (waiting, whose) = (service.clone(), owner.clone());
    let large = "let x = 1;\n".repeat(1000);
    let inserted = large.clone();
    let large_edit = tokio::spawn(async move { insert(&waiting, &whose, born + 1, inserted).await });
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
        Err(status) => assert_eq!(reason_of(&status), Some(Reason::RevisionMismatch), "{status}"),
    }
}

/// An edit that was prepared on a document that has changed since, or has another life, is refused and changes nothing.
#[tokio::test]
async fn what_was_prepared_on_another_revision_is_refused() {
    let (service, owner) = (service(), owner().await);
    let born = open(&service, &owner, "fn main() {}".to_owned()).await.expect("a short text").revision;
    let large = "let x = 1;\n".repeat(300);
    let (tenant, session) = (Tenant::default(), name());
    let look = || {
        let (tenant, session) = (tenant.clone(), session.clone());
        ask(&owner, |reply| Call::Look { tenant, session, reply })
    };
    let prepare = |document: &pie_text::Document| {
        let edit = TextEdit { range: TextRange::Bytes { start: 0, end: 0 }, insert: large.clone() };
        let request = ApplyEdits {
            session: name(),
            identity: None,
            base_revision: document.revision(),
            edits: Edits::Text(vec![edit]),
            strategy: None,
        };
        let change = crate::faults::prepare(document, &request, None).expect("it fits");
        (request, Some(Box::new(change)))
    };
    let apply = |(request, prepared)| {
        let (tenant, arrived) = (tenant.clone(), Instant::now());
        ask(&owner, move |reply| Call::Edit { tenant, request, prepared, arrived, reply })
    };
    let copy = look().await.expect("open").expect("open");
    let (first, second) = (prepare(&copy), prepare(&copy));
    assert_eq!(apply(first).await.expect("as it was").revision, born + 1);
    let overtaken = apply(second).await.expect_err("another was quicker");
    assert_eq!(overtaken.reason, Reason::RevisionMismatch);
    let of_first_life = prepare(&look().await.expect("open").expect("open"));
    let closed =
        ask(&owner, |reply| Call::Close { tenant: tenant.clone(), session: name(), identity: None, reply })
            .await;
    closed.expect("it is open");
    assert!(look().await.expect("no error").is_none());
    let born = open(&service, &owner, "fn main() {}".to_owned()).await.expect("a short text").revision;
    edit(&owner, born).await.expect("the revision fits");
    let overtaken = apply(of_first_life).await.expect_err("it is another document");
    assert_eq!(overtaken.reason, Reason::RevisionMismatch);
    assert_eq!(text(&owner).await.as_deref(), Some("xfn main() {}"));

    // A long text that is opened again is compared beside the owner, and an equal one changes nothing.
    let long = "let y = 2;\n".repeat(3000);
    let reopened = open(&service, &owner, long.clone()).await.expect("it is compared");
    assert_eq!(reopened.revision, born + 2);
    let again = open(&service, &owner, long).await.expect("it is compared");
    assert_eq!((again.revision, again.reused), (born + 2, again.tokens));
}
