//! OpenAI's completions (<https://platform.openai.com/docs/api-reference/completions>) and models.

use crate::answer::{answer, broken, encoded, events, own};
use crate::app::{App, CompletionAnswer, ModelDescription, Request};
use crate::error::{ApiError, Dialect};
use crate::generation::{Ends, Generation, StopReason};
use crate::given::{GivenPrompt, PromptPart};
use crate::infill::{Fit, Sides, around};
use crate::prompt::{Prompt, PromptPiece};
use crate::request::{GenerationOptions, Own, Texts, WholeBody, body, nucleus, random, whole};
use crate::stats::Route;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use futures::stream;
use pie_proto::v1;
use pie_text::Tokenizer;
use pie_words::TokenId;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

/// As OpenAI's.
const MAX_TOKENS: u32 = 16;
const MOST_LOGPROBS: u32 = 20;

/// The fields that mean something here; others are ignored, as OpenAI does.
#[derive(Debug, Deserialize)]
struct CompletionRequest {
    prompt: Option<GivenPrompt>,
    suffix: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    #[serde(default, deserialize_with = "whole")]
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "whole")]
    n: Option<u32>,
    #[serde(default, deserialize_with = "whole")]
    best_of: Option<u32>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(default, deserialize_with = "whole")]
    logprobs: Option<u32>,
    echo: Option<bool>,
    stop: Option<Texts>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logit_bias: Option<serde_json::Map<String, Value>>,
    #[serde(default, deserialize_with = "whole")]
    seed: Option<i64>,
    user: Option<String>,
    prediction: Option<ExpectedText>,
    pie: Option<Own>,
}

/// What it may write, as OpenAI's chat takes it.
#[derive(Debug, Deserialize)]
struct ExpectedText {
    content: TextOrParts,
}

/// A text, or parts of one.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of parts with texts")]
enum TextOrParts {
    Text(String),
    Parts(Vec<TextPart>),
}

#[derive(Debug, Deserialize)]
struct TextPart {
    text: String,
}

impl TextOrParts {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// The one prompt of a request.
enum Single {
    Text(String),
    Tokens(Vec<u32>),
}

/// Whether the answer begins with the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Echo {
    No,
    Of(String),
}

/// How the answer is written.
struct OpenAiResponseWriter {
    id: String,
    created: u64,
    model: ModelDescription,
    tokenizer: Arc<Tokenizer>,
    echo: Echo,
    logprobs: Option<u32>,
    /// Of the text so far, in characters.
    offset: usize,
}

/// Whether the use of tokens is told in an event of its own, besides in the last one of the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UsageEvent {
    None,
    Own,
}

/// An answer that is being sent.
struct OpenAiEventStream {
    writer: OpenAiResponseWriter,
    /// None when it has ended.
    generation: Option<Generation>,
    /// Events that are to be sent first.
    ready: VecDeque<String>,
    usage: UsageEvent,
}

impl OpenAiEventStream {
    /// The next event.
    async fn next(mut self) -> Option<(String, Self)> {
        if let Some(event) = self.ready.pop_front() {
            return Some((event, self));
        }
        let mut generation = self.generation.take()?;
        let delta = match generation.next().await {
            // None: nothing was to be generated.
            Ok(delta) => delta.unwrap_or_default(),
            Err(refusal) => return Some((broken(&refusal, Dialect::OpenAi), self)),
        };
        let Some(ending) = generation.ending else {
            let choice = self.writer.choice(&delta.text, &delta.tokens, None);
            self.generation = Some(generation);
            return Some((self.writer.object(vec![choice]).to_string(), self));
        };
        // Clients look for texts in the events before the one that says that it has ended.
        if !(delta.text.is_empty() && delta.tokens.is_empty()) {
            let choice = self.writer.choice(&delta.text, &delta.tokens, None);
            self.ready.push_back(self.writer.object(vec![choice]).to_string());
        }
        let choice = self.writer.choice("", &[], Some(finish(ending)));
        let mut object = self.writer.object(vec![choice]);
        (object["usage"], object["pie"]) = (usage(&generation), own(&generation, &self.writer.tokenizer));
        self.ready.push_back(object.to_string());
        if self.usage == UsageEvent::Own {
            let mut object = self.writer.object(Vec::new());
            object["usage"] = usage(&generation);
            self.ready.push_back(object.to_string());
        }
        self.ready.push_back("[DONE]".to_owned());
        self.ready.pop_front().map(|event| (event, self))
    }
}

/// `POST /v1/completions`
pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Response<Body> {
    let answered = completed(&app, &headers, sent).await;
    app.told(Route::Completions, Dialect::OpenAi, answered)
}

