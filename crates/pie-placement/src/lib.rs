//! Who is where: the ranks of each group, the router that owns it, and the group that is the home of each session.
//!
//! Owns the trait [`Placement`] and its two implementations, [`Embedded`] (one process, the default) and `Etcd`
//! (feature `etcd`), which one suite of tests holds to the same contract.
//!
//! Invariants: **A1**, the epoch of an owner is the revision of the ownership key, so it grows with every new owner and
//! serves as a fencing token; a store that lost its data counts anew, so whoever forms a group goes above what its ranks served, too; **A2**, a session's home changes by compare-and-set only.
//!
//! Must not know: the gRPC APIs, plans, documents. Addresses are strings that it checks for shape and passes on.

mod announced;
mod api;
mod embedded;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod hold;
mod names;
mod pauses;
mod record;
mod view;

pub use announced::{Announced, Announcing};
pub use api::Placement;
pub use embedded::Embedded;
pub use error::PlacementError;
#[cfg(feature = "etcd")]
pub use etcd::{Etcd, EtcdConfig, EtcdCredentials};
pub use hold::{
    Campaign, End, EndConfirmation, Hold, LeaseKeeper, LeaseState, LeaseWatch, LossReason, Ownership,
    Registration,
};
pub use names::{GroupId, RouterId, SessionKey, Ttl};
pub use record::{Admission, Forgotten, GroupRecord, Moved, Owner, Placed, RankRecord, RouterRecord};
pub use view::{OwnerWatch, RankEvent, RankWatch};
