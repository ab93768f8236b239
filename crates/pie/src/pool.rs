//! `pie pool`: a router and N worker processes on this machine, started and stopped together.

mod workers;

use crate::Failure;
use crate::cli::{AckArg, HealingArgs, HttpArg, IdleArgs, PoolArgs, RepairArg, ServeArgs, TenantArgs};
use crate::front::{self, Unless};
use crate::observe::{LogArgs, Observe, PlatformArgs, RouterSource, Served, TraceArgs};
use crate::ready::ReadyFile;
use crate::secure::{self, args::PublicArgs};
use crate::signals::{Signals, StopSignal};
use crate::starter::{Starter, abandoned};
use crate::units::Limit;
use crate::{device, models, router};
use pie_group::{GroupState, Watched};
use pie_placement::{GroupId, Placement, RankRecord, Registration, Ttl};
use pie_router::RunningRouter;
use pie_text::Tokenizer;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use workers::{Order, Workers};

pub use workers::{WorkerReady, WorkerSays};

/// The groups are formed in this time once all workers have loaded.
const FORM_LIMIT: Duration = Duration::from_secs(300);
/// The router has this long to tell its clients which rank died before the pool ends.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Running streams may end in this time when the pool is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// A group that was lost while its workers live is formed again within so many collective deadlines, or a rank hangs.
const DEADLINES_TO_FORM_AGAIN: u32 = 3;

#[derive(Serialize)]
struct PoolReady<'a> {
    address: String,
    http: Option<String>,
    pid: u32,
    metrics: Option<String>,
    workers: &'a [WorkerReady],
}

/// Runs a pool until Ctrl-C, SIGTERM, the death of a worker, or the loss of a group that cannot be formed again; when supervised, until
/// the end of standard input, too.
pub async fn run(arguments: PoolArgs, log: &LogArgs) -> Result<(), Failure> {
    let mut starter = arguments.supervised.then(|| Starter::follow(Arc::default()));
    let mut ready = ReadyFile::claim(arguments.serve.ready_file.as_deref())?;
    // Until here a signal ends the process at once: it has started nothing.
    let prepared = Preflight::new(&arguments).await?;
    let mut signals = Signals::listen(arguments.serve.platform.drain_grace.max(GRACE))?;
    let mut pool = tokio::select! {
        started = LocalPool::start(prepared, log) => started?,
        // The workers that were started end with this process.
        signal = signals.next() => return Err(format!("{signal} before the pool served: all is stopped").into()),
    };
    ready.write(&pool.ready())?;
    if let Some(starter) = &starter {
        starter.ready();
    }
    pool.say_what_it_holds();
    let workers = pool.workers.len();
    say!("{workers} workers and a router serve at {} (Ctrl-C stops all)", pool.serving.url());
    front::say(pool.http.as_ref());
    let groups = pool.serving.groups();
    let patience = arguments.serve.collective_deadline.saturating_mul(DEADLINES_TO_FORM_AGAIN);
    tokio::select! {
        death = pool.death() => {
            ready.remove();
            say!("{death}; the pool ends");
            tokio::time::sleep(FAREWELL).await;
            pool.stop().await?;
            Err(death.into())
        }
        lost = any_given_up(&groups, patience) => {
            ready.remove();
            say!("{lost}; the pool ends");
            pool.kill().await?;
            Err(lost.into())
        }
        () = abandoned(&mut starter) => {
            ready.remove();
            pool.stop_within(FAREWELL).await
        }
        signal = signals.next() => {
            ready.remove();
            let grace = match signal {
                StopSignal::Interrupted | StopSignal::HungUp => {
                    say!("{signal}: stopping");
                    GRACE
                }
                StopSignal::Terminated => router::drain(&pool.serving, arguments.serve.platform.drain_grace, &mut signals).await,
            };
            tokio::select! {
                stopped = pool.stop_within(grace) => stopped,
                signal = signals.next() => {
                    say!("{signal} again: stopping at once");
                    Ok(())
                }
            }
        }
    }
}

/// What is found wrong before anything is started.
pub struct Preflight {
    /// With the number of ranks, whoever chose it.
    arguments: PoolArgs,
    observe: Observe,
    ports: secure::Ports,
    folder: models::ModelFolder,
    tokenizer: Arc<Tokenizer>,
    groups: Vec<GroupId>,
}

