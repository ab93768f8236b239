//! The least time that passes could take, from the model's sizes and what was measured of the GPU.
//!
//! With numbers of `size` bytes, L layers, H hidden, h query and k KV heads of dimension d, M MLP columns, V vocabulary:
//!
//! * numbers of a layer: `inputs = H (h + 2k) d` for queries, keys and values, `rest = H h d + 3 H M`; of the head: `V H`;
//! * a pass over `rows` rows, `wanted` of which go on to logits, **reads** each weight once, and the KV row of each token that
//!   any row sees once: `size (L inputs + L rest + V H + 2 context L k d)` bytes, and without `wanted` rows neither the last
//!   layer's rest nor the head;
//! * it **computes** `2 ((L inputs + (L - 1) rest) rows + (rest + V H) wanted)` operations in products, and in attention,
//!   where each row meets the tokens that it sees, in keys and in values, `4 h d ((L - 1) seen + seen by wanted rows)`;
//! * so it takes at least `max(bytes / bandwidth, operations / matrix rate)`, and several passes the sum of theirs.
//!
//! Left out, since it is less than a thousandth of a large model: the embeddings' rows, norms, KV rows that are written, what
//! passes from kernel to kernel. Turning keys is not a part of an edit's floor: that a pass over the weights hides it is what
//! is to be shown.

use pie_model::Config;
use serde::Serialize;
use std::ops::Range;

/// What the GPU was measured to do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rates {
    /// Bytes a second, read or written, of a copy within device memory.
    pub bytes_per_s: f64,
    /// Operations a second of matrix products of many rows; a multiplication and an addition are two.
    pub operations_per_s: f64,
}

/// The rows of one forward pass, as far as its floor depends on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Tokens that the pass encodes.
    pub rows: u64,
    /// Tokens that each sees, added up.
    pub seen: u64,
    /// Rows whose logits are wanted.
    pub wanted: u64,
    /// Tokens that each of those sees, added up.
    pub seen_by_wanted: u64,
    /// Tokens that any row sees.
    pub context: u64,
}

impl Pass {
    /// Encodes the tokens at these indices of one document, ascending; the last one's logits are wanted if `sampling`.
    pub fn encoding(indices: &[Range<u64>], sampling: bool) -> Self {
        let last = indices.last().map_or(0, |range| range.end);
        let seen = |range: &Range<u64>| (range.end * (range.end + 1) - range.start * (range.start + 1)) / 2;
        Self {
            rows: indices.iter().map(|range| range.end - range.start).sum(),
            seen: indices.iter().map(seen).sum(),
            wanted: u64::from(sampling),
            seen_by_wanted: if sampling { last } else { 0 },
            context: last,
        }
    }

    /// Encodes tokens `from` to `length` in chunks of at most `chunk` rows, up to the next token's logits.
    pub fn recomputing(from: u64, length: u64, chunk: u64) -> Vec<Self> {
        let starts = (from..length).step_by(chunk.max(1) as usize);
        let pass = |start| {
            let end = length.min(start + chunk);
            Self::encoding(std::slice::from_ref(&(start..end)), end == length)
        };
        starts.map(pass).collect()
    }

    /// The next token of `sessions` sessions, each of which sees `context` tokens of its own.
    pub fn decoding(sessions: u64, context: u64) -> Self {
        let (rows, seen) = (sessions, sessions * context);
        Self { rows, seen, wanted: rows, seen_by_wanted: seen, context: seen }
    }
}

/// The floors of one model, whole on one GPU.
pub struct Floors {
    config: Config,
    /// Bytes of a number.
    size: u64,
    rates: Rates,
}

impl Floors {
    /// Floors of a model whose numbers have `size` bytes, on a GPU with these rates.
    pub fn new(config: &Config, size: usize, rates: Rates) -> Self {
        Self { config: config.clone(), size: size as u64, rates }
    }

    /// What the GPU can do, as it was measured.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// Bytes of a token's key in all layers.
    pub fn key_bytes(&self) -> u64 {
        let Config { layers, kv_heads, head_dim, .. } = self.config;
        self.size * (layers * kv_heads * head_dim) as u64
    }

    /// Bytes that passes read at least.
    pub fn bytes(&self, passes: &[Pass]) -> u64 {
        passes.iter().map(|pass| self.bytes_of(pass)).sum()
    }

    /// Operations of passes.
    pub fn operations(&self, passes: &[Pass]) -> u64 {
        passes.iter().map(|pass| self.operations_of(pass)).sum()
    }

    /// Seconds that passes, one behind the other, take at least.
    pub fn seconds(&self, passes: &[Pass]) -> f64 {
        let of_pass = |pass: &Pass| {
            let memory = self.bytes_of(pass) as f64 / self.rates.bytes_per_s;
            memory.max(self.operations_of(pass) as f64 / self.rates.operations_per_s)
        };
        passes.iter().map(of_pass).sum()
    }

