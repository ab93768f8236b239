//! The bytes between ranks. Words are in the machine's own order, like the floats that follow them: a machine with the
//! other order does not know the magic number and is refused as a stranger.

use crate::member::RankSet;
use crate::{CollectiveCall, CommError, Loss, Operation, Rank};

const MAGIC: u64 = u64::from_ne_bytes(*b"pie-comm");
const VERSION: u64 = 1;

pub(super) const HEADER: usize = 32;
pub(super) const HELLO: usize = 48;
pub(super) const REPLY: usize = 16;
pub(super) const NOTICE: usize = 96;

/// The step of a call that a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallPhase {
    /// Parts, to the one who sums or gathers them.
    Collect,
    /// Results go from rank 0 to all others.
    Spread,
}

fn operation_code(operation: Operation) -> u64 {
    match operation {
        Operation::Form => 0,
        Operation::AllReduceSum => 1,
        Operation::AllGather => 2,
        Operation::Barrier => 3,
        Operation::Compute => 4,
    }
}

fn operation(code: u64) -> Operation {
    match code {
        1 => Operation::AllReduceSum,
        2 => Operation::AllGather,
        3 => Operation::Barrier,
        4 => Operation::Compute,
        _ => Operation::Form,
    }
}

fn call_words(call: CollectiveCall) -> [u64; 3] {
    [operation_code(call.operation), call.sequence, call.elements]
}

fn call(words: &[u64]) -> CollectiveCall {
    CollectiveCall { operation: operation(words[0]), sequence: words[1], elements: words[2] }
}

/// What each message begins with (C1): epoch, sequence number, operation and phase, length.
pub(super) fn header(epoch: u64, call: CollectiveCall, phase: CallPhase) -> [u8; HEADER] {
    let phase = match phase {
        CallPhase::Collect => 0,
        CallPhase::Spread => 1,
    };
    bytemuck::cast([epoch, call.sequence, operation_code(call.operation) << 8 | phase, call.elements])
}

/// The call in a header that is not the expected one.
pub(super) fn header_call(header: [u8; HEADER]) -> CollectiveCall {
    let [_, sequence, kind, elements] = bytemuck::cast::<_, [u64; 4]>(header);
    CollectiveCall { operation: operation(kind >> 8), sequence, elements }
}

/// Which of the two connections of a pair of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Parts of tensors, in the order of the collectives.
    Data = 0,
    /// One [`Notice`] at most, when the group ends: data in flight cannot stand in its way.
    Control = 1,
}

/// What the connecting rank says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    /// What the connection is for.
    pub channel: Channel,
    /// The group's epoch as the connecting rank knows it.
    pub epoch: u64,
    /// The connecting rank.
    pub from: u32,
    /// The rank that it takes the other end for.
    pub to: u32,
    /// How many ranks it takes the group to have.
    pub world_size: u32,
}

/// What does not say hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stranger {
    /// The first bytes are not those of a rank: another program called.
    Unknown,
    /// A rank of another release, which frames messages otherwise.
    Version,
}

impl Hello {
    /// Six little-endian words: magic, version, channel, epoch, both ranks, world size.
    pub fn encode(self) -> [u8; HELLO] {
        let Self { channel, epoch, from, to, world_size } = self;
        bytemuck::cast([
            MAGIC,
            VERSION,
            channel as u64,
            epoch,
            u64::from(from) << 32 | u64::from(to),
            u64::from(world_size),
        ])
    }

    /// Reads it; who is no rank of this release is told apart from who is none at all.
    pub fn decode(bytes: [u8; HELLO]) -> Result<Self, Stranger> {
        let [magic, version, channel, epoch, ranks, world_size] = bytemuck::cast::<_, [u64; 6]>(bytes);
        if magic != MAGIC {
            return Err(Stranger::Unknown);
        }
        let channel = match channel {
            _ if version != VERSION => return Err(Stranger::Version),
            0 => Channel::Data,
            1 => Channel::Control,
            _ => return Err(Stranger::Version),
        };
        let world_size = u32::try_from(world_size).map_err(|_| Stranger::Version)?;
        Ok(Self { channel, epoch, from: (ranks >> 32) as u32, to: ranks as u32, world_size })
    }
}

/// The answer to a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelloReply {
    Welcome,
    /// Come again: this rank is still in an older epoch.
    Later,
    /// This rank is in a newer epoch.
    Epoch(u64),
    Misplaced,
    Taken,
    Version,
}

impl HelloReply {
    /// Two words: magic with the kind of answer, and the epoch that belongs to it.
    pub fn encode(self) -> [u8; REPLY] {
        let (code, epoch) = match self {
            Self::Welcome => (1, 0),
            Self::Later => (2, 0),
            Self::Epoch(epoch) => (3, epoch),
            Self::Misplaced => (4, 0),
            Self::Taken => (5, 0),
            Self::Version => (6, 0),
        };
        bytemuck::cast([MAGIC ^ code, epoch])
    }

