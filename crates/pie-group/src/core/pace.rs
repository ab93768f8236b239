//! How fast the ranks are, as far as it is known, and what follows for a step: it must not be long for those who wait for the
//! next one.

use pie_plan::schedule::{Limits, Micros};
use std::time::Duration;

/// What of the older steps' weight is left when a newer one is learned from.
const MEMORY: f64 = 0.95;
/// Rounds of the descent for each step; it goes on from what the steps before it gave.
const ROUNDS: usize = 8;
const LEAST_ROWS: u32 = 16;
/// Nobody notices so many microseconds, however fast the rest of a step is.
const LEAST_IDLE_US: f64 = 1000.0;
/// The part of a pass that nobody notices.
const UNNOTICED: f64 = 0.05;
/// The weight of one plan in what a draft is believed to take.
const DRAFT_WEIGHT: f64 = 0.1;
/// A plan may say that a draft took so many times what was believed; what took longer was held up by something else.
const MOST_SURPRISE: f64 = 3.0;
/// What was believed counts for that as this part of a pass at least: a draft believed to be free could otherwise never become dear.
const LEAST_DRAFT: f64 = 0.125;
/// Drafts that were dear are not tried, and nothing would be learned of them: with each plan without drafts they are believed a little cheaper,
/// half as dear after some 700. Those that are tried are learned of a hundred times as fast.
const DRAFT_FORGETTING: f64 = 0.001;

/// What a forward pass computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PassLoad {
    /// Tokens that it encodes.
    pub rows: u32,
    /// Keys that they see, all together.
    pub keys: u64,
    /// Tokens that it draws.
    pub draws: u32,
}

/// What the time of a pass is made of: rows, keys, draws, and the pass itself.
const PARTS: usize = 4;

/// The time of a pass: `step + row · rows + key · keys + draw · draws`, in microseconds, by least squares of the relative error over the latest
/// passes. No part is negative.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pace {
    /// Time of a row, of a key, of a draw, and of the step itself.
    parts: [f64; PARTS],
    /// The normal equations: products of the measures of a pass with each other, and with what they should add up to.
    products: [[f64; PARTS]; PARTS],
    sums: [f64; PARTS],
    /// The mean of keys that a row sees.
    keys_of_row: f64,
    /// What a token that is looked up adds to a pass: a row and a draw.
    draft_us: Option<f64>,
}

impl Pace {
    /// A pass is done.
    pub fn learn(&mut self, load: PassLoad, compute_us: u64) {
        if load.rows == 0 || compute_us == 0 {
            return;
        }
        let (rows, keys, draws) = (f64::from(load.rows), load.keys as f64, f64::from(load.draws));
        let measures = [rows, keys, draws, 1.0].map(|measure| measure / compute_us as f64);
        for (row, own) in self.products.iter_mut().zip(measures) {
            for (product, other) in row.iter_mut().zip(measures) {
                *product = MEMORY * *product + own * other;
            }
        }
        for (sum, measure) in self.sums.iter_mut().zip(measures) {
            *sum = MEMORY * *sum + measure;
        }
        self.keys_of_row = MEMORY * self.keys_of_row + (1.0 - MEMORY) * keys / rows;
        (0..ROUNDS).for_each(|_| self.descend());
        let usual = self.usual_draft_us(load);
        if let Some(draft_us) = &mut self.draft_us {
            *draft_us += DRAFT_FORGETTING * (usual - *draft_us).min(0.0);
        }
    }

    /// Each part becomes the best one beside the others as they are.
    fn descend(&mut self) {
        for part in 0..self.parts.len() {
            let (products, parts) = (&self.products[part], &self.parts);
            let others = |other: usize| if other == part { 0.0 } else { products[other] * parts[other] };
            let rest = self.sums[part] - (0..parts.len()).map(others).sum::<f64>();
            if products[part] > 0.0 {
                self.parts[part] = (rest / products[part]).max(0.0);
            }
        }
    }

    /// About what a row behind so many tokens adds to a pass; 0 where that is not known.
    pub fn row(self, context: u32) -> Micros {
        let [row, key, ..] = self.parts;
        Micros((row + key * f64::from(context)).ceil() as u32)
    }

    /// About what a token adds that is drawn in a pass.
    pub fn draw(self) -> Micros {
        Micros(self.parts[2].ceil() as u32)
    }

    /// Passes that looked tokens ahead are done: what they took more than plain ones is what their drafts took.
    pub fn learn_drafts(&mut self, plain: PassLoad, passes: u32, drafts: u32, compute_us: u64) {
        let more_us = compute_us as f64 - f64::from(passes) * self.time(plain);
        let draft_us = (more_us / f64::from(drafts.max(1))).max(0.0);
        let believed = self.draft_us.unwrap_or(self.usual_draft_us(plain));
        let most_us = MOST_SURPRISE * believed.max(LEAST_DRAFT * self.time(plain));
        let weight = if self.draft_us.is_some() { DRAFT_WEIGHT } else { 1.0 };
        self.draft_us = Some(believed + weight * (draft_us.min(most_us) - believed));
    }

