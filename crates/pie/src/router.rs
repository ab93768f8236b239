//! `pie router`: the public API for ranks that run elsewhere.

use crate::cli::{GroupsArgs, RepairArg, RouterArgs, ServeArgs};
use crate::front::{self, FrontBuilder, Unless};
use crate::observe::{Observe, RouterSource, Served};
use crate::ready::ReadyFile;
use crate::secure::Ports;
use crate::signals::{Signals, StopSignal};
use crate::{Failure, models, placement};
use pie_group::core::{Ack, Healing, Idle, RepairPolicy, Settings};
use pie_group::tenants::{Sharing, TenantLimits};
use pie_placement::{Announced, GroupId, Placement, RankRecord, Ttl};
use pie_plan::schedule::Limits;
use pie_router::{InternalApi, PublicApi, RunningRouter, ServeOptions};
use pie_text::{RestartKind, Tokenizer};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Running streams may end in this time after Ctrl-C.
const GRACE: Duration = Duration::from_secs(25);
/// When all streams have ended, their last bytes and idle connections go in this time.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Runs a router until Ctrl-C or SIGTERM.
pub async fn run(arguments: RouterArgs) -> Result<(), Failure> {
    let mut ready = ReadyFile::claim(arguments.serve.ready_file.as_deref())?;
    let observe = Observe::start(&arguments.serve.platform, "the router is starting").await?;
    let ports = Ports::of(&arguments.serve, Some(&arguments.internal), observe.security())?;
    let folder = models::resolve(&arguments.model)?;
    let tokenizer = models::tokenizer(&folder.path, arguments.serve.tokenizer())?;
    let placement = arguments.group.placement.open().await?;
    let registrations = announce(&placement, &arguments).await?;
    // Until here a signal ends the process at once: it holds nothing.
    let mut signals = Signals::listen(arguments.serve.platform.drain_grace.max(GRACE))?;
    let front = FrontBuilder::new(&arguments.serve, &ports, &tokenizer);
    let serving = start(&arguments.serve, &arguments.group, tokenizer, placement, ports).await?;
    let http = front.start(&serving, Unless::Asked).await?;
    observe.serves(Served::Router(RouterSource::of(&serving, http.as_ref())));
    say!("the router listens at {}", serving.url());
    front::say(http.as_ref());
    ready.write(&serde_json::json!({
        "address": serving.address.to_string(),
        "http": http.as_ref().map(|http| http.address.to_string()),
        "peer": serving.peer_address.to_string(),
        "pid": std::process::id(),
        "metrics": observe.address().map(|address| address.to_string()),
    }))?;
    let signal = signals.next().await;
    ready.remove();
    let grace = match signal {
        StopSignal::Interrupted | StopSignal::HungUp => {
            say!("{signal}: stopping");
            GRACE
        }
        StopSignal::Terminated => {
            let grace = arguments.serve.platform.drain_grace;
            let begun = Instant::now();
            let left = drain(&serving, grace, &mut signals).await;
            // Without others there is nobody to hand anything to.
            if arguments.group.placement.is_shared() {
                hand_over(&serving, grace.saturating_sub(begun.elapsed()).max(LAST_BYTES), &mut signals)
                    .await;
            }
            left
        }
    };
    // A second signal cuts the wait short: what is left is told, and the group is given up.
    let stopped = tokio::select! {
        stopped = async {
            front::stop(http, grace).await;
            serving.stop(grace).await
        } => stopped,
        signal = signals.next() => {
            say!("{signal} again: stopping at once");
            Ok(())
        }
    };
    placement::withdraw(registrations).await;
    Ok(stopped?)
}

/// Takes nothing new, and waits for what runs: until all streams have ended, the time is over, or another signal comes. Returns
/// what is left for stopping.
pub async fn drain(serving: &RunningRouter, grace: Duration, signals: &mut Signals) -> Duration {
    say!("SIGTERM: taking nothing new; what runs may end within {grace:?} (another signal ends it)");
    serving.drain();
    tokio::select! {
        () = serving.idle() => LAST_BYTES,
        () = tokio::time::sleep(grace) => Duration::ZERO,
        signal = signals.next() => {
            say!("{signal} again: stopping at once");
            Duration::ZERO
        }
    }
}

/// Lets other routers take the groups over, with their sessions.
async fn hand_over(serving: &RunningRouter, limit: Duration, signals: &mut Signals) {
    tokio::select! {
        () = serving.hand_over() => say!("the groups and their sessions are given up"),
        () = tokio::time::sleep(limit) => say!("no other router took the sessions over: they end here"),
        signal = signals.next() => say!("{signal} again: stopping at once"),
    }
}

