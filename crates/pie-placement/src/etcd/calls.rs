//! One way to call etcd: with a deadline, at the next server when one does not answer, and with errors that say where and what
//! to do.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::time::Instant;

use crate::PlacementError;

/// The servers and what errors need to say of them. Cheap to clone.
#[derive(Clone)]
pub(super) struct EtcdCalls {
    servers: Arc<Servers>,
    /// By comma, for errors.
    pub(super) endpoints: String,
    pub(super) timeout: Duration,
}

/// A client of its own for each server: one that balances over all of them sends a share of the calls to a dead one, again and
/// again.
struct Servers {
    list: Vec<EtcdEndpoint>,
    /// The one that answered last.
    preferred: AtomicUsize,
    options: ConnectOptions,
}

struct EtcdEndpoint {
    endpoint: String,
    connected: Mutex<EtcdConnection>,
}

/// A connection that failed a call is given up: its other end may be gone without a word, and a new one finds that out sooner.
#[derive(Default)]
struct EtcdConnection {
    client: Option<Client>,
    /// Which connection it is.
    number: u64,
}

/// How long a call may take.
#[derive(Clone, Copy)]
pub(super) struct CallLimits {
    /// With all attempts.
    pub(super) call: Duration,
    /// At one server.
    pub(super) attempt: Duration,
}

impl EtcdCalls {
    pub(super) fn new(endpoints: &[String], options: ConnectOptions, timeout: Duration) -> Self {
        let server =
            |endpoint: &String| EtcdEndpoint { endpoint: endpoint.clone(), connected: Mutex::default() };
        let list = endpoints.iter().map(server).collect();
        let servers = Arc::new(Servers { list, preferred: AtomicUsize::new(0), options });
        Self { servers, endpoints: endpoints.join(","), timeout }
    }

    /// Attempts that a call has: each server once, and the first again, whose connection may only have been old.
    pub(super) fn attempts(&self) -> u32 {
        u32::try_from(self.servers.list.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Waits for a call within the usual deadline. It may be sent more than once, and must allow that.
    pub(super) async fn call<T, Sent: Future<Output = Result<T, Error>> + Send>(
        &self,
        operation: &'static str,
        send: impl Fn(Client) -> Sent + Send + Sync,
    ) -> Result<T, PlacementError> {
        self.call_within(CallLimits { call: self.timeout, attempt: self.timeout }, operation, send).await
    }

    /// Waits for a call within limits of its own.
    pub(super) async fn call_within<T, Sent: Future<Output = Result<T, Error>> + Send>(
        &self,
        limits: CallLimits,
        operation: &'static str,
        send: impl Fn(Client) -> Sent + Send + Sync,
    ) -> Result<T, PlacementError> {
        let deadline = Instant::now() + limits.call;
        let (servers, first) = (&self.servers.list, self.servers.preferred.load(Ordering::Relaxed));
        let mut refused = self.unavailable(operation, "no server is configured");
        for attempt in 0..self.attempts() {
            let index = first.wrapping_add(attempt as usize) % servers.len().max(1);
            let Some(server) = servers.get(index) else { break };
            let left = deadline.saturating_duration_since(Instant::now());
            // A server that is silent leaves time for the others.
            let limit = (left / (self.attempts() - attempt)).min(limits.attempt);
            match self.attempt(server, limit, operation, &send).await {
                Err(error @ PlacementError::Unavailable { .. }) => refused = error,
                answered => {
                    self.servers.preferred.store(index, Ordering::Relaxed);
                    return answered;
                }
            }
        }
        Err(refused)
    }

    async fn attempt<T, Sent: Future<Output = Result<T, Error>> + Send>(
        &self,
        server: &EtcdEndpoint,
        limit: Duration,
        operation: &'static str,
        send: &(impl Fn(Client) -> Sent + Send + Sync),
    ) -> Result<T, PlacementError> {
        let mut used = None;
        let call = async {
            let (client, number) = self.client(server).await?;
            used = Some(number);
            send(client).await
        };
        let answer = match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer.map_err(|error| self.error(operation, &error)),
            Err(_) => {
                Err(self.unavailable(operation, format!("{} is silent for {limit:?}", server.endpoint)))
            }
        };
        if let (Err(PlacementError::Unavailable { .. }), Some(number)) = (&answer, used) {
            server.give_up(number);
        }
        answer
    }

    /// The connection to a server, which is made when it is first used.
    async fn client(&self, server: &EtcdEndpoint) -> Result<(Client, u64), Error> {
        if let Some(connected) = server.connected() {
            return Ok(connected);
        }
        let client = Client::connect([&server.endpoint], Some(self.servers.options.clone())).await?;
        Ok(server.connect(client))
    }

    pub(super) fn unavailable(&self, operation: &'static str, detail: impl ToString) -> PlacementError {
        PlacementError::Unavailable {
            operation,
            endpoints: self.endpoints.clone(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn error(&self, operation: &'static str, error: &Error) -> PlacementError {
        /// gRPC codes with which etcd refuses: INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED (quota),
        /// FAILED_PRECONDITION, UNAUTHENTICATED.
        const REFUSALS: [i32; 5] = [3, 7, 8, 9, 16];
        match error {
            Error::GRpcStatus(status) if REFUSALS.contains(&i32::from(status.code())) => {
                PlacementError::Refused {
                    operation,
                    endpoints: self.endpoints.clone(),
                    detail: status.message().to_owned(),
                }
            }
            Error::InvalidArgs(why) => {
                PlacementError::InvalidEndpoint { endpoints: self.endpoints.clone(), why: why.clone() }
            }
            Error::InvalidUri(why) => {
                PlacementError::InvalidEndpoint { endpoints: self.endpoints.clone(), why: why.to_string() }
            }
            other => self.unavailable(operation, other),
        }
    }
}

impl EtcdEndpoint {
    fn connected(&self) -> Option<(Client, u64)> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.client.clone().map(|client| (client, connected.number))
    }

    fn connect(&self, client: Client) -> (Client, u64) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.number += 1;
        connected.client = Some(client.clone());
        (client, connected.number)
    }

    /// Others may have made a new connection since.
    fn give_up(&self, number: u64) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.number == number {
            connected.client = None;
        }
    }
}
