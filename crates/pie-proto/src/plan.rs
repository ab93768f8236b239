//! Plans and reports between a group's owner and its ranks.

use crate::reason::{Fault, Reason};
use crate::worker_v1 as wire;
use pie_plan::blocks::{Block, PlanBlocks, Realm};
use pie_plan::{Change, DigestWanted, Plan, Run};
use pie_words::{Epoch, SamplingParameters, Seq, SessionId, Splice, Splices, Strategy, TokenId, TokenIndex};
use std::collections::BTreeMap;

/// How a rank draws the next token of one session. All ranks draw the same (P3).
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// The same for all tokens of the completion.
    pub parameters: SamplingParameters,
    /// Index of the token within its completion.
    pub step: u64,
    /// The session stops decoding after one of these.
    pub stop_tokens: Vec<TokenId>,
    /// The most tokens that the session takes in this plan.
    pub max_tokens: u32,
    /// The most tokens that a pass may look up ahead ([`pie_plan::speculation`]).
    pub drafts: u32,
    /// What the completion is expected to draw: looked up too.
    pub expected: Vec<TokenId>,
}

/// A plan with what the pure state machine does not care about.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What happens to the tables.
    pub plan: Plan,
    /// One for each session that samples.
    pub sampling: BTreeMap<SessionId, Sampling>,
}

impl From<&Step> for wire::Plan {
    fn from(step: &Step) -> Self {
        let plan = &step.plan;
        Self {
            epoch: plan.epoch.0,
            seq: plan.seq.0,
            changes: plan.changes.iter().map(change_to_wire).collect(),
            runs: plan.runs.iter().map(|run| run_to_wire(run, step)).collect(),
            passes: plan.passes,
            report_digest: plan.digest == DigestWanted::Report,
            // Whoever sends it knows.
            trace: None,
            spilled: plan.blocks.spilled.iter().map(block_to_wire).collect(),
            reloaded: plan.blocks.reloaded.iter().map(block_to_wire).collect(),
        }
    }
}

impl TryFrom<wire::Plan> for Step {
    type Error = Fault;
    fn try_from(plan: wire::Plan) -> Result<Self, Fault> {
        let mut sampling = BTreeMap::new();
        let changes = plan.changes.into_iter().map(change).collect::<Result<_, _>>()?;
        let runs = plan.runs.into_iter().map(|value| run(value, &mut sampling)).collect::<Result<_, _>>()?;
        let digest = if plan.report_digest { DigestWanted::Report } else { DigestWanted::Skip };
        let (epoch, seq, passes) = (Epoch(plan.epoch), Seq(plan.seq), plan.passes);
        let blocks = |blocks: Vec<wire::Block>| blocks.into_iter().map(block).collect();
        let blocks = PlanBlocks { spilled: blocks(plan.spilled), reloaded: blocks(plan.reloaded) };
        Ok(Self { plan: Plan { epoch, seq, changes, runs, passes, digest, blocks }, sampling })
    }
}

fn block_to_wire(block: &Block) -> wire::Block {
    wire::Block { session: block.session.0, end: block.end.0, realm: block.realm.0 }
}

fn block(block: wire::Block) -> Block {
    Block { session: SessionId(block.session), end: TokenIndex(block.end), realm: Realm(block.realm) }
}

fn change_to_wire(change: &Change) -> wire::Change {
    use wire::change::{Branch, Clear, Close, EditTokens, EndBranch, Kind, Open, Repair, Rows, Share};
    let kind = match change {
        Change::Open { .. } => Kind::Open(Open {}),
        Change::EndBranch { .. } => Kind::EndBranch(EndBranch {}),
        Change::Close { .. } => Kind::Close(Close {}),
        Change::Clear { .. } => Kind::Clear(Clear {}),
        Change::Share { from, length, .. } => Kind::Share(Share { from: from.0, length: *length }),
        Change::Repair { rows, .. } => {
            let rows = rows.iter().map(|rows| Rows { start: rows.start, end: rows.end }).collect();
            Kind::Repair(Repair { rows })
        }
        Change::Branch { at, tokens, .. } => {
            let tokens = tokens.iter().map(|token| token.0).collect();
            Kind::Branch(Branch { at: at.0, tokens })
        }
        Change::Splice { splices, strategy, .. } => Kind::Edit(EditTokens {
            splices: splices.iter().map(splice_to_wire).collect(),
            strategy: match strategy {
                Strategy::Pie => wire::Strategy::Pie,
                Strategy::Repair => wire::Strategy::Repair,
                Strategy::Conflict => wire::Strategy::Conflict,
                Strategy::Full => wire::Strategy::Full,
            }
            .into(),
        }),
    };
    wire::Change { session: change.session().0, kind: Some(kind) }
}