    fn bytes_of(&self, pass: &Pass) -> u64 {
        let WeightCounts { layers, inputs, rest, head } = self.numbers();
        let ends = if pass.wanted > 0 { rest + head } else { 0 };
        self.size * (layers * inputs + (layers - 1) * rest + ends) + 2 * self.key_bytes() * pass.context
    }

    fn operations_of(&self, pass: &Pass) -> u64 {
        let WeightCounts { layers, inputs, rest, head } = self.numbers();
        let products = (layers * inputs + (layers - 1) * rest) * pass.rows + (rest + head) * pass.wanted;
        let queries = (self.config.heads * self.config.head_dim) as u64;
        2 * products + 4 * queries * ((layers - 1) * pass.seen + pass.seen_by_wanted)
    }

    fn numbers(&self) -> WeightCounts {
        let Config { hidden_size: hidden, intermediate_size: mlp, layers, heads, kv_heads, head_dim, .. } =
            self.config;
        WeightCounts {
            layers: layers as u64,
            inputs: (hidden * (heads + 2 * kv_heads) * head_dim) as u64,
            rest: (hidden * (heads * head_dim + 3 * mlp)) as u64,
            head: (self.config.vocab_size * hidden) as u64,
        }
    }
}

/// Numbers of weights.
struct WeightCounts {
    layers: u64,
    /// Of a layer's queries, keys and values.
    inputs: u64,
    /// Of the rest of a layer.
    rest: u64,
    head: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DeepSeek-Coder 33B in bf16 by hand: inputs 7168 x 72 x 128 = 66,060,288; rest 7168 x 7168 + 3 x 7168 x 19200 =
    /// 464,257,024; a layer 530,317,312, 62 of them 32,879,673,344; head 32256 x 7168 = 231,211,008; a key 62 x 8 x 128 x 2 =
    /// 126,976 bytes.
    fn floors() -> Floors {
        let config = Config::preset("deepseek-coder-33b").expect("a preset");
        Floors::new(&config, 2, Rates { bytes_per_s: 4e12, operations_per_s: 7e14 })
    }

    #[test]
    fn decoding_reads_weights_and_rows_once() {
        let (floors, pass) = (floors(), [Pass::decoding(1, 4096)]);
        assert_eq!(floors.key_bytes(), 126_976);
        // 2 x (32,879,673,344 + 231,211,008) + 4096 x 253,952
        assert_eq!(floors.bytes(&pass), 67_261_956_096);
        // 2 x 33,110,884,352 + 4 x 7168 x 62 x 4096
        assert_eq!(floors.operations(&pass), 73_503_080_448);
        assert!((floors.seconds(&pass) - 0.016_815_489_024).abs() < 1e-12);
        let many = [Pass::decoding(32, 4096)];
        assert_eq!(floors.bytes(&many), 66_221_768_704 + 32 * 1_040_187_392);
        assert_eq!(floors.operations(&many), 32 * 73_503_080_448);
    }

    #[test]
    fn a_small_edit_is_one_pass_over_the_weights() {
        // 64 tokens at 2048 of 4096, and the last of 4160 again.
        let pass = Pass::encoding(&[2048..2112, 4159..4160], true);
        // Sum of 2049 to 2112, and 4160.
        let seen = 64 * (2049 + 2112) / 2 + 4160;
        assert_eq!(pass, Pass { rows: 65, seen, wanted: 1, seen_by_wanted: 4160, context: 4160 });
        let floors = floors();
        assert_eq!(floors.bytes(&[pass]), 66_221_768_704 + 4160 * 253_952);
        // 2 x (62 x 66,060,288 + 61 x 464,257,024) x 65 + 2 x (464,257,024 + 231,211,008) + 28,672 x (61 x 137,312 + 4160)
        let operations = 2 * 32_415_416_320 * 65 + 2 * 695_468_032 + 28_672 * (61 * 137_312 + 4160);
        assert_eq!(floors.operations(&[pass]), operations);
        // Memory bounds it.
        assert!((floors.seconds(&[pass]) - floors.bytes(&[pass]) as f64 / 4e12).abs() < 1e-12);
    }

    #[test]
    fn recomputing_goes_in_chunks_and_the_last_samples() {
        let passes = Pass::recomputing(100, 4160, 2048);
        let rows: Vec<_> = passes.iter().map(|pass| (pass.rows, pass.context, pass.wanted)).collect();
        assert_eq!(rows, [(2048, 2148, 0), (2012, 4160, 1)]);
        assert_eq!(passes[0].seen, (101..=2148).sum::<u64>());
        assert_eq!(passes[1].seen, (2149..=4160).sum::<u64>());
        let floors = floors();
        // Without logits neither the last layer's rest nor the head is read.
        assert_eq!(floors.bytes(&passes[..1]), 2 * 32_415_416_320 + 2148 * 253_952);
        // Many rows are bound by the products.
        let of_second = floors.operations(&passes[1..]) as f64 / 7e14;
        assert!((floors.seconds(&passes[1..]) - of_second).abs() < 1e-12);
        assert!((floors.seconds(&passes) - floors.seconds(&passes[..1]) - of_second).abs() < 1e-12);
    }
}
