//! What can go wrong between a caller and the placement.

use std::time::Duration;

use crate::GroupId;

/// A failed placement call. Unless a variant says otherwise, the call has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlacementError {
    /// A name cannot be part of a key.
    #[error("{what} name {name:?} is refused: {why}; choose another name")]
    InvalidName {
        /// What it should name.
        what: &'static str,
        /// The name, or the start of it.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A time to live is out of range.
    #[error("a lease of {ttl:?} is refused: use 1 second to 1 hour")]
    InvalidTtl {
        /// The time to live that was asked for.
        ttl: Duration,
    },
    /// A record contradicts itself.
    #[error("the record of {what} is refused: {why}")]
    InvalidRecord {
        /// The record, and what is wrong with it.
        what: String,
        /// What is wrong and what would be right.
        why: String,
    },
    /// Another process holds this rank of the group.
    #[error(
        "rank {rank} of group {group} is held by {holder}: give this worker another rank or group, \
         or, if the holder is dead, try again once its lease has run out"
    )]
    RankTaken {
        /// The group whose rank is taken.
        group: GroupId,
        /// The rank in it.
        rank: u32,
        /// The control address of the holder.
        holder: String,
    },
    /// Another process owns the group, or nobody does.
    #[error("group {group} is not owned by this router any more: campaign again")]
    NotOwner {
        /// The group that another router owns, or nobody.
        group: GroupId,
    },
    /// The group takes no new sessions.
    #[error("group {group} is cordoned and takes no new sessions: choose another group or open it again")]
    GroupCordoned {
        /// The group that takes no new sessions.
        group: GroupId,
    },
    /// An endpoint or the key prefix of the placement service cannot be used.
    #[error(
        "etcd endpoints {endpoints} are refused: {why}; use http://host:port,http://host:port,... and a prefix like /pie/"
    )]
    InvalidEndpoint {
        /// The endpoints, by comma.
        endpoints: String,
        /// What an endpoint must be, and this one is not.
        why: String,
    },
    /// The placement service did not answer. A call that writes may have taken effect: every such call can be repeated.
    #[error(
        "{operation}: no answer from etcd at {endpoints}: {detail}; check that the server runs, that this machine \
         reaches it, and the configured endpoints"
    )]
    Unavailable {
        /// The call that got no answer.
        operation: &'static str,
        /// The servers that were asked.
        endpoints: String,
        /// What happened, in the transport's words.
        detail: String,
    },
    /// The placement service answered with a refusal (credentials, permissions, quota).
    #[error(
        "{operation}: etcd at {endpoints} refused: {detail}; check the user, its role on the key prefix, and etcd's alarms"
    )]
    Refused {
        /// The call that was refused.
        operation: &'static str,
        /// The servers that were asked.
        endpoints: String,
        /// The service's words.
        detail: String,
    },
    /// A value was written by another version of this program.
    #[error(
        "key {key} holds a value of version {found}, this program knows version {known}: run the same release \
         everywhere or use another key prefix"
    )]
    UnknownVersion {
        /// The key that holds it.
        key: String,
        /// The version that stands there.
        found: u64,
        /// The only version that is known here.
        known: u64,
    },
    /// A value is not what this program writes.
    #[error("key {key} holds a value that cannot be read ({why}): delete the key or use another key prefix")]
    MalformedValue {
        /// The key that holds it.
        key: String,
        /// What the parser says.
        why: String,
    },
    /// Others wrote the same key every time that this call looked.
    #[error("{operation}: other writers came first in {attempts} attempts; try again")]
    Contended {
        /// The call whose transaction was lost to others again and again.
        operation: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
}

impl PlacementError {
    /// A stable code for logs, metrics and `pie explain`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "PLACEMENT_INVALID_NAME",
            Self::InvalidTtl { .. } => "PLACEMENT_INVALID_TTL",
            Self::InvalidRecord { .. } => "PLACEMENT_INVALID_RECORD",
            Self::RankTaken { .. } => "PLACEMENT_RANK_TAKEN",
            Self::NotOwner { .. } => "PLACEMENT_NOT_OWNER",
            Self::GroupCordoned { .. } => "PLACEMENT_GROUP_CORDONED",
            Self::InvalidEndpoint { .. } => "PLACEMENT_INVALID_ENDPOINT",
            Self::Unavailable { .. } => "PLACEMENT_UNAVAILABLE",
            Self::Refused { .. } => "PLACEMENT_REFUSED",
            Self::UnknownVersion { .. } => "PLACEMENT_UNKNOWN_VERSION",
            Self::MalformedValue { .. } => "PLACEMENT_MALFORMED_VALUE",
            Self::Contended { .. } => "PLACEMENT_CONTENDED",
        }
    }

    /// True if the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Contended { .. } | Self::RankTaken { .. })
    }
}