    /// What a draft takes in such a pass as far as nothing better is known: two rows.
    fn usual_draft_us(self, plain: PassLoad) -> f64 {
        2.0 * (self.parts[0] + self.parts[1] * plain.keys as f64 / f64::from(plain.rows.max(1)))
    }

    /// Drafts that take so much time.
    pub fn drafts_within(self, time: Micros) -> u32 {
        let each = self.draft_us.unwrap_or(2.0 * self.parts[0]).ceil() as u32;
        time.rows(Micros(each))
    }

    fn time(self, load: PassLoad) -> f64 {
        let measures = [f64::from(load.rows), load.keys as f64, f64::from(load.draws), 1.0];
        measures.iter().zip(self.parts).map(|(measure, part)| measure * part).sum()
    }

    /// How many tokens a draft must give to be worth its time, in a pass that does so much without drafts and draws a token for each of
    /// its sessions: those are what the time would give otherwise. No number while nothing is known.
    pub fn cost_of_draft(self, plain: PassLoad) -> f64 {
        // A draw costs something too, but where one session decodes alone nothing tells it from the pass.
        let usual_us = self.usual_draft_us(plain);
        let draft_us = self.draft_us.unwrap_or(usual_us) * f64::from(plain.draws);
        if usual_us > 0.0 { draft_us / (self.time(plain) + draft_us) } else { f64::NAN }
    }

    /// Rows that a pass takes along for a part of its time that nobody notices: what it reads for one row it reads for all. 0 while
    /// that is not known.
    pub fn free_rows(self) -> u32 {
        let [row, key, _, step] = self.parts;
        let row_us = row + key * self.keys_of_row;
        if row_us > 0.0 { (UNNOTICED * step / row_us) as u32 } else { 0 }
    }

