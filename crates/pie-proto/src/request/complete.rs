//! Completions, as they are asked for.

use super::{Identity, SessionName, at_most, encoding, missing, offset, position, token_ids, unknown};
use crate::reason::{Fault, Reason};
use crate::v1;
use pie_words::{Cursor, RegionLines, Revision, SamplingParameters, TokenId, TokenIndex};

/// Alternatives that a completion may ask for at each token.
pub const TOP_LOGPROBS_LIMIT: u32 = 20;
const STOP_STRINGS_LIMIT: usize = 16;
/// Bytes of a stop string: as much text is held back while it may be its beginning.
const STOP_BYTES_LIMIT: usize = 1024;
const STOP_TOKENS_LIMIT: usize = 256;
/// It is tokenized, and goes to the ranks with each plan.
const PREDICTION_BYTES_LIMIT: usize = 32 << 10;
const DEFAULT_MAX_TOKENS: u32 = 64;

/// What a completion at a cursor sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The text before it.
    #[default]
    Continue,
    /// The text on both sides.
    FillInTheMiddle,
    /// The document, and what asks for the lines around it anew.
    Rewrite,
}

/// What a newer edit does to a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEdit {
    /// It ends.
    #[default]
    End,
    /// It goes on.
    GoOn,
}

/// What a completion asks of the cache that it reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exactness {
    /// As it is.
    #[default]
    AsItIs,
    /// What encoding its context anew would give: what is stale is encoded again first.
    Exact,
}

/// A checked [`v1::CompleteRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct Complete {
    /// Which document.
    pub session: SessionName,
    /// Only of this life.
    pub identity: Option<Identity>,
    /// Only at this revision.
    pub revision: Option<Revision>,
    /// At least 1; 0 for as many as the lines take that are written anew.
    pub max_tokens: u32,
    /// How to draw.
    pub sampling: SamplingParameters,
    /// None is empty.
    pub stop: Vec<String>,
    /// Besides the model's own.
    pub stop_tokens: Vec<TokenId>,
    /// `None`: the document's end.
    pub at: Option<Cursor>,
    /// What it sees.
    pub mode: Mode,
    /// Whether it outlives edits.
    pub on_edit: OnEdit,
    /// Whether stale tokens will do.
    pub exactness: Exactness,
    /// What an earlier stream of the same completion gave: fewer than `max_tokens`, and if any, the revision is named.
    pub generated: Vec<TokenId>,
    /// What it may write: looked up ahead.
    pub prediction: String,
    /// Which lines are written anew.
    pub lines: RegionLines,
}

