//! Sessions that are closed, and those whose clients have gone: who makes room for whom, and who is never put away.

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{IDLE, Pool, SETTINGS, TEXT, drain, name};
use pie_group::call::{BusySessionPolicy, Call, Departure, Resident, Why};
use pie_group::core::{Idle, Settings};
use pie_group::tenants::{Tenant, TenantLimits};
use pie_proto::Reason;
use pie_proto::request::Identity;
use pie_text::Document;
use pie_words::AskedFollowing;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

fn tenant(name: &str) -> Tenant {
    Tenant::new(name).expect("a right name")
}

fn open_for(pool: &mut Pool, whose: &str, session: &str) -> Result<(), Reason> {
    let document = Document::open(pool.tokenizer.clone(), TEXT, 1 << 20).expect("a short text");
    pool.open_document(tenant(whose), session, document, AskedFollowing::default()).map(drop)
}

/// Whom the owner names, as `tenant/session`.
fn names(residents: &[Resident]) -> Vec<String> {
    residents.iter().map(|resident| format!("{}/{}", resident.tenant.as_str(), resident.name)).collect()
}

fn idle(pool: &mut Pool) -> Vec<Resident> {
    let (reply, mut answer) = oneshot::channel();
    pool.desk.call(Call::Idle { reply });
    answer.try_recv().expect("calls are answered at once")
}

fn stuck(pool: &mut Pool) -> Vec<Resident> {
    let (reply, mut answer) = oneshot::channel();
    pool.desk.call(Call::Stuck { reply });
    answer.try_recv().expect("calls are answered at once")
}

fn close(pool: &mut Pool, resident: Resident, why: Why) {
    pool.desk.call(Call::Depart { resident, departure: Departure::Closed(why) });
}

fn room(pool: &mut Pool, whose: &str, session: &str) -> Result<Option<String>, Reason> {
    let (tenant, session) = (tenant(whose), name(session));
    let made = pool.ask(|reply| Call::Room { tenant, session, reply })?;
    Ok(made.map(|resident| {
        let gone = names(std::slice::from_ref(&resident)).remove(0);
        close(pool, resident, Why::Room);
        gone
    }))
}

/// A pool, and its clock.
struct Clock {
    pool: Pool,
    start: Instant,
}

impl Clock {
    fn new(settings: Settings) -> Self {
        let mut clock = Self { pool: Pool::with(1000, settings), start: Instant::now() };
        clock.at(0);
        clock
    }

    fn at(&mut self, seconds: u64) -> &mut Pool {
        self.pool.desk.act(|core| core.at(self.start + Duration::from_secs(1 + seconds)));
        &mut self.pool
    }
}

#[test]
fn sessions_that_nobody_uses_are_closed() {
    assert_eq!(IDLE.closed_after, Some(Duration::from_secs(100)));
    let mut clock = Clock::new(SETTINGS);
    for session in ["opened", "edited", "read", "completed", "completing", "reopened"] {
        clock.pool.open(session, TEXT).expect("room");
    }
    clock.at(50);
    clock.pool.edit("edited", 0, 0, "x").expect("the revision fits");
    clock.pool.get("read");
    clock.pool.answer("completed", 2);
    clock.pool.open("reopened", TEXT).expect("it is open");
    let mut stream = clock.pool.complete("completing", 4, &[]).expect("it is open");
    assert!(idle(clock.at(99)).is_empty(), "not before the time is over");
    let gone = idle(clock.at(100));
    assert_eq!(names(&gone), ["/opened"], "whoever was heard of stays, whatever they asked for");
    assert_eq!(clock.pool.edit("opened", 0, 0, "x").unwrap_err(), Reason::SessionMoving, "out of reach");
    for resident in gone {
        close(&mut clock.pool, resident, Why::Idle);
    }
    assert_eq!(clock.pool.edit("opened", 0, 0, "x").unwrap_err(), Reason::SessionUnknown);
    let mut gone = names(&idle(clock.at(160)));
    gone.sort_unstable();
    assert_eq!(gone, ["/completed", "/edited", "/read", "/reopened"], "a session in use is never closed so");
    clock.at(1000).run();
    assert_eq!(drain(&mut stream).1, 4);
    assert!(idle(clock.at(1099)).is_empty(), "its time begins when it is no longer in use");
    assert_eq!(names(&idle(clock.at(1101))), ["/completing"]);
    assert_eq!(clock.pool.desk.stats().closings(Why::Idle), 1);

    let never = Idle { closed_after: None, ..IDLE };
    let mut clock = Clock::new(Settings { idle: never, ..SETTINGS });
    clock.pool.open("a", TEXT).expect("room");
    assert!(idle(clock.at(1_000_000)).is_empty());
}