fn change(change: wire::Change) -> Result<Change, Fault> {
    use wire::change::Kind;
    let session = SessionId(change.session);
    Ok(match change.kind {
        Some(Kind::Open(_)) => Change::Open { session },
        Some(Kind::EndBranch(_)) => Change::EndBranch { session },
        Some(Kind::Close(_)) => Change::Close { session },
        Some(Kind::Clear(_)) => Change::Clear { session },
        Some(Kind::Share(share)) => {
            Change::Share { session, from: SessionId(share.from), length: share.length }
        }
        Some(Kind::Repair(repair)) => {
            Change::Repair { session, rows: repair.rows.iter().map(|rows| rows.start..rows.end).collect() }
        }
        Some(Kind::Branch(branch)) => {
            let tokens = branch.tokens.into_iter().map(TokenId).collect();
            Change::Branch { session, at: TokenIndex(branch.at), tokens }
        }
        Some(Kind::Edit(edit)) => {
            let strategy = match edit.strategy() {
                wire::Strategy::Pie => Strategy::Pie,
                wire::Strategy::Repair => Strategy::Repair,
                wire::Strategy::Conflict => Strategy::Conflict,
                wire::Strategy::Full => Strategy::Full,
                wire::Strategy::Unspecified => return Err(broken("a splice without a strategy")),
            };
            // Checked against the session's real length when the plan is applied.
            let splices = Splices::new(edit.splices.into_iter().map(splice).collect(), u32::MAX as usize)
                .map_err(|error| broken(&error.to_string()))?;
            Change::Splice { session, splices, strategy }
        }
        None => return Err(broken("a change of no known kind")),
    })
}

fn splice_to_wire(splice: &Splice) -> wire::Splice {
    wire::Splice {
        at: splice.at.0,
        delete: splice.delete,
        insert: splice.insert.iter().map(|token| token.0).collect(),
    }
}

fn splice(splice: wire::Splice) -> Splice {
    let insert = splice.insert.into_iter().map(TokenId).collect();
    Splice { at: TokenIndex(splice.at), delete: splice.delete, insert }
}

fn run_to_wire(run: &Run, step: &Step) -> wire::Run {
    use wire::run::Kind;
    let kind = match run {
        Run::Encode { limit, .. } => Some(Kind::Encode(*limit)),
        Run::Sample { session } => step.sampling.get(session).map(|sampling| {
            Kind::Sample(wire::Sampling {
                temperature: sampling.parameters.temperature,
                top_p: sampling.parameters.top_p,
                top_k: sampling.parameters.top_k,
                seed: sampling.parameters.seed,
                step: sampling.step,
                top_logprobs: sampling.parameters.top_logprobs,
                stop_tokens: sampling.stop_tokens.iter().map(|token| token.0).collect(),
                max_tokens: sampling.max_tokens,
                drafts: sampling.drafts,
                expected: sampling.expected.iter().map(|token| token.0).collect(),
            })
        }),
    };
    wire::Run { session: run.session().0, kind }
}

fn run(run: wire::Run, all: &mut BTreeMap<SessionId, Sampling>) -> Result<Run, Fault> {
    use wire::run::Kind;
    let session = SessionId(run.session);
    match run.kind {
        Some(Kind::Encode(limit)) => Ok(Run::Encode { session, limit }),
        Some(Kind::Sample(sampling)) => {
            let sampling = Sampling {
                parameters: SamplingParameters {
                    temperature: sampling.temperature,
                    top_p: sampling.top_p,
                    top_k: sampling.top_k,
                    seed: sampling.seed,
                    top_logprobs: sampling.top_logprobs,
                },
                step: sampling.step,
                stop_tokens: sampling.stop_tokens.into_iter().map(TokenId).collect(),
                max_tokens: sampling.max_tokens,
                drafts: sampling.drafts,
                expected: sampling.expected.into_iter().map(TokenId).collect(),
            };
            all.insert(session, sampling);
            Ok(Run::Sample { session })
        }
        None => Err(broken("a run of no known kind, or one that samples without parameters")),
    }
}

fn broken(what: &str) -> Fault {
    Fault::new(Reason::Internal, format!("the plan holds {what}: owner and rank must be of one release"))
}

