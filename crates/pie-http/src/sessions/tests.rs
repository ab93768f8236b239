//! F2, in part: who gets which session, while others use theirs. Time is the test's own.

use super::*;
use crate::held::PoolSession;
use crate::pool::PoolWay;
use axum::http::HeaderMap;
use tower::util::BoxCloneSyncService;

pub(crate) fn scope(tenant: &str, user: &str) -> Scope {
    Scope { tenant: Arc::from(tenant), user: Arc::from(user) }
}

fn sketch(text: &str) -> Sketch {
    Sketch::of(std::iter::once(text.as_bytes()))
}

pub(crate) fn named(name: &str) -> SessionSelector {
    SessionSelector::Named(Arc::from(name))
}

/// As the pool would have opened it.
pub(crate) fn opened(held: HeldSession) -> HeldSession {
    let service = BoxCloneSyncService::new(tower::service_fn(|_| async { unreachable!("nobody calls") }));
    let way = PoolWay { service, tenants: Arc::new(|_| Ok(String::new())), ready: Arc::new(|| Ok(())) };
    let life = PoolSession { caller: way.caller(&HeaderMap::new()), identity: String::new(), revision: 1 };
    HeldSession { life: Some(life), ..held }
}

const MINE: &str = "fn mine() { let a_long_name = another_long_name(1); }";
const OTHER: &str = "struct Other { of: Something, which: IsUnlike, mine: Altogether }";

/// Finds a session and gives it back; its name, how it was found, and a completion of it that runs.
async fn use_one(
    sessions: &Arc<PromptSessions>,
    scope: &Scope,
    wanted: &SessionSelector,
    text: &str,
) -> (String, SessionMatch, CompletionGuard) {
    let sketch = if *wanted == SessionSelector::Alike { sketch(text) } else { Sketch::default() };
    let found = sessions.find(scope, wanted, &sketch).await.expect("it is free");
    let (name, running) = (found.held.name.clone(), found.lease.running());
    let held = opened(found.held);
    found.lease.give_back(held, sketch);
    (name, found.way, running)
}

#[tokio::test(start_paused = true)]
async fn the_likest_is_found_among_ones_own() {
    let sessions = Arc::new(PromptSessions::new("f".to_owned()));
    let (me, alike) = (scope("t", ""), SessionSelector::Alike);
    let (mine, way, running) = use_one(&sessions, &me, &alike, MINE).await;
    assert_eq!(way, SessionMatch::New);
    drop(running);
    assert_eq!(use_one(&sessions, &me, &alike, &format!("{MINE} more")).await.0, mine);
    for other in [scope("u", ""), scope("t", "a user")] {
        let (name, way, _) = use_one(&sessions, &other, &alike, MINE).await;
        assert!(name != mine && way == SessionMatch::New, "{other:?}");
    }
    assert_eq!(use_one(&sessions, &me, &alike, OTHER).await.1, SessionMatch::New);
    assert_eq!((sessions.of("t").len(), sessions.of("u").len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_is_waited_for_a_moment_and_then_left_alone() {
    let sessions = Arc::new(PromptSessions::new("f".to_owned()));
    let (me, alike) = (scope("t", ""), SessionSelector::Alike);
    let (first, _, running) = use_one(&sessions, &me, &alike, MINE).await;
    let began = Instant::now();
    let (second, way, _) = use_one(&sessions, &me, &alike, MINE).await;
    assert!(second != first && way == SessionMatch::New && began.elapsed() >= MOMENT);
    // Whoever left in the same moment is waited for.
    let (third, _, running_too) = use_one(&sessions, &me, &alike, OTHER).await;
    let waits = use_one(&sessions, &me, &alike, OTHER);
    let ends = async {
        tokio::time::sleep(MOMENT / 2).await;
        drop(running_too);
    };
    let ((again, way, _), ()) = tokio::join!(waits, ends);
    assert_eq!((again, way), (third, SessionMatch::Alike));
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_named_is_its_names_alone() {
    let sessions = Arc::new(PromptSessions::new("f".to_owned()));
    let me = scope("t", "");
    let (name, way, running) = use_one(&sessions, &me, &named("n"), MINE).await;
    assert_eq!((name.as_str(), way), ("http:n", SessionMatch::New));
    // Whatever it holds, and though it runs.
    assert_eq!(use_one(&sessions, &me, &named("n"), OTHER).await.1, SessionMatch::Named);
    drop(running);
    assert_eq!(
        use_one(&sessions, &me, &SessionSelector::Alike, MINE).await.1,
        SessionMatch::New,
        "nobody finds it by likeness"
    );
    // While it is edited it is waited for, and not for ever.
    let found = sessions.find(&me, &named("n"), &Sketch::default()).await.expect("it is free");
    let began = Instant::now();
    assert_eq!(sessions.find(&me, &named("n"), &Sketch::default()).await.err(), Some(SessionInUse));
    assert!(began.elapsed() >= TURN);
    // Who takes it and does not come back has lost it.
    drop(found);
    assert_eq!(use_one(&sessions, &me, &named("n"), MINE).await.1, SessionMatch::New);
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_used_least_recently_makes_room_and_no_other_tenants() {
    let sessions = Arc::new(PromptSessions::new("f".to_owned()));
    let other = use_one(&sessions, &scope("u", ""), &named("old"), "").await;
    drop(other);
    let me = scope("t", "");
    for number in 0..TENANT_SESSIONS {
        tokio::time::advance(Duration::from_millis(1)).await;
        drop(use_one(&sessions, &me, &named(&number.to_string()), "").await);
    }
    // Used again, so that it is not the oldest any more.
    tokio::time::advance(Duration::from_millis(1)).await;
    drop(use_one(&sessions, &me, &named("0"), "").await);
    let found = sessions.open(&me, &named("one more"));
    assert_eq!(found.evicted.map(|held| held.name), Some("http:1".to_owned()));
    assert_eq!((sessions.of("t").len(), sessions.of("u").len()), (TENANT_SESSIONS, 1));
    found.lease.give_back_unchanged(found.held);
    assert_eq!(sessions.of("t").len(), TENANT_SESSIONS - 1, "one that was never opened is forgotten");
    assert_eq!(sessions.take_all().len(), TENANT_SESSIONS);
}