impl TryFrom<v1::CompleteRequest> for Complete {
    type Error = Fault;
    fn try_from(request: v1::CompleteRequest) -> Result<Self, Fault> {
        let bad = |message: String| Err(Fault::new(Reason::BadSampling, message));
        let top_p = request.top_p.unwrap_or(1.0);
        if !(request.temperature.is_finite() && request.temperature >= 0.0) {
            return bad(format!("temperature is {}; it must be 0 (greedy) or more", request.temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return bad(format!("top_p is {top_p}; it must be above 0 and at most 1"));
        }
        if request.top_logprobs > TOP_LOGPROBS_LIMIT {
            return bad(format!(
                "top_logprobs is {}; the limit is {TOP_LOGPROBS_LIMIT}",
                request.top_logprobs
            ));
        }
        if request.stop.len() > STOP_STRINGS_LIMIT || request.stop.iter().any(String::is_empty) {
            return bad(format!(
                "there may be at most {STOP_STRINGS_LIMIT} stop strings, and none may be empty"
            ));
        }
        let longest = request.stop.iter().map(String::len).max().unwrap_or(0);
        at_most("bytes in a stop string", longest, STOP_BYTES_LIMIT)?;
        at_most("stop tokens", request.stop_tokens.len(), STOP_TOKENS_LIMIT)?;
        at_most("bytes in prediction", request.prediction.len(), PREDICTION_BYTES_LIMIT)?;
        let mode = match v1::CompletionMode::try_from(request.mode) {
            Ok(v1::CompletionMode::Unspecified | v1::CompletionMode::Continue) => Mode::Continue,
            Ok(v1::CompletionMode::FillInTheMiddle) => Mode::FillInTheMiddle,
            Ok(v1::CompletionMode::Rewrite) => Mode::Rewrite,
            Err(_) => {
                let known = "1 (continue), 2 (fill in the middle), 3 (rewrite)";
                return Err(unknown("mode", request.mode, known));
            }
        };
        let on_edit = match v1::OnEdit::try_from(request.on_edit) {
            Ok(v1::OnEdit::Unspecified | v1::OnEdit::End) => OnEdit::End,
            Ok(v1::OnEdit::GoOn) => OnEdit::GoOn,
            Err(_) => return Err(unknown("on_edit", request.on_edit, "1 (end), 2 (go on)")),
        };
        let max_tokens = match (request.max_tokens, mode) {
            (0, Mode::Continue | Mode::FillInTheMiddle) => DEFAULT_MAX_TOKENS,
            (given, _) => given,
        };
        if mode == Mode::Rewrite && !request.generated.is_empty() {
            let message = "an answer of the mode REWRITE is not gone on with: ask for it anew";
            return Err(Fault::new(Reason::BadGenerated, message));
        }
        if mode == Mode::Rewrite && !(request.stop.is_empty() && request.stop_tokens.is_empty()) {
            return bad(
                "in the mode REWRITE the lines say where an answer ends: leave out stop and stop_tokens"
                    .to_owned(),
            );
        }
        if !request.generated.is_empty() {
            check_generated(&request, max_tokens)?;
        }
        use v1::complete_request::At as Wire;
        let encoding = encoding(request.position_encoding)?;
        let at = request.at.map(|at| match at {
            Wire::AtByte(at) => Cursor::Byte(offset(at)),
            Wire::AtLsp(at) => Cursor::Lsp(position(at, encoding)),
            Wire::AtToken(at) => Cursor::Token(TokenIndex(at)),
        });
        Ok(Self {
            session: SessionName::new(request.session)?,
            identity: Identity::given(request.identity),
            revision: request.revision.map(Revision),
            max_tokens,
            sampling: SamplingParameters {
                temperature: request.temperature,
                top_p,
                top_k: request.top_k,
                seed: request.seed.unwrap_or(0),
                top_logprobs: request.top_logprobs,
            },
            stop: request.stop,
            stop_tokens: token_ids(request.stop_tokens),
            at,
            mode,
            on_edit,
            exactness: if request.exact { Exactness::Exact } else { Exactness::AsItIs },
            generated: token_ids(request.generated),
            prediction: request.prediction,
            lines: lines(request.lines_before, request.lines_behind),
        })
    }
}

fn lines(before: Option<u32>, behind: Option<u32>) -> RegionLines {
    let usual = RegionLines::default();
    RegionLines { before: before.unwrap_or(usual.before), behind: behind.unwrap_or(usual.behind) }
}

/// Whether a completion can go on that an earlier stream began: only the same document and the same draws give the same tokens.
fn check_generated(request: &v1::CompleteRequest, max_tokens: u32) -> Result<(), Fault> {
    if request.revision.is_none() {
        return Err(missing("revision", "the one that the earlier stream of this completion told"));
    }
    if request.temperature != 0.0 && request.seed.is_none() {
        return Err(missing("seed", "the one that the earlier stream of this completion told"));
    }
    let given = request.generated.len();
    if given >= max_tokens as usize {
        let message = format!(
            "generated has {given} tokens, and max_tokens is {max_tokens}: nothing is left to generate"
        );
        return Err(Fault::new(Reason::BadGenerated, message).with("limit", max_tokens));
    }
    Ok(())
}
