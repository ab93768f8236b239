//! From a prompt to its completion's stream: the session is found, becomes the prompt, and is completed.

use crate::edit::{bring, close, complete};
use crate::error::ApiError;
use crate::found::{PromptFacts, SessionMatch, TokenRun};
use crate::held::{HeldSession, PromptTokenizer, ReadError, TokenBudget, TokenizedPrompt};
use crate::likeness::Sketch;
use crate::pool::ForwardingClient;
use crate::prompt::Prompt;
use crate::request::GenerationOptions;
use crate::sessions::{CompletionGuard, PromptSessions, Scope, SessionCheckout, SessionSelector};
use pie_proto::v1;
use pie_text::stand_back;
use pie_words::Splices;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Streaming;

/// Texts of more bytes are tokenized beside the threads that serve, and so many of them at a time.
pub(crate) const LARGE: usize = 64 << 10;
const LARGE_AT_ONCE: usize = 2;
/// One waits no longer for its turn.
const TURN: Duration = Duration::from_secs(10);
/// A session that would get so much of its tokens anew, in parts of [`SHARES`], is left for the prompt that it holds.
const TOO_NEW: usize = 3;
const SHARES: usize = 4;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Front {
    /// Reads prompts.
    pub reader: Arc<PromptTokenizer>,
    /// Who holds which.
    pub sessions: Arc<PromptSessions>,
    large: Semaphore,
}

/// What is asked for.
pub(crate) struct GenerationRequest {
    /// In whose name.
    pub caller: ForwardingClient,
    /// Among whose sessions one is looked for.
    pub scope: Scope,
    /// Which.
    pub wanted: SessionSelector,
    /// What it is to hold.
    pub prompt: Prompt,
    /// How long it may be.
    pub space: TokenBudget,
    /// How tokens are drawn, and how many.
    pub sampling: GenerationOptions,
}

/// A completion that has begun.
pub(crate) struct StartedCompletion {
    /// Its messages; none where nothing was to be generated.
    pub messages: Option<Streaming<v1::CompleteResponse>>,
    /// What was done for it.
    pub facts: PromptFacts,
    /// The session is in use as long as this is there.
    pub running: CompletionGuard,
}

impl Front {
    /// Nobody holds anything yet. Fronts of one pool have different names.
    pub fn new(reader: PromptTokenizer, name: String) -> Self {
        let large = Semaphore::new(LARGE_AT_ONCE);
        Self { reader: Arc::new(reader), sessions: Arc::new(PromptSessions::new(name)), large }
    }

    /// Begins a completion. Whoever asks may go away meanwhile: a task of its own brings the edit to its end, so that no session is left
    /// half way.
    ///
    /// # Errors
    /// [`ApiError`]; the session, if there was one, is there for others.
    pub async fn begin(self: &Arc<Self>, ask: GenerationRequest) -> Result<StartedCompletion, ApiError> {
        let front = self.clone();
        let begun = tokio::spawn(async move { front.begun(ask).await });
        begun.await.map_err(|error| ApiError::internal(&format!("the request's task ended: {error}")))?
    }

    async fn begun(&self, ask: GenerationRequest) -> Result<StartedCompletion, ApiError> {
        let GenerationRequest { caller, scope, wanted, prompt, space, sampling } = ask;
        let began = Instant::now();
        let (prompt, sketch) = self.sketched(prompt, &wanted, space).await?;
        let mut found = self.sessions.find(&scope, &wanted, &sketch).await?;
        let search = began.elapsed();
        close(found.evicted.take()).await;
        let turn = match self.turn(prompt.text_bytes()).await {
            Ok(turn) => turn,
            Err(refusal) => {
                found.lease.give_back_unchanged(found.held);
                return Err(refusal);
            }
        };
        let PreparedSession { held, step } = self.read(turn, prompt, found.held, space).await?;
        let SessionUpdate { reading, mut splices } = match step {
            Ok(step) => step,
            Err(error) => {
                found.lease.give_back_unchanged(held);
                return Err(error.into());
            }
        };
        found.held = held;
        if found.way == SessionMatch::Alike && is_another(&splices, &reading) {
            found.lease.give_back_unchanged(found.held);
            found = self.sessions.open(&scope, &wanted);
            close(found.evicted.take()).await;
            splices = Splices::default();
        }
        let SessionCheckout { mut held, lease, way, .. } = found;
        let facts = PromptFacts {
            way,
            prompt: reading.tokens.len(),
            inserted: if way == SessionMatch::New { reading.tokens.len() } else { splices.inserted() },
            deleted: splices.deleted(),
            is_cut: reading.is_cut,
            runs: match sampling.own.tokens {
                true => TokenRun::all(way, &held.tokens, &splices, &reading.tokens),
                false => Vec::new(),
            },
            search,
            reading: began.elapsed() - search,
            ..PromptFacts::default()
        };
        held.texts = reading.texts;
        if let Err(status) = bring(&caller, &mut held, reading.tokens, &splices, &sampling).await {
            lease.give_back_unchanged(held);
            return Err(status.into());
        }
        let messages = match sampling.max_tokens {
            0 => None,
            _ => Some(complete(&caller, &mut held, &sampling).await),
        };
        let running = lease.running();
        let revision = held.life.as_ref().map_or(0, |life| life.revision);
        let facts = PromptFacts { session: held.name.clone(), revision, ..facts };
        // It holds the prompt, whatever became of the completion.
        lease.give_back(held, sketch);
        Ok(StartedCompletion { messages: messages.transpose()?, facts, running })
    }

