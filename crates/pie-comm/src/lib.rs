//! collectives between the ranks of a group.
