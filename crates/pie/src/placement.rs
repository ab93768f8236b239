//! Which placement a command uses.

use crate::Failure;
use pie_placement::{Embedded, Placement, Registration};
use std::sync::Arc;
use std::time::Duration;

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
pub async fn withdraw(registrations: impl IntoIterator<Item = Registration>) {
    for registration in registrations {
        let _ = tokio::time::timeout(WITHDRAW, registration.release()).await;
    }
}

#[cfg(feature = "etcd")]
async fn open_etcd(endpoints: &[String]) -> Result<Arc<dyn Placement>, Failure> {
    let config = pie_placement::EtcdConfig::new(endpoints.to_vec());
    Ok(Arc::new(pie_placement::Etcd::connect(config).await?))
}

#[cfg(not(feature = "etcd"))]
async fn open_etcd(_endpoints: &[String]) -> Result<Arc<dyn Placement>, Failure> {
    Err("this build has no etcd: build it with `cargo build --release --features etcd` (needs protoc)".into())
}
