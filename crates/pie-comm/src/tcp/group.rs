//! Collectives over the links: which way each travels.

use super::Deadlines;
use super::failure::{self, PendingCall, exchange};
use super::links::{Exchange, Links};
use super::wire::{CallPhase, Notice};
use crate::collective::check_whole;
use crate::thread::{add, chunk};
use crate::{Collective, CollectiveCall, CommError, Member, Operation, Rank};
use std::ops::Range;
use std::time::{Duration, Instant};

/// A rank of a group over TCP. Made by [`super::TcpListening::form`].
#[derive(Debug)]
pub struct TcpGroup {
    member: Member,
    options: Deadlines,
    links: Links,
    sequence: u64,
    scratch: Vec<f32>,
    failed: Option<CommError>,
}

/// How a collective travels. The result is the same bits; only the cost differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CollectiveAlgorithm {
    /// Everyone sends to everyone: one step. Best for two.
    Direct,
    /// All to rank 0, and back: the fewest messages. Best for many ranks and little data.
    Root,
    /// Everyone sums a chunk for all: the fewest bytes. Best for much data.
    Chunks,
}

/// From these many bytes on, chunks beat the other routes: measured with 2 and 8 processes on two cores
/// (`examples/all_reduce_processes.rs`), where below them messages, and the wake-ups they cost, matter more than bytes.
const CHUNKS_FROM_PAIR: usize = 128 << 10;
const CHUNKS_FROM_MANY: usize = 256 << 10;

fn reduce_route(member: Member, elements: usize) -> CollectiveAlgorithm {
    let bytes = elements * size_of::<f32>();
    match member.world_size().get() {
        2 if bytes < CHUNKS_FROM_PAIR => CollectiveAlgorithm::Direct,
        3.. if bytes < CHUNKS_FROM_MANY => CollectiveAlgorithm::Root,
        _ => CollectiveAlgorithm::Chunks,
    }
}

/// From this many bytes in a part on, sending it everywhere beats sending the whole from rank 0.
const GATHER_DIRECT_FROM: usize = 64 << 10;

fn gather_route(member: Member, elements: usize) -> CollectiveAlgorithm {
    let bytes = elements * size_of::<f32>();
    if member.world_size().get() > 2 && bytes < GATHER_DIRECT_FROM {
        CollectiveAlgorithm::Root
    } else {
        CollectiveAlgorithm::Direct
    }
}

fn nobody(_: Rank) -> Option<Range<usize>> {
    None
}

impl TcpGroup {
    pub(super) fn new(member: Member, options: Deadlines, links: Links) -> Self {
        Self { member, options, links, sequence: 0, scratch: Vec::new(), failed: None }
    }

    /// The first call of every group: returns when all ranks have all their connections.
    pub(super) fn all_formed(mut self, until: Instant) -> Result<Self, CommError> {
        let deadline = self.options.deadline;
        self.options.deadline = until.saturating_duration_since(Instant::now());
        self.run(Operation::Form, 0, |group, step| group.reduce(step, &mut []))?;
        self.options.deadline = deadline;
        Ok(self)
    }

