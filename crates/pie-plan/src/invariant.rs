//! The invariants that this crate keeps, by the ids of the design.

use std::fmt;

/// A named invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Plans are applied in order of epoch and sequence number, without gaps.
    P1,
    /// The digests of all replicas are equal.
    P4,
    /// A slot is free, or stands in exactly one table, or is shared and counted.
    K1,
    /// The logical position of a token is its index: table columns have one entry per token.
    K2,
}

impl Invariant {
    /// What the invariant says.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::P1 => "plans are applied in order of epoch and sequence number, without gaps",
            Self::P4 => "the digests of all replicas are equal",
            Self::K1 => "a slot is free, or stands in exactly one table, or is shared and counted",
            Self::K2 => {
                "the position of a token is its index: every column of a table has one entry per token"
            }
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.sentence())
    }
}

/// A broken invariant: a bug in this program, never the fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant {invariant} is broken: {what}")]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// Where, with the numbers.
    pub what: String,
}
