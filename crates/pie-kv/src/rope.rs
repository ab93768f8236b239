//! Rotary positional encoding (Su et al. 2021), in the half-split form of Hugging Face's Llama.

use crate::error::KvError;
use crate::number::Number;
use crate::simd::wide;
use pie_words::TokenIndex;
use std::f64::consts::PI;

/// How inverse frequencies are scaled. All kinds keep angles linear in the position, so keys can be turned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by a factor (DeepSeek-Coder: 4).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, smooth between (Llama 3.1).
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Below this many turns in the original context a frequency is low.
        low_freq_factor: f64,
        /// Above this many it is high.
        high_freq_factor: f64,
        /// The original context.
        original_max_position: f64,
    },
    /// YaRN (Peng et al. 2023), the same for every length: as Llama 3.1 by turns in the original context, but along a ramp
    /// over the pairs; queries and keys are stretched beside.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// Where the ramp begins: pairs that turn as often as this in the original context are kept.
        beta_fast: f64,
        /// Where it ends.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole pairs.
        ramp: Ramp,
        /// The original context.
        original_max_position: f64,
        /// What rotated queries and keys are multiplied by.
        attention_factor: f64,
    },
}

/// The ends of YaRN's ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ramp {
    /// The whole pairs around them.
    Whole,
    /// Where they fall.
    Exact,
}

/// The rotation of a model: its inverse frequencies.
#[derive(Clone, Debug)]
pub struct Rope {
    /// [head dimension / 2], rounded to f32 as Transformers does.
    inverse_frequencies: Vec<f32>,
    /// What encoded rows are multiplied by as they are rotated; turning leaves it as it is.
    stretch: f32,
}

/// cos and sin of one angle for each frequency.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// [head dimension / 2].
    pub cos: Vec<f32>,
    /// [head dimension / 2].
    pub sin: Vec<f32>,
}

impl Rope {
    /// The rotation of heads of `head_dim` (even) with base `theta`.
    ///
    /// # Errors
    /// An odd dimension, or numbers that make no frequencies.
    pub fn new(head_dim: usize, theta: f64, scaling: &RopeScaling) -> Result<Self, KvError> {
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(KvError::Rope(format!("the head dimension is {head_dim}; it must be even")));
        }
        let plain = |pair: usize| (1.0 / theta.powf(2.0 * pair as f64 / head_dim as f64)) as f32;
        let scaled = Scaled { theta, pairs: head_dim / 2, scaling };
        let inverse_frequencies: Vec<f32> =
            (0..head_dim / 2).map(|pair| scaled.frequency(pair, plain(pair))).collect();
        let stretch = match scaling {
            RopeScaling::Yarn { attention_factor, .. } => *attention_factor as f32,
            _ => 1.0,
        };
        if !(stretch.is_finite() && stretch > 0.0) {
            return Err(KvError::Rope(format!("{scaling:?} would multiply keys by {stretch}")));
        }
        match inverse_frequencies.iter().find(|frequency| !(frequency.is_finite() && **frequency > 0.0)) {
            Some(wrong) => {
                Err(KvError::Rope(format!("theta {theta} with {scaling:?} gives the frequency {wrong}")))
            }
            None => Ok(Self { inverse_frequencies, stretch }),
        }
    }

    /// Radians per position of each pair, `[head dimension / 2]`.
    pub fn inverse_frequencies(&self) -> &[f32] {
        &self.inverse_frequencies
    }

    /// What a row is encoded with: the rotation for its position, stretched.
    pub(crate) fn at(&self, position: TokenIndex) -> Turn {
        let mut turn = self.turn(i64::from(position.0));
        if self.stretch != 1.0 {
            turn.cos.iter_mut().chain(&mut turn.sin).for_each(|number| *number *= self.stretch);
        }
        turn
    }

    /// By how much a row that is encoded already moves. K5: the angle in f64, cos and sin in f32.
    pub(crate) fn turn(&self, positions: i64) -> Turn {
        let angle = |frequency: &f32| positions as f64 * f64::from(*frequency);
        let angles: Vec<f64> = self.inverse_frequencies.iter().map(angle).collect();
        Turn {
            cos: angles.iter().map(|angle| angle.cos() as f32).collect(),
            sin: angles.iter().map(|angle| angle.sin() as f32).collect(),
        }
    }

    /// The angles of a batch's positions, for all layers of a pass.
    pub fn angles(&self, positions: &[TokenIndex]) -> Angles {
        let turns = positions.iter().map(|position| self.at(*position)).collect();
        Angles { head_dim: 2 * self.inverse_frequencies.len(), turns }
    }
}

/// What the frequencies of a rotation are scaled by.
struct Scaled<'a> {
    theta: f64,
    pairs: usize,
    scaling: &'a RopeScaling,
}

impl Scaled<'_> {
    fn frequency(&self, pair: usize, plain: f32) -> f32 {
        let frequency = f64::from(plain);
        let (kept, factor) = match *self.scaling {
            RopeScaling::None => return plain,
            RopeScaling::Linear { factor } => return (frequency / factor) as f32,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let turns = original_max_position * frequency / (2.0 * PI);
                let above = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (above.clamp(0.0, 1.0), factor)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, ramp, original_max_position, .. } => {
                let pair_of = |turns| self.pair_that_turns(turns, original_max_position);
                let (mut first, mut last) = (pair_of(beta_fast), pair_of(beta_slow));
                if ramp == Ramp::Whole {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, mut last) = (first.max(0.0), last.min((2 * self.pairs - 1) as f64));
                if first == last {
                    last += 0.001;
                }
                (1.0 - ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0), factor)
            }
        };
        ((1.0 - kept) * frequency / factor + kept * frequency) as f32
    }

    /// The pair, a fraction, that turns so often in `positions`.
    fn pair_that_turns(&self, turns: f64, positions: f64) -> f64 {
        self.pairs as f64 * (positions / (turns * 2.0 * PI)).ln() / self.theta.ln()
    }
}

/// Rotates one head in place: (x_i, x_{i+d/2}) by the angle of frequency i.
#[inline(always)]
pub(crate) fn rotate_head<N: Number>(head: &mut [N], turn: &Turn) {
    let half = turn.cos.len();
    let (first, second) = head.split_at_mut(half);
    let (first, second) = (&mut first[..half], &mut second[..half]);
    let (cos, sin) = (&turn.cos[..half], &turn.sin[..half]);
    for i in 0..half {
        let (a, b) = (first[i].widen(), second[i].widen());
        first[i] = N::narrow(a.mul_add(cos[i], -(b * sin[i])));
        second[i] = N::narrow(b.mul_add(cos[i], a * sin[i]));
    }
}

/// What the rows of a batch are rotated by, each for its position.
#[derive(Clone, Debug)]
pub struct Angles {
    head_dim: usize,
    turns: Vec<Turn>,
}

impl Angles {
    /// Rotates the first `rotated` numbers, whole heads, of each of the `[rows][width]` numbers.
    pub fn rotate(&self, rows: &mut [f32], width: usize, rotated: usize) {
        wide(
            #[inline(always)]
            || {
                for (row, turn) in rows.chunks_exact_mut(width).zip(&self.turns) {
                    // A closure for each head would be compiled for the oldest machine.
                    for head in row[..rotated].chunks_exact_mut(self.head_dim) {
                        rotate_head(head, turn);
                    }
                }
            },
        );
    }
}