    /// Looks, without waiting, whether a peer has died or ended the group.
    ///
    /// # Errors
    /// See [`CommError`]; end the group then, with [`TcpGroup::end`].
    pub fn watch(&mut self) -> Result<(), CommError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let call = CollectiveCall { operation: Operation::Compute, sequence: self.sequence, elements: 0 };
        failure::watch(&mut self.links, call, self.options.deadline)
    }

    /// A barrier with a deadline of its own: who does not answer is named.
    ///
    /// # Errors
    /// See [`CommError`].
    pub fn roll_call(&mut self, within: Duration) -> Result<(), CommError> {
        let deadline = std::mem::replace(&mut self.options.deadline, within);
        let result = self.barrier();
        self.options.deadline = deadline;
        result
    }

    /// Ends the group, and tells the peers why, unless it has ended. Returns the reason for which it ended.
    pub fn end(&mut self, error: CommError) -> CommError {
        if let Some(failed) = &self.failed {
            return failed.clone();
        }
        failure::end(&mut self.links, &error);
        self.failed = Some(error.clone());
        error
    }

    fn rank(&self) -> Rank {
        self.member.rank()
    }

    fn is_solo(&self) -> bool {
        self.member.world_size().get() == 1
    }

    /// Runs one call of the group, and ends the group if it fails.
    fn run(
        &mut self,
        operation: Operation,
        elements: usize,
        body: impl FnOnce(&mut Self, PendingCall) -> Result<(), CommError>,
    ) -> Result<(), CommError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let call = CollectiveCall { operation, sequence: self.sequence, elements: elements as u64 };
        let result =
            if self.is_solo() { Ok(()) } else { body(self, PendingCall::begin(call, self.options.deadline)) };
        self.sequence += 1;
        if let Err(error) = &result {
            tracing::debug!(rank = self.rank().0, %error, "the group is over");
            self.failed = Some(error.clone());
        }
        result
    }

    fn reduce(&mut self, step: PendingCall, data: &mut [f32]) -> Result<(), CommError> {
        match reduce_route(self.member, data.len()) {
            CollectiveAlgorithm::Direct => self.reduce_direct(step, data),
            CollectiveAlgorithm::Root if self.rank() == Rank(0) => self.reduce_as_root(step, data),
            CollectiveAlgorithm::Root => self.through_root(step, None, data),
            CollectiveAlgorithm::Chunks => self.reduce_chunks(step, data),
        }
    }

    fn reduce_direct(&mut self, step: PendingCall, data: &mut [f32]) -> Result<(), CommError> {
        let (own, length) = (self.rank(), data.len());
        let world = self.member.world_size().get() as usize;
        let scratch = room(&mut self.scratch, length * world);
        let collect = Exchange {
            call: step.call,
            phase: CallPhase::Collect,
            send: data,
            send_to: &|_| Some(0..length),
            receive: scratch,
            receive_from: &|peer| Some(region(peer, length)),
        };
        exchange(&mut self.links, step, collect)?;
        let scratch = &mut self.scratch;
        scratch[region(own, length)].copy_from_slice(data);
        sum_regions(&mut scratch[..length * world], length);
        data.copy_from_slice(&scratch[..length]);
        Ok(())
    }

    fn reduce_as_root(&mut self, step: PendingCall, data: &mut [f32]) -> Result<(), CommError> {
        let length = data.len();
        let scratch = room(&mut self.scratch, length * self.member.world_size().get() as usize);
        let collect = Exchange {
            call: step.call,
            phase: CallPhase::Collect,
            send: &[],
            send_to: &nobody,
            receive: scratch,
            receive_from: &|peer| Some(region(peer, length)),
        };
        exchange(&mut self.links, step, collect)?;
        for peer in self.member.world_size().ranks().skip(1) {
            add(data, &self.scratch[region(peer, length)]);
        }
        self.spread(step, data)
    }

    /// Rank 0 sends a result to all.
    fn spread(&mut self, step: PendingCall, result: &[f32]) -> Result<(), CommError> {
        let spread = Exchange {
            call: step.call,
            phase: CallPhase::Spread,
            send: result,
            send_to: &|_| Some(0..result.len()),
            receive: &mut [],
            receive_from: &nobody,
        };
        exchange(&mut self.links, step, spread)
    }

    /// Another rank than 0 sends its part (by default what it will be overwritten with the result) and gets the result.
    fn through_root(
        &mut self,
        step: PendingCall,
        part: Option<&[f32]>,
        result: &mut [f32],
    ) -> Result<(), CommError> {
        let only_root = |length: usize| move |peer: Rank| (peer == Rank(0)).then_some(0..length);
        let part = part.unwrap_or(result);
        let collect = Exchange {
            call: step.call,
            phase: CallPhase::Collect,
            send: part,
            send_to: &only_root(part.len()),
            receive: &mut [],
            receive_from: &nobody,
        };
        exchange(&mut self.links, step, collect)?;
        let length = result.len();
        let spread = Exchange {
            call: step.call,
            phase: CallPhase::Spread,
            send: &[],
            send_to: &nobody,
            receive: result,
            receive_from: &only_root(length),
        };
        exchange(&mut self.links, step, spread)
    }

    fn reduce_chunks(&mut self, step: PendingCall, data: &mut [f32]) -> Result<(), CommError> {
        let (own_rank, world_size, elements) = (self.rank(), self.member.world_size(), data.len());
        let own = chunk(own_rank, world_size, elements);
        let length = own.len();
        let world = world_size.get() as usize;
        let scratch = room(&mut self.scratch, length * world);
        let collect = Exchange {
            call: step.call,
            phase: CallPhase::Collect,
            send: data,
            send_to: &|peer| Some(chunk(peer, world_size, elements)),
            receive: scratch,
            receive_from: &|peer| Some(region(peer, length)),
        };
        exchange(&mut self.links, step, collect)?;
        let scratch = &mut self.scratch;
        scratch[region(own_rank, length)].copy_from_slice(&data[own.clone()]);
        sum_regions(&mut scratch[..length * world], length);
        data[own].copy_from_slice(&scratch[..length]);
        let spread = Exchange {
            call: step.call,
            phase: CallPhase::Spread,
            send: scratch,
            send_to: &|_| Some(0..length),
            receive: data,
            receive_from: &|peer| Some(chunk(peer, world_size, elements)),
        };
        exchange(&mut self.links, step, spread)
    }

    fn gather(&mut self, step: PendingCall, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        let (rank, length) = (self.rank(), part.len());
        let route = gather_route(self.member, length);
        if route == CollectiveAlgorithm::Root && rank != Rank(0) {
            return self.through_root(step, Some(part), whole);
        }
        whole[region(rank, length)].copy_from_slice(part);
        let collect = Exchange {
            call: step.call,
            phase: CallPhase::Collect,
            send: part,
            send_to: &|_| (route == CollectiveAlgorithm::Direct).then_some(0..length),
            receive: whole,
            receive_from: &|peer| Some(region(peer, length)),
        };
        exchange(&mut self.links, step, collect)?;
        if route == CollectiveAlgorithm::Root { self.spread(step, whole) } else { Ok(()) }
    }
}

