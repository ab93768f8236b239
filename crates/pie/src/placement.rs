//! Which placement a command uses.

use crate::Failure;
use clap::Args;
#[cfg(feature = "etcd")]
use pie_placement::PlacementError;
use pie_placement::{Announced, Embedded, Placement};
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "etcd")]
use std::time::Instant;

/// A process that stops waits this long for its announcement to be withdrawn; after that the lease runs out.
const WITHDRAW: Duration = Duration::from_secs(2);

/// Where ranks and routers find each other. Nothing outside of this file asks which backend it is.
#[derive(Clone, Debug, Default, Args)]
pub struct PlacementArgs {
    /// etcd endpoints, separated by commas, instead of the placement inside the process (needs a build with
    /// `--features etcd`).
    #[arg(long, env = "PIE_ETCD", value_name = "URLS", value_delimiter = ',')]
    etcd: Vec<String>,
}

impl PlacementArgs {
    /// Whether other processes have it too. One that nobody shares is inside of the process.
    pub fn is_shared(&self) -> bool {
        !self.etcd.is_empty()
    }

    /// The flags that name the same placement to another process.
    pub fn flags(&self) -> Vec<String> {
        if self.is_shared() { vec!["--etcd".to_owned(), self.etcd.join(",")] } else { Vec::new() }
    }

    /// The placement.
    ///
    /// # Errors
    /// It cannot be reached, or this build does not have it.
    pub async fn open(&self) -> Result<Arc<dyn Placement>, Failure> {
        if self.is_shared() { open_etcd(&self.etcd).await } else { Ok(Arc::new(Embedded::new())) }
    }
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
