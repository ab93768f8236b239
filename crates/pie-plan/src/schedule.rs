//! The policy: who takes part in the next step. Edits and first tokens before running decodes, decodes before prefills,
//! prefills in turn, those that a completion waits for first, all under a token budget (L1), nobody forever (L2); what
//! nobody waits for is encoded when nobody wants anything. Lanes, of which each tenant has one, take turns with each
//! other, and where there are several a step has a time too, and every other one is short when first tokens wait: who asks
//! little does not wait for who asks much.

use crate::plan::Run;
use pie_words::SessionId;
use std::collections::{BTreeMap, BTreeSet};

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

/// Whose demand it is: a lane's demands take turns among themselves, and lanes with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(pub u32);

/// Microseconds of the ranks' time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u32);

impl Micros {
    /// No limit.
    pub const MAX: Self = Self(u32::MAX);

    /// So many rows of so much time each fit, or one that does not.
    pub fn rows(self, each: Self) -> u32 {
        self.0.checked_div(each.0).map_or(u32::MAX, |rows| rows.max(1))
    }

    fn times(self, rows: u32) -> Self {
        Self(self.0.saturating_mul(rows))
    }

    fn part(self, rows: u32, of: u32) -> Self {
        let part = u64::from(self.0) * u64::from(rows) / u64::from(of.max(1));
        Self(u32::try_from(part).unwrap_or(u32::MAX))
    }
}

/// One session's demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Who.
    pub session: SessionId,
    /// With whom it takes turns first.
    pub lane: Lane,
    /// Rows of a step that serves it whole: for a token those of its context, the last in any case (W1).
    pub rows: u32,
    /// Tokens of the document that wait to be encoded: what can be served by chunks.
    pub pending: u32,
    /// What for.
    pub want: Want,
    /// Since when.
    pub ticket: Ticket,
    /// About what one of its rows adds to the time of a step; 0 where that is not known.
    pub row_time: Micros,
    /// And what drawing its token adds.
    pub token_time: Micros,
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
    /// What all rows may add to the time of a step: [`Micros::MAX`] where one lane has the group to itself. The one demand of each
    /// kind that meets the limit may pass it, so that everybody is served (L2).
    pub time: Micros,
    /// The same, of a step that nobody waits for: whoever comes meanwhile waits for its end. One row may pass it.
    pub idle_time: Micros,
}

/// The runs of the next step and its number of passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Who runs.
    pub runs: Vec<Run>,
    /// How many passes.
    pub passes: u32,
}

/// Rows up to a token that are encoded together however long they take: an edit is not served in several steps for their sake.
const LEAST_EDIT: u32 = 8;

impl Demand {
    fn wants_token(&self) -> bool {
        self.want <= Want::NextToken
    }

    /// What it adds to the time of a step that takes so many of its rows, and draws its token if it is served whole.
    fn time(&self, rows: u32) -> Micros {
        let rows_time = self.row_time.times(rows);
        let is_drawn = self.wants_token() && rows >= self.rows;
        Micros(rows_time.0.saturating_add(if is_drawn { self.token_time.0 } else { 0 }))
    }

    /// The most rows of it that a step takes in so much time.
    fn rows_within(&self, time: Micros) -> u32 {
        let rows = time.rows(self.row_time);
        if self.wants_token() { rows.max(LEAST_EDIT) } else { rows }
    }

    /// Whether one step serves it. What is left to encode of a token whose document is encoded is its last row (W1).
    fn fits(&self, limits: Limits) -> bool {
        self.rows <= limits.token_share().min(self.rows_within(limits.time)) || self.pending == 0
    }
}

impl Limits {
    /// None.
    pub const NONE: Self = Self {
        rows: u32::MAX,
        prefill_rows: u32::MAX,
        decode_passes: u32::MAX,
        time: Micros::MAX,
        idle_time: Micros::MAX,
    };

    /// Rows that first tokens may take while others wait; the rest is reserved for decodes and prefills (L2).
    fn token_share(self) -> u32 {
        (self.rows - self.rows / 4).max(1)
    }
}

/// What a step may still take, and what of it is reserved for those who are asked later.
struct Budget {
    rows: u32,
    reserved_rows: u32,
    time: Micros,
    reserved_time: Micros,
}

impl Budget {
    fn new(rows: u32, time: Micros) -> Self {
        Self { rows, reserved_rows: 0, time, reserved_time: Micros(0) }
    }

    /// So many rows, and as great a part of the time, are left to those who are asked later.
    fn reserve(&mut self, rows: u32) {
        self.reserved_time = self.time.part(rows, self.rows);
        self.reserved_rows = rows;
    }

    fn free_rows(&self) -> u32 {
        self.rows.saturating_sub(self.reserved_rows)
    }

    fn has_time(&self) -> bool {
        self.time > self.reserved_time
    }

    /// Who passes the limit takes nothing of what is reserved.
    fn spend(&mut self, rows: u32, demand: &Demand) {
        self.rows -= rows;
        let left = self.time.0.saturating_sub(demand.time(rows).0);
        self.time = Micros(left).max(self.reserved_time);
    }

    /// Takes a demand that wants a token whole, or leaves it.
    fn admit(&mut self, demand: &Demand, most: u32) -> Option<Run> {
        let rows = demand.rows.min(most);
        if rows > self.free_rows() || !self.has_time() {
            return None;
        }
        self.spend(rows, demand);
        Some(Run::Sample { session: demand.session })
    }

