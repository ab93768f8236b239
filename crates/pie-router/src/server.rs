//! The router as a server: the public API with health and reflection, on one listener.

use crate::admin::AdminService;
use crate::aside::{Aside, TakenAside};
use crate::auth::{Gate, authorize};
use crate::calls::Calls;
use crate::closing::look_after;
use crate::directory::{Directory, Groups};
use crate::group::Router;
use crate::local::InProcessApi;
use crate::packing;
use crate::peer::PeerService;
use crate::reasoned::Reasoned;
use crate::service::{Plane, PoolService};
use pie_group::call::Call;
use pie_group::core::{Idle, Settings};
use pie_group::owner::{Owned, OwnerOptions, Watched, spawn_owner};
use pie_group::peers::Peers;
use pie_group::stats::Stats;
use pie_placement::{GroupId, Placement, PlacementError, RouterId, RouterRecord, Ttl};
use pie_proto::peer_v1::peer_server::PeerServer;
use pie_proto::v1::admin_server::AdminServer;
use pie_proto::v1::pool_server::PoolServer;
use pie_text::Tokenizer;
use pie_transport::{Acceptor, Connector, Incoming, limited};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tonic::codec::CompressionEncoding;
use tower::util::MapRequestLayer;

/// Above the document, a message holds little.
const MESSAGE_SLACK: usize = 1 << 20;
/// The owner gives its group up in this time, or leaves it to its lease.
const OWNER_GRACE: Duration = Duration::from_secs(2);
/// Clients whose streams are cut are told so in this time.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a router that is drained looks whether all streams have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Sessions are looked after at least so often.
const SWEEP: Duration = Duration::from_secs(10);

/// How a router serves.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where clients call.
    pub public: PublicApi,
    /// Where other routers call.
    pub internal: InternalApi,
    /// The groups that this router owns, or takes over when their owner goes.
    pub groups: Vec<GroupId>,
    /// Ranks of each.
    pub world_size: u32,
    /// C2: of every collective.
    pub deadline: Duration,
    /// Of a step.
    pub settings: Settings,
    /// Bytes of the largest document.
    pub document_limit: usize,
    /// The way to the ranks.
    pub ranks: Connector,
    /// The way to other routers.
    pub routers: Connector,
}

/// The API for clients.
#[derive(Clone, Debug)]
pub struct PublicApi {
    /// Its address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Takes the connections.
    pub acceptor: Acceptor,
    /// Who may call, if tokens are asked for.
    pub gate: Option<Gate>,
}

/// The API for other routers.
#[derive(Clone, Debug)]
pub struct InternalApi {
    /// Its address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The host under which other routers reach it; the listener's own if `None`.
    pub advertise: Option<String>,
    /// Takes the connections.
    pub acceptor: Acceptor,
}

