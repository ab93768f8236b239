//! `pie ctl`: a pool from the shell.

pub mod args;

use crate::Failure;
use args::{CtlArgs, CtlCommand, StrategyArg};
use comfy_table::{ContentArrangement, Table, presets};
use pie_client::Pool;
use pie_proto::v1;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

impl From<StrategyArg> for v1::Strategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Pie => Self::Pie,
            StrategyArg::Conflict => Self::Conflict,
            StrategyArg::Full => Self::Full,
        }
    }
}

pub async fn run(arguments: CtlArgs) -> Result<(), Failure> {
    let pool = Pool::connect_with(&arguments.pool, &arguments.access.open()?).await?;
    let pool = match &arguments.tenant {
        Some(tenant) => pool.as_tenant(tenant)?,
        None => pool,
    };
    match arguments.command {
        CtlCommand::Pool => describe(&pool).await,
        CtlCommand::Health { wait } => health(&pool, wait).await,
        CtlCommand::Drain { group, for_restart, timeout } => drain(&pool, group, for_restart, timeout).await,
        CtlCommand::Uncordon { group } => {
            refused(pool.admin().uncordon_group(v1::UncordonGroupRequest { group }).await)?;
            Ok(())
        }
        CtlCommand::Ranks => ranks(&pool).await,
        CtlCommand::Sessions => sessions(&pool).await,
        CtlCommand::Show { session } => show(&pool, session).await,
        CtlCommand::Open { file, session, strategy } => open(&pool, &file, session, strategy).await,
        CtlCommand::Edit { session, range, text } => edit(&pool, session, range.into(), text).await,
        CtlCommand::Close { session } => {
            refused(pool.wire().close_session(v1::CloseSessionRequest { session }).await)?;
            Ok(())
        }
        CtlCommand::Complete { session, at, fim, tokens, temperature, seed, stop } => {
            let mode = match fim {
                true => v1::CompletionMode::FillInTheMiddle,
                false => v1::CompletionMode::Continue,
            };
            let request = v1::CompleteRequest {
                session,
                max_tokens: tokens,
                temperature,
                seed,
                stop,
                at: at.map(v1::complete_request::At::from),
                mode: mode.into(),
                ..Default::default()
            };
            complete(&pool, request).await
        }
    }
}

fn refused<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<T, Failure> {
    Ok(answer.map_err(pie_client::ClientError::from)?.into_inner())
}

/// A table without frames: columns that awk and eyes both read.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    table
}

async fn describe(pool: &Pool) -> Result<(), Failure> {
    let about = pool.describe().await?;
    let millions = about.parameters as f64 / 1e6;
    println!("pie-pool {}", about.version);
    println!("model    {} ({millions:.1} M parameters, vocabulary {})", about.model, about.vocabulary);
    println!("context  {} tokens", about.context_limit);
    let header = [
        "group",
        "state",
        "takes new",
        "epoch",
        "ranks",
        "sessions",
        "tokens",
        "slots free",
        "slots",
        "router",
    ];
    let mut groups = table(header);
    for group in about.groups {
        groups.add_row([
            group.group,
            group.state,
            if group.open { "yes" } else { "no" }.to_owned(),
            group.epoch.to_string(),
            group.ranks.len().to_string(),
            group.sessions.to_string(),
            group.tokens.to_string(),
            group.slots_free.to_string(),
            group.slots_total.to_string(),
            group.owner,
        ]);
    }
    println!("{groups}");
    Ok(())
}

/// Looks again at this pace.
const LOOK: Duration = Duration::from_millis(200);

