//! The policy: who takes part in the next step. Edits and first tokens before running decodes, decodes before prefills,
//! prefills in turn, those that a completion waits for first, all under a token budget (L1), nobody forever (L2); what
//! nobody waits for is encoded when nobody wants anything.

use crate::plan::Run;
use pie_words::SessionId;

/// A place in the queue: smaller is longer waiting. The owner gives a new ticket whenever a session was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a session waits for, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// The first token of a completion: somebody counts the milliseconds to it.
    FirstToken,
    /// A next token of one that runs.
    NextToken,
    /// Only that its tokens are encoded.
    Encoding,
    /// That its tokens are encoded, anew beside the rows that serve meanwhile or ahead of anybody's wish: no answer waits
    /// for it.
    Refresh,
}

/// One session's demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Who.
    pub session: SessionId,
    /// Rows of a step that serves it whole: for a token those of its context, the last in any case (W1).
    pub rows: u32,
    /// Tokens of the document that wait to be encoded: what can be served by chunks.
    pub pending: u32,
    /// What for.
    pub want: Want,
    /// Since when.
    pub ticket: Ticket,
}

/// Limits of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// L1: rows in the first forward pass of a step.
    pub rows: u32,
    /// Of those, rows of prefills in a step in which somebody gets a token: they are what the others wait for.
    pub prefill_rows: u32,
    /// Forward passes of a step in which nobody but running decodes takes part. The owner cuts it short when something
    /// else comes in.
    pub decode_passes: u32,
}

/// The runs of the next step and its number of passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Who runs.
    pub runs: Vec<Run>,
    /// How many passes.
    pub passes: u32,
}

impl Limits {
    /// Rows that first tokens may take while others wait; the rest is the share of decodes and prefills (L2).
    fn token_share(self) -> u32 {
        (self.rows - self.rows / 4).max(1)
    }
}

/// What of so many rows first tokens that come in chunks leave to the other prefills (L2).
fn kept_for_others(rows: u32) -> u32 {
    rows / 4
}

/// Rows that are left in a step.
struct Budget {
    left: u32,
    /// Of those, kept for the less urgent.
    kept: u32,
}

impl Budget {
    fn take(&mut self, rows: u32) -> bool {
        let fits = rows <= self.left.saturating_sub(self.kept);
        self.left -= if fits { rows } else { 0 };
        fits
    }
}

/// Chooses the runs of the next step; nothing when nobody wants anything.
///
/// First tokens come first, longest waiting first, then decodes. A quarter of the budget is kept for decodes, at one row
/// each, and for prefills, while any waits. Prefills are cut into chunks, longest waiting first, so that with renewed
/// tickets they take turns. A session that wants a token and has more to encode than first tokens may take is served by
/// chunks until it has not: before prefills that nobody waits for, however many there are, of which it leaves a quarter.
/// Hence nobody starves, provided that the owner renews the tickets of the served.
pub fn schedule(demands: &[Demand], limits: Limits) -> Option<Schedule> {
    let mut queue: Vec<&Demand> = demands.iter().filter(|demand| demand.rows > 0).collect();
    queue.sort_by_key(|demand| (demand.ticket, demand.session));
    let of = |want: Want| queue.iter().copied().filter(move |demand| demand.want == want);
    let wants_token = |demand: &&Demand| demand.want <= Want::NextToken;
    let fits = |demand: &&Demand| demand.rows <= limits.token_share() || demand.pending == 0;
    let large: Vec<&Demand> =
        queue.iter().copied().filter(|demand| wants_token(demand) && !fits(demand)).collect();
    let prefills: Vec<&Demand> = of(Want::Encoding).collect();
    let firsts = of(Want::FirstToken).filter(fits);
    let nexts: Vec<&Demand> = of(Want::NextToken).filter(fits).collect();

    let for_decodes = (limits.rows / 8).min(u32::try_from(nexts.len()).unwrap_or(u32::MAX));
    let nobody_prefills = large.is_empty() && prefills.is_empty();
    let for_prefills = if nobody_prefills { 0 } else { limits.rows / 4 - for_decodes };
    let mut budget = Budget { left: limits.rows, kept: for_decodes + for_prefills };
    let mut runs = Vec::new();
    let sample = |demand: &Demand| Run::Sample { session: demand.session };
    runs.extend(firsts.filter(|demand| budget.take(demand.rows.min(limits.token_share()))).map(sample));
    budget.kept = for_prefills;
    runs.extend(nexts.iter().filter(|demand| budget.take(demand.rows)).map(|demand| sample(demand)));
    let tokens = runs.len();

    let left = if tokens == 0 { budget.left } else { budget.left.min(limits.prefill_rows) };
    let kept = if prefills.is_empty() { 0 } else { kept_for_others(left) };
    let mut budget = Budget { left, kept };
    let mut chunk = |demand: &Demand, budget: &mut Budget| {
        // The last token is left to the step that samples, which encodes it in any case (W1).
        let most = demand.pending - u32::from(wants_token(&demand)).min(demand.pending);
        let limit = most.min(budget.left.saturating_sub(budget.kept));
        budget.left -= limit;
        if limit > 0 {
            runs.push(Run::Encode { session: demand.session, limit });
        }
    };
    large.iter().for_each(|demand| chunk(demand, &mut budget));
    budget.kept = 0;
    prefills.iter().for_each(|demand| chunk(demand, &mut budget));
    if let (true, Some(demand)) = (runs.is_empty(), of(Want::Refresh).next()) {
        runs.push(Run::Encode { session: demand.session, limit: demand.pending.min(limits.prefill_rows) });
    }
    // Several passes only when every demand is a running decode that was served: nobody who waits then waits longer.
    let decodes = queue.iter().filter(|demand| demand.want == Want::NextToken && demand.rows == 1).count();
    let others = queue.iter().filter(|demand| demand.want != Want::Refresh).count();
    let quiet = decodes == others && runs.len() == decodes && tokens == decodes && decodes > 0;
    let passes = if quiet { limits.decode_passes.max(1) } else { 1 };
    if runs.is_empty() { None } else { Some(Schedule { runs, passes }) }
}