/// Why a router cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address with {flag}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Who says so.
        flag: &'static str,
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
    /// The operating system refuses the threads for what is large.
    #[error("cannot start a thread: {0}")]
    Threads(#[source] std::io::Error),
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

/// A serving router. Dropping it stops the server at once; [`RunningRouter::stop`] lets running calls end.
pub struct RunningRouter {
    /// Where clients reach it.
    pub address: SocketAddr,
    scheme: &'static str,
    /// Where other routers do.
    pub peer_address: SocketAddr,
    router: Arc<Router>,
    local: InProcessApi,
    phase: watch::Sender<Phase>,
    public: Plug,
    internal: Plug,
}

impl RunningRouter {
    /// Where, as clients are told.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The groups that this router owns, or wants to, for those who look on.
    pub fn groups(&self) -> Vec<(GroupId, Watched)> {
        self.router.groups.locals().map(|(group, owner)| (group.clone(), owner.watch())).collect()
    }

    /// What the router counts for itself: calls that no owner saw, and streams.
    pub fn stats(&self) -> Arc<Stats> {
        self.router.stats.clone()
    }

    /// The public API without a connection, for fronts in this process. Who calls it is asked as everybody is.
    pub fn local(&self) -> InProcessApi {
        self.local.clone()
    }

    /// What it takes, to watch.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether it serves, to ask again and again.
    pub fn readiness(&self) -> Readiness {
        Readiness(self.router.clone())
    }

    /// Refuses new sessions and completions from now on, and says so to whoever asks for its health. All else goes on.
    pub fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Waits until no completion streams. Cancel safe.
    pub async fn idle(&self) {
        // The router is there as long as it is asked.
        let _ = self.router.streams.subscribe().wait_for(|streams| *streams == 0).await;
    }

    /// Gives the groups up for other routers to own, and waits until those have fetched the documents. Calls are forwarded from then
    /// on. Cancel safe: what was not fetched is still here.
    pub async fn hand_over(&self) {
        for (_, owner) in self.router.groups.locals() {
            owner.retire().await;
        }
        while self.router.groups.locals().any(|(_, owner)| owner.holdings().sessions > 0) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops: no new calls; running ones may end within `grace`, then they are told. The groups are given up.
    ///
    /// # Errors
    /// The server had failed already.
    pub async fn stop(self, grace: Duration) -> Result<(), ServeError> {
        self.drain();
        let Self { router, mut public, mut internal, .. } = self;
        public.pull();
        let _ = tokio::time::timeout(OWNER_GRACE, forget_sessions(&router)).await;
        let ended = tokio::time::timeout(grace, &mut public.server).await.ok();
        for (_, owner) in router.groups.locals() {
            let _ = tokio::time::timeout(OWNER_GRACE, owner.stop()).await;
        }
        internal.pull();
        let ended = match ended {
            Some(ended) => ended,
            // The owner has told those that are left.
            None => match tokio::time::timeout(FAREWELL, &mut public.server).await {
                Ok(ended) => ended,
                Err(_) => {
                    public.server.abort();
                    return Ok(());
                }
            },
        };
        internal.server.abort();
        Ok(ended??)
    }
}

/// A server that can be told to take no more. A dropped one stops too.
struct Plug {
    stop: Option<oneshot::Sender<()>>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

/// A server at work.
type ServerFuture = Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

/// Ends when a server is to take no more.
type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Plug {
    fn new<E>(start: impl FnOnce(Stopped) -> Result<ServerFuture, E>) -> Result<Self, E> {
        let (stop, stopped) = oneshot::channel::<()>();
        let server = start(Box::pin(async { drop(stopped.await) }))?;
        Ok(Self { stop: Some(stop), server: tokio::spawn(server) })
    }

    fn pull(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Sessions end with the router that holds their documents; their names are free again.
async fn forget_sessions(router: &Router) {
    for (group, owner) in router.groups.locals() {
        let Ok(residents) = owner.ask_surely(|reply| Call::Residents { reply }).await else { continue };
        for (tenant, name) in residents {
            if let Err(fault) = router.directory.forget(&tenant, &name, group).await {
                tracing::warn!(%fault, session = name.as_str(), "its home could not be forgotten");
                return;
            }
        }
    }
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<(TcpListener, SocketAddr), ServeError> {
    let refused = |source| ServeError::Listen { address, flag, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Starts a router: the owner, or a candidate, of each of its groups, the public API in front of them, and the internal one for
/// other routers.
///
/// # Errors
/// [`ServeError::Listen`] if an address cannot be had.
pub async fn serve(
    options: ServeOptions,
    placement: Arc<dyn Placement>,
    tokenizer: Arc<Tokenizer>,
) -> Result<RunningRouter, ServeError> {
    let (public, address) = listen(options.public.listen, "--listen").await?;
    let (internal, peer_address) = listen(options.internal.listen, "--peer-listen").await?;
    let host = options.internal.advertise.clone().unwrap_or_else(|| peer_address.ip().to_string());
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    let router = RouterRecord {
        id: RouterId::new(format!("router-{}", unique()))?,
        address: format!("{}://{host}:{}", options.internal.acceptor.scheme(), peer_address.port()),
    };
    let (peers, owned) = (Peers::new(options.routers.clone()), Owned::default());
    let locals = options.groups.iter().map(|group| {
        let owner_options = OwnerOptions {
            group: group.clone(),
            router: router.clone(),
            world_size: options.world_size,
            deadline: options.deadline,
            settings: options.settings,
            lease: Ttl::DEFAULT,
            quotas: options.public.gate.as_ref().map(Gate::quotas).unwrap_or_default(),
            ranks: options.ranks.clone(),
            document_limit: options.document_limit,
            peers: peers.clone(),
            owned: owned.clone(),
        };
        (group.clone(), spawn_owner(owner_options, placement.clone(), tokenizer.clone()))
    });
    let locals = locals.collect();
    let groups = Groups::new(placement.clone(), router.id, locals, peers);
    tokio::spawn(groups.clone().follow());
    groups.look().await;
    let directory = Directory::new(placement, groups.clone());
    let (phase, phase_seen) = watch::channel(Phase::Serving);
    let document_limit = options.document_limit;
    let stats = Arc::default();
    let streams = watch::Sender::new(0);
    let router =
        Arc::new(Router { groups, directory, tokenizer, document_limit, phase: phase_seen, streams, stats });
    tokio::spawn(look_after(Arc::downgrade(&router), sweep_pause(options.settings.idle)));
    let aside = Arc::new(Aside::new().map_err(ServeError::Threads)?);
    let services = Services { options: &options, router: &router, aside: &aside };
    let local =
        InProcessApi::new(services.pool(Plane::Public), options.public.gate.clone(), router.stats.clone());
    let public = Plug::new(|stopped| services.public(options.public.acceptor.accept(public), stopped))?;
    let internal =
        Plug::new(|stopped| services.internal(options.internal.acceptor.accept(internal), stopped))?;
    let scheme = options.public.acceptor.scheme();
    Ok(RunningRouter { address, scheme, peer_address, router, local, phase, public, internal })
}

/// How often sessions are looked after: soon enough for the time after which they are idle.
fn sweep_pause(idle: Idle) -> Duration {
    let limit = idle.closed_after.unwrap_or(SWEEP).min(SWEEP);
    (limit / 4).clamp(LOOK, SWEEP)
}

/// Another name for each run: nobody takes a router for its predecessor.
fn unique() -> String {
    let mut random = [0; 8];
    match getrandom::fill(&mut random) {
        Ok(()) => format!("{:016x}", u64::from_le_bytes(random)),
        // A process of the same number at the same time in another place: never mind without a source of randomness.
        Err(_) => format!(
            "{}-{}",
            std::process::id(),
            std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_micros()
        ),
    }
}

/// What both planes serve.
struct Services<'a> {
    options: &'a ServeOptions,
    router: &'a Arc<Router>,
    aside: &'a Arc<Aside>,
}

impl Services<'_> {
    fn public(&self, incoming: Incoming, stopped: Stopped) -> Result<ServerFuture, ServeError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        tokio::spawn(report_health(Readiness(self.router.clone()), reporter));
        let descriptors = || {
            [
                pie_proto::PUBLIC_DESCRIPTORS,
                // Of the details of errors.
                tonic_types::pb::FILE_DESCRIPTOR_SET,
                tonic_health::pb::FILE_DESCRIPTOR_SET,
                tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            ]
            .into_iter()
            .fold(tonic_reflection::server::Builder::configure(), |builder, descriptors| {
                builder.register_encoded_file_descriptor_set(descriptors)
            })
        };
        let server = self
            .options
            .public
            .acceptor
            .server()
            .layer(authorize(self.options.public.gate.clone(), self.router.stats.clone()))
            .layer(MapRequestLayer::new(packing::negotiate))
            .add_service(Reasoned::new(health, self.router.stats.clone()))
            .add_service(descriptors().build_v1()?)
            // Older clients, Python's grpcio-reflection among them, ask for this one.
            .add_service(descriptors().build_v1alpha()?)
            .add_service(self.pool(Plane::Public))
            .add_service(self.admin(Plane::Public))
            .serve_with_incoming_shutdown(incoming, stopped);
        Ok(Box::pin(server))
    }

    fn internal(&self, incoming: Incoming, stopped: Stopped) -> Result<ServerFuture, ServeError> {
        let peer = PeerService(self.router.clone());
        let limit = self.options.document_limit + MESSAGE_SLACK;
        let server = limited()
            .add_service(self.pool(Plane::Internal))
            .add_service(self.admin(Plane::Internal))
            .add_service(
                PeerServer::new(peer).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX),
            )
            .serve_with_incoming_shutdown(incoming, stopped);
        Ok(Box::pin(server))
    }

    fn pool(&self, plane: Plane) -> Calls<Reasoned<TakenAside<PoolServer<PoolService>>>> {
        let service = PoolService { plane, router: self.router.clone() };
        let service = PoolServer::new(service)
            .max_decoding_message_size(self.options.document_limit + MESSAGE_SLACK)
            .max_encoding_message_size(usize::MAX)
            // The limit holds for what comes out too.
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let service = TakenAside::new(service, self.aside.clone());
        Calls::of(Reasoned::new(service, self.router.stats.clone()))
    }

    fn admin(&self, plane: Plane) -> Calls<Reasoned<AdminServer<AdminService>>> {
        let service = AdminServer::new(AdminService { plane, router: self.router.clone() })
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        Calls::of(Reasoned::new(service, self.router.stats.clone()))
    }
}

/// Whether a router serves: some group is served, by it or by another router that it forwards to.
#[derive(Clone)]
pub struct Readiness(Arc<Router>);

impl Readiness {
    /// # Errors
    /// Why not, in words.
    pub fn now(&self) -> Result<(), String> {
        match *self.0.phase.borrow() {
            Phase::Draining => Err("the router is being drained".to_owned()),
            Phase::Serving => self.0.groups.serves(),
        }
    }
}

/// gRPC health follows the groups, and the router's end.
async fn report_health(readiness: Readiness, reporter: tonic_health::server::HealthReporter) {
    let mut phase = readiness.0.phase.clone();
    loop {
        let status = match readiness.now() {
            Ok(()) => tonic_health::ServingStatus::Serving,
            Err(_) => tonic_health::ServingStatus::NotServing,
        };
        for service in ["", "pie.v1.Pool"] {
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            changed = phase.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
