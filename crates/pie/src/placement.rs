//! Which placement a command uses.

use crate::Failure;
#[cfg(feature = "etcd")]
use pie_placement::PlacementError;
use pie_placement::{Announced, Embedded, Placement};
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "etcd")]
use std::time::Instant;

/// A process that stops waits this long for its announcement to be withdrawn; after that the lease runs out.
const WITHDRAW: Duration = Duration::from_secs(2);

/// The placement at the given etcd endpoints, or one inside this process.
pub async fn open(etcd: &[String]) -> Result<Arc<dyn Placement>, Failure> {
    if etcd.is_empty() {
        return Ok(Arc::new(Embedded::new()));
    }
    open_etcd(etcd).await
}

/// Takes announcements back, so that nobody calls a process that has stopped.
pub async fn withdraw(announced: impl IntoIterator<Item = Announced>) {
    for announced in announced {
        let _ = tokio::time::timeout(WITHDRAW, announced.withdraw()).await;
    }
}

/// etcd answers in this time, or is not there.
#[cfg(feature = "etcd")]
const ETCD_STARTS: Duration = Duration::from_secs(60);
#[cfg(feature = "etcd")]
const LOOK: Duration = Duration::from_millis(500);

#[cfg(feature = "etcd")]
async fn open_etcd(endpoints: &[String]) -> Result<Arc<dyn Placement>, Failure> {
    let begun = Instant::now();
    let mut said = false;
    loop {
        let config = pie_placement::EtcdConfig::new(endpoints.to_vec());
        match pie_placement::Etcd::connect(config).await {
            Ok(etcd) => return Ok(Arc::new(etcd)),
            // On a cluster all start at once, and etcd needs its quorum first.
            Err(error @ PlacementError::Unavailable { .. }) if begun.elapsed() < ETCD_STARTS => {
                if !std::mem::replace(&mut said, true) {
                    say!("waiting for etcd, {ETCD_STARTS:?} at most: {error}");
                }
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(_endpoints: &[String]) -> Result<Arc<dyn Placement>, Failure> {
    Err("this build has no etcd: build it with `cargo build --release --features etcd` (needs protoc)".into())
}
