//! Sessions that change their group: what their clients see on the way, and that nothing of them is lost.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{Pool, SETTINGS, TEXT, drain, name};
use pie_group::call::{
    ArrivedDocuments, BusySessionPolicy, Call, Departure, GiveReply, ImportedSession, Resident,
};
use pie_group::tenants::{Tenant, TenantLimits};
use pie_proto::Reason;
use pie_proto::carried::Carried;
use pie_proto::request::{ApplyEdits, Content, Edits, Identity};
use pie_text::Document;
use pie_words::{AskedFollowing, Revision};
use std::time::Instant;

fn give(pool: &mut Pool, session: &str, busy: BusySessionPolicy) -> Result<GiveReply, Reason> {
    pool.ask(|reply| Call::Give { tenant: Tenant::default(), session: name(session), busy, reply })
}

fn carried(given: Result<GiveReply, Reason>) -> Carried {
    match given {
        Ok(GiveReply::Carried(carried)) => *carried,
        other => panic!("not given: {other:?}"),
    }
}

fn resident(carried: &Carried) -> Resident {
    let identity = carried.identity.clone().expect("it travels");
    Resident { tenant: Tenant::default(), name: carried.name.clone(), identity }
}

fn take(pool: &mut Pool, carried: Carried) -> Result<(), Reason> {
    let Content::Text(text) = &carried.content else { panic!("a document of text") };
    let document = Document::open(pool.tokenizer.clone(), text, 1 << 20).expect("a short text");
    let document = Box::new(document.at_revision(carried.revision));
    let tenant = Tenant::default();
    let identity = carried.identity.expect("it travels");
    let taken =
        ImportedSession { tenant, name: carried.name, identity, following: carried.following, document };
    pool.ask(|reply| Call::Take { taken, reply })
}

#[test]
fn a_session_moves_with_its_revision_and_answers_as_before() {
    let (mut from, mut to) = (Pool::new(400), Pool::new(400));
    from.open("a", TEXT).expect("room");
    from.edit("a", 0, 0, "// edited\n").expect("the revision fits");
    from.answer("a", 4);
    let session = carried(give(&mut from, "a", BusySessionPolicy::Waits));
    let resident = resident(&session);
    assert_eq!(
        (session.revision, &session.content),
        (Revision(1), &Content::Text(format!("// edited\n{TEXT}")))
    );

    // On its way it can be asked for nowhere, and nothing is changed.
    assert_eq!(from.edit("a", 1, 0, "x").unwrap_err(), Reason::SessionMoving);
    assert_eq!(from.complete("a", 4, &[]).unwrap_err(), Reason::SessionMoving);
    assert_eq!(from.open("a", "other").unwrap_err(), Reason::SessionMoving);
    assert_eq!(to.edit("a", 1, 0, "x").unwrap_err(), Reason::SessionUnknown);

    take(&mut to, session).expect("room");
    let departure = Departure::Moved;
    from.desk.call(Call::Depart { resident, departure });
    from.run();
    assert_eq!(from.edit("a", 1, 0, "x").unwrap_err(), Reason::SessionUnknown);
    assert_eq!(from.desk.describe().groups[0].slots_free, 400, "K1: its slots are free");
    assert_eq!(to.edit("a", 0, 0, "x").unwrap_err(), Reason::RevisionMismatch, "R1 holds across the move");
    assert_eq!(to.edit("a", 1, 0, "x").expect("the client's next edit fits").revision, 2);
    assert_eq!(to.answer("a", 4).tokens_reused, 0, "the cache did not travel");
}

