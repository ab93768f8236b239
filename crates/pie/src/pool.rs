//! `pie pool`: a router and N worker processes on this machine, started and stopped together.

use crate::Failure;
use crate::budget::Budget;
use crate::cli::{PoolArgs, RankArgs, ServeArgs, TenantArgs};
use crate::observe::{LogArgs, Observe, PlatformArgs, RouterSource, Source, TraceArgs};
use crate::secure::{self, args::PublicArgs};
use crate::signals::{Signals, Stop};
use crate::{device, models, placement, progress, router};
use pie_placement::{GroupId, Placement, RankRecord, Registration, Ttl};
use pie_router::{Serving, State, Watched};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

/// A worker loads its slice of the weights in this time.
const START_LIMIT: Duration = Duration::from_secs(300);
/// The router has this long to tell its clients which rank died before the pool ends.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Running streams may end in this time when the pool is stopped.
const GRACE: Duration = Duration::from_secs(5);

/// The line that a supervised worker prints when it answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct WorkerReady {
    /// Its group.
    pub group: String,
    /// Its index in that.
    pub rank: u32,
    /// Its process.
    pub pid: u32,
    /// Its control address.
    pub control: String,
    /// Of its model.
    pub fingerprint: String,
    /// Of its memory.
    pub budget: Budget,
}

#[derive(Serialize)]
struct PoolReady<'a> {
    address: String,
    pid: u32,
    metrics: Option<String>,
    workers: &'a [WorkerReady],
}

/// Runs a pool until Ctrl-C, SIGTERM, or the death of a worker.
pub async fn run(arguments: PoolArgs, log: &LogArgs) -> Result<(), Failure> {
    let mut pool = LocalPool::start(&arguments, log).await?;
    // Until here a signal ends the process at once, and its workers with it.
    let mut signals = Signals::listen(arguments.serve.platform.drain_grace.max(GRACE))?;
    if let Some(path) = &arguments.serve.ready_file {
        pool.write_ready(path)?;
    }
    pool.say_what_it_holds();
    let workers = pool.workers.len();
    eprintln!("pie: {workers} workers and a router serve at {} (Ctrl-C stops all)", pool.serving.url());
    let groups = pool.serving.groups();
    tokio::select! {
        death = pool.death() => {
            eprintln!("pie: {death}; the pool ends");
            tokio::time::sleep(FAREWELL).await;
            pool.stop().await?;
            Err(death.into())
        }
        lost = any_lost(&groups) => {
            eprintln!("pie: {lost}; the pool ends");
            tokio::time::sleep(FAREWELL).await;
            pool.stop().await?;
            Err(lost.into())
        }
        signal = signals.next() => {
            let grace = match signal {
                Stop::Interrupted => {
                    eprintln!("pie: interrupted: stopping");
                    GRACE
                }
                Stop::Terminated => router::drain(&pool.serving, arguments.serve.platform.drain_grace, &mut signals).await,
            };
            tokio::select! {
                stopped = pool.stop_within(grace) => stopped,
                signal = signals.next() => {
                    eprintln!("pie: {signal} again: stopping at once");
                    Ok(())
                }
            }
        }
    }
}

/// Worker processes and a router in this process.
pub struct LocalPool {
    serving: Serving,
    observe: Observe,
    workers: Vec<WorkerReady>,
    deaths: mpsc::Receiver<String>,
    // Workers stop when their standard input closes: kept until then.
    lifelines: Vec<mpsc::Sender<()>>,
    _registrations: Vec<Registration>,
}