impl Preflight {
    /// Checks certificates, tokens, model, groups and memory.
    pub async fn new(arguments: &PoolArgs) -> Result<Self, Failure> {
        let observe = Observe::start(&arguments.serve.platform, "the workers are loading the model").await?;
        // The ranks listen on loopback only.
        let ports = secure::Ports::of(&arguments.serve, None, observe.security())?;
        let folder = models::resolve(&arguments.model)?;
        let tokenizer = models::tokenizer(&folder.path, arguments.serve.tokenizer())?;
        let groups = router::groups(&arguments.group)?;
        let mut arguments = arguments.clone();
        let ranks = ranks(&folder, &arguments)?;
        arguments.group.world_size = Some(ranks);
        let world_size = u64::from(ranks);
        device::check_pool(&folder.path, world_size, world_size * groups.len() as u64, &arguments.rank)?;
        Ok(Self { arguments, observe, ports, folder, tokenizer, groups })
    }
}

/// Worker processes and a router in this process.
pub struct LocalPool {
    serving: RunningRouter,
    http: Option<pie_http::HttpServer>,
    observe: Observe,
    workers: Vec<WorkerReady>,
    deaths: mpsc::Receiver<String>,
    // Workers stop when their standard input closes: kept until then.
    lifelines: Vec<mpsc::Sender<Order>>,
    _registrations: Vec<Registration>,
}

impl LocalPool {
    /// Starts the workers and the router, and waits until the group serves. What was started ends with this process if it fails.
    pub async fn start(prepared: Preflight, log: &LogArgs) -> Result<Self, Failure> {
        let Preflight { arguments, observe, ports, folder, tokenizer, groups } = prepared;
        // Before the workers, each of which would say by itself that it waits for etcd.
        let placement = arguments.group.placement.open().await?;
        let mut started = Workers::start(&arguments, &groups, &folder.path, log)?;
        let workers = started.ready().await?;
        let Workers { mut deaths, lifelines, .. } = started;
        // Where others see it too, workers announce themselves.
        let registrations = if !arguments.group.placement.is_shared() {
            register(placement.as_ref(), arguments.group.ranks(), &workers).await?
        } else {
            Vec::new()
        };
        let mut serve = arguments.serve.clone();
        // The workers end with this process: nothing would outlive it.
        serve.ack.get_or_insert(AckArg::Owner);
        let front = front::FrontBuilder::new(&serve, &ports, &tokenizer);
        let serving = router::start(&serve, &arguments.group, tokenizer, placement, ports).await?;
        let http = front.start(&serving, Unless::Taken).await?;
        observe.serves(Served::Router(RouterSource::of(&serving, http.as_ref())));
        wait_until_served(&serving, &mut deaths).await?;
        Ok(Self { serving, http, observe, workers, deaths, lifelines, _registrations: registrations })
    }

    /// Worker processes.
    pub fn ranks(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Where the public API listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.serving.address
    }

    /// Waits for the death of a worker, and says who died and how.
    async fn death(&mut self) -> String {
        match self.deaths.recv().await {
            Some(death) => death,
            None => std::future::pending().await,
        }
    }

    /// Stops the router, then the workers.
    pub async fn stop(self) -> Result<(), Failure> {
        self.stop_within(GRACE).await
    }

    /// The same; streams that run may end within `grace`.
    async fn stop_within(self, grace: Duration) -> Result<(), Failure> {
        front::stop(self.http, grace).await;
        self.serving.stop(grace).await?;
        drop(self.lifelines);
        let mut deaths = self.deaths;
        // The channel closes when the last worker has ended.
        while deaths.recv().await.is_some() {}
        Ok(())
    }

    /// Stops the router and ends the workers, of which one at least does not answer.
    async fn kill(self) -> Result<(), Failure> {
        for lifeline in &self.lifelines {
            // One that has ended needs no order.
            let _ = lifeline.try_send(Order::EndNow);
        }
        self.stop_within(FAREWELL).await
    }

    fn say_what_it_holds(&self) {
        let Some(tightest) =
            self.workers.iter().map(|worker| worker.budget).min_by_key(|budget| budget.slots)
        else {
            return;
        };
        let sessions = tightest.sessions();
        say!(
            "each rank takes {tightest}: {sessions} sessions of 4,096 tokens at once, others when they are used"
        );
    }

    fn ready(&self) -> PoolReady<'_> {
        PoolReady {
            address: self.address().to_string(),
            http: self.http.as_ref().map(|http| http.address.to_string()),
            pid: std::process::id(),
            metrics: self.observe.address().map(|address| address.to_string()),
            workers: &self.workers,
        }
    }
}

/// Waits until a group is lost for good: its owner does not form it again within `patience`, since a rank hangs, which is not dead.
async fn any_given_up(groups: &[(GroupId, Watched)], patience: Duration) -> String {
    let lost = groups.iter().map(|(group, watched)| Box::pin(given_up(group, watched.state(), patience)));
    futures::future::select_all(lost).await.0
}