/// A name has lives: what is meant for one never reaches another.
#[test]
fn a_session_that_is_opened_anew_is_another_one() {
    let (mut pool, mut to) = (Pool::new(400), Pool::new(400));
    let first = pool.open("a", TEXT).expect("room");
    let again = pool.open("a", TEXT).expect("it is open");
    assert_eq!(first.identity, again.identity, "as long as it is open it is the same one");
    let moved = carried(give(&mut pool, "a", BusySessionPolicy::Waits));
    let stays = resident(&moved);
    take(&mut to, moved).expect("room");
    assert_eq!(to.get("a").session.expect("described").identity, first.identity, "wherever it is");
    pool.desk.call(Call::Keep { resident: stays });

    pool.close("a").expect("it is open");
    let second = pool.open("a", "other text").expect("room");
    assert_ne!(first.identity, second.identity);
    let (old, new) = (Identity::given(first.identity), Identity::given(second.identity));
    for (identity, outcome) in [(old, Err(Reason::SessionReplaced)), (new, Ok(())), (None, Ok(()))] {
        let tenant = Tenant::default;
        let session = || name("a");
        let edits = Edits::Text(vec![]);
        let base_revision = Revision(pool.get("a").session.expect("described").revision);
        let (wanted, arrived) = (identity.clone(), Instant::now());
        let request = ApplyEdits {
            session: session(),
            identity: wanted,
            base_revision,
            edits,
            following: AskedFollowing::default(),
        };
        let edited =
            pool.ask(|reply| Call::Edit { tenant: tenant(), request, prepared: None, arrived, reply });
        assert_eq!(edited.map(drop), outcome, "{identity:?}");
        let completed = pool.ask_completion("a", 1, &[], |request| request.identity.clone_from(&identity));
        assert_eq!(completed.map(drop), outcome, "{identity:?}");
        let wanted = identity.clone();
        let got = pool.ask(|reply| Call::Get {
            tenant: tenant(),
            session: session(),
            identity: wanted,
            content: false,
            reply,
        });
        assert_eq!(got.map(drop), outcome, "{identity:?}");
    }
    let old = Identity::given("another".to_owned());
    let closed = pool.close_of(Tenant::default(), "a", old);
    assert_eq!(closed, Err(Reason::SessionReplaced));
    assert_eq!(pool.get("a").text.as_deref(), Some("other text"), "refused calls change nothing");
}

/// An owner that was thought dead left an older copy; the document went on elsewhere, and comes back.
#[test]
fn what_was_left_behind_gives_way_to_what_went_on() {
    let (mut left, mut to) = (Pool::new(400), Pool::new(400));
    left.open("a", TEXT).expect("room");
    let session = carried(give(&mut left, "a", BusySessionPolicy::Waits));
    let stays = resident(&session);
    take(&mut to, session).expect("room");
    to.edit("a", 0, 0, "// went on\n").expect("the revision fits");
    let back = carried(give(&mut to, "a", BusySessionPolicy::Waits));
    left.desk.call(Call::Keep { resident: stays });
    let mut stream = left.complete("a", 4, &[]).expect("nobody has told it");
    take(&mut left, back.clone()).expect("room");
    let held = left.get("a");
    assert_eq!(held.text, Some(format!("// went on\n{TEXT}")), "the greater revision stays");
    let told = stream.try_recv().expect("it is told").expect_err("its document is gone");
    assert_eq!(pie_proto::reason::reason_of(&told), Some(Reason::SessionReplaced));
    left.edit("a", 1, 0, "// newer\n").expect("the revision fits");
    take(&mut left, back).expect("there is nothing to refuse");
    assert!(left.get("a").text.expect("a text").starts_with("// newer"), "and is not undone");
    left.run();
    assert_eq!(left.desk.describe().groups[0].sessions, 1);
}

#[test]
fn a_session_that_could_not_be_moved_goes_on() {
    let mut pool = Pool::new(400);
    pool.open("a", TEXT).expect("room");
    pool.answer("a", 1);
    let given = carried(give(&mut pool, "a", BusySessionPolicy::Waits));
    pool.desk.call(Call::Keep { resident: resident(&given) });
    pool.edit("a", 0, 0, "x").expect("it is here");
    assert!(pool.answer("a", 4).tokens_reused > 0, "with its cache");
}

#[test]
fn completions_hold_a_session_back_until_there_is_no_more_time() {
    let mut pool = Pool::new(400);
    pool.open("a", TEXT).expect("room");
    let mut stream = pool.complete("a", 6, &[]).expect("it is open");
    pool.step();
    assert!(matches!(give(&mut pool, "a", BusySessionPolicy::Waits), Ok(GiveReply::NotYet)));
    pool.run();
    assert_eq!(drain(&mut stream).1, 6, "it was not disturbed");

    let mut stream = pool.complete("a", 6, &[]).expect("it is open");
    carried(give(&mut pool, "a", BusySessionPolicy::Fails));
    let mut last = None;
    while let Ok(message) = stream.try_recv() {
        last = Some(message);
    }
    let status = last.expect("it is told").expect_err("it cannot go on");
    assert_eq!(pie_proto::reason::reason_of(&status), Some(Reason::SessionMoving));
    pool.run();
}

#[test]
fn what_moves_in_is_not_held_back_by_limits_and_does_not_undo_what_is_newer() {
    let tenant = TenantLimits { sessions: 1, ..TenantLimits::NONE };
    let mut from = Pool::new(400);
    let mut to = Pool::with(400, pie_group::core::Settings { tenant, ..SETTINGS });
    from.open("a", TEXT).expect("room");
    from.open("b", TEXT).expect("room");
    to.open("b", "newer").expect("room");
    for session in ["a", "b"] {
        let session = carried(give(&mut from, session, BusySessionPolicy::Waits));
        take(&mut to, session).expect("a limit is no reason to lose a document");
    }
    assert_eq!(to.get("b").text.as_deref(), Some("newer"), "its client opened it again meanwhile");
    assert_eq!(to.get("a").text.as_deref(), Some(TEXT));
}

