//! Numbers, each with a type of its own so that a position can never be taken for a slot.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(/// A vocabulary entry.
    TokenId(u32));
number!(/// The index of a token in its session; also its logical position (invariant K2).
    TokenIndex(u32));
number!(/// A physical KV row (all layers) of one token on a rank, counted from 0.
    Slot(u32));
number!(/// Names an open document in a group; the owner of the group hands them out, never twice in an epoch.
    SessionId(u64));
number!(/// The fencing token of a group's owner: plans of another epoch are refused (invariants P1, A1).
    Epoch(u64));
number!(/// Numbers the plans of an epoch, from 1 without gaps (invariant P1).
    Seq(u64));

number!(/// Counts the applied edits of a document. An edit names the revision that it was made against.
    Revision(u64));

impl Revision {
    /// The revision after one more edit.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TokenIndex {
    /// The index as a position in a slice.
    pub fn usize(self) -> usize {
        self.0 as usize
    }
}

impl Slot {
    /// The slot as a position in a slice.
    pub fn usize(self) -> usize {
        self.0 as usize
    }
}

impl Seq {
    /// The number of the plan after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
