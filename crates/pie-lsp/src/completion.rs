//! One completion of a session that is in step.

use crate::fitting::Surroundings;
use crate::link::{LinkError, PoolConnection};
use crate::settings::EditorSettings;
use pie_client::{CompletionOptions, Edit, SessionHandle};
use pie_proto::{Reason, v1};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// A pool that is there accepts a call in this time.
const ACCEPTED: Duration = Duration::from_secs(2);
/// A document is encoded, and a token computed, in this time: large models on few cores take theirs.
const TOKEN: Duration = Duration::from_secs(60);

/// Completes at a byte of the session's text: in the middle of it where the model can, else what stands before. Empty where there is
/// nothing to say, or the text changed meanwhile. The suggestion fits into its surroundings.
///
/// # Errors
/// Nobody answers, or the pool refuses.
pub async fn complete(
    session: SessionHandle,
    at: usize,
    around: Surroundings,
    settings: Arc<EditorSettings>,
    connected: PoolConnection,
) -> Result<String, LinkError> {
    let mut options = CompletionOptions {
        max_tokens: settings.max_tokens,
        temperature: settings.temperature,
        stop: settings.stop.clone(),
        at: Some(at),
        mode: v1::CompletionMode::FillInTheMiddle,
        on_edit: v1::OnEdit::End,
        ..CompletionOptions::default()
    };
    if connected.fills_in() {
        match generated(&session, &options, &around, settings.max_lines).await {
            Err(error) if error.reason() == Some(Reason::FimUnsupported) => connected.does_not_fill_in(),
            generated => return generated,
        }
    }
    options.mode = v1::CompletionMode::Continue;
    match generated(&session, &options, &around, settings.max_lines).await {
        // Of nothing comes nothing, in models that have no token before the text.
        Err(error) if error.reason() == Some(Reason::ContextEmpty) => Ok(String::new()),
        generated => generated,
    }
}

/// What the lines around a byte of the session's text become next, as edits of the text that has it from byte `start` on. None where
/// nothing changes, or the text changed meanwhile.
///
/// # Errors
/// Nobody answers, or the pool refuses.
pub async fn next_edit(session: SessionHandle, at: usize, start: usize) -> Result<Vec<Edit>, LinkError> {
    let options = CompletionOptions {
        at: Some(at),
        mode: v1::CompletionMode::Rewrite,
        on_edit: v1::OnEdit::End,
        ..CompletionOptions::default()
    };
    let accepted = timeout(ACCEPTED, session.start(&options)).await;
    let mut completion = accepted.map_err(|_| LinkError::Silent("accepting a completion"))??;
    let mut edits = Vec::new();
    while let Some(message) =
        timeout(TOKEN, completion.next()).await.map_err(|_| LinkError::Silent("a token"))??
    {
        if message.finish_reason() == v1::FinishReason::Edited {
            return Ok(Vec::new());
        }
        edits.extend(message.edits.into_iter().filter_map(|edit| of_the_text(edit, start)));
    }
    Ok(edits)
}

fn of_the_text(edit: v1::TextEdit, start: usize) -> Option<Edit> {
    let Some(v1::text_edit::Range::Bytes(range)) = edit.range else { return None };
    let place = |at: u64| Some(start + usize::try_from(at).ok()?);
    Some(Edit { range: place(range.start)?..place(range.end)?, text: edit.text })
}

async fn generated(
    session: &SessionHandle,
    options: &CompletionOptions,
    around: &Surroundings,
    max_lines: Option<usize>,
) -> Result<String, LinkError> {
    let accepted = timeout(ACCEPTED, session.start(options)).await;
    let mut completion = accepted.map_err(|_| LinkError::Silent("accepting a completion"))??;
    let mut text = String::new();
    // Leaving the stream ends it in the pool, too.
    while around.lines(&text, max_lines).len() == text.len() {
        let message = timeout(TOKEN, completion.next()).await.map_err(|_| LinkError::Silent("a token"))??;
        let Some(message) = message else { break };
        if message.finish_reason() == v1::FinishReason::Edited {
            return Ok(String::new());
        }
        text.push_str(&message.text_delta);
    }
    // A character whose last bytes would have been the next token's is no text yet.
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    Ok(around.without_doubles(around.lines(text, max_lines)).to_owned())
}
