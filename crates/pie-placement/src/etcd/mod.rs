//! The placement in etcd: leases, transactions, watches.

mod calls;
mod feed;
mod keys;
mod lease;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use pie_words::Epoch;

use self::calls::EtcdCalls;
use self::feed::{Extent, Range};
use self::keys::{GroupKey, Keys};
use self::lease::KeyClaim;
use crate::{
    Admission, Campaign, Forgotten, GroupId, GroupRecord, Moved, Owner, OwnerWatch, Ownership, Placed,
    Placement, PlacementError, RankRecord, RankWatch, Registration, RouterId, RouterRecord, SessionKey, Ttl,
};

/// How often a compare-and-set is tried again when others write the same key meanwhile.
const ATTEMPTS: u32 = 8;

/// Where etcd is and how to talk to it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `http://host:port` of each server.
    pub endpoints: Vec<String>,
    /// All keys start with it; pools that share an etcd need different ones. Default: `/pie/`.
    pub prefix: String,
    /// The deadline of every call. Default: 3 seconds.
    pub call_timeout: Duration,
    /// For an etcd with authentication.
    pub credentials: Option<EtcdCredentials>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdCredentials {
    /// The user's name in etcd.
    pub user: String,
    /// Its password; never shown.
    pub password: String,
}

impl fmt::Debug for EtcdCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl EtcdConfig {
    /// The defaults, at these endpoints.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints, prefix: "/pie/".into(), call_timeout: Duration::from_secs(3), credentials: None }
    }
}

/// Placement in etcd (3.4 or newer), for pools of more than one machine. Cheap to clone.
///
/// Epochs are revisions of the whole store (A1). A store that is replaced by an empty or an older one under a running pool counts
/// anew; those who form groups go above what the ranks have served.
#[derive(Clone)]
pub struct Etcd {
    calls: EtcdCalls,
    keys: Keys,
}

impl Etcd {
    /// Connects, and reads once to see that the server answers and lets this user read.
    ///
    /// # Errors
    /// `InvalidEndpoint`, `Unavailable` or `Refused`, each naming the endpoints.
    pub async fn connect(config: EtcdConfig) -> Result<Self, PlacementError> {
        const OPERATION: &str = "connect";
        let endpoints = config.endpoints.join(",");
        let invalid = |why: String| PlacementError::InvalidEndpoint { endpoints: endpoints.clone(), why };
        let keys = Keys::new(&config.prefix).map_err(invalid)?;
        if config.endpoints.is_empty() {
            return Err(invalid("there are none".into()));
        }
        let mut options = ConnectOptions::new()
            .with_connect_timeout(config.call_timeout)
            .with_require_leader(true)
            // Finds connections whose other end vanished. etcd turns clients away that ping more often than every 5 s.
            .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
            .with_keep_alive_while_idle(true);
        // Nothing is sent yet: each must be an address, not only the one that is used first.
        for endpoint in &config.endpoints {
            Client::connect([endpoint], Some(options.clone()))
                .await
                .map_err(|error| invalid(error.to_string()))?;
        }
        if let Some(EtcdCredentials { user, password }) = config.credentials {
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        let calls = EtcdCalls::new(&config.endpoints, options, config.call_timeout);
        let groups = keys.groups();
        let probe = |mut client: Client| {
            let (groups, count) = (groups.as_str(), GetOptions::new().with_prefix().with_count_only());
            async move { client.get(groups, Some(count)).await }
        };
        calls.call(OPERATION, probe).await?;
        Ok(Self { calls, keys })
    }

    async fn get(&self, operation: &'static str, key: &str) -> Result<Option<KeyValue>, PlacementError> {
        let get = |mut client: Client| async move { client.get(key, None).await };
        let mut response = self.calls.call(operation, get).await?;
        Ok(response.take_kvs().pop())
    }

    async fn home(
        &self,
        operation: &'static str,
        session: &SessionKey,
    ) -> Result<Option<(GroupId, i64)>, PlacementError> {
        let key = self.keys.session(session);
        match self.get(operation, &key).await? {
            Some(kv) => Ok(Some((keys::decode_session(&key, kv.value())?, kv.mod_revision()))),
            None => Ok(None),
        }
    }

    async fn txn(&self, operation: &'static str, txn: Txn) -> Result<TxnResponse, PlacementError> {
        let send = |mut client: Client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        };
        self.calls.call(operation, send).await
    }

    fn is_open(&self, group: &GroupId) -> Compare {
        Compare::create_revision(self.keys.cordon(group), CompareOp::Equal, 0)
    }

    fn rank_range(&self, group: &GroupId) -> Range<RankRecord> {
        let group_id = group.clone();
        Range {
            start: self.keys.ranks(group),
            extent: Extent::Prefix,
            decode: Box::new(move |rank, key, value| keys::decode_rank(&group_id, rank, key, value)),
        }
    }
}

