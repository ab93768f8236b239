//! The group as a pure state machine: what a plan does to the slot tables of a group, on the router and on every rank.
//!
//! **Owns** the slot table of each session, the free and shared slots, the plan, its application, the digest of
//! the whole, the policy that makes the next plan ([`schedule`]), and what outlives an owner: the [`ledger`] of its documents that
//! each rank keeps, the tables as they travel ([`image`]), and what the next owner makes of both ([`takeover`]); what a completion
//! may write next ([`speculation`]); and which rows ranks write to disk and read back ([`blocks`]).
//!
//! **Invariant.** Replicas that start equal and apply the same plans in order stay equal, slot for slot (P2): nothing
//! here reads a clock, a hash map's order, or a random number. A plan is applied whole or not at all, so the owner
//! applies each plan to its own replica before it sends it.
//!
//! **Must not know** tensors, the wire, the clock, floating point.

pub mod blocks;
pub mod group;
pub mod image;
pub mod invariant;
pub mod ledger;
pub mod plan;
mod rows;
pub mod schedule;
mod slots;
mod spans;
pub mod speculation;
pub mod table;
pub mod takeover;
mod undo;

pub use group::{Group, Staged};
pub use invariant::{Invariant, Violation};
pub use plan::{Change, Copies, DigestWanted, Plan, PlanError, Row, Run, SequenceRows, Then, Turns, Work};
pub use table::{Reach, Table};