#[test]
fn the_least_recently_used_of_whom_has_most_make_room() {
    assert_eq!(IDLE.makes_room_after, Some(Duration::from_secs(10)));
    let settings = Settings { sessions: 4, ..SETTINGS };
    let mut clock = Clock::new(settings);
    open_for(&mut clock.pool, "ada", "first").expect("room");
    for (second, session) in ["a", "b", "c"].into_iter().enumerate() {
        open_for(clock.at(1 + second as u64), "many", session).expect("room");
    }
    let mut full = |second, whose| room(clock.at(second), whose, "new");
    assert_eq!(full(5, "new"), Err(Reason::Overloaded), "nobody has been idle for long enough");
    assert_eq!(full(10, "many"), Err(Reason::Overloaded), "ada's has, but she has fewer");
    assert_eq!(full(11, "new"), Ok(Some("many/a".to_owned())));
    assert_eq!(full(11, "new"), Ok(None), "there is room now");
    open_for(&mut clock.pool, "new", "new").expect("room");
    assert_eq!(room(&mut clock.pool, "new", "new"), Ok(None), "what is open needs none");
    // The rest of `many` is in use.
    let whose = tenant("many");
    let session = name("b");
    let get = |reply| Call::Get { tenant: whose.clone(), session, identity: None, content: false, reply };
    clock.at(20).ask(get).expect("it is open");
    assert_eq!(room(clock.at(20), "new", "other"), Ok(Some("many/c".to_owned())));
    open_for(&mut clock.pool, "new", "other").expect("room");
    assert_eq!(room(clock.at(20), "new", "third"), Err(Reason::Overloaded), "it has more than others now");
    assert_eq!(room(clock.at(30), "new", "third"), Ok(Some("new/new".to_owned())), "and pays with its own");
    assert_eq!(clock.pool.desk.stats().closings(Why::Room), 3);

    // What a tenant may have is made room for among the tenant's own.
    let tenant = TenantLimits { sessions: 1, ..TenantLimits::NONE };
    let mut clock = Clock::new(Settings { tenant, ..SETTINGS });
    for whose in ["ada", "grace"] {
        open_for(&mut clock.pool, whose, "one").expect("room");
    }
    assert_eq!(room(clock.at(9), "grace", "two"), Err(Reason::TenantLimit));
    assert_eq!(room(clock.at(10), "grace", "two"), Ok(Some("grace/one".to_owned())));

    let never = Idle { makes_room_after: None, ..IDLE };
    let mut clock = Clock::new(Settings { sessions: 1, idle: never, ..SETTINGS });
    open_for(&mut clock.pool, "ada", "one").expect("room");
    assert_eq!(room(clock.at(1_000_000), "ada", "two"), Err(Reason::Overloaded));
}

/// Between its end and the end of its home nothing is opened under a name: that home would be forgotten too.
#[test]
fn a_session_that_is_being_closed_can_be_neither_used_nor_opened() {
    let mut clock = Clock::new(SETTINGS);
    let opened = clock.pool.open("a", TEXT).expect("room");
    let vacate = |pool: &mut Pool, identity: Option<Identity>| {
        let (tenant, session) = (Tenant::default(), name("a"));
        pool.ask(|reply| Call::Vacate { tenant, session, identity, reply })
    };
    let other = Identity::given("other".to_owned());
    assert_eq!(vacate(&mut clock.pool, other).unwrap_err(), Reason::SessionReplaced);
    let resident = vacate(&mut clock.pool, Identity::given(opened.identity)).expect("it is this one");
    let moving = Reason::SessionMoving;
    assert_eq!(clock.pool.open("a", TEXT).unwrap_err(), moving);
    assert_eq!(clock.pool.edit("a", 0, 0, "x").unwrap_err(), moving);
    assert_eq!(vacate(&mut clock.pool, None).unwrap_err(), moving);
    // The home could not be forgotten: a call that fails has changed nothing.
    clock.pool.desk.call(Call::Keep { resident: resident.clone() });
    clock.pool.edit("a", 0, 0, "x").expect("it is here");
    // What comes late finds another life, or one that stays: it does nothing.
    close(&mut clock.pool, resident.clone(), Why::Client);
    assert_eq!(clock.pool.get("a").session.expect("described").revision, 1);
    let again = vacate(&mut clock.pool, None).expect("it is here");
    close(&mut clock.pool, again, Why::Client);
    clock.pool.open("a", "other").expect("the name is free");
    close(&mut clock.pool, resident, Why::Client);
    assert_eq!(clock.pool.get("a").text.as_deref(), Some("other"));
}

/// Who moves a session may be gone before it says whether it arrived: then somebody looks up where it lives.
#[test]
fn a_session_does_not_stay_on_its_way_for_ever() {
    let mut clock = Clock::new(SETTINGS);
    for session in ["a", "b"] {
        clock.pool.open(session, TEXT).expect("room");
    }
    let give = |reply| Call::Give {
        tenant: Tenant::default(),
        session: name("a"),
        busy: BusySessionPolicy::Waits,
        reply,
    };
    clock.at(10).ask(give).expect("it is here");
    assert!(stuck(clock.at(60)).is_empty(), "it may be on its way still");
    let stuck = stuck(clock.at(70));
    assert_eq!(names(&stuck), ["/a"]);
    assert!(idle(clock.at(200)).iter().all(|resident| resident.name == name("b")), "one thing at a time");
    clock.pool.desk.call(Call::Keep { resident: stuck[0].clone() });
    clock.pool.edit("a", 0, 0, "x").expect("it is here");
}