#[test]
fn a_group_that_is_given_up_gives_everything_until_it_has_arrived() {
    let mut pool = Pool::new(400);
    pool.open("a", TEXT).expect("room");
    pool.edit("a", 0, 0, "x").expect("the revision fits");
    let all = |pool: &mut Pool| pool.ask(|reply| Call::GiveAll { reply });
    assert_eq!(all(&mut pool).unwrap_err(), Reason::OwnershipUnsure, "not while it is served");
    let mut stream = pool.complete("a", 6, &[]).expect("it is open");
    pool.desk.act(|core| core.retire());
    let failed = stream.try_recv().expect("it is told").expect_err("it cannot go on");
    assert_eq!(failed.code(), tonic::Code::Unavailable);
    for reason in [pool.edit("a", 1, 0, "x").unwrap_err(), pool.open("new", "x").unwrap_err()] {
        assert_eq!(reason, Reason::SessionMoving);
    }
    let given = all(&mut pool).expect("it is given up");
    assert_eq!(given.iter().map(|carried| carried.revision).collect::<Vec<_>>(), [Revision(1)]);
    // Whoever asked may have gone before the answer came.
    assert_eq!(all(&mut pool).expect("it is still here").len(), 1);
    pool.desk.call(Call::Arrived { what: ArrivedDocuments::All });
    assert!(all(&mut pool).expect("nothing is left").is_empty());
    assert_eq!(
        pool.edit("a", 1, 0, "x").unwrap_err(),
        Reason::SessionMoving,
        "whoever comes late asks again"
    );
}

#[test]
fn a_tenant_has_names_of_its_own() {
    let mut pool = Pool::new(400);
    let tenants = ["ada", "grace"].map(|tenant| Tenant::new(tenant).expect("a right name"));
    for tenant in &tenants {
        let document = Document::open(pool.tokenizer.clone(), tenant.as_str(), 1 << 20).expect("short");
        pool.open_document(tenant.clone(), "main.rs", document, AskedFollowing::default()).expect("room");
    }
    for tenant in &tenants {
        let (whose, session) = (tenant.clone(), name("main.rs"));
        let got =
            pool.ask(|reply| Call::Get { tenant: whose, session, identity: None, content: true, reply });
        assert_eq!(got.expect("it is open").text.as_deref(), Some(tenant.as_str()));
    }
    let (tenant, session) = (Tenant::default(), name("main.rs"));
    let unknown = pool.ask(|reply| Call::Get { tenant, session, identity: None, content: true, reply });
    assert_eq!(unknown.unwrap_err(), Reason::SessionUnknown, "another's name cannot even be asked for");
    let [ada, grace] = tenants;
    pool.close_of(ada, "main.rs", None).expect("it is open");
    let (tenant, session) = (grace, name("main.rs"));
    pool.ask(|reply| Call::Get { tenant, session, identity: None, content: true, reply })
        .expect("the other's is still open");
}

/// A router that lost its group keeps what it gave until that is known to have arrived; what comes back meanwhile was edited there.
#[test]
fn what_was_given_stays_until_it_arrived_and_gives_way_when_it_comes_back() {
    let mut pool = Pool::new(400);
    pool.open("back", TEXT).expect("room");
    pool.open("gone", TEXT).expect("room");
    pool.desk.act(|core| core.lost("another router owns the group"));
    let given = pool.ask(|reply| Call::GiveAll { reply }).expect("nobody owns it here");
    assert_eq!(given.len(), 2);
    assert_eq!(pool.get("back").text.as_deref(), Some(TEXT), "nothing is known to have arrived");

    let back = given.into_iter().find(|carried| carried.name == name("back")).expect("it was given");
    let edited = Carried {
        revision: Revision(back.revision.0 + 3),
        content: Content::Text("edited".to_owned()),
        ..back
    };
    take(&mut pool, edited.clone()).expect("it is taken");
    assert_eq!(pool.get("back").text.as_deref(), Some("edited"));
    let older = Carried { revision: Revision(0), content: Content::Text("older".to_owned()), ..edited };
    take(&mut pool, older).expect("it is there already");
    assert_eq!(pool.get("back").text.as_deref(), Some("edited"), "what is here stays");

    // It comes late, and only for what was not changed since.
    pool.desk.call(Call::Arrived { what: ArrivedDocuments::All });
    assert_eq!(pool.get("back").text.as_deref(), Some("edited"));
    assert_eq!(pool.edit("gone", 0, 0, "x").unwrap_err(), Reason::SessionUnknown);
}
