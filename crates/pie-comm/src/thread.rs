//! Groups of threads of one process: for tests, and the plainest statement of what the collectives do.

use crate::collective::check_whole;
use crate::member::RankSet;
use crate::{Collective, CollectiveCall, CommError, Loss, Member, Operation, Rank, WorldSize};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Makes groups of threads.
#[derive(Clone, Copy, Debug)]
pub struct ThreadGroup;

impl ThreadGroup {
    /// The deadline of [`ThreadGroup::new`]: a test on a busy machine should not meet it.
    pub const DEADLINE: Duration = Duration::from_secs(60);

    /// The members of a group, in rank order, one for each thread.
    ///
    /// # Errors
    /// [`CommError::WorldSize`].
    #[allow(clippy::new_ret_no_self, reason = "a group is its members")]
    pub fn new(world_size: u32) -> Result<Vec<ThreadMember>, CommError> {
        Self::with_deadline(world_size, Self::DEADLINE)
    }

    /// The same with a deadline for each call.
    ///
    /// # Errors
    /// [`CommError::WorldSize`].
    pub fn with_deadline(world_size: u32, deadline: Duration) -> Result<Vec<ThreadMember>, CommError> {
        let world_size = WorldSize::new(world_size)?;
        let ranks = world_size.get() as usize;
        let buffers = || (0..ranks).map(|_| Mutex::default()).collect();
        let meeting = Meeting { turn: 0, arrived: vec![None; ranks], left: RankSet::default(), failed: None };
        let (parts, sums) = (buffers(), buffers());
        let room =
            Arc::new(SharedBuffers { meeting: Mutex::new(meeting), changed: Condvar::new(), parts, sums });
        let member = |member| ThreadMember { member, deadline, sequence: 0, room: room.clone() };
        Ok(Member::all(world_size).map(member).collect())
    }
}

/// A rank that is a thread.
#[derive(Debug)]
pub struct ThreadMember {
    member: Member,
    deadline: Duration,
    sequence: u64,
    room: Arc<SharedBuffers>,
}

/// What the threads share. `parts` and `sums` are written by their own rank between meetings, and read by all after.
#[derive(Debug)]
struct SharedBuffers {
    meeting: Mutex<Meeting>,
    changed: Condvar,
    parts: Vec<Mutex<Vec<f32>>>,
    sums: Vec<Mutex<Vec<f32>>>,
}

#[derive(Debug)]
struct Meeting {
    /// How many meetings are over.
    turn: u64,
    arrived: Vec<Option<CollectiveCall>>,
    left: RankSet,
    failed: Option<CommError>,
}

/// No code here panics while it holds a lock, and a rank that panics elsewhere leaves the group by being dropped.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ThreadMember {
    fn next_call(&mut self, operation: Operation, elements: usize) -> CollectiveCall {
        let call = CollectiveCall { operation, sequence: self.sequence, elements: elements as u64 };
        self.sequence += 1;
        call
    }

    /// Returns when all ranks have come to this meeting, with the same call.
    fn meet(&self, call: CollectiveCall) -> Result<(), CommError> {
        let mut meeting = lock(&self.room.meeting);
        let turn = meeting.turn;
        if meeting.failed.is_none() {
            meeting.arrive(self.member.rank(), call);
            self.room.changed.notify_all();
        }
        let until = Instant::now() + self.deadline;
        // A meeting that is over succeeded, whatever came after it.
        while meeting.turn == turn {
            if let Some(failed) = &meeting.failed {
                return Err(failed.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waiting_for = meeting.missing().collect();
                meeting.failed = Some(CommError::Deadline { call, deadline: self.deadline, waiting_for });
                self.room.changed.notify_all();
                continue;
            }
            meeting = self.room.changed.wait_timeout(meeting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn chunk(&self, elements: usize) -> Range<usize> {
        chunk(self.member.rank(), self.member.world_size(), elements)
    }
}

impl Meeting {
    fn missing(&self) -> impl Iterator<Item = Rank> {
        (0..).map(Rank).zip(&self.arrived).filter(|(_, call)| call.is_none()).map(|(rank, _)| rank)
    }

    fn arrive(&mut self, rank: Rank, call: CollectiveCall) {
        let others = (0..).map(Rank).zip(&self.arrived);
        let mut differing = others
            .filter_map(|(peer, other)| other.filter(|other| *other != call).map(|other| (peer, other)));
        if let Some((peer, peer_call)) = differing.next() {
            self.failed = Some(CommError::OutOfStep { rank, call, peer, peer_call });
            return;
        }
        self.arrived[rank.index()] = Some(call);
        self.check_left(call);
        if self.missing().next().is_none() {
            self.arrived.fill(None);
            self.turn += 1;
        }
    }

    fn check_left(&mut self, call: CollectiveCall) {
        let gone = self.missing().find(|rank| self.left.contains(*rank));
        if let Some(rank) = gone {
            self.failed.get_or_insert(CommError::PeerLost { rank, call, how: Loss::Left });
        }
    }
}

impl Drop for ThreadMember {
    fn drop(&mut self) {
        let mut meeting = lock(&self.room.meeting);
        meeting.left.insert(self.member.rank());
        if let Some(call) = meeting.arrived.iter().flatten().next().copied() {
            meeting.check_left(call);
        }
        self.room.changed.notify_all();
    }
}

impl Collective for ThreadMember {
    fn member(&self) -> Member {
        self.member
    }

    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError> {
        let call = self.next_call(Operation::AllReduceSum, data.len());
        let rank = self.member.rank().index();
        fill(&self.room.parts[rank], data);
        self.meet(call)?;
        let own = self.chunk(data.len());
        {
            // Rank order, on every rank, for every chunk (C3).
            let mut sum = lock(&self.room.sums[rank]);
            sum.clear();
            sum.extend_from_slice(&lock(&self.room.parts[0])[own.clone()]);
            for part in &self.room.parts[1..] {
                add(&mut sum, &lock(part)[own.clone()]);
            }
        }
        self.meet(call)?;
        for (peer, sum) in self.member.world_size().ranks().zip(&self.room.sums) {
            data[chunk(peer, self.member.world_size(), call.elements as usize)].copy_from_slice(&lock(sum));
        }
        Ok(())
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        check_whole(self.member, part, whole)?;
        let call = self.next_call(Operation::AllGather, part.len());
        fill(&self.room.parts[self.member.rank().index()], part);
        self.meet(call)?;
        for (peer, part) in self.room.parts.iter().enumerate() {
            let part = lock(part);
            whole[peer * part.len()..][..part.len()].copy_from_slice(&part);
        }
        // Nobody overwrites a part that others still read.
        self.meet(call)
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        let call = self.next_call(Operation::Barrier, 0);
        self.meet(call)
    }
}

fn fill(buffer: &Mutex<Vec<f32>>, data: &[f32]) {
    let mut buffer = lock(buffer);
    buffer.clear();
    buffer.extend_from_slice(data);
}

pub(crate) fn add(sum: &mut [f32], part: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(part) {
        *sum += value;
    }
}

/// The part of `elements` that a rank sums for all.
pub(crate) fn chunk(rank: Rank, world_size: WorldSize, elements: usize) -> Range<usize> {
    let size = elements.div_ceil(world_size.get() as usize);
    let at = |index: usize| (index * size).min(elements);
    at(rank.index())..at(rank.index() + 1)
}
