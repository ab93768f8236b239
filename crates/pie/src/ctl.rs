//! `pie ctl`: a pool from the shell.

pub mod args;
mod caller;
mod health;
mod held;
mod name;
mod rewriting;
mod show;

use crate::Failure;
use args::{CtlArgs, CtlCommand, StrategyArg};
use caller::{CtlError, PoolCaller, Wait};
use pie_proto::v1;
use rewriting::ChangesUse;
use show::Show;
pub use show::table;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

impl From<StrategyArg> for v1::Strategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Pie => Self::Pie,
            StrategyArg::Conflict => Self::Conflict,
            StrategyArg::Full => Self::Full,
            StrategyArg::Repair => Self::Repair,
        }
    }
}

/// Calls the pool, and prints what it answers.
pub async fn run(arguments: CtlArgs) -> Result<(), Failure> {
    let show = Show::new(arguments.json);
    let done = command(arguments, show).await;
    done.map_err(|error| show.failed(error))
}

async fn command(arguments: CtlArgs, show: Show) -> Result<(), CtlError> {
    let CtlArgs { pool, access, tenant, timeout, command, json: _ } = arguments;
    let way = caller::CallOptions { url: access.url(&pool), access: access.open()?, tenant, timeout };
    // It connects again and again.
    if let CtlCommand::Health { wait } = command {
        return health::health(&way, wait, show).await;
    }
    let caller = PoolCaller::connect(way).await?;
    match command {
        CtlCommand::Health { .. } => {}
        CtlCommand::Pool => show.pool(&caller.describe().await?),
        CtlCommand::Ranks => show.ranks(&caller.describe().await?),
        CtlCommand::Sessions => {
            show.sessions(&caller.ask(Wait::Answer, "list the sessions", caller.pool().sessions()).await?);
        }
        CtlCommand::Drain { group, for_restart } => drain(&caller, group, for_restart, show).await?,
        CtlCommand::Uncordon { group } => {
            let request = v1::UncordonGroupRequest { group: group.clone() };
            let mut admin = caller.pool().admin();
            caller.call(Wait::Answer, "open the group again", admin.uncordon_group(request)).await?;
            show.uncordoned(&group);
        }
        CtlCommand::Show { session } => {
            let read = name::meant_by(&caller, &session, async |session| {
                let request = v1::GetSessionRequest { session, content: true, ..Default::default() };
                let mut wire = caller.pool().wire();
                caller.call(Wait::Text, "read the session", wire.get_session(request)).await
            });
            show.session(read.await?);
        }
        CtlCommand::Open { file, session, strategy, repair_window, control_tokens } => {
            let request = v1::OpenSessionRequest {
                session: session.unwrap_or_default(),
                strategy: strategy.map_or(v1::Strategy::Unspecified, v1::Strategy::from).into(),
                control_tokens,
                repair_window,
                content: None,
            };
            open(&caller, &file, request, show).await?;
        }
        CtlCommand::Edit { session, range, text, strategy, repair_window } => {
            let session = name::resolve(&caller, &session).await?;
            let edits = vec![v1::TextEdit { range: Some(range.into()), text }];
            let edits = v1::TextEdits { edits, ..Default::default() };
            let request = v1::ApplyEditsRequest {
                session: session.session,
                base_revision: session.revision,
                identity: session.identity,
                edits: Some(v1::apply_edits_request::Edits::Text(edits)),
                strategy: strategy.map_or(v1::Strategy::Unspecified, v1::Strategy::from).into(),
                repair_window,
            };
            let mut wire = caller.pool().wire();
            show.edited(&caller.call(Wait::Text, "edit the session", wire.apply_edits(request)).await?);
        }
        CtlCommand::Close { session } => {
            let closed = name::meant_by(&caller, &session, async |session| {
                let request = v1::CloseSessionRequest { session: session.clone(), ..Default::default() };
                let mut wire = caller.pool().wire();
                caller.call(Wait::Answer, "close the session", wire.close_session(request)).await?;
                Ok(session)
            });
            show.closed(&closed.await?);
        }
        CtlCommand::Held { whose } => show.held(&held::list(&caller, whose).await?),
        CtlCommand::Evict { whose, session, all: _ } => {
            show.evicted(&held::close(&caller, &whose, session).await?)
        }
        CtlCommand::Complete { session, at, fim, exact, tokens, temperature, seed, stop } => {
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
                exact,
                ..Default::default()
            };
            complete(&caller, request, show).await?;
        }
        CtlCommand::Rewrite { session, at, lines, apply, tokens, temperature, seed } => {
            let request = v1::CompleteRequest {
                session,
                max_tokens: tokens.unwrap_or(0),
                temperature,
                seed,
                at: at.map(v1::complete_request::At::from),
                mode: v1::CompletionMode::Rewrite.into(),
                lines_before: Some(lines),
                lines_behind: Some(lines),
                ..Default::default()
            };
            let wanted = if apply { ChangesUse::Apply } else { ChangesUse::ShowAlone };
            rewriting::rewrite(&caller, request, wanted, show).await?;
        }
    }
    Ok(())
}

/// Completions that run may hold their session back so long, if nobody says otherwise.
const DRAIN: Duration = Duration::from_secs(30);

async fn drain(caller: &PoolCaller, group: String, for_restart: bool, show: Show) -> Result<(), CtlError> {
    let reopening = if for_restart { v1::Reopening::WhenFormed } else { v1::Reopening::ByHand };
    let limit = caller.timeout().unwrap_or(DRAIN);
    let timeout_ms = u32::try_from(limit.as_millis().max(1)).unwrap_or(u32::MAX);
    let request = v1::DrainGroupRequest { group: group.clone(), timeout_ms, reopening: reopening.into() };
    let (mut admin, asked) = (caller.pool().admin(), "drain the group");
    let mut messages = caller.call(Wait::Beyond(limit), asked, admin.drain_group(request)).await?;
    let mut last = v1::DrainGroupResponse::default();
    while let Some(message) = caller.next(Wait::Beyond(limit), asked, &mut messages).await? {
        last = message;
    }
    show.drained(&group, &last);
    Ok(())
}

async fn open(
    caller: &PoolCaller,
    file: &Path,
    request: v1::OpenSessionRequest,
    show: Show,
) -> Result<(), CtlError> {
    let session = if request.session.is_empty() { name::of_file(file)? } else { request.session };
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(file).map(|content| text = content),
    };
    read.map_err(|source| CtlError::File { path: file.to_owned(), source })?;
    let request = v1::OpenSessionRequest {
        session,
        content: Some(v1::open_session_request::Content::Text(text)),
        ..request
    };
    let mut wire = caller.pool().wire();
    show.opened(&caller.call(Wait::Text, "open the session", wire.open_session(request)).await?);
    Ok(())
}

async fn complete(caller: &PoolCaller, request: v1::CompleteRequest, show: Show) -> Result<(), CtlError> {
    let (asked, given) = ("complete the session", request.session.clone());
    let started = name::meant_by(caller, &given, async |session| {
        let mut wire = caller.pool().wire();
        caller
            .call(Wait::Tokens, asked, wire.complete(v1::CompleteRequest { session, ..request.clone() }))
            .await
    });
    let mut messages = started.await?;
    while let Some(message) = caller.next(Wait::Tokens, asked, &mut messages).await? {
        if let Some(timings) = &message.timings {
            tracing::info!(?timings, "first token");
        }
        show.completed(&message);
    }
    Ok(())
}
