//! The endpoints of llama.cpp's server that llama.vim, llama.vscode and scripts call: what they send and expect is described in its
//! `tools/server/README.md`.

mod tools;

pub(crate) use tools::{detokenize, health, props, slots, tokenize};

use crate::answer::{answer, broken, encoded, events, own};
use crate::app::{App, CompletionAnswer, Request};
use crate::error::{ApiError, Dialect};
use crate::generation::{Delta, Ends, Generation, StopReason};
use crate::infill::{ContextChunk, Fit, Sides, around};
use crate::prompt::{Prompt, PromptPiece};
use crate::request::{GenerationOptions, Own, Texts, body};
use crate::stats::Route;
use axum::body::{Body, Bytes};
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

/// The fields that mean something here; others are ignored, as llama.cpp does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    prompt: Option<LlamaPrompt>,
    input_prefix: String,
    input_suffix: String,
    input_extra: Vec<Extra>,
    n_predict: Option<i64>,
    max_tokens: Option<i64>,
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<Texts>,
    stream: Option<bool>,
    samplers: Option<Vec<String>>,
    n_probs: Option<u32>,
    n_indent: Option<u32>,
    t_max_predict_ms: Option<i64>,
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

/// A text, tokens, or both mixed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum LlamaPrompt {
    Text(String),
    Mixed(Vec<TokenOrText>),
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
enum TokenOrText {
    Token(u32),
    Text(String),
}

/// How the answer is written.
struct LlamaResponseWriter {
    tokenizer: Arc<Tokenizer>,
    model: Arc<str>,
    context: usize,
    slot: i64,
    stop: Vec<String>,
    /// Where an answer has those of its members alone.
    fields: Option<Vec<String>>,
    tokens: TokenList,
}

/// Whether an answer that comes at once lists its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenList {
    Left,
    Given,
}

/// `POST /infill`
pub(crate) async fn infill(State(app): State<Arc<App>>, headers: HeaderMap, bytes: Bytes) -> Response<Body> {
    let answered = filled(&app, &headers, &bytes).await;
    app.told(Route::Infill, Dialect::Llama, answered)
}

async fn filled(app: &Arc<App>, headers: &HeaderMap, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    let mut fields: Fields = body(headers, bytes)?;
    let begun = match fields.prompt.take() {
        None => String::new(),
        Some(LlamaPrompt::Text(text)) => text,
        Some(LlamaPrompt::Mixed(_)) => {
            return Err(ApiError::bad("prompt", "`prompt` must be a text in /infill"));
        }
    };
    let extras = std::mem::take(&mut fields.input_extra).into_iter();
    let chunks = extras
        .map(|extra| ContextChunk { name: extra.filename.unwrap_or_default(), text: extra.text })
        .collect();
    let before = std::mem::take(&mut fields.input_prefix);
    let behind = std::mem::take(&mut fields.input_suffix);
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
    bytes: Bytes,
) -> Response<Body> {
    let answered = completed(&app, &headers, &bytes).await;
    app.told(Route::Completion, Dialect::Llama, answered)
}

async fn completed(app: &Arc<App>, headers: &HeaderMap, bytes: &[u8]) -> Result<Response<Body>, ApiError> {
    let mut fields: Fields = body(headers, bytes)?;
    let Some(given) = fields.prompt.take() else {
        return Err(ApiError::bad("prompt", "`prompt` must be given: a text, tokens, or a list of both"));
    };
    let parts = match given {
        LlamaPrompt::Text(text) => vec![TokenOrText::Text(text)],
        LlamaPrompt::Mixed(parts) => parts,
    };
    // Whoever begins with tokens has begun the text too.
    let lead = match parts.first() {
        Some(TokenOrText::Token(_)) => Vec::new(),
        _ => app.tokenizer().prefix().to_vec(),
    };
    let mut pieces = vec![PromptPiece::Tokens(lead)];
    for part in parts {
        match (part, pieces.last_mut()) {
            (TokenOrText::Token(token), Some(PromptPiece::Tokens(tokens))) => tokens.push(TokenId(token)),
            (TokenOrText::Token(token), _) => pieces.push(PromptPiece::Tokens(vec![TokenId(token)])),
            (TokenOrText::Text(part), _) => pieces.push(PromptPiece::whole(part)),
        }
    }
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
    let own = fields.pie.clone().unwrap_or_default();
    // -1 is without a limit, in both.
    let max_tokens = fields.n_predict.or(fields.max_tokens).unwrap_or(-1);
    let top_k = fields.top_k.map_or(draws.top_k, |top_k| u32::try_from(top_k).unwrap_or(0));
    Ok(GenerationOptions {
        max_tokens: u32::try_from(max_tokens).unwrap_or(MOST_TOKENS).min(MOST_TOKENS),
        temperature: 0.0,
        top_p: fields.top_p.or(draws.top_p).filter(|top_p| *top_p < 1.0),
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
    let asked = Request { headers, user: Some(&user) };
    let CompletionAnswer { generation, model } = app.generate(asked, prompt, sampling, ends).await?;
    let tokens = if fields.return_tokens == Some(true) { TokenList::Given } else { TokenList::Left };
    let writer = LlamaResponseWriter {
        tokenizer: app.tokenizer().clone(),
        model: model.name,
        context: model.context,
        slot,
        stop,
        fields: fields.response_fields,
        tokens,
    };
    if fields.stream == Some(true) {
        let sending = LlamaEventStream { writer, generation: Some(generation) };
        return Ok(events(stream::unfold(sending, LlamaEventStream::next)));
    }
    writer.whole(generation).await
}

/// An answer that is being sent.
struct LlamaEventStream {
    writer: LlamaResponseWriter,
    /// None when it has ended.
    generation: Option<Generation>,
}

impl LlamaEventStream {
    async fn next(mut self) -> Option<(String, Self)> {
        let mut generation = self.generation.take()?;
        let delta = match generation.next().await {
            Ok(delta) => delta.unwrap_or_default(),
            Err(refusal) => return Some((broken(&refusal, Dialect::Llama), self)),
        };
        let event = match generation.ending {
            Some(ending) => self.writer.last(&generation, &delta, ending),
            None => self.writer.delta(&generation, &delta),
        };
        if generation.ending.is_none() {
            self.generation = Some(generation);
        }
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
        if self.tokens == TokenList::Left {
            whole.tokens.clear();
        }
        let ending = generation.ending.unwrap_or(StopReason::Length);
        Ok(answer(&self.last(&generation, &whole, ending)))
    }

    /// A part of an answer.
    fn delta(&self, generation: &Generation, delta: &Delta) -> Value {
        json!({
            "index": 0,
            "content": delta.text,
            "tokens": ids(delta),
            "stop": false,
            "id_slot": self.slot,
            "tokens_predicted": generation.tokens.len(),
            "tokens_evaluated": generation.facts.prompt,
        })
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
        let object = json!({
            "index": 0,
            "content": delta.text,
            "tokens": ids(delta),
            "stop": true,
            "id_slot": self.slot,
            "model": &*self.model,
            "tokens_predicted": tokens.len(),
            "tokens_evaluated": facts.prompt,
            "tokens_cached": facts.prompt + tokens.len(),
            "generation_settings": { "n_ctx": self.context, "seed": generation.seed },
            "has_new_line": text.contains('\n'),
            "truncated": facts.is_cut,
            "stop_type": kind,
            "stopping_word": word.unwrap_or_default(),
            "timings": timings(generation),
            "pie": own(generation, &self.tokenizer),
        });
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
