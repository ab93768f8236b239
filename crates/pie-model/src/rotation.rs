//! The rotation in `config.json`: which of its keys counts, and what each kind of scaling needs.

use pie_kv::{Ramp, RopeScaling};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `rope_scaling`, or `rope_parameters`.
#[derive(Clone, Default, Deserialize, Serialize)]
pub(crate) struct RawRope {
    rope_type: Option<String>,
    /// The older spelling; some files have both.
    #[serde(rename = "type", skip_serializing)]
    old_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    low_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    high_freq_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_max_position_embeddings: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rope_theta: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_fast: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_slow: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention_factor: Option<f64>,
    /// They are what `attention_factor` is computed from where it is not said.
    #[serde(skip_serializing)]
    mscale: Option<f64>,
    #[serde(skip_serializing)]
    mscale_all_dim: Option<f64>,
}

/// What the keys say.
pub(crate) struct Rotation {
    /// The base of the frequencies; none where the keys do not say.
    pub theta: Option<f64>,
    /// How the frequencies are scaled.
    pub scaling: RopeScaling,
}

/// Why keys cannot be used.
pub(crate) enum Unusable {
    /// Frequencies depend on the length of the context.
    ByLength(String),
    /// A scaling that is not known.
    Unknown(String),
    /// A key is not there, or not positive.
    Without(&'static str),
}

/// YaRN's bounds where none are said.
const BETA: (f64, f64) = (32.0, 1.0);

/// Of a configuration with both spellings leaves the one that counts, as Transformers 5 does: `rope_scaling`, unless it is empty,
/// stands in for all of `rope_parameters`, theta too.
pub(crate) fn choose(config: &mut Value) {
    let Some(keys) = config.as_object_mut() else { return };
    let says_nothing =
        |value: &Value| value.is_null() || value.as_object().is_some_and(|keys| keys.is_empty());
    let other = match keys.get("rope_scaling") {
        Some(scaling) if !says_nothing(scaling) => "rope_parameters",
        _ => "rope_scaling",
    };
    keys.remove(other);
}

impl RawRope {
    /// `outside` is the original context where it stands beside these keys, `context` that of the model.
    pub fn rotation(&self, outside: Option<f64>, context: usize) -> Result<Rotation, Unusable> {
        let need = |value: Option<f64>, key| value.filter(|value| *value > 0.0).ok_or(Unusable::Without(key));
        let original = outside.or(self.original_max_position_embeddings).unwrap_or(context as f64);
        let original = || need(Some(original), "original_max_position_embeddings");
        let scaling = match self.rope_type.as_deref().or(self.old_type.as_deref()).unwrap_or("default") {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need(self.factor, "factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low_freq_factor: need(self.low_freq_factor, "low_freq_factor")?,
                high_freq_factor: need(self.high_freq_factor, "high_freq_factor")?,
                original_max_position: original()?,
            },
            "yarn" => {
                let factor = need(self.factor, "factor")?;
                let bound = |value: Option<f64>, usual, key| {
                    // Transformers takes 0 for not said.
                    need(Some(value.filter(|value| *value != 0.0).unwrap_or(usual)), key)
                };
                RopeScaling::Yarn {
                    factor,
                    beta_fast: bound(self.beta_fast, BETA.0, "beta_fast")?,
                    beta_slow: bound(self.beta_slow, BETA.1, "beta_slow")?,
                    ramp: if self.truncate == Some(false) { Ramp::Exact } else { Ramp::Whole },
                    original_max_position: original()?,
                    attention_factor: need(Some(self.attention_factor(factor)), "attention_factor")?,
                }
            }
            kind @ ("dynamic" | "longrope") => return Err(Unusable::ByLength(kind.to_owned())),
            kind => return Err(Unusable::Unknown(kind.to_owned())),
        };
        Ok(Rotation { theta: self.rope_theta, scaling })
    }

    fn attention_factor(&self, factor: f64) -> f64 {
        let scale = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        let said = |value: Option<f64>| value.filter(|value| *value != 0.0);
        match (self.attention_factor, said(self.mscale), said(self.mscale_all_dim)) {
            (Some(attention_factor), _, _) => attention_factor,
            (None, Some(mscale), Some(all)) => scale(mscale) / scale(all),
            (None, _, _) => scale(1.0),
        }
    }
}

impl From<RopeScaling> for RawRope {
    fn from(scaling: RopeScaling) -> Self {
        let of = |kind: &str, factor| Self {
            rope_type: Some(kind.to_owned()),
            factor: Some(factor),
            ..Self::default()
        };
        match scaling {
            RopeScaling::None => Self { rope_type: Some("default".to_owned()), ..Self::default() },
            RopeScaling::Linear { factor } => of("linear", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                Self {
                    low_freq_factor: Some(low_freq_factor),
                    high_freq_factor: Some(high_freq_factor),
                    original_max_position_embeddings: Some(original_max_position),
                    ..of("llama3", factor)
                }
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                ramp,
                original_max_position,
                attention_factor,
            } => Self {
                beta_fast: Some(beta_fast),
                beta_slow: Some(beta_slow),
                truncate: Some(ramp == Ramp::Whole),
                original_max_position_embeddings: Some(original_max_position),
                attention_factor: Some(attention_factor),
                ..of("yarn", factor)
            },
        }
    }
}
