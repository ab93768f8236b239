//! Who a rank is in its group.

use crate::CommError;
use std::fmt;
use std::num::NonZeroU32;

/// The index of a worker in its tensor-parallel group, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

impl Rank {
    /// The rank as an index of lists that have an entry for each rank.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many ranks a group has: 1 to [`WorldSize::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorldSize(NonZeroU32);

impl WorldSize {
    /// Sets of ranks travel as 64 bits; a tensor-parallel group lives in one machine and is far smaller.
    pub const MAX: u32 = 64;

    /// Checks a number of ranks.
    ///
    /// # Errors
    /// [`CommError::WorldSize`] for 0 and for more than [`WorldSize::MAX`].
    pub fn new(ranks: u32) -> Result<Self, CommError> {
        match NonZeroU32::new(ranks) {
            Some(checked) if ranks <= Self::MAX => Ok(Self(checked)),
            _ => Err(CommError::WorldSize { ranks }),
        }
    }

    /// How many ranks there are, at least 1.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// All ranks, in order.
    pub fn ranks(self) -> impl DoubleEndedIterator<Item = Rank> + Clone {
        (0..self.get()).map(Rank)
    }
}

impl fmt::Display for WorldSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A rank and the size of its world, with the rank inside the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    rank: Rank,
    world_size: WorldSize,
}

impl Member {
    /// Checks that the rank is inside the world.
    ///
    /// # Errors
    /// [`CommError::WorldSize`] or [`CommError::Member`].
    pub fn new(rank: u32, world_size: u32) -> Result<Self, CommError> {
        let world_size = WorldSize::new(world_size)?;
        if rank >= world_size.get() {
            return Err(CommError::Member { rank: Rank(rank), world_size });
        }
        Ok(Self { rank: Rank(rank), world_size })
    }

    /// The only rank of a group of one.
    pub fn solo() -> Self {
        Self { rank: Rank(0), world_size: WorldSize(NonZeroU32::MIN) }
    }

    /// All members of a group of `world_size` ranks, in rank order.
    pub fn all(world_size: WorldSize) -> impl Iterator<Item = Self> {
        world_size.ranks().map(move |rank| Self { rank, world_size })
    }

    /// Which of the ranks it is.
    pub fn rank(self) -> Rank {
        self.rank
    }

    /// The number of ranks.
    pub fn world_size(self) -> WorldSize {
        self.world_size
    }
}

/// A set of ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RankSet(pub u64);

impl RankSet {
    /// Adds a rank; one that is there already stays.
    pub fn insert(&mut self, rank: Rank) {
        self.0 |= 1 << rank.0;
    }

    /// Whether a rank is among them.
    pub fn contains(self, rank: Rank) -> bool {
        self.0 & (1 << rank.0) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them, ascending.
    pub fn ranks(self) -> Vec<Rank> {
        (0..WorldSize::MAX).map(Rank).filter(|rank| self.contains(*rank)).collect()
    }
}

impl FromIterator<Rank> for RankSet {
    fn from_iter<I: IntoIterator<Item = Rank>>(ranks: I) -> Self {
        let mut set = Self::default();
        ranks.into_iter().for_each(|rank| set.insert(rank));
        set
    }
}
