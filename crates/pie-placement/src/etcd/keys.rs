//! Keys and values in etcd. Values are JSON with a version; a value of another version is refused, never guessed at.
//!
//! | key under the prefix | value | lease |
//! | --- | --- | --- |
//! | `groups/<group>/ranks/<rank>` | world size, control address, model fingerprint | the worker's |
//! | `groups/<group>/owner` | router, address; the key's revision is the epoch (A1) | the router's |
//! | `groups/<group>/cordon` | whether it ends when the group is formed again | none |
//! | `sessions/<session>` | group | none |

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Admission, GroupId, PlacementError, RankRecord, RouterId, RouterRecord, SessionKey};

/// The version of values that this program writes and reads.
const VERSION: u64 = 1;

/// Where the keys of one pool live.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

/// What stands behind a key of a group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GroupKey {
    Rank(u32),
    Owner,
    Cordon,
}

impl Keys {
    /// `prefix` starts and ends with a slash.
    pub(super) fn new(prefix: &str) -> Result<Self, String> {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        if !prefix.starts_with('/') || prefix.chars().any(char::is_control) {
            return Err(format!(
                "key prefix {prefix:?} must start with a slash and hold no control characters"
            ));
        }
        Ok(Self { prefix })
    }

    pub(super) fn groups(&self) -> String {
        format!("{}groups/", self.prefix)
    }

    pub(super) fn ranks(&self, group: &GroupId) -> String {
        format!("{}{group}/ranks/", self.groups())
    }

    /// Padded, so that keys sort as numbers do.
    pub(super) fn rank(&self, group: &GroupId, rank: u32) -> String {
        format!("{}{rank:05}", self.ranks(group))
    }

    pub(super) fn owner(&self, group: &GroupId) -> String {
        format!("{}{group}/owner", self.groups())
    }

    pub(super) fn cordon(&self, group: &GroupId) -> String {
        format!("{}{group}/cordon", self.groups())
    }

    pub(super) fn session(&self, session: &SessionKey) -> String {
        format!("{}sessions/{session}", self.prefix)
    }

    /// Takes a key under [`Keys::groups`] apart; `None` for keys that this version does not know.
    pub(super) fn parse(&self, key: &str) -> Option<(GroupId, GroupKey)> {
        let mut parts = key.strip_prefix(&self.groups())?.split('/');
        let group = GroupId::new(parts.next()?).ok()?;
        let kind = match (parts.next()?, parts.next(), parts.next()) {
            ("owner", None, None) => GroupKey::Owner,
            ("cordon", None, None) => GroupKey::Cordon,
            ("ranks", Some(rank), None) => GroupKey::Rank(rank.parse().ok()?),
            _ => return None,
        };
        Some((group, kind))
    }
}

