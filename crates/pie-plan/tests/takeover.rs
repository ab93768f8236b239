//! Owners and ranks that die, freeze and come back at any moment, by thousands of random runs: what was confirmed is never lost, who
//! was fenced changes nothing, and caches go on whenever every rank has lived on.

use pie_plan::blocks::PlanBlocks;
use pie_plan::ledger::{Beginning, Entry, Ledger, LedgerError, Position};
use pie_plan::takeover::{Activity, Caches, RankSurvey, TablesAt, best_ledger, caches};
use pie_plan::{Change, DigestWanted, Group, Plan};
use pie_words::{Epoch, Seq, SessionId};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const RANKS: usize = 3;
const SLOTS: u32 = 8;

/// What a session's memo says, whatever pieces it came in.
type Documents = BTreeMap<SessionId, Vec<u8>>;

/// What an owner sends to one rank, in order.
#[derive(Clone, Debug)]
enum OwnerMessage {
    Begin(Beginning, u64),
    Copy(SessionId, Vec<u8>),
    Complete,
    Entry(u64, SessionId, Entry),
    Plan(Seq),
}

struct SimulatedRank {
    ledger: Ledger,
    /// Its tables, if it is in a group.
    group: Option<Group>,
    /// The plan that it works on, until all ranks do or have done it.
    busy: Option<Seq>,
    /// Plans that came while it was at work.
    early: VecDeque<Seq>,
}

impl SimulatedRank {
    fn new() -> Self {
        Self { ledger: Ledger::default(), group: None, busy: None, early: VecDeque::new() }
    }

    fn standing(&self) -> RankSurvey {
        let tables = self.group.as_ref().map(|group| TablesAt {
            epoch: group.epoch(),
            applied: group.applied(),
            slots: SLOTS,
            activity: match self.busy {
                Some(_) => Activity::Busy,
                None => Activity::Idle { digest: group.digest() },
            },
        });
        RankSurvey { ledger: self.ledger.position(), tables }
    }

    /// The latest plan that it works on or has done.
    fn reached(&self) -> Option<(Epoch, Seq)> {
        let group = self.group.as_ref()?;
        Some((group.epoch(), self.busy.unwrap_or(group.applied())))
    }

    fn documents(&self) -> Documents {
        self.ledger.memos().iter().map(|(session, pieces)| (*session, pieces.concat())).collect()
    }

    fn take_plan(&mut self, seq: Seq) {
        match &self.group {
            Some(group) if self.busy.is_none() && group.next_seq() == seq => self.busy = Some(seq),
            Some(_) => self.early.push_back(seq),
            None => {}
        }
    }

    /// All ranks have come to the plan in hand: it is done.
    fn finish(&mut self) {
        let (Some(seq), Some(group)) = (self.busy.take(), &mut self.group) else { return };
        group.apply(&plan(group.epoch(), seq)).expect("it is the next");
        if let Some(next) = self.early.pop_front() {
            self.take_plan(next);
        }
    }
}

/// Plans differ, so that tables do.
fn plan(epoch: Epoch, seq: Seq) -> Plan {
    let changes = vec![Change::Open { session: SessionId(epoch.0 * 1000 + seq.0) }];
    Plan {
        epoch,
        seq,
        changes,
        runs: vec![],
        passes: 1,
        digest: DigestWanted::Skip,
        blocks: PlanBlocks::default(),
    }
}

/// An owner, and what of it is on the way. One that is dead says nothing new; what it sent may still arrive.
struct SimulatedOwner {
    epoch: Epoch,
    documents: Documents,
    latest: u64,
    seq: Seq,
    sent: [VecDeque<OwnerMessage>; RANKS],
    /// The ranks that this owner counts on.
    counts: [bool; RANKS],
    /// What each has said that it has.
    has: [Option<u64>; RANKS],
    is_dead: bool,
}

impl SimulatedOwner {
    fn write(&mut self, session: SessionId, entry: Entry) {
        self.latest += 1;
        match &entry {
            Entry::Whole(memo) => drop(self.documents.insert(session, memo.clone())),
            Entry::More(memo) => self.documents.entry(session).or_default().extend(memo),
            Entry::Gone => drop(self.documents.remove(&session)),
        }
        for sent in &mut self.sent {
            sent.push_back(OwnerMessage::Entry(self.latest, session, entry.clone()));
        }
    }
}

struct World {
    ranks: Vec<SimulatedRank>,
    owners: Vec<SimulatedOwner>,
    /// All documents after each entry of each owner.
    history: BTreeMap<Position, Documents>,
    /// The latest entry that somebody was told of as made.
    confirmed: Position,
    /// Whether a rank has died since the caches last began.
    has_died: bool,
    random: u64,
}