async fn completed(
    app: &Arc<App>,
    headers: &HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let mut request: CompletionRequest = body(headers, sent)?;
    refuse_what_there_is_not(&request)?;
    let mut own = request.pie.take().unwrap_or_default();
    if let Some(prediction) = request.prediction.take() {
        own.prediction = Some(prediction.content.text());
    }
    let sampling = GenerationOptions {
        max_tokens: request.max_tokens.unwrap_or(MAX_TOKENS),
        temperature: request.temperature.unwrap_or(1.0),
        top_p: request.top_p.map(nucleus),
        top_k: request.top_k.unwrap_or(0),
        // Any number is one.
        seed: request.seed.map(i64::cast_unsigned),
        stop: Texts::list(request.stop.take()),
        top_logprobs: request.logprobs.unwrap_or(0),
        strategy: own.strategy()?,
        own,
    };
    let given = one(request.prompt.take())?;
    let echo = match request.echo {
        Some(true) => Echo::Of(shown(&given, app.tokenizer())),
        _ => Echo::No,
    };
    let prompt = prompt(given, request.suffix.take(), app.tokenizer())?;
    let asked = Request { headers, user: request.user.as_deref() };
    let answering = app.generate(asked, prompt, sampling, Ends::default()).await?;
    let CompletionAnswer { generation, model } = answering;
    let writer = OpenAiResponseWriter {
        id: format!("cmpl-{:016x}", random()),
        created: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        model,
        tokenizer: app.tokenizer().clone(),
        echo,
        logprobs: request.logprobs,
        offset: 0,
    };
    if request.stream == Some(true) {
        let usage = match request.stream_options {
            Some(StreamOptions { include_usage: true }) => UsageEvent::Own,
            _ => UsageEvent::None,
        };
        return Ok(writer.streamed(generation, usage));
    }
    writer.whole(generation).await
}

/// Fields that OpenAI has and the pool has not: whoever gives one would get something else than was asked for.
fn refuse_what_there_is_not(request: &CompletionRequest) -> Result<(), ApiError> {
    let one = |field, number: Option<u32>| match number {
        None | Some(1) => Ok(()),
        Some(_) => Err(ApiError::unsupported(field, "there is one completion for each request")),
    };
    one("n", request.n)?;
    one("best_of", request.best_of)?;
    for (field, penalty) in
        [("presence_penalty", request.presence_penalty), ("frequency_penalty", request.frequency_penalty)]
    {
        if penalty.is_some_and(|penalty| penalty != 0.0) {
            return Err(ApiError::unsupported(field, "there are no penalties"));
        }
    }
    if request.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()) {
        return Err(ApiError::unsupported("logit_bias", "there are no biases"));
    }
    if request.logprobs.is_some_and(|logprobs| logprobs > MOST_LOGPROBS) {
        return Err(ApiError::bad("logprobs", format!("`logprobs` is at most {MOST_LOGPROBS}")));
    }
    if request.echo == Some(true) && request.logprobs.is_some() {
        return Err(ApiError::unsupported(
            "logprobs",
            "tokens of the prompt have none, which `echo` asks for",
        ));
    }
    if request.echo == Some(true) && request.suffix.is_some() {
        return Err(ApiError::unsupported("echo", "it does not go with `suffix`"));
    }
    Ok(())
}

fn one(given: Option<GivenPrompt>) -> Result<Single, ApiError> {
    let wanted = || ApiError::bad("prompt", "`prompt` must be given: a text, or a list of tokens");
    let mut parts = given.ok_or_else(wanted)?.one()?;
    match (parts.pop(), parts.is_empty()) {
        (Some(PromptPart::Text(text)), true) => Ok(Single::Text(text)),
        (Some(PromptPart::Tokens(tokens)), true) => Ok(Single::Tokens(tokens)),
        _ => Err(ApiError::bad("prompt", "`prompt` must be a text or a list of tokens, not both")),
    }
}

fn shown(given: &Single, tokenizer: &Tokenizer) -> String {
    match given {
        Single::Text(text) => text.clone(),
        Single::Tokens(tokens) => decoded(tokenizer, tokens),
    }
}

/// Texts that clients put together by hand may have control tokens, and mostly have: markers for filling in the middle. With a suffix the
/// markers come from the pool, and both are texts.
fn prompt(given: Single, suffix: Option<String>, tokenizer: &Tokenizer) -> Result<Prompt, ApiError> {
    let suffix = suffix.filter(|suffix| !suffix.is_empty());
    let pieces = match (given, suffix) {
        (Single::Text(before), Some(behind)) => {
            let sides = Sides { before, behind, fit: Fit::Refused };
            return around(tokenizer, sides, Vec::new(), String::new());
        }
        (Single::Tokens(_), Some(_)) => {
            return Err(ApiError::unsupported("suffix", "a prompt of tokens has none"));
        }
        (Single::Tokens(tokens), None) => {
            vec![PromptPiece::Tokens(tokens.into_iter().map(TokenId).collect())]
        }
        (Single::Text(text), None) => {
            vec![PromptPiece::Tokens(tokenizer.prefix().to_vec()), PromptPiece::whole(text)]
        }
    };
    Ok(Prompt { pieces })
}

