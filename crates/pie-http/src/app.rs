//! What every request of the front is answered with: the pool, its model, the sessions, and how they are asked for.

use crate::begin::{Front, GenerationRequest};
use crate::error::{ApiError, Dialect};
use crate::generation::{Ends, Generation};
use crate::held::{PromptTokenizer, TokenBudget};
use crate::pool::{ForwardingClient, PoolWay};
use crate::prompt::Prompt;
use crate::request::GenerationOptions;
use crate::sessions::{Scope, SessionSelector};
use crate::stats::{RequestStats, Route};
use axum::body::Body;
use axum::http::{HeaderMap, Response};
use pie_proto::v1;
use pie_text::Tokenizer;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the pool is made of is asked for again after so long.
const FRESH: Duration = Duration::from_secs(5);

/// The front, with what its handlers need.
#[derive(Debug)]
pub(crate) struct App {
    /// Who holds which prompt.
    pub front: Arc<Front>,
    /// The way to the pool.
    pub way: PoolWay,
    /// Counts.
    pub stats: Arc<RequestStats>,
    model: Mutex<Option<(Instant, ModelDescription)>>,
}

/// The pool's model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelDescription {
    /// As the pool names it.
    pub name: Arc<str>,
    /// Tokens that it sees, and that fit in a group's cache.
    pub context: usize,
    /// Tokens that it sees, however large the cache is.
    pub sees: usize,
    /// Tokens that it knows.
    pub vocabulary: u32,
    /// Numbers that it is made of.
    pub parameters: u64,
}

/// Who asks, and how.
pub(crate) struct Request<'a> {
    /// Of the request.
    pub headers: &'a HeaderMap,
    /// An end user of the client, where it says so.
    pub user: Option<&'a str>,
}

/// A completion that is to be answered with.
pub(crate) struct CompletionAnswer {
    /// The completion.
    pub generation: Generation,
    /// Whose it is.
    pub model: ModelDescription,
}

impl App {
    /// A front of a pool.
    pub fn new(way: PoolWay, tokenizer: Arc<Tokenizer>, name: String, stats: Arc<RequestStats>) -> Self {
        let front = Arc::new(Front::new(PromptTokenizer::new(tokenizer), name));
        Self { front, way, stats, model: Mutex::default() }
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.front.reader.tokenizer()
    }

    /// Begins a completion.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn generate(
        &self,
        request: Request<'_>,
        prompt: Prompt,
        sampling: GenerationOptions,
        ends: Ends,
    ) -> Result<CompletionAnswer, ApiError> {
        let Request { headers, user } = request;
        let tenant = (self.way.tenants)(headers)?;
        let caller = self.way.caller(headers);
        let model = self.model(&caller).await?;
        let wanted = crate::request::named(headers)?.unwrap_or(SessionSelector::Alike);
        let scope = Scope { tenant: Arc::from(tenant), user: Arc::from(user.unwrap_or_default()) };
        let generated = (sampling.max_tokens as usize).min(model.context / GENERATED);
        let space = TokenBudget { context: model.context, generated };
        let begun =
            self.front.begin(GenerationRequest { caller, scope, wanted, prompt, space, sampling }).await?;
        self.stats.prompt(&begun.facts);
        Ok(CompletionAnswer { generation: Generation::new(begun, ends), model })
    }

    /// What the pool's model is, as it was said a moment ago.
    ///
    /// # Errors
    /// The pool does not say.
    pub async fn model(&self, caller: &ForwardingClient) -> Result<ModelDescription, ApiError> {
        let known = self.model.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((asked, model)) = known
            && asked.elapsed() < FRESH
        {
            return Ok(model);
        }
        let request = caller.request(v1::DescribePoolRequest {});
        let pool = caller.client().describe_pool(request).await?.into_inner();
        // A prompt must fit in some group's cache too, where groups are formed.
        let slots = pool.groups.iter().map(|group| group.slots_total).filter(|slots| *slots > 0).max();
        let model = ModelDescription {
            name: Arc::from(pool.model),
            context: pool.context_limit.min(slots.unwrap_or(u32::MAX)) as usize,
            sees: pool.context_limit as usize,
            vocabulary: pool.vocabulary,
            parameters: pool.parameters,
        };
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), model.clone()));
        Ok(model)
    }

    /// The answer to a request, which is counted.
    pub fn told(
        &self,
        route: Route,
        dialect: Dialect,
        answered: Result<Response<Body>, ApiError>,
    ) -> Response<Body> {
        self.stated(route, answered.unwrap_or_else(|refusal| refusal.answer(dialect)))
    }

    /// An answer, which is counted.
    pub fn stated(&self, route: Route, answer: Response<Body>) -> Response<Body> {
        self.stats.answered(route, answer.status());
        answer
    }
}

/// A prompt that can be cut leaves this part of the context free for what is generated, or as much as is asked for.
const GENERATED: usize = 4;
