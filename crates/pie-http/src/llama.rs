//! The endpoints of llama.cpp's server that llama.vim, llama.vscode and scripts call: what they send and expect is described in its
//! `tools/server/README.md`.

mod tools;

pub(crate) use tools::{detokenize, health, props, slots, tokenize};

use crate::answer::{answer, broken, encoded, events, own};
use crate::app::{App, CompletionAnswer, Request};
use crate::error::{ApiError, Dialect};
use crate::generation::{Delta, Ends, Generation, StopReason};
use crate::given::{GivenPrompt, PromptPart};
use crate::infill::{ContextChunk, Fit, Sides, around};
use crate::prompt::{Prompt, PromptPiece};
use crate::request::{GenerationOptions, Own, Texts, WholeBody, body, nucleus, whole};
use crate::stats::Route;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use futures::stream;
use pie_text::Tokenizer;
use pie_words::TokenId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// llama.cpp's own defaults, of `/completion` alone: `/infill` is greedy, unless a temperature is given.
const TEMPERATURE: f32 = 0.8;
const TOP_K: u32 = 40;
const TOP_P: f32 = 0.95;
/// Where `n_predict` sets none.
const MOST_TOKENS: u32 = 4096;
const MOST_PROBS: u32 = 20;

/// The fields that mean something here; others are ignored, as llama.cpp does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    prompt: Option<GivenPrompt>,
    input_prefix: Option<String>,
    input_suffix: Option<String>,
    input_extra: Option<Vec<Extra>>,
    #[serde(deserialize_with = "whole")]
    n_predict: Option<i64>,
    #[serde(deserialize_with = "whole")]
    max_tokens: Option<i64>,
    temperature: Option<f32>,
    #[serde(deserialize_with = "whole")]
    top_k: Option<i64>,
    top_p: Option<f32>,
    #[serde(deserialize_with = "whole")]
    seed: Option<i64>,
    stop: Option<Texts>,
    stream: Option<bool>,
    samplers: Option<Vec<String>>,
    #[serde(deserialize_with = "whole")]
    n_probs: Option<u32>,
    post_sampling_probs: Option<bool>,
    #[serde(deserialize_with = "whole")]
    n_indent: Option<u32>,
    #[serde(deserialize_with = "whole")]
    t_max_predict_ms: Option<i64>,
    #[serde(deserialize_with = "whole")]
    id_slot: Option<i64>,
    return_tokens: Option<bool>,
    response_fields: Option<Vec<String>>,
    user: Option<String>,
    pie: Option<Own>,
}

#[derive(Debug, Deserialize)]
struct Extra {
    #[serde(default)]
    filename: Option<String>,
    text: String,
}

/// How the answer is written.
struct LlamaResponseWriter {
    tokenizer: Arc<Tokenizer>,
    model: Arc<str>,
    context: usize,
    slot: i64,
    stop: Vec<String>,
    /// How it was generated.
    settings: Value,
    /// Where an answer has those of its members alone.
    fields: Option<Vec<String>>,
    tokens: TokenList,
    /// Of each token and of others in its place.
    probabilities: TokenList,
}

/// Whether an answer lists its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenList {
    Left,
    Given,
}

