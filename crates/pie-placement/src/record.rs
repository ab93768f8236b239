//! What is recorded about ranks, routers, groups and sessions.

use pie_words::Epoch;

use crate::{GroupId, PlacementError, RouterId};

/// One rank of a group, as its worker announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankRecord {
    /// The group that it belongs to.
    pub group: GroupId,
    /// Its index in the group, below `world_size`.
    pub rank: u32,
    /// How many ranks the group has when complete, at least 1.
    pub world_size: u32,
    /// Where its control service listens: `http://host:port`.
    pub control: String,
    /// Identifies the weights and the configuration; the ranks of a group must agree on it.
    pub model_fingerprint: String,
}

impl RankRecord {
    /// Checks the numbers and the address.
    ///
    /// # Errors
    /// [`PlacementError::InvalidRecord`] says which field is wrong.
    pub fn check(&self) -> Result<(), PlacementError> {
        let refuse = |why: String| PlacementError::InvalidRecord {
            what: format!("rank {} of group {}", self.rank, self.group),
            why,
        };
        if self.rank >= self.world_size {
            return Err(refuse(format!("the rank must be below the world size, {}", self.world_size)));
        }
        check_address(&self.control).map_err(refuse)
    }
}

/// One router, as the others need to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRecord {
    /// Which run of which router.
    pub id: RouterId,
    /// Where its public API listens for forwarded calls: `http://host:port`.
    pub address: String,
}

impl RouterRecord {
    /// Checks the address.
    ///
    /// # Errors
    /// [`PlacementError::InvalidRecord`] says what is wrong with it.
    pub fn check(&self) -> Result<(), PlacementError> {
        check_address(&self.address)
            .map_err(|why| PlacementError::InvalidRecord { what: format!("router {}", self.id), why })
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let host_and_port = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    let port = host_and_port
        .and_then(|rest| rest.rsplit_once(':'))
        .filter(|(host, _)| {
            !host.is_empty() && !host.contains(['/', '@']) && !host.contains(char::is_whitespace)
        })
        .and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(1..) => Ok(()),
        _ => Err(format!("address {address:?} must look like http://host:port")),
    }
}

/// The owner of a group and its fencing token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// How the owner is reached by other routers.
    pub router: RouterRecord,
    /// Invariant A1: the revision of the ownership key, greater than that of every earlier owner of the group.
    pub epoch: Epoch,
}

/// Whether a group takes new sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// It takes new sessions.
    #[default]
    Open,
    /// It keeps those that it has, to be moved or closed.
    Cordoned,
    /// The same, until it has been formed again: its workers are about to be restarted.
    CordonedUntilFormed,
}

/// What is known of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The group's name.
    pub group: GroupId,
    /// The ranks that are announced, by rank.
    pub ranks: Vec<RankRecord>,
    /// Its owner, if it has one.
    pub owner: Option<Owner>,
    /// Whether it takes new sessions.
    pub admission: Admission,
    /// The revision at which it was closed; 0 if it is open. Epochs count alike (A1).
    pub closed_at: u64,
}

impl GroupRecord {
    #[cfg(feature = "etcd")]
    pub(crate) fn empty(group: GroupId) -> Self {
        Self { group, ranks: Vec::new(), owner: None, admission: Admission::Open, closed_at: 0 }
    }

    /// Whether a cordon for a restart is over: the group has an owner of a later epoch than the cordon.
    pub fn is_formed_again(&self) -> bool {
        let later = self.owner.as_ref().is_some_and(|owner| owner.epoch.0 > self.closed_at);
        self.admission == Admission::CordonedUntilFormed && later
    }

    /// True if there is anything to say about the group; one that merely was asked about is not listed.
    pub(crate) fn is_known(&self) -> bool {
        !self.ranks.is_empty() || self.owner.is_some() || self.admission != Admission::Open
    }
}

/// The outcome of placing a session (invariant A2: exactly one of several concurrent placers claims it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It was free and lives in this group now, as asked.
    Claimed(GroupId),
    /// It lives in this group already, which may be the one asked for.
    Existing(GroupId),
}

impl Placed {
    /// The group that is the session's home now.
    pub fn group(&self) -> &GroupId {
        match self {
            Self::Claimed(group) | Self::Existing(group) => group,
        }
    }
}

/// The outcome of moving a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It lives in the new group.
    Done,
    /// It did not live where the caller thought: nothing was changed.
    Conflict {
        /// The group that it is in now; none if it has no home.
        home: Option<GroupId>,
    },
}

/// The outcome of forgetting a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It has no home now.
    Done,
    /// It lives in another group: nothing was changed.
    Conflict {
        /// The group that it is in now.
        home: GroupId,
    },
}
