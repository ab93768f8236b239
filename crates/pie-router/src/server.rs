//! The router as a server: the public API with health and reflection, on one listener.

use crate::call::Call;
use crate::calls::CallsLayer;
use crate::core::Settings;
use crate::owner::{Owner, OwnerOptions, State, Watched, spawn_owner};
use crate::service::{Homes, PoolService};
use pie_placement::{GroupId, Placement, PlacementError, RouterId, RouterRecord, Ttl};
use pie_proto::v1::pool_server::PoolServer;
use pie_text::Tokenizer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Above the document, a message holds little.
const MESSAGE_SLACK: usize = 1 << 20;
/// The owner gives its group up in this time, or leaves it to its lease.
const OWNER_GRACE: Duration = Duration::from_secs(2);
/// Clients whose streams are cut are told so in this time.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a router that is drained looks whether all streams have ended.
const LOOK: Duration = Duration::from_millis(20);

/// How a router serves.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Address of the public API; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The group that this router owns.
    pub group: GroupId,
    /// Its ranks.
    pub world_size: u32,
    /// C2: of every collective.
    pub deadline: Duration,
    /// Of a step.
    pub settings: Settings,
    /// Bytes of the largest document.
    pub document_limit: usize,
}

/// Why a router cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A name that the placement refuses.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The reflection service.
    #[error("the API's descriptors are broken: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server stopped.
    #[error("the server stopped: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The server's task panicked.
    #[error("the server's task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// What a router takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All calls.
    Serving,
    /// No new sessions and no new completions: it is about to end.
    Draining,
}

/// A serving router. Dropping it stops the server at once; [`Serving::stop`] lets running calls end.
pub struct Serving {
    /// Where.
    pub address: SocketAddr,
    owner: Owner,
    homes: Homes,
    phase: watch::Sender<Phase>,
    stop: oneshot::Sender<()>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Serving {
    /// The state of the group, to watch.
    pub fn state(&self) -> watch::Receiver<State> {
        self.owner.state()
    }

    /// For those who look on.
    pub fn watch(&self) -> Watched {
        self.owner.watch()
    }

    /// What it takes, to watch.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Refuses new sessions and completions from now on, and says so to whoever asks for its health. All else goes on.
    pub fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until no completion streams. Cancel safe.
    pub async fn idle(&self) {
        while self.owner.stats().streams.get() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops: no new calls; running ones may end within `grace`, then they are told. The group is given up.
    ///
    /// # Errors
    /// The server had failed already.
    pub async fn stop(self, grace: Duration) -> Result<(), ServeError> {
        self.drain();
        let Self { owner, homes, stop, mut server, .. } = self;
        let _ = stop.send(());
        let _ = tokio::time::timeout(OWNER_GRACE, forget_sessions(&owner, &homes)).await;
        let ended = tokio::time::timeout(grace, &mut server).await.ok();
        let _ = tokio::time::timeout(OWNER_GRACE, owner.stop()).await;
        let ended = match ended {
            Some(ended) => ended,
            // The owner has told those that are left.
            None => match tokio::time::timeout(FAREWELL, &mut server).await {
                Ok(ended) => ended,
                Err(_) => {
                    server.abort();
                    return Ok(());
                }
            },
        };
        Ok(ended??)
    }
}

/// Sessions end with the router that holds their documents; their names are free again.
async fn forget_sessions(owner: &Owner, homes: &Homes) {
    let (reply, answer) = oneshot::channel();
    if owner.call(Call::List { after: None, limit: usize::MAX, reply }).is_err() {
        return;
    }
    for session in answer.await.map(|(sessions, _)| sessions).unwrap_or_default() {
        if let Err(fault) = homes.forget(&session.session).await {
            tracing::warn!(%fault, session = session.session, "its home could not be forgotten");
            return;
        }
    }
}

/// Starts a router: the owner of one group, and the public API in front of it.
///
/// # Errors
/// [`ServeError::Listen`] if the address cannot be had.
pub async fn serve(
    options: ServeOptions,
    placement: Arc<dyn Placement>,
    tokenizer: Arc<Tokenizer>,
) -> Result<Serving, ServeError> {
    let refused = |source| ServeError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let router = RouterRecord {
        id: RouterId::new(format!("router-{}-{}", std::process::id(), address.port()))?,
        address: format!("http://{address}"),
    };
    let owner_options = OwnerOptions {
        group: options.group.clone(),
        router,
        world_size: options.world_size,
        deadline: options.deadline,
        settings: options.settings,
        lease: Ttl::DEFAULT,
    };
    let owner = spawn_owner(owner_options, placement.clone(), tokenizer.clone());
    // Small answers must not wait for an acknowledgement of the one before: tens of milliseconds.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let homes = Homes { placement, group: options.group };
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let service =
        PoolService::new(owner.clone(), tokenizer, options.document_limit, homes.clone(), phase_seen.clone());
    let service = PoolServer::new(service)
        .max_decoding_message_size(options.document_limit + MESSAGE_SLACK)
        .max_encoding_message_size(usize::MAX);

    let (reporter, health) = tonic_health::server::health_reporter();
    tokio::spawn(report_health(owner.state(), phase_seen, reporter));
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pie_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (stop, stopped) = oneshot::channel();
    let server = Server::builder()
        .layer(CallsLayer)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .add_service(health)
        .add_service(descriptors().build_v1()?)
        // Older clients, Python's grpcio-reflection among them, ask for this one.
        .add_service(descriptors().build_v1alpha()?)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async {
            // A dropped handle stops the server too.
            let _ = stopped.await;
        });
    Ok(Serving { address, owner, homes, phase, stop, server: tokio::spawn(server) })
}

/// Why a router takes no work, if so: what health and readiness follow.
///
/// # Errors
/// In words.
pub fn readiness(state: &State, phase: Phase) -> Result<(), String> {
    match (phase, state) {
        (Phase::Draining, _) => Err("the router is being drained".to_owned()),
        (Phase::Serving, State::Serving) => Ok(()),
        (Phase::Serving, State::Waiting(why)) => Err(format!("the group is not formed: {why}")),
        (Phase::Serving, State::Lost(why)) => Err(format!("the group is lost: {why}")),
    }
}

/// gRPC health follows the group, and the router's end.
async fn report_health(
    mut state: watch::Receiver<State>,
    mut phase: watch::Receiver<Phase>,
    reporter: tonic_health::server::HealthReporter,
) {
    loop {
        let ready = readiness(&state.borrow_and_update(), *phase.borrow_and_update());
        let status = match ready {
            Ok(()) => tonic_health::ServingStatus::Serving,
            Err(_) => tonic_health::ServingStatus::NotServing,
        };
        for service in ["", "pie.v1.Pool"] {
            reporter.set_service_status(service, status).await;
        }
        let changed = tokio::select! {
            changed = state.changed() => changed,
            changed = phase.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