/// `POST /infill`
pub(crate) async fn infill(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Response<Body> {
    let answered = filled(&app, &headers, sent).await;
    app.told(Route::Infill, Dialect::Llama, answered)
}

async fn filled(
    app: &Arc<App>,
    headers: &HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let mut fields: Fields = body(headers, sent)?;
    let begun = match fields.prompt.take() {
        None => String::new(),
        Some(GivenPrompt::Text(text)) => text,
        Some(GivenPrompt::List(_)) => {
            return Err(ApiError::bad("prompt", "`prompt` must be a text in /infill"));
        }
    };
    if fields.input_prefix.is_none() && fields.input_suffix.is_none() {
        let message =
            "`input_prefix` or `input_suffix` must be given: the texts before and behind the cursor";
        return Err(ApiError::bad("input_prefix", message));
    }
    let extras = fields.input_extra.take().unwrap_or_default().into_iter();
    let chunks = extras
        .map(|extra| ContextChunk { name: extra.filename.unwrap_or_default(), text: extra.text })
        .collect();
    let before = fields.input_prefix.take().unwrap_or_default();
    let behind = fields.input_suffix.take().unwrap_or_default();
    let sides = Sides { before, behind, fit: Fit::Cut };
    let prompt = around(app.tokenizer(), sides, chunks, begun)?;
    let has_temperature = fields.samplers.iter().flatten().any(|sampler| sampler == "temperature");
    let temperature = match fields.temperature {
        // Whose draws are not flattened by it, as llama.vim's, wants the likeliest.
        Some(temperature) if fields.samplers.is_none() || has_temperature => temperature,
        _ => 0.0,
    };
    let sampling = GenerationOptions { temperature, ..sampling(&fields, Draws { top_k: 0, top_p: None })? };
    generated(app, headers, fields, prompt, sampling).await
}

/// `POST /completion`
pub(crate) async fn completion(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Response<Body> {
    let answered = completed(&app, &headers, sent).await;
    app.told(Route::Completion, Dialect::Llama, answered)
}

async fn completed(
    app: &Arc<App>,
    headers: &HeaderMap,
    sent: Result<WholeBody, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let mut fields: Fields = body(headers, sent)?;
    let Some(given) = fields.prompt.take() else {
        return Err(ApiError::bad("prompt", "`prompt` must be given: a text, tokens, or a list of both"));
    };
    let parts = given.one()?;
    // Whoever begins with tokens has begun the text too.
    let lead = match parts.first() {
        Some(PromptPart::Tokens(_)) => Vec::new(),
        _ => app.tokenizer().prefix().to_vec(),
    };
    let piece = |part| match part {
        PromptPart::Tokens(tokens) => Some(PromptPiece::Tokens(tokens.into_iter().map(TokenId).collect())),
        PromptPart::Text(text) => Some(PromptPiece::whole(text)),
        // One prompt has none.
        PromptPart::List(_) => None,
    };
    let pieces =
        std::iter::once(PromptPiece::Tokens(lead)).chain(parts.into_iter().filter_map(piece)).collect();
    let sampling = GenerationOptions {
        temperature: fields.temperature.unwrap_or(TEMPERATURE),
        ..sampling(&fields, Draws { top_k: TOP_K, top_p: Some(TOP_P) })?
    };
    generated(app, headers, fields, Prompt { pieces }, sampling).await
}

/// What tokens are drawn among, where a request does not say.
struct Draws {
    top_k: u32,
    top_p: Option<f32>,
}

fn sampling(fields: &Fields, draws: Draws) -> Result<GenerationOptions, ApiError> {
    if fields.n_probs.is_some_and(|most| most > MOST_PROBS) {
        return Err(ApiError::bad("n_probs", format!("`n_probs` is at most {MOST_PROBS}")));
    }
    if fields.post_sampling_probs == Some(true) && fields.n_probs.is_some_and(|most| most > 0) {
        return Err(ApiError::unsupported(
            "post_sampling_probs",
            "probabilities are those before tokens are drawn",
        ));
    }
    let own = fields.pie.clone().unwrap_or_default();
    // -1 is without a limit, in both.
    let max_tokens = fields.n_predict.or(fields.max_tokens).unwrap_or(-1);
    let top_k = fields.top_k.map_or(draws.top_k, |top_k| u32::try_from(top_k).unwrap_or(0));
    Ok(GenerationOptions {
        max_tokens: u32::try_from(max_tokens).unwrap_or(MOST_TOKENS).min(MOST_TOKENS),
        temperature: 0.0,
        top_p: fields.top_p.or(draws.top_p).filter(|top_p| *top_p < 1.0).map(nucleus),
        top_k,
        // -1 is any.
        seed: fields.seed.and_then(|seed| u64::try_from(seed).ok()),
        stop: Texts::list(fields.stop.clone()),
        top_logprobs: fields.n_probs.unwrap_or(0),
        strategy: own.strategy()?,
        own,
    })
}

async fn generated(
    app: &Arc<App>,
    headers: &HeaderMap,
    fields: Fields,
    prompt: Prompt,
    sampling: GenerationOptions,
) -> Result<Response<Body>, ApiError> {
    let ends = Ends {
        time: fields
            .t_max_predict_ms
            .and_then(|most| u64::try_from(most).ok())
            .filter(|most| *most > 0)
            .map(Duration::from_millis),
        indent: fields.n_indent.unwrap_or(0) as usize,
    };
    let slot = fields.id_slot.unwrap_or(-1);
    // llama.vim says 0 for every file of everybody: among the sessions of one slot the likest is looked for, as among those of one user.
    let user = fields.user.unwrap_or_else(|| format!("slot {slot}"));
    let stop = sampling.stop.clone();
    let settings = json!({
        "n_predict": sampling.max_tokens, "temperature": sampling.temperature, "top_k": sampling.top_k,
        "top_p": sampling.top_p.unwrap_or(1.0), "n_probs": sampling.top_logprobs, "stop": stop,
        "stream": fields.stream == Some(true),
    });
    let probabilities = if sampling.top_logprobs > 0 { TokenList::Given } else { TokenList::Left };
    let asked = Request { headers, user: Some(&user) };
    let CompletionAnswer { generation, model } = app.generate(asked, prompt, sampling, ends).await?;
    let tokens = if fields.return_tokens == Some(true) { TokenList::Given } else { TokenList::Left };
    let writer = LlamaResponseWriter {
        tokenizer: app.tokenizer().clone(),
        model: model.name,
        context: model.context,
        slot,
        stop,
        settings,
        fields: fields.response_fields.filter(|fields| !fields.is_empty()),
        tokens,
        probabilities,
    };
    if fields.stream == Some(true) {
        let sending = LlamaEventStream { writer, generation: Some(generation), last: None };
        return Ok(events(stream::unfold(sending, LlamaEventStream::next)));
    }
    writer.whole(generation).await
}

/// An answer that is being sent.
struct LlamaEventStream {
    writer: LlamaResponseWriter,
    /// None when it has ended.
    generation: Option<Generation>,
    /// The event that says that it has: clients look for texts in those before it.
    last: Option<Value>,
}

impl LlamaEventStream {
    async fn next(mut self) -> Option<(String, Self)> {
        if let Some(last) = self.last.take() {
            return Some((last.to_string(), self));
        }
        let mut generation = self.generation.take()?;
        let delta = match generation.next().await {
            Ok(delta) => delta.unwrap_or_default(),
            Err(refusal) => return Some((broken(&refusal, Dialect::Llama), self)),
        };
        let Some(ending) = generation.ending else {
            let event = self.writer.delta(&generation, &delta);
            self.generation = Some(generation);
            return Some((event.to_string(), self));
        };
        let last = self.writer.last(&generation, &Delta::default(), ending);
        if delta.text.is_empty() && delta.tokens.is_empty() {
            return Some((last.to_string(), self));
        }
        let event = self.writer.delta(&generation, &delta);
        self.last = Some(last);
        Some((event.to_string(), self))
    }
}

impl LlamaResponseWriter {
    async fn whole(self, mut generation: Generation) -> Result<Response<Body>, ApiError> {
        let mut whole = Delta::default();
        while let Some(delta) = generation.next().await? {
            whole.text.push_str(&delta.text);
            whole.tokens.extend(delta.tokens);
        }
        let ending = generation.ending.unwrap_or(StopReason::Length);
        let mut object = self.last(&generation, &whole, ending);
        if self.tokens == TokenList::Left && self.fields.is_none() {
            object["tokens"] = json!([]);
        }
        Ok(answer(&object))
    }

    /// A part of an answer.
    fn delta(&self, generation: &Generation, delta: &Delta) -> Value {
        let mut object = json!({
            "index": 0,
            "content": delta.text,
            "tokens": ids(delta),
            "stop": false,
            "id_slot": self.slot,
            "tokens_predicted": generation.tokens.len(),
            "tokens_evaluated": generation.facts.prompt,
        });
        self.add_probabilities(&mut object, delta);
        object
    }

    fn add_probabilities(&self, object: &mut Value, delta: &Delta) {
        if self.probabilities == TokenList::Left || delta.tokens.is_empty() {
            return;
        }
        let of = |id: u32, logprob: f32| {
            let bytes = self.tokenizer.bytes(TokenId(id));
            json!({ "id": id, "token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": logprob })
        };
        let tokens = delta.tokens.iter().map(|token| {
            let mut object = of(token.id, token.logprob);
            object["top_logprobs"] = token.top.iter().map(|other| of(other.id, other.logprob)).collect();
            object
        });
        object["completion_probabilities"] = tokens.collect();
    }

    /// The last part of an answer, or all of it.
    fn last(&self, generation: &Generation, delta: &Delta, ending: StopReason) -> Value {
        let Generation { facts, text, tokens, .. } = generation;
        let word = self.word(generation, ending);
        let kind = match (ending, &word) {
            (StopReason::Length | StopReason::Cut, _) => "limit",
            (StopReason::Stop, Some(_)) => "word",
            (StopReason::Stop, None) => "eos",
            (StopReason::Edited, _) => "none",
        };
        let mut settings = self.settings.clone();
        (settings["n_ctx"], settings["seed"]) = (json!(self.context), json!(generation.seed));
        let mut object = json!({
            "index": 0,
            "content": delta.text,
            "tokens": ids(delta),
            "stop": true,
            "id_slot": self.slot,
            "model": &*self.model,
            "tokens_predicted": tokens.len(),
            "tokens_evaluated": facts.prompt,
            "tokens_cached": facts.prompt + tokens.len(),
            "generation_settings": settings,
            "has_new_line": text.contains('\n'),
            "truncated": facts.is_cut,
            "stop_type": kind,
            "stopping_word": word.unwrap_or_default(),
            "timings": timings(generation),
            "pie": own(generation, &self.tokenizer),
        });
        self.add_probabilities(&mut object, delta);
        match &self.fields {
            None => object,
            Some(fields) => chosen(&object, fields),
        }
    }

    /// The stop string that ended it, if one did.
    fn word(&self, generation: &Generation, ending: StopReason) -> Option<String> {
        let last = generation.tokens.last().copied().map(TokenId)?;
        if ending != StopReason::Stop || self.tokenizer.ends().binary_search(&last).is_ok() {
            return None;
        }
        let tokens: Vec<TokenId> = generation.tokens.iter().copied().map(TokenId).collect();
        let text = self.tokenizer.decode(&tokens);
        let first = self.stop.iter().filter_map(|word| text.find(word.as_str()).map(|at| (at, word)));
        first.min().map(|(_, word)| word.clone())
    }
}

fn ids(delta: &Delta) -> Vec<u32> {
    delta.tokens.iter().map(|token| token.id).collect()
}

/// Members of an object by their paths, such as `timings/prompt_n`: as llama.cpp answers, each under its whole path.
fn chosen(object: &Value, fields: &[String]) -> Value {
    let member = |field: &String| {
        let value = field.split('/').try_fold(object, |value, name| value.get(name))?;
        Some((field.clone(), value.clone()))
    };
    Value::Object(fields.iter().filter_map(member).collect::<Map<_, _>>())
}

/// As llama.vim shows them.
fn timings(generation: &Generation) -> Value {
    let encoded = encoded(&generation.facts, &generation.timings);
    let cached = generation.facts.prompt as u64 - encoded;
    let prompt_ms = generation.timings.first_token_us as f64 / 1e3;
    let (predicted, predicted_ms) = (generation.tokens.len(), generation.predicting.as_secs_f64() * 1e3);
    let each = |milliseconds: f64, tokens: f64| if tokens > 0.0 { milliseconds / tokens } else { 0.0 };
    let speed =
        |milliseconds: f64, tokens: f64| if milliseconds > 0.0 { tokens / milliseconds * 1e3 } else { 0.0 };
    json!({
        "cache_n": cached,
        "prompt_n": encoded,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": each(prompt_ms, encoded as f64),
        "prompt_per_second": speed(prompt_ms, encoded as f64),
        "predicted_n": predicted,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": each(predicted_ms, predicted as f64),
        "predicted_per_second": speed(predicted_ms, predicted as f64),
    })
}