impl Collective for TcpGroup {
    fn member(&self) -> Member {
        self.member
    }

    fn all_reduce_sum(&mut self, data: &mut [f32]) -> Result<(), CommError> {
        self.run(Operation::AllReduceSum, data.len(), |group, step| group.reduce(step, data))
    }

    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]) -> Result<(), CommError> {
        check_whole(self.member, part, whole)?;
        if self.is_solo() {
            whole.copy_from_slice(part);
        }
        self.run(Operation::AllGather, part.len(), |group, step| group.gather(step, part, whole))
    }

    fn barrier(&mut self) -> Result<(), CommError> {
        self.run(Operation::Barrier, 0, |group, step| group.reduce(step, &mut []))
    }
}

impl Drop for TcpGroup {
    fn drop(&mut self) {
        if self.failed.is_none() {
            self.links.tell_all(Notice::Left { calls: self.sequence });
        }
    }
}

/// Grows once, then stays.
fn room(scratch: &mut Vec<f32>, elements: usize) -> &mut [f32] {
    if scratch.len() < elements {
        scratch.resize(elements, 0.0);
    }
    &mut scratch[..elements]
}

fn region(rank: Rank, length: usize) -> Range<usize> {
    rank.index() * length..(rank.index() + 1) * length
}

/// Adds the regions of all ranks into the first, in rank order (C3).
fn sum_regions(scratch: &mut [f32], length: usize) {
    if length == 0 {
        return;
    }
    let (sum, parts) = scratch.split_at_mut(length);
    parts.chunks_exact(length).for_each(|part| add(sum, part));
}
