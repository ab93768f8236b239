//! Other routers, as this one reaches them on the internal plane.

use pie_placement::RouterRecord;
use pie_proto::peer_v1::peer_client::PeerClient;
use pie_proto::{Fault, Reason};
use pie_transport::Connector;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

/// A router that lives answers within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(2);
/// Documents pass whole.
const MESSAGE_LIMIT: usize = usize::MAX;
/// Idle connections to routers that have gone are dropped when so many are known.
const CHANNELS: usize = 256;

/// Connections to other routers, made when they are needed and kept.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    connector: Connector,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

/// Whether somebody listens at a router's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// Somebody does, which a process that is frozen does too.
    Somebody,
    /// Its machine says that nobody does.
    Nobody,
    /// Nothing is heard.
    Unknown,
}

impl Peers {
    /// Asks the machine of a router whether somebody listens at its address.
    pub(crate) async fn listens(&self, router: &RouterRecord) -> Listening {
        let address = router.address.parse::<Uri>().ok();
        let host = address.as_ref().and_then(|address| Some((address.host()?, address.port_u16()?)));
        let Some((host, port)) = host else { return Listening::Unknown };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connected =
            tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect((host, port))).await;
        match connected {
            Ok(Ok(_)) => Listening::Somebody,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Listening::Nobody,
            Ok(Err(_)) | Err(_) => Listening::Unknown,
        }
    }

    /// Reached so.
    pub fn new(connector: Connector) -> Self {
        Self { connector, channels: Arc::default() }
    }

    /// A connection to a router.
    ///
    /// # Errors
    /// [`Reason::RouterUnreachable`]: its address is none.
    pub fn channel(&self, router: &RouterRecord) -> Result<Channel, Fault> {
        if let Some(channel) = self.channels().get(&router.address) {
            return Ok(channel.clone());
        }
        let endpoint =
            Endpoint::from_shared(router.address.clone()).map_err(|error| unreachable(router, &error))?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let endpoint = endpoint.http2_keep_alive_interval(PING).keep_alive_timeout(PING);
        // Made without the lock: two at a time may make one each, and one of them is kept.
        let made = self.connector.lazily(endpoint);
        let mut channels = self.channels();
        if channels.len() >= CHANNELS {
            channels.clear();
        }
        Ok(channels.entry(router.address.clone()).or_insert(made).clone())
    }

    // Plain data, whole at any time.
    fn channels(&self) -> MutexGuard<'_, BTreeMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what routers say to each other.
    ///
    /// # Errors
    /// As of [`Peers::channel`].
    pub fn peer(&self, router: &RouterRecord) -> Result<PeerClient<Channel>, Fault> {
        self.channel(router).map(peer)
    }
}

/// What a router answers to routers alone.
pub fn peer(channel: Channel) -> PeerClient<Channel> {
    let client = PeerClient::new(channel);
    client.max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
}

/// A router does not answer.
pub fn unreachable(router: &RouterRecord, why: &dyn std::fmt::Display) -> Fault {
    let message = format!("router {} at {} does not answer ({why}): retry", router.id, router.address);
    Fault::new(Reason::RouterUnreachable, message).retry_after(CONNECT_TIMEOUT / 2)
}