    /// A prompt without what cannot fit, and what it is known by. Nobody looks for a session by its text that has a name: it has an empty
    /// sketch, which is like no other.
    async fn sketched(
        &self,
        prompt: Prompt,
        wanted: &SessionSelector,
        space: TokenBudget,
    ) -> Result<(Prompt, Sketch), ApiError> {
        let prompt = self.reader.within(prompt, space)?;
        match wanted {
            SessionSelector::Named(_) => Ok((prompt, Sketch::default())),
            SessionSelector::Alike => {
                let turn = self.turn(prompt.text_bytes()).await?;
                let sketched = move || {
                    let sketch = Sketch::of(prompt.bytes());
                    (prompt, sketch)
                };
                aside(turn, sketched).await
            }
        }
    }

    /// Tokenizes a prompt, and finds out what it makes of a session.
    async fn read(
        &self,
        turn: WorkThread<'_>,
        prompt: Prompt,
        mut held: HeldSession,
        space: TokenBudget,
    ) -> Result<PreparedSession, ApiError> {
        let reader = self.reader.clone();
        let read = move || {
            let reading = reader.read(prompt, std::mem::take(&mut held.texts), space);
            let step = reading.map(|reading| {
                let splices = reader.splices(&held.tokens, &reading);
                SessionUpdate { reading, splices }
            });
            PreparedSession { held, step }
        };
        aside(turn, read).await
    }

    /// Where so many bytes of text are read: beside the threads that serve where they are many, when it is their turn.
    async fn turn(&self, bytes: usize) -> Result<WorkThread<'_>, ApiError> {
        if bytes <= LARGE {
            return Ok(WorkThread::Here);
        }
        let turn = tokio::time::timeout(TURN, self.large.acquire()).await;
        turn.map_err(|_| ApiError::overloaded("too many large prompts wait to be read"))?
            .map(WorkThread::Aside)
            .map_err(|_| ApiError::internal("nobody reads prompts"))
    }
}

/// Where something is done.
enum WorkThread<'a> {
    /// On the thread that serves.
    Here,
    /// On one of its own, for as long as this is there.
    Aside(SemaphorePermit<'a>),
}

async fn aside<T: Send + 'static>(
    turn: WorkThread<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let WorkThread::Aside(_permit) = turn else { return Ok(work()) };
    let done = tokio::task::spawn_blocking(move || {
        stand_back();
        work()
    });
    done.await.map_err(|error| ApiError::internal(&format!("reading the prompt failed: {error}")))
}

/// A session, and what a prompt makes of it.
struct PreparedSession {
    held: HeldSession,
    step: Result<SessionUpdate, ReadError>,
}

/// What a session is to become.
struct SessionUpdate {
    reading: TokenizedPrompt,
    splices: Splices,
}

/// So much of it would be encoded that the session may as well keep what it has.
fn is_another(splices: &Splices, reading: &TokenizedPrompt) -> bool {
    splices.inserted() * SHARES > reading.tokens.len() * TOO_NEW
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::PromptPiece;
    use crate::sessions::tests::{named, opened, scope};
    use pie_text::Tokenizer;

    /// A session is there for others when its prompt waits too long to be read.
    #[tokio::test(start_paused = true)]
    async fn a_prompt_whose_turn_never_comes_is_refused_and_its_session_kept() {
        let tokenizer = Tokenizer::from_bytes(include_bytes!("../../../models/tiny-code/tokenizer.json"));
        let reader = PromptTokenizer::new(Arc::new(tokenizer.expect("it loads")));
        let front = Arc::new(Front::new(reader, "f".to_owned()));
        let (scope, wanted) = (scope("t", ""), named("mine"));
        let found = front.sessions.find(&scope, &wanted, &Sketch::default()).await.expect("it is free");
        let held = opened(found.held);
        let caller = held.life.as_ref().expect("it is open").caller.clone();
        found.lease.give_back(held, Sketch::default());

        let turns = front.large.acquire_many(LARGE_AT_ONCE as u32).await.expect("nobody has one");
        let prompt = Prompt { pieces: vec![PromptPiece::whole("x = 1\n".repeat(LARGE / 4))] };
        let space = TokenBudget { context: 1 << 20, generated: 0 };
        let (sampling, large) = (GenerationOptions::default(), prompt.text_bytes());
        assert!(large > LARGE);
        let ask = GenerationRequest {
            caller,
            scope: scope.clone(),
            wanted: wanted.clone(),
            prompt,
            space,
            sampling,
        };
        let refused = front.begin(ask).await.err().expect("its turn never comes");
        assert!(
            refused.object(crate::error::Dialect::OpenAi).to_string().contains("OVERLOADED"),
            "{refused:?}"
        );
        drop(turns);
        let again = front.sessions.find(&scope, &wanted, &Sketch::default()).await.expect("it is free");
        assert!(again.way == SessionMatch::Named && again.held.life.is_some(), "{:?}", again.way);
    }
}