impl World {
    fn new(random: u64) -> Self {
        let ranks = (0..RANKS).map(|_| SimulatedRank::new()).collect();
        let confirmed = Position::default();
        let history = BTreeMap::from([(confirmed, Documents::new())]);
        let mut world = Self { ranks, owners: Vec::new(), history, confirmed, has_died: true, random };
        world.take_over();
        world
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) % sides as u64) as usize
    }

    fn step(&mut self) {
        let (rank, last) = (self.roll(RANKS), self.owners.len() - 1);
        match self.roll(20) {
            0..=4 => self.edit(last),
            5..=6 => self.plan(last),
            7..=13 => self.deliver_any(),
            14..=16 => self.finish(rank),
            17 => self.owners[last].is_dead = true,
            18 => self.kill(rank),
            _ => self.take_over(),
        }
    }

    fn edit(&mut self, owner: usize) {
        let session = SessionId(self.roll(3) as u64);
        let (what, piece) = (self.roll(4), vec![self.roll(256) as u8]);
        let owner = &mut self.owners[owner];
        if owner.is_dead {
            return;
        }
        let is_open = owner.documents.contains_key(&session);
        owner.write(
            session,
            match (is_open, what) {
                (false, _) => Entry::Whole(piece),
                (true, 0) => Entry::Gone,
                (true, _) => Entry::More(piece),
            },
        );
        self.history.insert(Position { epoch: owner.epoch, number: owner.latest }, owner.documents.clone());
    }

    /// A plan goes to all ranks once rank 0 has done the one before.
    fn plan(&mut self, owner: usize) {
        let done = self.ranks[0].group.as_ref().map(|group| (group.epoch(), group.applied()));
        let owner = &mut self.owners[owner];
        if !owner.is_dead && done == Some((owner.epoch, owner.seq)) {
            owner.seq = owner.seq.next();
            owner.sent.iter_mut().for_each(|sent| sent.push_back(OwnerMessage::Plan(owner.seq)));
        }
    }

    /// What some owner sent arrives at some rank, which answers.
    fn deliver_any(&mut self) {
        // The latest owner most of the time, and any before it.
        let back = if self.roll(3) > 0 { 0 } else { self.roll(self.owners.len()) };
        let (owner, rank) = (self.owners.len() - 1 - back, self.roll(RANKS));
        let epoch = self.owners[owner].epoch;
        let Some(message) = self.owners[owner].sent[rank].pop_front() else { return };
        let before = (self.ranks[rank].standing(), self.ranks[rank].documents());
        let took = self.arrive(rank, epoch, message);
        let is_fenced = self.ranks[rank].ledger.fenced() > epoch;
        if is_fenced {
            assert!(took.is_err(), "E2: who was fenced is told so");
            assert_eq!(before, (self.ranks[rank].standing(), self.ranks[rank].documents()), "E2");
        }
        match took {
            Ok(Some(number)) => {
                self.owners[owner].has[rank] = Some(number);
                self.confirm(owner);
            }
            Ok(None) => {}
            // The stream ends, and with it all that was on its way.
            Err(_) => self.cut(owner, rank),
        }
    }

    fn arrive(
        &mut self,
        rank: usize,
        epoch: Epoch,
        message: OwnerMessage,
    ) -> Result<Option<u64>, LedgerError> {
        let rank = &mut self.ranks[rank];
        let has = |ledger: &Ledger| Ok(ledger.position().map(|position| position.number));
        match message {
            OwnerMessage::Begin(beginning, after) => {
                rank.ledger.begin(epoch, beginning, after)?;
                if beginning == Beginning::GoOn { has(&rank.ledger) } else { Ok(None) }
            }
            OwnerMessage::Copy(session, memo) => {
                rank.ledger.copy(epoch, session, Entry::Whole(memo)).map(|()| None)
            }
            OwnerMessage::Complete => rank.ledger.complete(epoch).and_then(|()| has(&rank.ledger)),
            OwnerMessage::Entry(number, session, entry) => {
                rank.ledger.add(epoch, number, session, entry)?;
                has(&rank.ledger)
            }
            OwnerMessage::Plan(_) if epoch < rank.ledger.fenced() => {
                Err(LedgerError::Fenced { asked: epoch, fence: rank.ledger.fenced() })
            }
            OwnerMessage::Plan(seq) => {
                if rank.group.as_ref().is_some_and(|group| group.epoch() == epoch) {
                    rank.take_plan(seq);
                }
                Ok(None)
            }
        }
    }

    fn cut(&mut self, owner: usize, rank: usize) {
        self.owners[owner].sent[rank].clear();
        (self.owners[owner].counts[rank], self.owners[owner].has[rank]) = (false, None);
        self.confirm(owner);
    }

    /// Callers are told of what every rank has that their owner counts on.
    fn confirm(&mut self, owner: usize) {
        let owner = &self.owners[owner];
        let counted = || (0..RANKS).filter(|rank| owner.counts[*rank]).map(|rank| owner.has[rank]);
        // One that has said nothing yet is the least.
        if let Some(Some(number)) = counted().min().filter(|_| !owner.is_dead) {
            self.confirmed = self.confirmed.max(Position { epoch: owner.epoch, number });
        }
    }

    /// A plan ends when all ranks have come to it.
    fn finish(&mut self, rank: usize) {
        let Some(at) = self.ranks[rank].reached() else { return };
        if self
            .ranks
            .iter()
            .all(|other| other.reached().is_some_and(|reached| reached >= at && reached.0 == at.0))
        {
            self.ranks[rank].finish();
        }
    }

    /// A rank dies and comes back empty, as long as another one lives that its owner has heard of, or that has what was confirmed
    /// before that.
    fn kill(&mut self, rank: usize) {
        let heard_of = &self.owners[self.owners.len() - 1].has;
        let is_witness = |other: &usize| {
            heard_of[*other].is_some() || self.ranks[*other].ledger.position() >= Some(self.confirmed)
        };
        if !(0..RANKS).filter(|other| *other != rank).any(|other| is_witness(&other)) {
            return;
        }
        self.ranks[rank] = SimulatedRank::new();
        self.has_died = true;
        (0..self.owners.len()).for_each(|owner| self.cut(owner, rank));
    }

    /// Another router, or the same one again, takes the group over: it fences one rank after the other, while what was sent before
    /// still arrives.
    fn take_over(&mut self) {
        let latest = self.ranks.iter().map(|rank| rank.ledger.fenced()).max().unwrap_or_default();
        let epoch = Epoch(latest.0 + 1);
        for rank in 0..RANKS {
            self.ranks[rank].ledger.fence(epoch).expect("it is above all");
            // Plans that wait at the rank are of a fenced epoch now.
            self.ranks[rank].early.clear();
            for _ in 0..self.roll(3) {
                if !self.owners.is_empty() {
                    self.deliver_any();
                }
            }
        }
        let ledgers: Vec<_> = self.ranks.iter().map(|rank| rank.ledger.position()).collect();
        let documents = self.recall();
        let goes_on = self.level();
        let latest = self.owners.last().map_or(0, |owner| owner.latest);
        let best = ledgers.iter().flatten().max().copied();
        let sent = std::array::from_fn(|rank| {
            if best.is_some() && ledgers[rank] == best {
                return VecDeque::from([OwnerMessage::Begin(Beginning::GoOn, latest)]);
            }
            let copies = documents.iter().map(|(session, memo)| OwnerMessage::Copy(*session, memo.clone()));
            let begin = OwnerMessage::Begin(Beginning::Anew, latest);
            std::iter::once(begin).chain(copies).chain([OwnerMessage::Complete]).collect()
        });
        for rank in &mut self.ranks {
            (rank.busy, rank.early) = (None, VecDeque::new());
            match (&mut rank.group, goes_on) {
                (Some(group), true) => group.renew(epoch),
                (group, _) => *group = Some(Group::new(epoch, SLOTS)),
            }
        }
        self.has_died = false;
        self.history.insert(Position { epoch, number: latest }, documents.clone());
        self.owners.push(SimulatedOwner {
            epoch,
            documents,
            latest,
            seq: Seq(0),
            sent,
            counts: [true; RANKS],
            has: [None; RANKS],
            is_dead: false,
        });
    }

    /// E1: the ledger that is furthest has the documents as they were after an entry that is not before what was confirmed.
    fn recall(&self) -> Documents {
        let standings: Vec<_> = self.ranks.iter().map(SimulatedRank::standing).collect();
        let Some(best) = best_ledger(&standings) else {
            assert_eq!(
                self.confirmed,
                Position::default(),
                "E1: no rank has a ledger, and something was confirmed"
            );
            return Documents::new();
        };
        let (position, documents) =
            (standings[best].ledger.expect("it has one"), self.ranks[best].documents());
        assert!(position >= self.confirmed, "E1: {position:?} of rank {best} is before {:?}", self.confirmed);
        assert_eq!(Some(&documents), self.history.get(&position), "E1: what is kept is what was written");
        documents
    }

    /// E3: where no rank has died, whatever had arrived of the plans before, the ranks come to the same tables.
    fn level(&mut self) -> bool {
        for _ in 0..20 {
            let standings: Vec<_> = self.ranks.iter().map(SimulatedRank::standing).collect();
            match caches(&standings) {
                Caches::GoOn(_) => {
                    let digests: Vec<_> =
                        self.ranks.iter().map(|rank| rank.group.as_ref().map(Group::digest)).collect();
                    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "E3");
                    return true;
                }
                Caches::Empty(why) => {
                    assert!(self.has_died, "E3: no rank has died, and caches are lost: {why}");
                    return false;
                }
                Caches::Wait => {}
                Caches::Level { from, to } => {
                    let (_, seq) = self.ranks[from].reached().expect("it has the plan");
                    to.into_iter().for_each(|rank| self.ranks[rank].take_plan(seq));
                }
            }
            (0..RANKS).for_each(|rank| self.finish(rank));
        }
        assert!(self.has_died, "E3: no rank has died, and the plan does not end");
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        rng_seed: proptest::test_runner::RngSeed::Fixed(17),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whoever_dies_what_was_confirmed_is_there(random: u64, steps in 20..200_usize) {
        let mut world = World::new(random);
        for _ in 0..steps {
            world.step();
        }
        world.take_over();
    }
}
