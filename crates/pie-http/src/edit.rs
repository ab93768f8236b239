//! The calls that make a session of the pool hold a prompt, and complete it.

use crate::held::{HeldSession, PoolSession};
use crate::pool::ForwardingClient;
use crate::request::GenerationOptions;
use pie_proto::reason::reason_of;
use pie_proto::{Reason, v1};
use pie_words::{Splice, Splices, TokenId};
use tonic::{Status, Streaming};

/// Makes the pool's session hold these tokens: by an edit, or, where the pool has the session no longer or another text in it, by
/// opening it with all of them, of which the pool encodes what it does not have.
///
/// # Errors
/// The pool's refusal. What is held is as before then; where the pool made the edit all the same, the next one is refused for its
/// revision, and opens the session.
pub(crate) async fn bring(
    caller: &ForwardingClient,
    held: &mut HeldSession,
    tokens: Vec<TokenId>,
    splices: &Splices,
    sampling: &GenerationOptions,
) -> Result<(), Status> {
    let Some(life) = &mut held.life else { return open(caller, held, tokens).await };
    if splices.is_empty() {
        return Ok(());
    }
    let splices = splices.iter().map(splice).collect();
    let message = v1::ApplyEditsRequest {
        session: held.name.clone(),
        base_revision: life.revision,
        edits: Some(v1::apply_edits_request::Edits::Tokens(v1::TokenSplices { splices })),
        strategy: sampling.strategy.into(),
        identity: life.identity.clone(),
        repair_window: None,
    };
    match caller.client().apply_edits(caller.request(message)).await {
        Ok(answer) => {
            life.caller = caller.clone();
            (life.revision, held.tokens) = (answer.into_inner().revision, tokens);
            Ok(())
        }
        Err(status) if has_parted(&status) => open(caller, held, tokens).await,
        Err(status) => Err(status),
    }
}

/// Starts a completion of what is held.
///
/// # Errors
/// The pool's refusal.
pub(crate) async fn complete(
    caller: &ForwardingClient,
    held: &mut HeldSession,
    sampling: &GenerationOptions,
) -> Result<Streaming<v1::CompleteResponse>, Status> {
    let asked = caller.client().complete(caller.stream(sampling.request(held))).await;
    let answer = match asked {
        // Nothing was edited, so that nobody has noticed.
        Err(status) if has_parted(&status) => {
            let tokens = held.tokens.clone();
            open(caller, held, tokens).await?;
            caller.client().complete(caller.stream(sampling.request(held))).await?
        }
        asked => asked?,
    };
    Ok(answer.into_inner())
}

/// Closes a session, in the name of whoever used it last. One that cannot be closed is closed by the pool when it was idle for long.
pub(crate) async fn close(held: Option<HeldSession>) {
    let Some(HeldSession { name: session, life: Some(life), .. }) = held else { return };
    let PoolSession { caller, identity, .. } = life;
    let message = v1::CloseSessionRequest { session, identity };
    if let Err(status) = caller.client().close_session(caller.request(message)).await {
        tracing::debug!(%status, "a session was not closed");
    }
}

async fn open(caller: &ForwardingClient, held: &mut HeldSession, tokens: Vec<TokenId>) -> Result<(), Status> {
    let ids = tokens.iter().map(|token| token.0).collect();
    let message = v1::OpenSessionRequest {
        session: held.name.clone(),
        content: Some(v1::open_session_request::Content::Tokens(v1::Tokens { ids })),
        ..Default::default()
    };
    let opened = caller.client().open_session(caller.request(message)).await?.into_inner();
    held.life =
        Some(PoolSession { caller: caller.clone(), identity: opened.identity, revision: opened.revision });
    held.tokens = tokens;
    Ok(())
}

/// The pool has no such session, or another text in it.
fn has_parted(status: &Status) -> bool {
    let reasons = [Reason::SessionUnknown, Reason::SessionReplaced, Reason::RevisionMismatch];
    reason_of(status).is_some_and(|reason| reasons.contains(&reason))
}

fn splice(splice: &Splice) -> v1::TokenSplice {
    let insert = splice.insert.iter().map(|token| token.0).collect();
    v1::TokenSplice { at: splice.at.0, delete: splice.delete, insert }
}
