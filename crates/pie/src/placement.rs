//! Which placement a command uses.

use crate::Failure;
use pie_placement::{Embedded, Placement};
use std::sync::Arc;

/// The placement at the given etcd endpoints, or one inside this process.
pub async fn open(etcd: &[String]) -> Result<Arc<dyn Placement>, Failure> {
    if etcd.is_empty() {
        return Ok(Arc::new(Embedded::new()));
    }
    open_etcd(etcd).await
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