async fn given_up(group: &GroupId, mut state: watch::Receiver<GroupState>, patience: Duration) -> String {
    loop {
        // Streams to all ranks break when this process was stopped for a while, or the machine slept: the group is formed again.
        let why = match state.wait_for(|state| *state != GroupState::Serving).await.as_deref() {
            Ok(GroupState::Lost(why) | GroupState::Waiting(why)) => why.clone(),
            _ => return std::future::pending().await,
        };
        say!("group {group}: {why}; forming it again");
        let again =
            tokio::time::timeout(patience, state.wait_for(|state| *state == GroupState::Serving)).await;
        match again.map(|state| state.is_ok()) {
            Ok(true) => say!("group {group} serves again"),
            Ok(false) => return std::future::pending().await,
            Err(_) => {
                let now = match &*state.borrow() {
                    GroupState::Waiting(now) if *now != why => format!(" ({now})"),
                    _ => String::new(),
                };
                let patience = humantime::format_duration(patience);
                return format!("group {group}: {why}; it could not be formed again within {patience}{now}");
            }
        }
    }
}

/// How many ranks share the model: as many as were asked for. Without that the model that ships, and random ones, show how eight share
/// it; one that somebody wants to use is one rank's on the CPU, which all threads serve, and on GPUs that of as many as can share it.
fn ranks(folder: &models::ModelFolder, arguments: &PoolArgs) -> Result<u32, Failure> {
    match (arguments.group.world_size, folder.kind) {
        (Some(ranks), _) => Ok(ranks),
        (None, models::ModelKind::Given) => device::ranks_for(&folder.path, &arguments.rank),
        (None, models::ModelKind::Shipped | models::ModelKind::Seeded) => Ok(arguments.group.ranks()),
    }
}

/// Workers without etcd are announced by the process that started them.
async fn register(
    placement: &dyn Placement,
    world_size: u32,
    workers: &[WorkerReady],
) -> Result<Vec<Registration>, Failure> {
    let mut registrations = Vec::new();
    for worker in workers {
        let record = RankRecord {
            group: GroupId::new(worker.group.as_str())?,
            rank: worker.rank,
            world_size,
            control: worker.control.clone(),
            model_fingerprint: worker.fingerprint.clone(),
        };
        registrations.push(placement.register_rank(record, Ttl::DEFAULT).await?);
    }
    Ok(registrations)
}

async fn wait_until_served(
    serving: &RunningRouter,
    deaths: &mut mpsc::Receiver<String>,
) -> Result<(), Failure> {
    let served = async {
        for (_, watched) in serving.groups() {
            let mut state = watched.state();
            state
                .wait_for(|state| *state == GroupState::Serving)
                .await
                .map_err(|_| "the router ended before it served")?;
        }
        Ok(())
    };
    tokio::select! {
        served = served => served,
        death = deaths.recv() => Err(death.unwrap_or_else(|| "the workers ended".to_owned()).into()),
        () = tokio::time::sleep(FORM_LIMIT) => Err(not_formed(serving).into()),
    }
}

fn not_formed(serving: &RunningRouter) -> String {
    let why = serving.groups().into_iter().filter_map(|(group, watched)| match &*watched.state().borrow() {
        GroupState::Waiting(why) | GroupState::Lost(why) => Some(format!("group {group}: {why}")),
        GroupState::Serving | GroupState::Retired => None,
    });
    let why = why.collect::<Vec<_>>().join("; ");
    format!("the groups were not formed within {}: {why}", humantime::format_duration(FORM_LIMIT))
}

/// How a pool on this machine serves when nobody says otherwise: on a free port.
pub fn local_serve() -> ServeArgs {
    ServeArgs {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        http: Some(HttpArg::Off),
        page: None,
        peer_listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        public: PublicArgs::none(),
        collective_deadline: Duration::from_secs(20),
        step_tokens: 512,
        prefill_time: Duration::from_millis(30),
        decode_tokens: 32,
        draft_tokens: 16,
        sessions: 10_000,
        idle: IdleArgs { session_idle: Limit(None), session_room: Limit(None) },
        completions: 1024,
        ack: None,
        healing: HealingArgs { repair: RepairArg::Always, repair_window: 16, free_rows: None },
        fim: None,
        next_edit: None,
        share_across_tenants: false,
        tenant: TenantArgs { tenant_sessions: None, tenant_tokens: None, tenant_requests: None },
        document_limit: 16 << 20,
        ready_file: None,
        platform: PlatformArgs { metrics_listen: None, drain_grace: GRACE, traces: TraceArgs::OFF },
    }
}