    /// Reads it; none if it is no answer of this release.
    pub fn decode(bytes: [u8; REPLY]) -> Option<Self> {
        let [code, epoch] = bytemuck::cast::<_, [u64; 2]>(bytes);
        match MAGIC ^ code {
            1 => Some(Self::Welcome),
            2 => Some(Self::Later),
            3 => Some(Self::Epoch(epoch)),
            4 => Some(Self::Misplaced),
            5 => Some(Self::Taken),
            6 => Some(Self::Version),
            _ => None,
        }
    }
}

/// Why a rank ends the group. Whose control connection ends without one has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It dropped its group after so many calls.
    Left { calls: u64 },
    /// It lost a peer.
    Lost { rank: Rank, call: CollectiveCall, how: Loss },
    /// It waits too long, for these.
    Overdue { call: CollectiveCall, waiting_for: RankSet },
    /// It saw two ranks in different calls.
    OutOfStep { rank: Rank, call: CollectiveCall, peer: Rank, peer_call: CollectiveCall },
}

impl Notice {
    /// Words of a fixed number, whatever the notice.
    pub fn encode(self) -> [u8; NOTICE] {
        let mut words = [0; 12];
        match self {
            Self::Left { calls } => words[..2].copy_from_slice(&[1, calls]),
            Self::Lost { rank, call, how } => {
                words[..2].copy_from_slice(&[if how == Loss::Died { 2 } else { 3 }, u64::from(rank.0)]);
                words[3..6].copy_from_slice(&call_words(call));
            }
            Self::Overdue { call, waiting_for } => {
                words[..2].copy_from_slice(&[4, waiting_for.0]);
                words[3..6].copy_from_slice(&call_words(call));
            }
            Self::OutOfStep { rank, call, peer, peer_call } => {
                words[..3].copy_from_slice(&[5, u64::from(rank.0), u64::from(peer.0)]);
                words[3..6].copy_from_slice(&call_words(call));
                words[6..9].copy_from_slice(&call_words(peer_call));
            }
        }
        bytemuck::cast(words)
    }

    /// Reads it; none if it is no notice of this release.
    pub fn decode(bytes: [u8; NOTICE]) -> Option<Self> {
        let words = bytemuck::cast::<_, [u64; 12]>(bytes);
        let rank = |word: u64| u32::try_from(word).ok().map(Rank);
        match words[0] {
            1 => Some(Self::Left { calls: words[1] }),
            2 => Some(Self::Lost { rank: rank(words[1])?, call: call(&words[3..6]), how: Loss::Died }),
            3 => Some(Self::Lost { rank: rank(words[1])?, call: call(&words[3..6]), how: Loss::Left }),
            4 => Some(Self::Overdue { waiting_for: RankSet(words[1]), call: call(&words[3..6]) }),
            5 => Some(Self::OutOfStep {
                rank: rank(words[1])?,
                peer: rank(words[2])?,
                call: call(&words[3..6]),
                peer_call: call(&words[6..9]),
            }),
            _ => None,
        }
    }

    /// What to tell the others, or `None` for errors that are no matter of theirs.
    pub fn of(error: &CommError) -> Option<Self> {
        match *error {
            CommError::PeerLost { rank, call, how } => Some(Self::Lost { rank, call, how }),
            CommError::Deadline { call, ref waiting_for, .. } => {
                Some(Self::Overdue { call, waiting_for: waiting_for.iter().copied().collect() })
            }
            CommError::OutOfStep { rank, call, peer, peer_call } => {
                Some(Self::OutOfStep { rank, call, peer, peer_call })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let call = CollectiveCall { operation: Operation::AllGather, sequence: 7, elements: 1 << 40 };
        let peer_call = CollectiveCall { operation: Operation::Barrier, sequence: 8, elements: 0 };
        let (rank, peer) = (Rank(3), Rank(63));
        for notice in [
            Notice::Left { calls: 9 },
            Notice::Lost { rank, call, how: Loss::Died },
            Notice::Lost { rank: peer, call: peer_call, how: Loss::Left },
            Notice::Overdue { call, waiting_for: RankSet(1 << 63 | 5) },
            Notice::OutOfStep { rank, call, peer, peer_call },
        ] {
            assert_eq!(Notice::decode(notice.encode()), Some(notice));
        }
        let replies = [
            HelloReply::Welcome,
            HelloReply::Later,
            HelloReply::Epoch(5),
            HelloReply::Misplaced,
            HelloReply::Taken,
            HelloReply::Version,
        ];
        for reply in replies {
            assert_eq!(HelloReply::decode(reply.encode()), Some(reply));
        }
        for channel in [Channel::Data, Channel::Control] {
            let hello = Hello { channel, epoch: u64::MAX, from: 7, to: 2, world_size: 8 };
            assert_eq!(Hello::decode(hello.encode()), Ok(hello));
        }
        assert_eq!(header_call(header(5, call, CallPhase::Spread)), call);
        assert_eq!(Hello::decode([0x47; HELLO]), Err(Stranger::Unknown));
        assert_eq!(HelloReply::decode([0x47; REPLY]), None);
        assert_eq!(Notice::decode([0x47; NOTICE]), None);
    }
}
