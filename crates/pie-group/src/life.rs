//! Where a session that is opened begins: its identity, and the revision from which it counts.

use pie_proto::request::Identity;
use pie_proto::{Fault, Reason};
use pie_words::Revision;
use std::sync::atomic::{AtomicU64, Ordering};

/// The greatest revision at which a session of this process began.
static LATEST: AtomicU64 = AtomicU64::new(0);

/// A life of a session's name.
pub struct SessionStart {
    /// Tells it from other lives of the name.
    pub identity: Identity,
    /// Its first revision.
    pub begins: Revision,
}

impl SessionStart {
    /// A new one. Its revisions begin above all that a former life of the name can have had: at the microseconds since 1970, where
    /// no client makes more than one edit in each; and never below one that began here before, should the clock be set back. They
    /// stay below 2^53 for the next 250 years, so that JavaScript's numbers hold them.
    pub fn new() -> Result<Self, Fault> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| Fault::new(Reason::Internal, error.to_string()))?;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let begins = LATEST.fetch_max(now, Ordering::Relaxed).max(now);
        Ok(Self { identity: Identity::of_bits(u128::from_le_bytes(random)), begins: Revision(begins) })
    }
}