fn decoded(tokenizer: &Tokenizer, tokens: &[u32]) -> String {
    let tokens: Vec<TokenId> = tokens.iter().copied().map(TokenId).collect();
    tokenizer.decode(&tokens)
}

/// As OpenAI names the ends.
fn finish(ending: StopReason) -> &'static str {
    match ending {
        StopReason::Length => "length",
        StopReason::Stop | StopReason::Cut | StopReason::Edited => "stop",
    }
}

impl OpenAiResponseWriter {
    async fn whole(mut self, mut generation: Generation) -> Result<Response<Body>, ApiError> {
        let mut tokens = Vec::new();
        while let Some(delta) = generation.next().await? {
            tokens.extend(delta.tokens);
        }
        let text = match &self.echo {
            Echo::No => generation.text.clone(),
            Echo::Of(prompt) => format!("{prompt}{}", generation.text),
        };
        let finish = generation.ending.map(finish);
        let choice = self.choice(&text, &tokens, finish);
        let mut object = self.object(vec![choice]);
        object["usage"] = usage(&generation);
        object["pie"] = own(&generation, &self.tokenizer);
        Ok(answer(&object))
    }

    fn streamed(mut self, generation: Generation, usage: UsageEvent) -> Response<Body> {
        let echo = std::mem::replace(&mut self.echo, Echo::No);
        let ready = match echo {
            Echo::No => VecDeque::new(),
            Echo::Of(prompt) => {
                let choice = self.choice(&prompt, &[], None);
                VecDeque::from([self.object(vec![choice]).to_string()])
            }
        };
        let sending = OpenAiEventStream { writer: self, generation: Some(generation), ready, usage };
        events(stream::unfold(sending, OpenAiEventStream::next))
    }

    fn object(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id, "object": "text_completion", "created": self.created, "model": &*self.model.name,
            "system_fingerprint": FINGERPRINT, "choices": choices,
        })
    }

    fn choice(&mut self, text: &str, tokens: &[v1::CompletedToken], finish: Option<&str>) -> Value {
        let logprobs = match self.logprobs {
            None => Value::Null,
            Some(_) => self.logprobs(tokens),
        };
        json!({ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": finish })
    }

    fn logprobs(&mut self, tokens: &[v1::CompletedToken]) -> Value {
        let text = |id: u32| decoded(&self.tokenizer, &[id]);
        let texts: Vec<String> = tokens.iter().map(|token| text(token.id)).collect();
        let alternatives = |token: &v1::CompletedToken| -> Value {
            let top = token.top.iter().map(|other| (other.id, other.logprob));
            // The drawn one is always among them.
            top.chain([(token.id, token.logprob)]).map(|(id, logprob)| (text(id), json!(logprob))).collect()
        };
        let tops: Vec<Value> = tokens.iter().map(alternatives).collect();
        let mut offset = self.offset;
        let offsets: Vec<usize> = texts
            .iter()
            .map(|text| {
                let begins = offset;
                offset += text.chars().count();
                begins
            })
            .collect();
        self.offset = offset;
        json!({
            "tokens": texts,
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": tops,
            "text_offset": offsets,
        })
    }
}

const FINGERPRINT: &str = concat!("pie-pool-", env!("CARGO_PKG_VERSION"));

fn usage(generation: &Generation) -> Value {
    let (prompt, generated) = (generation.facts.prompt, generation.tokens.len());
    let cached = prompt as u64 - encoded(&generation.facts, &generation.timings);
    json!({
        "prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated,
        "prompt_tokens_details": { "cached_tokens": cached },
    })
}

/// `GET /v1/models`
pub(crate) async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Response<Body> {
    let answered =
        list(&app, &headers).await.map(|models| answer(&json!({ "object": "list", "data": models })));
    app.told(Route::Other, Dialect::OpenAi, answered)
}

/// `GET /v1/models/{model}`
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    let answered = list(&app, &headers).await.and_then(|models| {
        let found = models.into_iter().find(|model| model["id"] == *name);
        let message = || format!("there is no model {name:?}: GET /v1/models names what is served");
        found
            .map(|model| answer(&model))
            .ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message()))
    });
    app.told(Route::Other, Dialect::OpenAi, answered)
}

async fn list(app: &App, headers: &HeaderMap) -> Result<Vec<Value>, ApiError> {
    (app.way.tenants)(headers)?;
    let model = app.model(&app.way.caller(headers)).await?;
    // As llama.cpp tells more of a model; OpenAI's clients pass it over.
    let meta = json!({
        "n_vocab": model.vocabulary, "n_ctx": model.context, "n_ctx_train": model.sees, "n_params": model.parameters,
        "fim": app.tokenizer().fim().map(|fim| fim.family),
    });
    Ok(vec![
        json!({ "id": &*model.name, "object": "model", "created": 0, "owned_by": "pie-pool", "meta": meta }),
    ])
}
