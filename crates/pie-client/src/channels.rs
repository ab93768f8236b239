//! Connections to the routers of a pool, taken in turn.

use crate::error::ClientError;
use pie_transport::Connector;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// At least one connection. Clones share them, and the turn.
#[derive(Clone, Debug)]
pub(crate) struct Channels {
    all: Arc<[Channel]>,
    turn: Arc<AtomicUsize>,
}

impl Channels {
    /// Connects to one router at once; to several, separated by commas, when their turn comes: some may be away.
    pub async fn connect(urls: &str, connector: &Connector) -> Result<Self, ClientError> {
        let endpoint = |url: &str| -> Result<Endpoint, ClientError> {
            let bad = |_| ClientError::BadUrl { url: url.to_owned() };
            Ok(Endpoint::from_shared(url.to_owned()).map_err(bad)?.connect_timeout(CONNECT_TIMEOUT))
        };
        if urls.contains(',') {
            let channels = urls.split(',').map(|url| Ok(connector.lazily(endpoint(url)?)));
            return Ok(Self::of(channels.collect::<Result<_, ClientError>>()?));
        }
        let refused = |source| ClientError::Connect { url: urls.to_owned(), source };
        Ok(Self::one(connector.connect(endpoint(urls)?).await.map_err(refused)?))
    }

    /// One connection that is there already.
    pub fn one(channel: Channel) -> Self {
        Self::of(vec![channel])
    }

    fn of(all: Vec<Channel>) -> Self {
        Self { all: all.into(), turn: Arc::default() }
    }

    /// The one whose turn it is.
    pub fn next(&self) -> Channel {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.all[turn % self.all.len()].clone()
    }
}