/// The keys that the reads of a transaction found, in order.
fn reads(response: &TxnResponse) -> Vec<Option<KeyValue>> {
    let found = response.op_responses().into_iter().filter_map(|response| match response {
        TxnOpResponse::Get(mut found) => Some(found.take_kvs().pop()),
        _ => None,
    });
    found.collect()
}

#[async_trait]
impl Placement for Etcd {
    async fn register_rank(&self, record: RankRecord, ttl: Ttl) -> Result<Registration, PlacementError> {
        const OPERATION: &str = "register a rank";
        record.check()?;
        let key = self.keys.rank(&record.group, record.rank);
        for _ in 0..ATTEMPTS {
            let held =
                match lease::claim(&self.calls, OPERATION, &key, keys::encode_rank(&record), ttl).await? {
                    KeyClaim::Won { hold, .. } => return Ok(Registration::new(record, hold)),
                    KeyClaim::Held(held) => held,
                };
            let holder = keys::decode_rank(&record.group, record.rank, &key, held.value())?;
            if holder.control != record.control || held.lease() == 0 {
                let (group, rank) = (record.group, record.rank);
                return Err(PlacementError::RankTaken { group, rank, holder: holder.control });
            }
            lease::revoke(&self.calls, held.lease()).await?;
        }
        Err(PlacementError::Contended { operation: OPERATION, attempts: ATTEMPTS })
    }

    async fn ranks(&self, group: &GroupId) -> Result<Vec<RankRecord>, PlacementError> {
        let (entries, _) = self.rank_range(group).snapshot(&self.calls).await?;
        Ok(entries.into_values().map(|entry| entry.value).collect())
    }

    async fn watch_ranks(&self, group: &GroupId) -> Result<RankWatch, PlacementError> {
        let (view, feeder) = feed::follow(&self.calls, self.rank_range(group)).await?;
        Ok(RankWatch::new(view, Some(feeder)))
    }

    async fn campaign(
        &self,
        group: &GroupId,
        router: &RouterRecord,
        ttl: Ttl,
    ) -> Result<Campaign, PlacementError> {
        router.check()?;
        // Routers campaign again and again: look first, which needs no lease.
        if let Some(owner) = self.owner(group).await? {
            return Ok(Campaign::Held(owner));
        }
        let key = self.keys.owner(group);
        match lease::claim(&self.calls, "campaign", &key, keys::encode_owner(router), ttl).await? {
            KeyClaim::Won { revision, hold } => {
                Ok(Campaign::Won(Ownership::new(group.clone(), Epoch(revision), hold)))
            }
            KeyClaim::Held(kv) => Ok(Campaign::Held(owner_from(&key, &kv)?)),
        }
    }

    async fn advance(&self, ownership: &mut Ownership) -> Result<(), PlacementError> {
        let key = self.keys.owner(ownership.group());
        let lease = ownership.lease_id().cast_signed();
        match lease::touch(&self.calls, "advance an epoch", &key, lease).await? {
            Some(revision) => {
                ownership.advanced(Epoch(revision));
                Ok(())
            }
            None => Err(PlacementError::NotOwner { group: ownership.group().clone() }),
        }
    }

    async fn depose(&self, group: &GroupId, router: &RouterId) -> Result<(), PlacementError> {
        let key = self.keys.owner(group);
        let Some(held) = self.get("read an owner", &key).await? else { return Ok(()) };
        // A lease is taken for one ownership: what has come since has another.
        if held.lease() != 0 && keys::decode_owner(&key, held.value())?.id == *router {
            lease::revoke(&self.calls, held.lease()).await?;
        }
        Ok(())
    }

    async fn owner(&self, group: &GroupId) -> Result<Option<Owner>, PlacementError> {
        let key = self.keys.owner(group);
        self.get("read an owner", &key).await?.map(|kv| owner_from(&key, &kv)).transpose()
    }

    async fn watch_owner(&self, group: &GroupId) -> Result<OwnerWatch, PlacementError> {
        let range = Range {
            start: self.keys.owner(group),
            extent: Extent::OneKey,
            decode: Box::new(|_, key, value| keys::decode_owner(key, value)),
        };
        let (view, feeder) = feed::follow(&self.calls, range).await?;
        Ok(OwnerWatch::new(view, Some(feeder)))
    }

