//! ranks, owners and session homes.