    /// The limits of the next step: prefills take `prefill` where others get tokens, and four times that where others might
    /// come. A session that is alone may take all. Where another tenant might come, all rows together may take `prefill`, or
    /// as long again as the step takes without them: what it reads for one row it reads for all. Nor does a step take longer that nobody
    /// waits for, where another session might come.
    pub fn limits(self, limits: Limits, prefill: Duration, sessions: usize, tenants: usize) -> Limits {
        let [row, key, _, step] = self.parts;
        let row_us = row + key * self.keys_of_row;
        if row_us == 0.0 {
            return limits;
        }
        let least = LEAST_ROWS.min(limits.rows);
        let rows = |time: Duration| ((time.as_micros() as f64 / row_us) as u32).clamp(least, limits.rows);
        let most =
            if sessions > 1 { rows(4 * prefill).max(limits.rows.min(8 * LEAST_ROWS)) } else { limits.rows };
        let shared = Micros((prefill.as_micros() as f64).max(step) as u32);
        let time = if tenants > 1 { shared } else { limits.time };
        let idle_time = if sessions > 1 { Micros(step.max(LEAST_IDLE_US) as u32) } else { limits.idle_time };
        Limits { rows: most, prefill_rows: rows(prefill), time, idle_time, ..limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { rows: 512, prefill_rows: 64, decode_passes: 8, ..Limits::NONE };
    const PREFILL: Duration = Duration::from_millis(30);

    #[test]
    fn slow_ranks_take_smaller_chunks() {
        let of = |row_us: u64, sessions| {
            let mut pace = Pace::default();
            (0..50).for_each(|_| pace.learn(PassLoad { rows: 100, keys: 0, draws: 0 }, 100 * row_us));
            let row = pace.row(0).0;
            // A pass that was held up by something else says little.
            pace.learn(PassLoad { rows: 1, keys: 0, draws: 0 }, 1_000_000);
            assert!(pace.row(0).0.abs_diff(row) <= row / 10, "{row} us a row, and then {}", pace.row(0).0);
            let limits = pace.limits(LIMITS, PREFILL, sessions, 1);
            (limits.rows, limits.prefill_rows)
        };
        assert_eq!(Pace::default().limits(LIMITS, PREFILL, 9, 2), LIMITS);
        for rows in 1..=LEAST_ROWS {
            let mut pace = Pace::default();
            pace.learn(PassLoad { rows: 16, keys: 16, draws: 0 }, 1_000_000);
            let small = pace.limits(Limits { rows, ..LIMITS }, PREFILL, 9, 1);
            assert_eq!((small.rows, small.prefill_rows), (rows, rows), "steps of {rows} rows");
        }
        let cases = [(10, 9, (512, 512)), (300, 9, (400, 100)), (2000, 9, (128, 16)), (2000, 1, (512, 16))];
        for (row_us, sessions, (rows, prefill_rows)) in cases {
            let learned = of(row_us, sessions);
            let near = |learned: u32, right: u32| learned.abs_diff(right) <= right / 20;
            assert!(near(learned.0, rows) && near(learned.1, prefill_rows), "{row_us} us a row: {learned:?}");
        }
    }

    /// Rows of prefills are cheaper than those of drafts, which draw: what drafts cost shows when there were some.
    #[test]
    fn what_a_draft_costs_is_what_its_passes_took_more() {
        let plain = |sessions| PassLoad { rows: sessions, keys: 0, draws: sessions };
        let mut pace = Pace::default();
        assert!(pace.cost_of_draft(plain(1)).is_nan());
        for _ in 0..100 {
            pace.learn(PassLoad { rows: 200, keys: 0, draws: 0 }, 10_000 + 200 * 500);
            pace.learn(plain(1), 10_500);
            pace.learn(plain(8), 14_000);
        }
        let is_near = |cost: f64, right: f64| (cost / right - 1.0).abs() < 0.1;
        assert!(is_near(pace.cost_of_draft(plain(1)), 1000.0 / 11_500.0), "twice a row, until it is known");
        for _ in 0..3 {
            pace.learn_drafts(plain(1), 4, 12, 4 * 10_500 + 12 * 3000);
        }
        assert!(is_near(pace.cost_of_draft(plain(1)), 3000.0 / 13_500.0));
        assert_eq!(
            [Micros(30_500), Micros(100), Micros::MAX].map(|time| pace.drafts_within(time) / 10),
            [1, 0, 143_165]
        );
        assert!(
            pace.cost_of_draft(plain(8)) > 0.5,
            "eight sessions share a pass: its time gives eight tokens without drafts"
        );
        pace.learn_drafts(plain(1), 4, 0, 1);
        assert!(pace.cost_of_draft(plain(1)) >= 0.0);
    }

    /// A busy machine must not end speculation for good: nothing is learned of drafts that are not tried.
    #[test]
    fn a_pass_that_was_held_up_says_little_of_drafts() {
        let plain = PassLoad { rows: 1, keys: 0, draws: 1 };
        let known = || {
            let mut pace = Pace::default();
            for _ in 0..100 {
                pace.learn(PassLoad { rows: 200, keys: 0, draws: 0 }, 10_000 + 200 * 500);
                pace.learn(plain, 10_500);
            }
            pace
        };
        let held_up = 1_000_000;
        // Whether it is the first that looks ahead or a later one.
        for older in [0, 20] {
            let mut pace = known();
            (0..older).for_each(|_| pace.learn_drafts(plain, 4, 12, 4 * 10_500 + 12 * 1000));
            pace.learn_drafts(plain, 4, 12, held_up);
            assert!(pace.cost_of_draft(plain) < 0.4, "{older} before it: {}", pace.cost_of_draft(plain));
        }
        // A machine that stays so slow, and is quick again.
        let mut pace = known();
        (0..50).for_each(|_| pace.learn_drafts(plain, 4, 12, 4 * 10_500 + 12 * 20_000));
        assert!(pace.cost_of_draft(plain) > 0.5, "{}", pace.cost_of_draft(plain));
        (0..5000).for_each(|_| pace.learn(plain, 10_500));
        assert!(pace.cost_of_draft(plain) < 0.2, "{}", pace.cost_of_draft(plain));
    }

    /// Passes of every mixture on ranks whose speed changes: what a row takes is soon known, behind few tokens and behind many.
    #[test]
    fn what_a_row_takes_is_learned_from_whatever_runs() {
        let mut pace = Pace::default();
        let speeds =
            [(2000.0, 100.0, 0.5, 700.0), (50_000.0, 9000.0, 2.0, 0.0), (8000.0, 10.0, 0.001, 300.0)];
        for (step, row, key, draw) in speeds {
            for turn in 0..300_u64 {
                let rows = [1, 1, 3, 16, 40][turn as usize % 5];
                let draws = [0, 1, 3, 0, 8][turn as usize * 3 % 5];
                let keys = u64::from(rows) * (turn * 37 % 4000);
                let noise = 1.0 + (turn % 7) as f64 / 100.0;
                let time = step + row * f64::from(rows) + key * keys as f64 + draw * f64::from(draws);
                pace.learn(PassLoad { rows, keys, draws }, (noise * time) as u64);
            }
            for context in [0, 1000, 4000] {
                let (known, right) = (pace.row(context).0, 1.03 * (row + key * f64::from(context)));
                assert!((f64::from(known) / right - 1.0).abs() < 0.25, "{context}: {known} us for {right}");
            }
            let known = pace.draw().0;
            assert!((f64::from(known) - 1.03 * draw).abs() < 150.0, "{known} us a draw for {draw}");
            let shared = pace.limits(LIMITS, PREFILL, 9, 2).time.0;
            let right = 30_000_f64.max(1.03 * step);
            assert!((f64::from(shared) / right - 1.0).abs() < 0.25, "{shared} us for {right}");
            assert_eq!(pace.limits(LIMITS, PREFILL, 9, 1).time, Micros::MAX, "a tenant that is alone");
            let idle = [1, 9].map(|sessions| pace.limits(LIMITS, PREFILL, sessions, 1).idle_time.0);
            assert!((f64::from(idle[1]) / (1.03 * step) - 1.0).abs() < 0.25, "{idle:?} us for {step}");
            assert_eq!(idle[0], u32::MAX, "a session that is alone");
        }
    }
}