    async fn place_session(&self, session: &SessionKey, group: &GroupId) -> Result<Placed, PlacementError> {
        const OPERATION: &str = "place a session";
        let key = self.keys.session(session);
        let txn = Txn::new()
            .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0), self.is_open(group)])
            .and_then([TxnOp::put(key.as_str(), keys::encode_session(group), None)])
            .or_else([TxnOp::get(key.as_str(), None)]);
        let response = self.txn(OPERATION, txn).await?;
        if response.succeeded() {
            return Ok(Placed::Claimed(group.clone()));
        }
        // Both conditions and the read belong to one revision: no home there means that the group was cordoned.
        match reads(&response).pop().flatten() {
            Some(kv) => Ok(Placed::Existing(keys::decode_session(&key, kv.value())?)),
            None => Err(PlacementError::GroupCordoned { group: group.clone() }),
        }
    }

    async fn move_session(
        &self,
        session: &SessionKey,
        from: &GroupId,
        to: &GroupId,
    ) -> Result<Moved, PlacementError> {
        const OPERATION: &str = "move a session";
        let key = self.keys.session(session);
        for attempt in 0..ATTEMPTS {
            let revision = match self.home(OPERATION, session).await? {
                Some((home, revision)) if home == *from => revision,
                // The attempt before was answered "no" only because its first answer was lost, or another call does the same.
                Some((home, _)) if attempt > 0 && home == *to => return Ok(Moved::Done),
                home => return Ok(Moved::Conflict { home: home.map(|(home, _)| home) }),
            };
            let txn = Txn::new()
                .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, revision), self.is_open(to)])
                .and_then([TxnOp::put(key.as_str(), keys::encode_session(to), None)])
                .or_else([TxnOp::get(self.keys.cordon(to), None)]);
            let response = self.txn(OPERATION, txn).await?;
            if response.succeeded() {
                return Ok(Moved::Done);
            }
            if reads(&response).pop().flatten().is_some() {
                return Err(PlacementError::GroupCordoned { group: to.clone() });
            }
        }
        Err(PlacementError::Contended { operation: OPERATION, attempts: ATTEMPTS })
    }

    async fn session_home(&self, session: &SessionKey) -> Result<Option<GroupId>, PlacementError> {
        Ok(self.home("read a session's home", session).await?.map(|(home, _)| home))
    }

    async fn forget_session(
        &self,
        session: &SessionKey,
        group: &GroupId,
    ) -> Result<Forgotten, PlacementError> {
        const OPERATION: &str = "forget a session";
        let key = self.keys.session(session);
        for _ in 0..ATTEMPTS {
            let revision = match self.home(OPERATION, session).await? {
                None => return Ok(Forgotten::Done),
                Some((home, revision)) if home == *group => revision,
                Some((home, _)) => return Ok(Forgotten::Conflict { home }),
            };
            let txn = Txn::new()
                .when([Compare::mod_revision(key.as_str(), CompareOp::Equal, revision)])
                .and_then([TxnOp::delete(key.as_str(), None)]);
            if self.txn(OPERATION, txn).await?.succeeded() {
                return Ok(Forgotten::Done);
            }
        }
        Err(PlacementError::Contended { operation: OPERATION, attempts: ATTEMPTS })
    }

    async fn groups(&self) -> Result<Vec<GroupRecord>, PlacementError> {
        let prefix = self.keys.groups();
        let list = |mut client: Client| {
            let prefix = prefix.as_str();
            async move { client.get(prefix, Some(GetOptions::new().with_prefix())).await }
        };
        let response = self.calls.call("list groups", list).await?;
        let mut groups = BTreeMap::new();
        for kv in response.kvs() {
            let key = String::from_utf8_lossy(kv.key());
            let Some((group, kind)) = self.keys.parse(&key) else { continue };
            let record: &mut GroupRecord =
                groups.entry(group.clone()).or_insert_with(|| GroupRecord::empty(group.clone()));
            match kind {
                GroupKey::Rank(rank) => {
                    record.ranks.push(keys::decode_rank(&group, rank, &key, kv.value())?);
                }
                GroupKey::Owner => record.owner = Some(owner_from(&key, kv)?),
                GroupKey::Cordon => {
                    record.admission = keys::decode_cordon(&key, kv.value())?;
                    record.closed_at = kv.mod_revision().unsigned_abs();
                }
            }
        }
        Ok(groups.into_values().collect())
    }

    async fn set_admission(&self, group: &GroupId, admission: Admission) -> Result<(), PlacementError> {
        const OPERATION: &str = "set a group's admission";
        let key = self.keys.cordon(group);
        let op = match keys::encode_cordon(admission) {
            Some(cordon) => TxnOp::put(key, cordon, None),
            None => TxnOp::delete(key, None),
        };
        self.txn(OPERATION, Txn::new().and_then([op])).await.map(drop)
    }
}

fn owner_from(key: &str, kv: &KeyValue) -> Result<Owner, PlacementError> {
    let router = keys::decode_owner(key, kv.value())?;
    Ok(Owner { router, epoch: Epoch(kv.mod_revision().unsigned_abs()) })
}
