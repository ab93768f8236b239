//! Why a collective, or forming a group, failed.

use crate::{Rank, WorldSize};
use std::fmt;
use std::time::Duration;

/// What ranks do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Connecting to each other.
    Form,
    /// [`crate::Collective::all_reduce_sum`].
    AllReduceSum,
    /// [`crate::Collective::all_gather`].
    AllGather,
    /// [`crate::Collective::barrier`].
    Barrier,
    /// Waiting for a GPU's stream, with the collectives in it.
    Compute,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "forming the group",
            Self::AllReduceSum => "all-reduce",
            Self::AllGather => "all-gather",
            Self::Barrier => "barrier",
            Self::Compute => "a pass",
        })
    }
}

/// One collective call of a group, as every message of it carries it (C1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectiveCall {
    /// The collective that was called.
    pub operation: Operation,
    /// How many calls the group made before it.
    pub sequence: u64,
    /// How many f32 elements each rank brings.
    pub elements: u64,
}

impl fmt::Display for CollectiveCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Form => self.operation.fmt(f),
            Operation::Barrier | Operation::Compute => {
                write!(f, "{} (call {})", self.operation, self.sequence)
            }
            other => write!(f, "{other} of {} elements (call {})", self.elements, self.sequence),
        }
    }
}

/// How a peer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its connection ended without a farewell: the process died, or the network between failed.
    Died,
    /// It dropped its group while others still called it.
    Left,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Died => "its connection ended without a farewell, as when a process dies",
            Self::Left => "it left the group",
        })
    }
}

/// Why a rank was not let into a group, or gave up its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The other rank forms, or has seen, a newer epoch.
    Epoch {
        /// What this rank asked for.
        asked: u64,
        /// What the other one is at.
        current: u64,
    },
    /// The other process is not the rank that was meant, or has another world size: addresses or settings are mixed up.
    Misplaced,
    /// Another process has already joined as this rank.
    Taken,
    /// The other process speaks another version of the protocol.
    Version,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { asked, current } => {
                write!(f, "epoch {asked} is over, the group is at {current}: only its present owner may form it")
            }
            Self::Misplaced => f.write_str(
                "another rank or world size was expected there: check that all ranks have the same list of peers",
            ),
            Self::Taken => f.write_str("this rank has joined already: check that no two processes have one rank"),
            Self::Version => f.write_str("it speaks another version of the protocol: run one release on all ranks"),
        }
    }
}

/// Why a collective failed. After any of the first three the group is over: later calls fail at once with the first
/// reason, and so do those of all other ranks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommError {
    /// A peer is gone (C2).
    #[error("rank {rank} is gone in {call}: {how}; the group is over, form it again")]
    PeerLost {
        /// The rank that is gone.
        rank: Rank,
        /// In which call this was noticed.
        call: CollectiveCall,
        /// What was seen of its going.
        how: Loss,
    },
    /// Ranks did not take part in time (C2).
    #[error("{call} was not complete after {deadline:?}: waiting for {}; the group is over, form it again", list(.waiting_for))]
    Deadline {
        /// What was waited for.
        call: CollectiveCall,
        /// How long the collective was allowed to take.
        deadline: Duration,
        /// Who did not take part. Ranks that themselves only waited for others are not listed.
        waiting_for: Vec<Rank>,
    },
    /// Two ranks make different calls (C1): a bug above this crate.
    #[error(
        "ranks are out of step: rank {rank} is in {call}, rank {peer} in {peer_call}; the group is over, form it again"
    )]
    OutOfStep {
        /// The rank that noticed.
        rank: Rank,
        /// The collective that it is in.
        call: CollectiveCall,
        /// The rank whose message came.
        peer: Rank,
        /// The collective that the message is of.
        peer_call: CollectiveCall,
    },
    /// A rank is not let into a group, or a newer group wants it.
    #[error("rank {by} refuses: {refusal}")]
    Refused {
        /// The rank that refuses.
        by: Rank,
        /// What does not agree.
        refusal: Refusal,
    },
    /// A number of ranks that a world cannot have.
    #[error("a world size of {ranks} is not possible: choose 1 to {}", WorldSize::MAX)]
    WorldSize {
        /// The number that was given.
        ranks: u32,
    },
    /// A rank outside its world.
    #[error("rank {rank} is outside of a world of {world_size}: ranks count from 0")]
    Member {
        /// The rank that was given, from 0.
        rank: Rank,
        /// The world that it would have to be in.
        world_size: WorldSize,
    },
    /// Not one address for each rank.
    #[error(
        "{peers} peer addresses for a world of {world_size}: give one for each rank, in rank order, this one included"
    )]
    Peers {
        /// How many there are.
        peers: usize,
        /// The world, which needs an address for each rank.
        world_size: WorldSize,
    },
    /// A tensor or buffer that this collective cannot take. Nothing was sent; the group goes on.
    #[error("{operation} cannot take this tensor: {problem}")]
    Tensor {
        /// The operation that it was given to.
        operation: Operation,
        /// What is wrong with it: size, type or device.
        problem: String,
    },
    /// NCCL, or the GPU below it. The group is over.
    #[error("{call} failed on the GPU: {problem}; the group is over, form it again")]
    Gpu {
        /// The collective that the GPU was in.
        call: CollectiveCall,
        /// What NCCL or the driver says.
        problem: String,
    },
    /// The system refuses a socket.
    #[error("{action}: {problem}")]
    System {
        /// What was asked of the operating system.
        action: String,
        /// What the system says.
        problem: String,
    },
}

impl CommError {
    /// The stable code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::PeerLost { .. } => "COMM_PEER_LOST",
            Self::Deadline { .. } => "COMM_DEADLINE",
            Self::OutOfStep { .. } => "COMM_OUT_OF_STEP",
            Self::Refused { .. } => "COMM_REFUSED",
            Self::WorldSize { .. } => "COMM_WORLD_SIZE",
            Self::Member { .. } => "COMM_MEMBER",
            Self::Peers { .. } => "COMM_PEERS",
            Self::Tensor { .. } => "COMM_TENSOR",
            Self::Gpu { .. } => "COMM_GPU",
            Self::System { .. } => "COMM_SYSTEM",
        }
    }

    pub(crate) fn tensor(operation: Operation, problem: impl fmt::Display) -> Self {
        Self::Tensor { operation, problem: problem.to_string() }
    }
}

fn list(ranks: &[Rank]) -> String {
    let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
    format!("{noun} {}", ranks.iter().map(Rank::to_string).collect::<Vec<_>>().join(", "))
}