/// The version beside the fields of a value.
#[derive(Serialize)]
struct Versioned<T> {
    version: u64,
    #[serde(flatten)]
    value: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct RankValue {
    world_size: u32,
    control: String,
    model_fingerprint: String,
}

#[derive(Serialize, Deserialize)]
struct OwnerValue {
    router: String,
    address: String,
}

#[derive(Serialize, Deserialize)]
struct SessionValue {
    group: String,
}

#[derive(Serialize, Deserialize)]
struct CordonValue {
    /// Cordons of earlier releases last.
    #[serde(default)]
    until_formed: bool,
}

fn encode<T: Serialize>(value: T) -> Vec<u8> {
    serde_json::to_vec(&Versioned { version: VERSION, value })
        .expect("structs of strings and numbers always serialize")
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, PlacementError> {
    let malformed = |error: serde_json::Error| malformed(key, error);
    let VersionOnly { version } = serde_json::from_slice(value).map_err(malformed)?;
    if version != VERSION {
        return Err(PlacementError::UnknownVersion { key: key.to_owned(), found: version, known: VERSION });
    }
    serde_json::from_slice(value).map_err(malformed)
}

pub(super) fn malformed(key: &str, why: impl ToString) -> PlacementError {
    PlacementError::MalformedValue { key: key.to_owned(), why: why.to_string() }
}

pub(super) fn encode_rank(record: &RankRecord) -> Vec<u8> {
    encode(RankValue {
        world_size: record.world_size,
        control: record.control.clone(),
        model_fingerprint: record.model_fingerprint.clone(),
    })
}

pub(super) fn decode_rank(
    group: &GroupId,
    rank: u32,
    key: &str,
    value: &[u8],
) -> Result<RankRecord, PlacementError> {
    let RankValue { world_size, control, model_fingerprint } = decode(key, value)?;
    let record = RankRecord { group: group.clone(), rank, world_size, control, model_fingerprint };
    record.check().map_err(|error| malformed(key, error))?;
    Ok(record)
}

pub(super) fn encode_owner(router: &RouterRecord) -> Vec<u8> {
    encode(OwnerValue { router: router.id.to_string(), address: router.address.clone() })
}

pub(super) fn decode_owner(key: &str, value: &[u8]) -> Result<RouterRecord, PlacementError> {
    let OwnerValue { router, address } = decode(key, value)?;
    let router = RouterRecord { id: RouterId::new(router).map_err(|error| malformed(key, error))?, address };
    router.check().map_err(|error| malformed(key, error))?;
    Ok(router)
}

pub(super) fn encode_session(group: &GroupId) -> Vec<u8> {
    encode(SessionValue { group: group.to_string() })
}

pub(super) fn decode_session(key: &str, value: &[u8]) -> Result<GroupId, PlacementError> {
    let SessionValue { group } = decode(key, value)?;
    GroupId::new(group).map_err(|error| malformed(key, error))
}

/// `None` for a group that is open: it has no key.
pub(super) fn encode_cordon(admission: Admission) -> Option<Vec<u8>> {
    let until_formed = match admission {
        Admission::Open => return None,
        Admission::Cordoned => false,
        Admission::CordonedUntilFormed => true,
    };
    Some(encode(CordonValue { until_formed }))
}

pub(super) fn decode_cordon(key: &str, value: &[u8]) -> Result<Admission, PlacementError> {
    let CordonValue { until_formed } = decode(key, value)?;
    Ok(if until_formed { Admission::CordonedUntilFormed } else { Admission::Cordoned })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop there")]

    use super::*;

    #[test]
    fn values_are_versioned_json_and_others_are_refused() {
        let group = GroupId::new("g").unwrap();
        let value = encode_session(&group);
        assert_eq!(
            String::from_utf8(value.clone()).unwrap(),
            r#"{"version":1,"group":"g"}"#,
            "a stored format"
        );
        assert_eq!(decode_session("k", &value).unwrap(), group);
        let rank = r#"{"version":1,"world_size":2,"control":"http://w:1","model_fingerprint":"f"}"#;
        assert_eq!(encode_rank(&decode_rank(&group, 1, "k", rank.as_bytes()).unwrap()), rank.as_bytes());
        let owner = r#"{"version":1,"router":"r","address":"http://r:1"}"#;
        assert_eq!(encode_owner(&decode_owner("k", owner.as_bytes()).unwrap()), owner.as_bytes());
        let cordon = |admission| encode_cordon(admission).map(|value| String::from_utf8(value).unwrap());
        assert_eq!(cordon(Admission::Open), None);
        assert_eq!(cordon(Admission::Cordoned).as_deref(), Some(r#"{"version":1,"until_formed":false}"#));
        // As earlier releases wrote it.
        assert_eq!(decode_cordon("k", br#"{"version":1}"#).unwrap(), Admission::Cordoned);

        for (value, code) in [
            (r#"{"version":2,"group":{}}"#, "PLACEMENT_UNKNOWN_VERSION"),
            (r#"{"group":"g"}"#, "PLACEMENT_MALFORMED_VALUE"),
            (r#"{"version":1}"#, "PLACEMENT_MALFORMED_VALUE"),
            (r#"{"version":1,"group":"a/b"}"#, "PLACEMENT_MALFORMED_VALUE"),
            ("garbage", "PLACEMENT_MALFORMED_VALUE"),
        ] {
            let error = decode_session("/pie/sessions/s", value.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "{value}");
            assert!(error.to_string().contains("/pie/sessions/s"), "{error}");
        }
        assert!(decode_rank(&group, 2, "k", rank.as_bytes()).is_err(), "rank 2 of a world of 2");
    }

    #[test]
    fn keys_are_taken_apart_as_they_were_put_together() {
        let keys = Keys::new("/a/pool").unwrap();
        let group = GroupId::new("g-1").unwrap();
        for (key, kind) in [
            (keys.rank(&group, 12), GroupKey::Rank(12)),
            (keys.owner(&group), GroupKey::Owner),
            (keys.cordon(&group), GroupKey::Cordon),
        ] {
            assert_eq!(keys.parse(&key), Some((group.clone(), kind)), "{key}");
        }
        for foreign in
            ["/a/pool/groups/g/ranks/x", "/a/pool/groups/g/new", "/a/pool/groups/g", "/b/groups/g/owner"]
        {
            assert_eq!(keys.parse(foreign), None, "{foreign}");
        }
        assert!(Keys::new("pie").is_err());
    }
}