impl LocalPool {
    /// Starts the workers and the router, and waits until the group serves.
    pub async fn start(arguments: &PoolArgs, log: &LogArgs) -> Result<Self, Failure> {
        let observe = Observe::start(&arguments.serve.platform, "the workers are loading the model").await?;
        // What is wrong with certificates and tokens is said before the model is loaded. The ranks listen on loopback only.
        let ports = secure::Ports::of(&arguments.serve, None, observe.security())?;
        let folder = models::resolve(arguments.model.model.as_deref())?;
        let tokenizer = models::tokenizer(&folder.path)?;
        let groups = router::groups(&arguments.group)?;
        let ranks = arguments.group.world_size * u32::try_from(groups.len())?;
        let world_size = u64::from(arguments.group.world_size);
        device::check_pool(&folder.path, world_size, u64::from(ranks), &arguments.rank)?;
        let spawn = Spawn { arguments, ranks, model: folder.path.clone(), log };
        let (deaths_sender, mut deaths) = mpsc::channel(ranks as usize);
        let (mut starting, mut lifelines) = (Vec::new(), Vec::new());
        for (number, group) in (0..).zip(&groups) {
            for rank in 0..arguments.group.world_size {
                let place = Place { group, rank, machine: number * arguments.group.world_size + rank };
                let (lifeline, ready) = spawn.worker(&place, deaths_sender.clone())?;
                lifelines.push(lifeline);
                starting.push(ready);
            }
        }
        let workers = tokio::select! {
            workers = all_ready(starting) => workers?,
            death = deaths.recv() => return Err(death.unwrap_or_else(|| "the workers ended".to_owned()).into()),
        };
        let placement = placement::open(&arguments.group.etcd).await?;
        // With etcd, workers announce themselves.
        let registrations = if arguments.group.etcd.is_empty() {
            register(placement.as_ref(), arguments.group.world_size, &workers).await?
        } else {
            Vec::new()
        };
        let serving = router::start(&arguments.serve, &arguments.group, tokenizer, placement, ports).await?;
        observe.serves(Source::Router(RouterSource::of(&serving)));
        wait_until_served(&serving, &mut deaths).await?;
        Ok(Self { serving, observe, workers, deaths, lifelines, _registrations: registrations })
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
        self.serving.stop(grace).await?;
        drop(self.lifelines);
        let mut deaths = self.deaths;
        // The channel closes when the last worker has ended.
        while deaths.recv().await.is_some() {}
        Ok(())
    }

    fn say_what_it_holds(&self) {
        let Some(tightest) =
            self.workers.iter().map(|worker| worker.budget).min_by_key(|budget| budget.slots)
        else {
            return;
        };
        let sessions = tightest.sessions();
        eprintln!(
            "pie: each rank takes {tightest}: {sessions} sessions of 4,096 tokens at once, others when they are used"
        );
    }

    fn write_ready(&self, path: &Path) -> Result<(), Failure> {
        let ready = PoolReady {
            address: self.address().to_string(),
            pid: std::process::id(),
            metrics: self.observe.address().map(|address| address.to_string()),
            workers: &self.workers,
        };
        // Renamed into place, so that a reader never sees half a line.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, serde_json::to_string(&ready)? + "\n")
            .and_then(|()| std::fs::rename(&partial, path))
            .map_err(|error| format!("--ready-file {}: {error}", path.display()).into())
    }
}

/// Waits until the router gives a group up: a rank that hangs does not die.
async fn any_lost(groups: &[(GroupId, Watched)]) -> String {
    let lost = groups.iter().map(|(group, watched)| Box::pin(lost(group, watched.state())));
    futures::future::select_all(lost).await.0
}

async fn lost(group: &GroupId, mut state: watch::Receiver<State>) -> String {
    let lost = state.wait_for(|state| matches!(state, State::Lost(_))).await;
    match lost.as_deref() {
        Ok(State::Lost(why)) => format!("group {group}: {why}"),
        _ => std::future::pending().await,
    }
}

/// Which rank a worker is to be.
struct Place<'a> {
    group: &'a GroupId,
    rank: u32,
    /// Its index among all ranks of this machine: of its GPU.
    machine: u32,
}

struct Spawn<'a> {
    arguments: &'a PoolArgs,
    /// Of all groups.
    ranks: u32,
    model: PathBuf,
    log: &'a LogArgs,
}

