//! `pie worker`: one rank of a group.

use crate::cli::WorkerArgs;
use crate::device::{self, Loaded};
use crate::observe::{Observe, RankSource, Served};
use crate::pool::{WorkerReady, WorkerSays};
use crate::signals::{Signals, StopSignal};
use crate::starter::{Starter, abandoned};
use crate::{Failure, ReportedError, models, placement, progress, secure, spill};
use pie_comm::{Member, TcpMesh};
use pie_placement::{Announced, Announcing, GroupId, RankRecord, Ttl};
use pie_proto::worker_v1::worker_server::WorkerServer;
use pie_worker::engine::RankFacts;
use pie_worker::{Engine, RankStats, service::RankService};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;

const MESSAGE_LIMIT: usize = 256 << 20;
/// How often a rank that is to stop looks whether its group is given up.
const LOOK: Duration = Duration::from_millis(50);

/// Runs a rank until Ctrl-C, SIGTERM, or, when supervised, the end of standard input.
pub async fn run(arguments: WorkerArgs) -> Result<(), Failure> {
    if !arguments.supervised {
        return serve(arguments, None).await;
    }
    // The one who started it counts the ranks that are there.
    progress::be_quiet();
    let serves = Arc::new(AtomicBool::new(false));
    let starter = Starter::follow(serves.clone());
    serve(arguments, Some(starter)).await.map_err(|error| {
        if serves.load(Ordering::Relaxed) {
            return error;
        }
        // The one who started all ranks says it once for all of them.
        match serde_json::to_string(&WorkerSays::Failed(error.to_string())) {
            Ok(line) => {
                outln!("{line}");
                ReportedError.into()
            }
            Err(_) => error,
        }
    })
}

async fn serve(arguments: WorkerArgs, mut starter: Option<Starter>) -> Result<(), Failure> {
    let observe = Observe::start(&arguments.platform, "the rank is loading its weights").await?;
    let acceptor = secure::worker(&arguments.internal, arguments.listen, observe.security())?;
    if arguments.rank.threads > 0 {
        set_threads(arguments.rank.threads)?;
    }
    let folder = models::resolve(&arguments.model)?;
    let member = Member::new(arguments.index, arguments.group.world_size)?;
    let mesh = TcpMesh::bind(arguments.collective_listen)?;
    let collective_address = mesh.local_address().to_string();
    let loaded = device::load(&folder.path, member, &arguments.rank, mesh)?;
    // Until here a signal ends the process at once, however long loading takes.
    let mut signals = Signals::listen(arguments.platform.drain_grace)?;
    let facts = facts(&loaded, &folder.path);
    let spill = spill::open(&arguments.rank, &loaded, &folder.path)?;
    let Loaded { compute, peers, budget, fingerprint, .. } = loaded;
    let engine = Engine::start(compute, peers, spill)?;
    let stats = engine.stats();
    let source = RankSource {
        group: arguments.group.group.clone(),
        index: arguments.index,
        facts: facts.clone(),
        stats: stats.clone(),
        blocks: engine.blocks(),
        standing: None,
    };

    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another with --listen", arguments.listen)
    })?;
    let control = format!("{}://{}", acceptor.scheme(), listener.local_addr()?);
    let (health, health_service) = health().await;
    let service = RankService::new(engine, facts, member, collective_address);
    let service = WorkerServer::new(service)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let server = pie_transport::limited()
        .add_service(health_service)
        .add_service(service)
        .serve_with_incoming(acceptor.accept(listener));
    let server = tokio::spawn(server);

    let announced = announce(&arguments, &control, &fingerprint).await?;
    let standing = announced.as_ref().map(Announced::standing);
    if let Some(standing) = standing.clone() {
        tokio::spawn(report_health(standing, health.clone()));
    }
    observe.serves(Served::Rank(RankSource { standing, ..source }));
    let group = arguments.group.group.clone();
    let ready =
        WorkerReady { group, rank: arguments.index, pid: std::process::id(), control, fingerprint, budget };
    match &starter {
        Some(starter) => {
            starter.ready();
            outln!("{}", serde_json::to_string(&WorkerSays::Ready(ready))?);
        }
        None => say!("rank {} listens at {}: {budget}", ready.rank, ready.control),
    }
    let ended = tokio::select! {
        ended = server => Ok(ended??),
        () = abandoned(&mut starter) => Ok(()),
        signal = signals.next() => {
            observe.ends("the rank is stopping");
            set_health(&health, ServingStatus::NotServing).await;
            if signal == StopSignal::Terminated {
                leave(&stats, arguments.platform.drain_grace, &mut signals).await;
            }
            Ok(())
        }
    };
    placement::withdraw(announced).await;
    ended
}

/// Waits until the owner gives the group up, as one that stops does, or until it holds nothing, since it was drained: a rank that goes
/// first cuts all streams.
async fn leave(stats: &RankStats, grace: Duration, signals: &mut Signals) {
    let left = async {
        while stats.epoch() != 0 && stats.slots_used() != 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = left => {}
        () = tokio::time::sleep(grace) => {}
        _ = signals.next() => {}
    }
}

/// gRPC health follows the registration: a rank that nobody finds serves nobody.
async fn report_health(standing: Announcing, reporter: HealthReporter) {
    let mut told = ServingStatus::Serving;
    loop {
        let status = if standing.now().is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing };
        // Only what is new: when the rank stops, that is said elsewhere, and stays.
        if std::mem::replace(&mut told, status) != status {
            set_health(&reporter, status).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// gRPC health beside the control API: a rank that listens has loaded its weights.
async fn health() -> (HealthReporter, HealthServer<impl Health>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    set_health(&reporter, ServingStatus::Serving).await;
    (reporter, service)
}

async fn set_health(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", "pie.worker.v1.Worker"] {
        reporter.set_service_status(service, status).await;
    }
}

/// Where others see the placement too a worker announces itself, for as long as it runs; else the one who started it does.
async fn announce(
    arguments: &WorkerArgs,
    control: &str,
    fingerprint: &str,
) -> Result<Option<Announced>, Failure> {
    if !arguments.group.placement.is_shared() {
        return Ok(None);
    }
    let placement = arguments.group.placement.open().await?;
    let record = RankRecord {
        group: GroupId::new(arguments.group.group.as_str())?,
        rank: arguments.index,
        world_size: arguments.group.world_size,
        control: control.to_owned(),
        model_fingerprint: fingerprint.to_owned(),
    };
    let mut announced = Announced::start(placement, record, Ttl::DEFAULT);
    announced.first(Ttl::DEFAULT).await?;
    Ok(Some(announced))
}

fn facts(loaded: &Loaded, folder: &Path) -> RankFacts {
    let config = loaded.compute.config();
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    RankFacts {
        slots: u32::try_from(loaded.budget.slots).unwrap_or(u32::MAX),
        weight_bytes: loaded.budget.weights,
        kv_bytes: loaded.budget.kv,
        device: loaded.device.clone(),
        model: name,
        parameters: config.parameters(),
        fingerprint: loaded.fingerprint.clone(),
        context_limit: u32::try_from(config.max_position_embeddings).unwrap_or(u32::MAX),
        vocabulary: u32::try_from(config.vocab_size).unwrap_or(u32::MAX),
        end_of_text: config.end_of_text.iter().map(|token| token.0).collect(),
    }
}

/// Sizes the thread pool of the numeric crates.
pub fn set_threads(threads: usize) -> Result<(), Failure> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}