/// What a rank says of a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Which plan.
    pub seq: Seq,
    /// From rank 0 only: what each of its passes since its report before drew.
    pub passes: Vec<Vec<SampledToken>>,
    /// Digest of the tables after the plan, if asked for.
    pub digest: Option<u64>,
    /// Digest of all drawn tokens: equal on all ranks.
    pub sampled_digest: u64,
    /// Its whole time.
    pub compute_us: u64,
    /// Of that, in collectives, waiting included.
    pub collective_us: u64,
    /// Nothing of the plan follows. Rank 0 reports each pass of a plan of several, so that tokens stream.
    pub is_done: bool,
    /// Sessions that were left out, since the model cannot see their rows, or drew no number from them.
    pub refused: Vec<SessionId>,
    /// The plan, which only repairs, was given up in the middle of its pass, by all ranks.
    pub is_given_up: bool,
    /// Forward passes of the whole plan, when it is done: each may have drawn several tokens of a session.
    pub forwards: u32,
    /// What they looked up ahead, when it is done.
    pub speculated: Vec<Speculated>,
    /// Sessions whose block of the plan was read from disk, by all ranks.
    pub reloaded: Vec<SessionId>,
}

/// What the passes of a plan looked up ahead for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speculated {
    /// Whose.
    pub session: SessionId,
    /// Tokens that were looked up.
    pub drafted: u32,
    /// Of those, that were drawn then.
    pub accepted: u32,
    /// Passes in which another token was drawn than the one that was looked up.
    pub missed: u32,
}

/// One sampled token. Equal on all ranks (P3): logits are gathered and the seed is in the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledToken {
    /// Whose.
    pub session: SessionId,
    /// Which.
    pub token: TokenId,
    /// Natural logarithm of its probability before temperature and cuts; no number if the logits were none.
    pub logprob: f32,
    /// The most likely tokens, if asked for.
    pub top: Vec<(TokenId, f32)>,
}

impl SampledToken {
    /// Whether it was drawn, from logits that were numbers.
    pub fn is_drawn(&self) -> bool {
        !self.logprob.is_nan()
    }
}

impl From<Report> for wire::Report {
    fn from(report: Report) -> Self {
        let sampled = |sampled: Vec<SampledToken>| wire::Pass {
            sampled: sampled.into_iter().map(wire::Sampled::from).collect(),
        };
        Self {
            // Whoever sends it knows.
            epoch: 0,
            seq: report.seq.0,
            passes: report.passes.into_iter().map(sampled).collect(),
            digest: report.digest,
            sampled_digest: report.sampled_digest,
            compute_us: report.compute_us,
            collective_us: report.collective_us,
            done: report.is_done,
            refused: report.refused.iter().map(|session| session.0).collect(),
            given_up: report.is_given_up,
            forwards: report.forwards,
            speculated: report.speculated.into_iter().map(wire::Speculated::from).collect(),
            reloaded: report.reloaded.iter().map(|session| session.0).collect(),
        }
    }
}

impl From<Speculated> for wire::Speculated {
    fn from(Speculated { session, drafted, accepted, missed }: Speculated) -> Self {
        Self { session: session.0, drafted, accepted, missed }
    }
}

impl From<wire::Speculated> for Speculated {
    fn from(wire::Speculated { session, drafted, accepted, missed }: wire::Speculated) -> Self {
        Self { session: SessionId(session), drafted, accepted, missed }
    }
}

impl From<SampledToken> for wire::Sampled {
    fn from(sampled: SampledToken) -> Self {
        let candidate = |(token, logprob): (TokenId, f32)| wire::Candidate { token: token.0, logprob };
        Self {
            session: sampled.session.0,
            token: sampled.token.0,
            logprob: sampled.logprob,
            top: sampled.top.into_iter().map(candidate).collect(),
        }
    }
}

impl From<wire::Report> for Report {
    fn from(report: wire::Report) -> Self {
        let drawn = |pass: wire::Pass| pass.sampled.into_iter().map(SampledToken::from).collect();
        Self {
            seq: Seq(report.seq),
            passes: report.passes.into_iter().map(drawn).collect(),
            digest: report.digest,
            sampled_digest: report.sampled_digest,
            compute_us: report.compute_us,
            collective_us: report.collective_us,
            is_done: report.done,
            refused: report.refused.into_iter().map(SessionId).collect(),
            is_given_up: report.given_up,
            forwards: report.forwards,
            speculated: report.speculated.into_iter().map(Speculated::from).collect(),
            reloaded: report.reloaded.into_iter().map(SessionId).collect(),
        }
    }
}

impl From<wire::Sampled> for SampledToken {
    fn from(sampled: wire::Sampled) -> Self {
        let top = sampled.top.into_iter().map(|candidate| (TokenId(candidate.token), candidate.logprob));
        Self {
            session: SessionId(sampled.session),
            token: TokenId(sampled.token),
            logprob: sampled.logprob,
            top: top.collect(),
        }
    }
}