/// A value as the command line has it.
fn name_of(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

type Ready = tokio::task::JoinHandle<Result<WorkerReady, String>>;

impl Spawn<'_> {
    /// Starts one worker and the task that minds it.
    fn worker(
        &self,
        place: &Place<'_>,
        deaths: mpsc::Sender<String>,
    ) -> Result<(mpsc::Sender<()>, Ready), Failure> {
        let rank = place.rank;
        let mut child =
            self.command(place)?.spawn().map_err(|error| format!("cannot start rank {rank}: {error}"))?;
        let stdout = child.stdout.take().ok_or("the worker's standard output is not piped")?;
        let (lifeline, alive) = mpsc::channel(1);
        let ready = tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            let line = tokio::time::timeout(START_LIMIT, lines.next_line()).await;
            let line = line.map_err(|_| format!("rank {rank} did not start within {START_LIMIT:?}"))?;
            let line = line.ok().flatten().ok_or_else(|| format!("rank {rank} ended before it was ready"))?;
            serde_json::from_str(&line).map_err(|error| format!("rank {rank} said `{line}`: {error}"))
        });
        tokio::spawn(mind(rank, child, alive, deaths));
        Ok((lifeline, ready))
    }

    fn command(&self, place: &Place<'_>) -> Result<Command, Failure> {
        let PoolArgs { group, rank: arguments, serve, .. } = self.arguments;
        let RankArgs { device, dtype, collectives, kv_memory, threads } =
            device::of_rank(place.machine, self.ranks, arguments)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { (cores / self.ranks as usize).max(1) } else { threads };
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(self.log.flags())
            .args(["worker", "--supervised"])
            .args(["--rank", &place.rank.to_string(), "--world-size", &group.world_size.to_string()])
            .args(["--group", place.group.as_str(), "--device", &device.to_string()])
            .args(["--dtype", &name_of(dtype), "--collectives", &name_of(collectives)])
            .args(["--threads", &threads.to_string()])
            .arg("--model")
            .arg(&self.model)
            // The matrix products size their thread pool by this.
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env_remove("PIE_CONFIG")
            // Of the pool; a worker has one group, and one address is for one process.
            .env_remove("PIE_GROUP")
            .env_remove("PIE_METRICS_LISTEN")
            .env_remove("PIE_INTERNAL_CERT")
            .env_remove("PIE_INTERNAL_KEY")
            .env_remove("PIE_INTERNAL_CA")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            // Ctrl-C is for the pool, which then stops its workers in order.
            .process_group(0);
        let TraceArgs { otlp, trace_sample } = &serve.platform.traces;
        if let Some(otlp) = otlp {
            command.args(["--otlp", otlp, "--trace-sample", &trace_sample.to_string()]);
        }
        if let Some(kv_memory) = kv_memory {
            command.args(["--kv-memory", &kv_memory.to_string()]);
        }
        if !group.etcd.is_empty() {
            command.args(["--etcd", &group.etcd.join(",")]);
        }
        Ok(command)
    }
}

/// Waits for a worker's end, or ends it when its lifeline is dropped.
async fn mind(rank: u32, mut child: Child, mut alive: mpsc::Receiver<()>, deaths: mpsc::Sender<String>) {
    let pid = child.id().unwrap_or(0);
    // Taken out, since waiting for a child closes the input that it still holds.
    let input = child.stdin.take();
    tokio::select! {
        status = child.wait() => {
            let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let _ = deaths.send(format!("rank {rank} (process {pid}) died: {how}")).await;
        }
        _ = alive.recv() => {
            drop(input);
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                // Stopped or stuck: it had its chance.
                let _ = child.kill().await;
            }
        }
    }
}

async fn all_ready(starting: Vec<Ready>) -> Result<Vec<WorkerReady>, Failure> {
    let bar = progress::count("loading the ranks", starting.len());
    let mut workers = Vec::new();
    for ready in starting {
        workers.push(ready.await??);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(workers)
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

async fn wait_until_served(serving: &Serving, deaths: &mut mpsc::Receiver<String>) -> Result<(), Failure> {
    let served = async {
        for (_, watched) in serving.groups() {
            let mut state = watched.state();
            state
                .wait_for(|state| *state == State::Serving)
                .await
                .map_err(|_| "the router ended before it served")?;
        }
        Ok(())
    };
    tokio::select! {
        served = served => served,
        death = deaths.recv() => Err(death.unwrap_or_else(|| "the workers ended".to_owned()).into()),
        () = tokio::time::sleep(START_LIMIT) => Err(format!("the groups were not formed within {START_LIMIT:?}").into()),
    }
}

/// How a pool on this machine serves when nobody says otherwise: on a free port.
pub fn local_serve() -> ServeArgs {
    ServeArgs {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        peer_listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        public: PublicArgs::none(),
        collective_deadline: Duration::from_secs(20),
        step_tokens: 512,
        prefill_time: Duration::from_millis(30),
        decode_tokens: 32,
        sessions: 10_000,
        completions: 1024,
        rotation_budget: 256,
        share_across_tenants: false,
        tenant: TenantArgs { tenant_sessions: None, tenant_tokens: None, tenant_requests: None },
        document_limit: 16 << 20,
        ready_file: None,
        platform: PlatformArgs { metrics_listen: None, drain_grace: GRACE, traces: TraceArgs::OFF },
    }
}
