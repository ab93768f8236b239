//! `pie worker`: one rank of a group.

use crate::cli::WorkerArgs;
use crate::device::{self, Loaded};
use crate::pool::WorkerReady;
use crate::{Failure, models, placement, router};
use pie_comm::{Member, TcpMesh};
use pie_placement::{GroupId, RankRecord, Registration, Ttl};
use pie_proto::worker_v1::worker_server::WorkerServer;
use pie_worker::engine::RankFacts;
use pie_worker::{Engine, service::RankService};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

const MESSAGE_LIMIT: usize = 256 << 20;

/// Runs a rank until Ctrl-C, SIGTERM, or, when supervised, the end of standard input.
pub async fn run(arguments: WorkerArgs) -> Result<(), Failure> {
    if arguments.rank.threads > 0 {
        set_threads(arguments.rank.threads)?;
    }
    let folder = models::resolve(arguments.model.model.as_deref())?;
    let member = Member::new(arguments.index, arguments.group.world_size)?;
    let mesh = TcpMesh::bind(arguments.collective_listen)?;
    let collective_address = mesh.local_address().to_string();
    let loaded = device::load(&folder.path, member, &arguments.rank, mesh)?;
    let facts = facts(&loaded, &folder.path);
    let Loaded { compute, peers, budget, fingerprint, .. } = loaded;
    let engine = Engine::start(compute, peers)?;

    let listener = TcpListener::bind(arguments.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another with --listen", arguments.listen)
    })?;
    let control = format!("http://{}", listener.local_addr()?);
    let service = RankService::new(engine, facts, member, collective_address);
    let service = WorkerServer::new(service)
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .add_service(service)
        // Small reports must not wait for an acknowledgement of the one before.
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let server = tokio::spawn(server);

    let registration = announce(&arguments, &control, &fingerprint).await?;
    let ready = WorkerReady { rank: arguments.index, pid: std::process::id(), control, fingerprint, budget };
    if arguments.supervised {
        println!("{}", serde_json::to_string(&ready)?);
    } else {
        eprintln!("pie: rank {} listens at {}: {budget}", ready.rank, ready.control);
    }
    let ended = tokio::select! {
        ended = server => Ok(ended??),
        () = end_of_input(), if arguments.supervised => Ok(()),
        _ = router::stop_signal() => Ok(()),
    };
    placement::withdraw(registration).await;
    ended
}

/// With etcd a worker announces itself; without, the one who started it does.
async fn announce(
    arguments: &WorkerArgs,
    control: &str,
    fingerprint: &str,
) -> Result<Option<Registration>, Failure> {
    if arguments.group.etcd.is_empty() {
        return Ok(None);
    }
    let placement = placement::open(&arguments.group.etcd).await?;
    let record = RankRecord {
        group: GroupId::new(arguments.group.group.as_str())?,
        rank: arguments.index,
        world_size: arguments.group.world_size,
        control: control.to_owned(),
        model_fingerprint: fingerprint.to_owned(),
    };
    Ok(Some(placement.register_rank(record, Ttl::DEFAULT).await?))
}

/// Standard input ends when the process that started this one stops, however it stops.
async fn end_of_input() {
    let mut input = tokio::io::stdin();
    let mut buffer = [0; 64];
    while matches!(input.read(&mut buffer).await, Ok(read) if read > 0) {}
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