    /// Takes as many rows of a prefill as there is room for.
    fn admit_chunk(&mut self, demand: &Demand) -> Option<Run> {
        if !self.has_time() {
            return None;
        }
        // The last token is left to the step that samples, which encodes it in any case (W1).
        let most = demand.pending - u32::from(demand.wants_token()).min(demand.pending);
        let time = Micros(self.time.0 - self.reserved_time.0);
        let limit = most.min(self.free_rows()).min(demand.rows_within(time));
        self.spend(limit, demand);
        (limit > 0).then_some(Run::Encode { session: demand.session, limit })
    }
}

/// Demands in the order in which they are served: of each lane the one that waits longest, then of each the second, and so on.
fn in_turn(demands: &[Demand]) -> Vec<&Demand> {
    let mut waiting: Vec<&Demand> = demands.iter().filter(|demand| demand.rows > 0).collect();
    waiting.sort_by_key(|demand| (demand.ticket, demand.session));
    let mut turns: BTreeMap<(Lane, Want), u32> = BTreeMap::new();
    let mut turn = |demand: &Demand| {
        let turn = turns.entry((demand.lane, demand.want)).or_default();
        *turn += 1;
        *turn
    };
    let mut by_turn: Vec<_> = waiting.into_iter().map(|demand| (turn(demand), demand)).collect();
    by_turn.sort_by_key(|(turn, _)| *turn);
    by_turn.into_iter().map(|(_, demand)| demand).collect()
}

/// A short step for the first tokens that wait longest in each lane: nothing else but running decodes as far as they add no more to it
/// than work that nobody waits for may. Nothing, when no first token can be served. Only every other step may be such a one (L2).
pub fn schedule_first_tokens(demands: &[Demand], limits: Limits) -> Option<Schedule> {
    let (waiting, mut lanes) = (in_turn(demands), BTreeSet::new());
    let first_tokens = waiting.iter().filter(|demand| demand.want == Want::FirstToken && demand.fits(limits));
    let mut budget = Budget::new(limits.rows, limits.time);
    let mut runs: Vec<Run> = first_tokens
        .filter(|demand| lanes.insert(demand.lane))
        .filter_map(|demand| budget.admit(demand, limits.token_share()))
        .collect();
    if runs.is_empty() {
        return None;
    }
    budget.time = limits.idle_time;
    let decodes = waiting.iter().filter(|demand| demand.want == Want::NextToken && demand.fits(limits));
    for demand in decodes {
        if demand.time(demand.rows) <= budget.time {
            runs.extend(budget.admit(demand, limits.rows));
        }
    }
    Some(Schedule { runs, passes: 1 })
}

/// Chooses the runs of the next step; nothing when nobody wants anything.
///
/// First tokens come first, longest waiting first, then decodes. A quarter of the budget is reserved for decodes, at one row
/// each, and for prefills, while any waits. Prefills are cut into chunks, longest waiting first, so that with renewed
/// tickets they take turns. A session that wants a token and has more to encode than first tokens may take is served by
/// chunks until it has not: before prefills that nobody waits for, however many there are, of which it leaves a quarter.
/// Hence nobody starves, provided that the owner renews the tickets of the served.
pub fn schedule(demands: &[Demand], limits: Limits) -> Option<Schedule> {
    let waiting = in_turn(demands);
    let that_want = |want: Want| waiting.iter().copied().filter(move |demand| demand.want == want);
    let large: Vec<_> =
        waiting.iter().copied().filter(|demand| demand.wants_token() && !demand.fits(limits)).collect();
    let first_tokens = that_want(Want::FirstToken).filter(|demand| demand.fits(limits));
    let decodes: Vec<_> = that_want(Want::NextToken).filter(|demand| demand.fits(limits)).collect();
    let prefills: Vec<_> = that_want(Want::Encoding).collect();

    let for_decodes = (limits.rows / 8).min(u32::try_from(decodes.len()).unwrap_or(u32::MAX));
    let nobody_prefills = large.is_empty() && prefills.is_empty();
    let for_prefills = if nobody_prefills { 0 } else { limits.rows / 4 - for_decodes };
    let mut budget = Budget::new(limits.rows, limits.time);
    budget.reserve(for_decodes + for_prefills);
    let mut runs: Vec<Run> =
        first_tokens.filter_map(|demand| budget.admit(demand, limits.token_share())).collect();
    budget.reserve(for_prefills);
    runs.extend(decodes.iter().filter_map(|demand| budget.admit(demand, limits.rows)));
    let tokens = runs.len();

    if tokens > 0 {
        budget.rows = budget.rows.min(limits.prefill_rows);
    }
    budget.reserve(if prefills.is_empty() { 0 } else { budget.rows / 4 });
    runs.extend(large.iter().filter_map(|demand| budget.admit_chunk(demand)));
    budget.reserve(0);
    runs.extend(prefills.iter().filter_map(|demand| budget.admit_chunk(demand)));
    if let (true, Some(demand)) = (runs.is_empty(), that_want(Want::Refresh).next()) {
        let limit = demand.pending.min(limits.prefill_rows).min(demand.rows_within(limits.idle_time));
        runs.push(Run::Encode { session: demand.session, limit });
    }
    // Several passes only when every demand is a running decode that was served: nobody who waits then waits longer.
    let running = waiting.iter().filter(|demand| demand.want == Want::NextToken && demand.rows == 1).count();
    let others = waiting.iter().filter(|demand| demand.want != Want::Refresh).count();
    let only_decodes = running == others && runs.len() == running && tokens == running && running > 0;
    let passes = if only_decodes { limits.decode_passes.max(1) } else { 1 };
    if runs.is_empty() { None } else { Some(Schedule { runs, passes }) }
}
