//! How fast the ranks encode, as far as it is known, and what follows for prefills: a step must not be long for those who
//! wait for the next one.

use pie_plan::schedule::Limits;
use std::time::Duration;

/// Rows of a step from which on its time tells what a row takes.
const TELLING_ROWS: u32 = 16;
/// The share of the newest step in the mean.
const NEWEST: f64 = 0.2;
const LEAST_ROWS: u32 = 16;

/// The mean time of a row in large steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    row_us: Option<f64>,
}

impl Pace {
    /// A step of one pass is done.
    pub fn learn(&mut self, rows: u32, compute_us: u64) {
        if rows < TELLING_ROWS || compute_us == 0 {
            return;
        }
        let row = compute_us as f64 / f64::from(rows);
        self.row_us = Some(self.row_us.map_or(row, |mean| mean + NEWEST * (row - mean)));
    }

    /// The limits of the next step: prefills take `prefill` where others get tokens, and four times that where others might
    /// come. A session that is alone may take all.
    pub fn limits(self, limits: Limits, prefill: Duration, sessions: usize) -> Limits {
        let Some(row_us) = self.row_us else { return limits };
        let least = LEAST_ROWS.min(limits.rows);
        let rows = |time: Duration| ((time.as_micros() as f64 / row_us) as u32).clamp(least, limits.rows);
        let most =
            if sessions > 1 { rows(4 * prefill).max(limits.rows.min(8 * LEAST_ROWS)) } else { limits.rows };
        Limits { rows: most, prefill_rows: rows(prefill), ..limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_ranks_take_smaller_chunks() {
        let limits = Limits { rows: 512, prefill_rows: 64, decode_passes: 8 };
        let of = |row_us: u64, sessions| {
            let mut pace = Pace::default();
            (0..50).for_each(|_| pace.learn(100, 100 * row_us));
            pace.learn(1, 1_000_000);
            let limits = pace.limits(limits, Duration::from_millis(30), sessions);
            (limits.rows, limits.prefill_rows)
        };
        assert_eq!(Pace::default().limits(limits, Duration::from_millis(30), 9), limits);
        for rows in 1..=LEAST_ROWS {
            let mut pace = Pace::default();
            pace.learn(TELLING_ROWS, 1_000_000);
            let small = pace.limits(Limits { rows, ..limits }, Duration::from_millis(30), 9);
            assert_eq!((small.rows, small.prefill_rows), (rows, rows), "steps of {rows} rows");
        }
        let cases = [(10, 9, (512, 512)), (300, 9, (400, 100)), (2000, 9, (128, 16)), (2000, 1, (512, 16))];
        for (row_us, sessions, expected) in cases {
            assert_eq!(of(row_us, sessions), expected, "{row_us} us a row, {sessions} sessions");
        }
    }
}