async fn health(pool: &Pool, wait: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    loop {
        let groups = pool.describe().await.map(|pool| pool.groups);
        let why = match groups {
            Ok(groups) if groups.iter().any(|group| group.state == "serving") => {
                let serving = groups.iter().filter(|group| group.state == "serving").count();
                println!("serving: {serving} of {} groups", groups.len());
                return Ok(());
            }
            Ok(groups) => {
                let state = |group: v1::Group| format!("group {}: {}", group.group, group.state);
                groups.into_iter().map(state).collect::<Vec<_>>().join("; ")
            }
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= wait {
            return Err(format!("the pool does not serve: {why}").into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn drain(pool: &Pool, group: String, for_restart: bool, timeout: Duration) -> Result<(), Failure> {
    let reopening = if for_restart { v1::Reopening::WhenFormed } else { v1::Reopening::ByHand };
    let timeout_ms = u32::try_from(timeout.as_millis().max(1)).unwrap_or(u32::MAX);
    let request = v1::DrainGroupRequest { group: group.clone(), timeout_ms, reopening: reopening.into() };
    let mut messages = refused(pool.admin().drain_group(request).await)?;
    let mut last = v1::DrainGroupResponse::default();
    while let Some(message) = messages.message().await.map_err(pie_client::ClientError::from)? {
        last = message;
    }
    match last.left {
        0 => println!("group {group} is closed; {} sessions moved to other groups", last.moved),
        left => println!("group {group} is closed; {} sessions moved, {left} stay: {}", last.moved, last.why),
    }
    Ok(())
}

async fn ranks(pool: &Pool) -> Result<(), Failure> {
    let mut ranks = table(["group", "rank", "address", "device", "weights", "KV cache"]);
    for group in pool.describe().await?.groups {
        for rank in group.ranks {
            ranks.add_row([
                group.group.clone(),
                rank.rank.to_string(),
                rank.address,
                rank.device,
                mebibytes(rank.weight_bytes),
                mebibytes(rank.kv_bytes),
            ]);
        }
    }
    println!("{ranks}");
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

async fn sessions(pool: &Pool) -> Result<(), Failure> {
    let mut sessions = table([
        "session", "group", "revision", "bytes", "tokens", "pending", "shared", "resident", "strategy",
    ]);
    for session in pool.sessions().await? {
        let strategy = session.strategy().as_str_name().trim_start_matches("STRATEGY_").to_lowercase();
        sessions.add_row([
            session.session,
            session.group,
            session.revision.to_string(),
            session.bytes.to_string(),
            session.tokens.to_string(),
            session.tokens_pending.to_string(),
            session.tokens_shared.to_string(),
            if session.resident { "yes" } else { "no" }.to_owned(),
            strategy,
        ]);
    }
    println!("{sessions}");
    Ok(())
}

async fn show(pool: &Pool, session: String) -> Result<(), Failure> {
    let answer = refused(pool.wire().get_session(v1::GetSessionRequest { session, content: true }).await)?;
    match (answer.text, answer.tokens) {
        (Some(text), _) => print!("{text}"),
        (None, Some(tokens)) => println!("{:?}", tokens.ids),
        (None, None) => {}
    }
    Ok(std::io::stdout().flush()?)
}

async fn open(
    pool: &Pool,
    file: &Path,
    session: Option<String>,
    strategy: StrategyArg,
) -> Result<(), Failure> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let file_name =
        || file.file_name().map(|name| name.to_string_lossy().into_owned()).filter(|name| name != "-");
    let request = v1::OpenSessionRequest {
        session: session.or_else(file_name).unwrap_or_default(),
        content: Some(v1::open_session_request::Content::Text(text)),
        strategy: v1::Strategy::from(strategy).into(),
    };
    let opened = refused(pool.wire().open_session(request).await)?;
    println!(
        "{} at revision {}: {} tokens, {} of them held already",
        opened.session, opened.revision, opened.tokens, opened.reused
    );
    Ok(())
}

async fn edit(
    pool: &Pool,
    session: String,
    range: v1::text_edit::Range,
    text: String,
) -> Result<(), Failure> {
    let request = v1::GetSessionRequest { session: session.clone(), content: false };
    let current =
        refused(pool.wire().get_session(request).await)?.session.map_or(0, |session| session.revision);
    let edits =
        v1::TextEdits { edits: vec![v1::TextEdit { range: Some(range), text }], ..Default::default() };
    let request = v1::ApplyEditsRequest {
        session,
        base_revision: current,
        edits: Some(v1::apply_edits_request::Edits::Text(edits)),
        strategy: v1::Strategy::Unspecified.into(),
    };
    let edited = refused(pool.wire().apply_edits(request).await)?;
    println!(
        "revision {}: {} tokens in, {} out, {} in all",
        edited.revision, edited.tokens_inserted, edited.tokens_deleted, edited.tokens
    );
    Ok(())
}

async fn complete(pool: &Pool, request: v1::CompleteRequest) -> Result<(), Failure> {
    let mut messages = refused(pool.wire().complete(request).await)?;
    let mut out = std::io::stdout();
    while let Some(message) = messages.message().await.map_err(pie_client::ClientError::from)? {
        out.write_all(message.text_delta.as_bytes())?;
        out.flush()?;
        if let Some(timings) = &message.timings {
            tracing::info!(?timings, "first token");
        }
        if message.finish_reason() != v1::FinishReason::Unspecified {
            let reason =
                message.finish_reason().as_str_name().trim_start_matches("FINISH_REASON_").to_lowercase();
            eprintln!("\n[{reason} at revision {}]", message.revision);
        }
    }
    Ok(())
}
