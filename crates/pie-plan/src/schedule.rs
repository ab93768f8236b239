//! The policy: who takes part in the next step. Fair and simple: first tokens and decodes before prefills, prefills
//! in turn, all under a token budget (L1), nobody forever (L2).

use crate::ids::SessionId;
use crate::plan::Run;

/// A place in the queue: smaller is longer waiting. The owner gives a new ticket whenever a session was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The first token of a completion: somebody counts the milliseconds to it.
    FirstToken,
    /// A next token of one that runs.
    NextToken,
    /// Only that its tokens are encoded.
    Encoding,
}

/// One session's demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Who.
    pub session: SessionId,
    /// Tokens that wait to be encoded.
    pub pending: u32,
    /// What for.
    pub want: Want,
    /// Since when.
    pub ticket: Ticket,
}

impl Demand {
    /// Rows of a step that serves it whole: the last token is encoded again even if nothing is pending (W1).
    fn rows(&self) -> u32 {
        match self.want {
            Want::FirstToken | Want::NextToken => self.pending.max(1),
            Want::Encoding => self.pending,
        }
    }
}

/// Limits of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// L1: rows in the first forward pass of a step.
    pub rows: u32,
    /// Forward passes of a step in which nobody but running decodes takes part.
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
    /// Rows that sessions which want a token may take while a prefill waits; the rest is the prefills' share (L2).
    fn token_share(self) -> u32 {
        (self.rows - self.rows / 4).max(1)
    }
}

/// Chooses the runs of the next step; nothing when nobody wants anything.
///
/// Sessions that want a token come first, longest waiting first; a quarter of the budget is kept for prefills while
/// any waits. Prefills are cut into chunks, longest waiting first, so that with renewed tickets they take turns. A
/// session whose pending tokens exceed the token share is served by chunks until they do not. Hence nobody starves,
/// provided that the owner renews the tickets of the served.
pub fn schedule(demands: &[Demand], limits: Limits) -> Option<Schedule> {
    let mut queue: Vec<&Demand> = demands.iter().filter(|demand| demand.rows() > 0).collect();
    queue.sort_by_key(|demand| (demand.ticket, demand.session));
    let fits = |demand: &&Demand| demand.want != Want::Encoding && demand.rows() <= limits.token_share();
    let (tokens, chunks): (Vec<&Demand>, Vec<&Demand>) = queue.into_iter().partition(fits);

    let mut runs = Vec::new();
    let mut left = if chunks.is_empty() { limits.rows } else { limits.token_share() };
    let unused = limits.rows - left;
    let served = tokens.iter().filter(|demand| {
        let fits = demand.rows() <= left;
        left -= if fits { demand.rows() } else { 0 };
        fits
    });
    runs.extend(served.map(|demand| Run::Sample { session: demand.session }));
    left += unused;
    for demand in &chunks {
        let limit = demand.pending.min(left);
        left -= limit;
        if limit > 0 {
            runs.push(Run::Encode { session: demand.session, limit });
        }
    }
    // Several passes only when every demand is a running decode: nobody who waits then waits longer.
    let quiet = demands.iter().all(|demand| demand.want == Want::NextToken && demand.pending <= 1);
    let passes = if quiet && runs.len() == tokens.len() { limits.decode_passes.max(1) } else { 1 };
    if runs.is_empty() { None } else { Some(Schedule { runs, passes }) }
}
