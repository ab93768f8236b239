//! Names that end up in keys, checked once, and the time to live of a lease.

use std::fmt;
use std::time::Duration;

use crate::PlacementError;

fn check_plain(what: &'static str, name: &str) -> Result<(), PlacementError> {
    let refuse = |why| PlacementError::InvalidName { what, name: shown(name), why };
    if name.is_empty() || name.len() > 128 {
        return Err(refuse("it needs 1 to 128 characters"));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err(refuse("only ASCII letters, digits, '.', '_' and '-' are allowed"));
    }
    Ok(())
}

fn check_session(what: &'static str, name: &str) -> Result<(), PlacementError> {
    let refuse = |why| PlacementError::InvalidName { what, name: shown(name), why };
    if name.is_empty() || name.len() > 512 {
        return Err(refuse("it needs 1 to 512 bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err(refuse("control characters are not allowed"));
    }
    Ok(())
}

/// As much of a refused name as an error should repeat.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks the name.
            ///
            /// # Errors
            /// [`PlacementError::InvalidName`] says which character or length is wrong.
            pub fn new(name: impl Into<String>) -> Result<Self, PlacementError> {
                let name = name.into();
                $check($what, &name)?;
                Ok(Self(name))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = PlacementError;

            fn from_str(name: &str) -> Result<Self, PlacementError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = PlacementError;

            fn try_from(name: String) -> Result<Self, PlacementError> {
                Self::new(name)
            }
        }
    };
}

name!(
    /// Names a group: 1 to 128 ASCII letters, digits, `.`, `_` or `-`.
    GroupId, "group", check_plain);
name!(
    /// Names one run of a router: 1 to 128 ASCII letters, digits, `.`, `_` or `-`. A router that starts again should
    /// take a new one, so that nobody takes it for its predecessor.
    RouterId, "router", check_plain);
name!(
    /// Names a session in the whole pool: 1 to 512 bytes of UTF-8 without control characters.
    SessionKey, "session", check_session);

/// How long a lease lives after its last renewal: 1 second to 1 hour. Renewals are sent four times as often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

impl Ttl {
    /// Five seconds: a dead rank or router is noticed by its lease within that, plus etcd's rounding up.
    pub const DEFAULT: Self = Self(Duration::from_secs(5));

    /// Checks the range. etcd counts whole seconds: fractions are rounded up there.
    ///
    /// # Errors
    /// [`PlacementError::InvalidTtl`] if it is shorter than a second or longer than an hour.
    pub fn new(ttl: Duration) -> Result<Self, PlacementError> {
        if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&ttl) {
            Ok(Self(ttl))
        } else {
            Err(PlacementError::InvalidTtl { ttl })
        }
    }

    /// The time as a duration.
    pub fn duration(self) -> Duration {
        self.0
    }
}