/// Starts a router in this process.
pub async fn start(
    serve: &ServeArgs,
    group: &GroupsArgs,
    tokenizer: Arc<Tokenizer>,
    placement: Arc<dyn Placement>,
    ports: Ports,
) -> Result<RunningRouter, Failure> {
    match tokenizer.restart_kind() {
        RestartKind::Piece(_) => {}
        RestartKind::PieceOfPlainText(_) => {
            tracing::info!("documents with letters that combine (NFC) are tokenized whole at each edit");
        }
        RestartKind::WholeText { why } => {
            tracing::warn!(why, "edits are slow with this model: each tokenizes its whole document");
        }
    }
    match tokenizer.fim() {
        Some(fim) => tracing::info!(by = fim.family, order = ?fim.order, "the model fills in the middle"),
        None => tracing::info!("the model is not known to fill in the middle; --fim may say how it does"),
    }
    tracing::debug!(form = ?tokenizer.prompt_form(), "how the model is asked for a next edit");
    let options = ServeOptions {
        public: PublicApi { listen: serve.listen, acceptor: ports.public, gate: ports.gate },
        internal: InternalApi {
            listen: serve.peer_listen,
            advertise: advertise(serve)?,
            acceptor: ports.internal,
        },
        groups: groups(group)?,
        world_size: group.ranks(),
        deadline: serve.collective_deadline,
        settings: settings(serve),
        document_limit: usize::try_from(serve.document_limit)?,
        ranks: ports.ranks,
        routers: ports.routers,
    };
    Ok(pie_router::serve(options, placement, tokenizer).await?)
}

/// The groups, each once.
pub fn groups(arguments: &GroupsArgs) -> Result<Vec<GroupId>, Failure> {
    let mut groups: Vec<GroupId> = Vec::new();
    for name in &arguments.groups {
        let group = GroupId::new(name.as_str())?;
        if groups.contains(&group) {
            return Err(format!("--group names {group} twice").into());
        }
        groups.push(group);
    }
    Ok(groups)
}

/// A router that listens on all addresses must be told which of them others can reach.
fn advertise(serve: &ServeArgs) -> Result<Option<String>, Failure> {
    if serve.advertise.is_none() && serve.peer_listen.ip().is_unspecified() {
        let listen = serve.peer_listen;
        return Err(format!(
            "--peer-listen {listen} listens on all addresses: name the one that others reach with --advertise"
        )
        .into());
    }
    Ok(serve.advertise.clone())
}

fn settings(serve: &ServeArgs) -> Settings {
    let tenant = serve.tenant;
    let limit = |limit: Option<usize>| limit.unwrap_or(usize::MAX);
    Settings {
        limits: Limits {
            rows: serve.step_tokens,
            prefill_rows: serve.step_tokens.min(64),
            decode_passes: serve.decode_tokens,
            ..Limits::NONE
        },
        prefill: serve.prefill_time,
        tenant: TenantLimits {
            sessions: limit(tenant.tenant_sessions),
            tokens: limit(tenant.tenant_tokens),
            requests: limit(tenant.tenant_requests),
        },
        sharing: if serve.share_across_tenants { Sharing::AcrossTenants } else { Sharing::WithinTenant },
        sessions: serve.sessions,
        completions: serve.completions,
        healing: Healing {
            repairs: match serve.healing.repair {
                RepairArg::WithEdits => RepairPolicy::WithEdits,
                RepairArg::Idle => RepairPolicy::WhenIdle,
                RepairArg::Always => RepairPolicy::Always,
            },
            window: serve.healing.repair_window,
            free_rows: serve.healing.free_rows,
        },
        draft_tokens: serve.draft_tokens,
        ack: serve.ack.map_or_else(Ack::default, Ack::from),
        idle: Idle { closed_after: serve.idle.session_idle.0, makes_room_after: serve.idle.session_room.0 },
    }
}

/// Ranks that cannot announce themselves are named on the command line.
async fn announce(placement: &Arc<dyn Placement>, arguments: &RouterArgs) -> Result<Vec<Announced>, Failure> {
    let world_size = arguments.group.ranks();
    let groups = groups(&arguments.group)?;
    if !arguments.group.placement.is_shared() && arguments.ranks.len() != groups.len() * world_size as usize {
        let (given, groups) = (arguments.ranks.len(), groups.len());
        return Err(format!(
            "--ranks names {given} workers, --group {groups} groups of {world_size}: name each worker, or use --etcd"
        )
        .into());
    }
    let ranks = groups.iter().flat_map(|group| (0..world_size).map(move |rank| (group, rank)));
    let mut registrations = Vec::new();
    for ((group, rank), control) in ranks.zip(&arguments.ranks) {
        let record = RankRecord {
            group: group.clone(),
            rank,
            world_size,
            control: control.clone(),
            model_fingerprint: String::new(),
        };
        let mut announced = Announced::start(placement.clone(), record, Ttl::DEFAULT);
        announced.first(Ttl::DEFAULT).await?;
        registrations.push(announced);
    }
    Ok(registrations)
}
