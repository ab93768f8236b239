//! From a prompt to its completion's stream: the session is found, becomes the prompt, and is completed.

use crate::edit::{bring, close, complete};
use crate::error::Refusal;
use crate::found::{Facts, Run, Way};
use crate::held::{HeldText, ReadError, Reader, Reading, Space};
use crate::likeness::Sketch;
use crate::pool::Caller;
use crate::prompt::Prompt;
use crate::request::Sampling;
use crate::sessions::{Found, Running, Scope, Sessions, Wanted};
use pie_proto::v1;
use pie_words::Splices;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tonic::Streaming;

/// Texts of more bytes are tokenized beside the threads that serve, and so many of them at a time.
const LARGE: usize = 64 << 10;
const LARGE_AT_ONCE: usize = 2;
/// How much less of a processor than others the threads get that do.
const NICENESS: i32 = 10;
/// A session that would get so much of its tokens anew, in parts of [`SHARES`], is left for the prompt that it holds.
const TOO_NEW: usize = 3;
const SHARES: usize = 4;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Front {
    /// Reads prompts.
    pub reader: Arc<Reader>,
    /// Who holds which.
    pub sessions: Arc<Sessions>,
    large: Semaphore,
}

/// What is asked for.
pub(crate) struct Ask {
    /// In whose name.
    pub caller: Caller,
    /// Among whose sessions one is looked for.
    pub scope: Scope,
    /// Which.
    pub wanted: Wanted,
    /// What it is to hold.
    pub prompt: Prompt,
    /// How long it may be.
    pub space: Space,
    /// How tokens are drawn, and how many.
    pub sampling: Sampling,
}

/// A completion that has begun.
pub(crate) struct Begun {
    /// Its messages; none where nothing was to be generated.
    pub messages: Option<Streaming<v1::CompleteResponse>>,
    /// What was done for it.
    pub facts: Facts,
    /// The session is in use as long as this is there.
    pub running: Running,
}

impl Front {
    /// Nobody holds anything yet. Fronts of one pool have different names.
    pub fn new(reader: Reader, name: String) -> Self {
        let large = Semaphore::new(LARGE_AT_ONCE);
        Self { reader: Arc::new(reader), sessions: Arc::new(Sessions::new(name)), large }
    }

    /// Begins a completion. Whoever asks may go away meanwhile: a task of its own brings the edit to its end, so that no session is left
    /// half way.
    ///
    /// # Errors
    /// [`Refusal`]; the session, if there was one, is there for others.
    pub async fn begin(self: &Arc<Self>, ask: Ask) -> Result<Begun, Refusal> {
        let front = self.clone();
        let begun = tokio::spawn(async move { front.begun(ask).await });
        begun.await.map_err(|error| Refusal::internal(&format!("the request's task ended: {error}")))?
    }

    async fn begun(&self, ask: Ask) -> Result<Begun, Refusal> {
        let Ask { caller, scope, wanted, prompt, space, sampling } = ask;
        let began = Instant::now();
        let sketch = Sketch::of(prompt.bytes());
        let mut found = self.sessions.find(&scope, &wanted, &sketch).await?;
        let search = began.elapsed();
        let texts = std::mem::take(&mut found.held.texts);
        let reading = match self.read(prompt, texts, space).await? {
            Ok(reading) => reading,
            Err(error) => {
                found.lease.give_back_unchanged(found.held);
                return Err(error.into());
            }
        };
        let mut splices = self.reader.splices(&found.held.tokens, &reading);
        if found.way == Way::Alike && is_another(&splices, &reading) {
            found.lease.give_back_unchanged(found.held);
            found = self.sessions.open(&scope, &wanted);
            splices = Splices::default();
        }
        let Found { mut held, lease, evicted, way } = found;
        close(&caller, evicted).await;
        let facts = Facts {
            way,
            prompt: reading.tokens.len(),
            inserted: if way == Way::New { reading.tokens.len() } else { splices.inserted() },
            deleted: splices.deleted(),
            is_cut: reading.is_cut,
            runs: match sampling.own.tokens {
                true => Run::all(way, &held.tokens, &splices, &reading.tokens),
                false => Vec::new(),
            },
            search,
            reading: began.elapsed() - search,
            ..Facts::default()
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
        let life = held.life.as_ref();
        let revision = life.map_or(0, |life| life.revision);
        let facts = Facts { session: held.name.clone(), revision, ..facts };
        // It holds the prompt, whatever became of the completion.
        lease.give_back(held, sketch);
        Ok(Begun { messages: messages.transpose()?, facts, running })
    }

    /// Tokenizes a prompt, beside the threads that serve where it is large.
    async fn read(
        &self,
        prompt: Prompt,
        texts: Vec<HeldText>,
        space: Space,
    ) -> Result<Result<Reading, ReadError>, Refusal> {
        if prompt.text_bytes() <= LARGE {
            return Ok(self.reader.read(prompt, texts, space));
        }
        let _turn = self.large.acquire().await.map_err(|_| Refusal::internal("nobody reads prompts"))?;
        let reader = self.reader.clone();
        let reading = tokio::task::spawn_blocking(move || {
            stand_back();
            reader.read(prompt, texts, space)
        });
        reading.await.map_err(|error| Refusal::internal(&format!("reading the prompt failed: {error}")))
    }
}

/// So much of it would be encoded that the session may as well keep what it has.
fn is_another(splices: &Splices, reading: &Reading) -> bool {
    splices.inserted() * SHARES > reading.tokens.len() * TOO_NEW
}

/// This thread takes what the others leave. It is asked once, since what is given up is not given back.
fn stand_back() {
    thread_local! { static ASKED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) } }
    if !ASKED.replace(true)
        && let Err(error) = rustix::process::nice(NICENESS)
    {
        tracing::debug!(%error, "a thread that reads prompts is as important as the others");
    }
}
