//! Rotary position embedding with transformers' half-rotation, from explicit positions.
//!
//! With dynamic scaling the frequencies depend on the length of the whole text; each document has its own.
//!
//! Pairs dimension `i` with `i + head_dim / 2`. Frequencies and angles are rounded to f32 as
//! transformers does, so that long contexts agree with it; tables are made on the host.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{LlamaConfig, RopeConfig, RopeScaling, Yarn};
use crate::decoder::LayerKind;
use wmtp_kernels::rotary::rotate_halves;

/// Cosines and sines for every token of a batch, each `[B, S, head_dim / 2]`.
#[derive(Debug, Clone)]
pub(crate) struct RopeTables {
    cos: Tensor<3>,
    sin: Tensor<3>,
}

impl RopeTables {
    /// Tables for `positions` (`B * S` of them, row by row).
    pub(crate) fn new(
        config: &LlamaConfig,
        positions: &Positions<'_>,
        [batch, seq]: [usize; 2],
        dtype: DType,
        device: &Device,
    ) -> Self {
        let (angles, amplitude) = (angles(config, positions), config.rope.amplitude());
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = angles.iter().map(|angle| f(*angle) * amplitude).collect();
            let data = TensorData::new(values, [batch, seq, config.head_dim / 2]);
            Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates queries or keys `[B, heads, S, head_dim]`.
    pub(crate) fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [cos, sin] = self.tables();
        rotate_halves(x, cos, sin)
    }

    /// Cosines and sines.
    pub(crate) fn tables(&self) -> [Tensor<3>; 2] {
        [self.cos.clone(), self.sin.clone()]
    }
}

/// Tables of layers that rotate and of layers that do not.
#[derive(Debug, Clone)]
pub(crate) struct PerRotation<T> {
    rotary: T,
    /// Without rotation; only where a layer has none.
    still: Option<T>,
}

impl<T> PerRotation<T> {
    /// `tables` of `positions`, and of positions that are all 0, which rotate nothing.
    pub(crate) fn new(
        config: &LlamaConfig,
        positions: Positions<'_>,
        tables: impl Fn(&LlamaConfig, &Positions<'_>) -> T,
    ) -> Self {
        let kinds = config.layer_spec().kinds;
        let still = kinds.iter().any(|kind| !kind.rotary);
        Self {
            rotary: tables(config, &positions),
            still: still.then(|| {
                // Without scaling, which may have an amplitude.
                let mut unscaled = config.clone();
                unscaled.rope.scaling = RopeScaling::None;
                tables(&unscaled, &Positions::within_limit(&vec![0; positions.of.len()]))
            }),
        }
    }

    /// Those of a layer.
    pub(crate) fn of(&self, kind: LayerKind) -> &T {
        match &self.still {
            Some(still) if !kind.rotary => still,
            _ => &self.rotary,
        }
    }
}

/// Cosines and sines `[N, W / 2]` of some positions: for keys, and times `1 / sqrt(W)` for queries.
#[derive(Debug, Default)]
pub(crate) struct SliceTables {
    /// `[N, W / 2]` each.
    pub keys: [Vec<f32>; 2],
    /// `[N, W / 2]` each.
    pub queries: [Vec<f32>; 2],
}

impl SliceTables {
    /// For `positions`, one a row.
    pub fn new(config: &LlamaConfig, positions: &Positions<'_>) -> Self {
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let (angles, amplitude) = (angles(config, positions), config.rope.amplitude());
        let table = |f: fn(f64) -> f64, scale: f64| {
            let values = angles.iter().map(|a| (f(*a) * scale * amplitude) as f32);
            values.collect()
        };
        Self {
            keys: [table(f64::cos, 1.0), table(f64::sin, 1.0)],
            queries: [table(f64::cos, scale), table(f64::sin, scale)],
        }
    }
}

/// Positions of tokens in their texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Positions<'a> {
    /// Of each token, from 0.
    pub of: &'a [i64],
    /// The number of tokens of each token's text; none where no text is longer than
    /// `max_position_embeddings`, as in generation.
    pub lengths: Option<&'a [usize]>,
}

impl<'a> Positions<'a> {
    /// In texts that are no longer than the model's longest sequence.
    pub(crate) fn within_limit(of: &'a [i64]) -> Self {
        Self { of, lengths: None }
    }
}

/// The angles by which the `head_dim / 2` pairs of each position turn, position by position.
fn angles(config: &LlamaConfig, positions: &Positions<'_>) -> Vec<f64> {
    let usual = inverse_frequencies(&config.rope, config.head_dim);
    let mut all = Vec::with_capacity(positions.of.len() * usual.len());
    // Tokens of a text come one after another.
    let mut longer: Option<(usize, Vec<f32>)> = None;
    for (i, position) in positions.of.iter().enumerate() {
        let length = positions.lengths.and_then(|lengths| lengths.get(i).copied());
        let frequencies =
            match length.and_then(|length| Some((length, config.rope.of_length(length, config.head_dim)?))) {
                None => &usual,
                Some((length, rope)) => {
                    let known = longer.take().filter(|(of, _)| *of == length);
                    let of_length = known.unwrap_or_else(|| (length, inverse_frequencies(&rope, config.head_dim)));
                    &longer.insert(of_length).1
                }
            };
        all.extend(frequencies.iter().map(|f| f64::from(*position as f32 * f)));
    }
    all
}

impl RopeConfig {
    /// The rotation of a text of `length` tokens with dynamic scaling; none where it is the usual one.
    fn of_length(&self, length: usize, head_dim: usize) -> Option<Self> {
        match self.scaling {
            RopeScaling::Dynamic {
                factor,
                max_position_embeddings: longest,
            } if length as f64 > longest && head_dim > 2 => {
                let growth = factor * length as f64 / longest - (factor - 1.0);
                let width = head_dim as f64;
                Some(Self {
                    theta: self.theta * growth.powf(width / (width - 2.0)),
                    scaling: RopeScaling::None,
                })
            }
            _ => None,
        }
    }

    /// The factor of cosines and sines.
    pub(crate) fn amplitude(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor,
            _ => 1.0,
        }
    }
}

/// The `head_dim / 2` inverse frequencies, stretched as the configuration says.
pub(crate) fn inverse_frequencies(rope: &RopeConfig, head_dim: usize) -> Vec<f32> {
    let plain = |i: usize| 1.0 / rope.theta.powf((2 * i) as f64 / head_dim as f64);
    let ramp = match &rope.scaling {
        RopeScaling::Yarn(yarn) => Some((yarn, yarn_range(yarn, rope.theta, head_dim))),
        _ => None,
    };
    (0..head_dim / 2)
        .map(|i| match ramp {
            Some((yarn, [low, high])) => {
                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                (plain(i) / yarn.factor * divided + plain(i) * (1.0 - divided)) as f32
            }
            None => stretched(f64::from(plain(i) as f32), &rope.scaling) as f32,
        })
        .collect()
}

/// The dimensions between which YaRN's ramp rises.
fn yarn_range(yarn: &Yarn, theta: f64, head_dim: usize) -> [f64; 2] {
    let width = head_dim as f64;
    // The dimension that turns this often within the original length.
    let of = |turns: f64| {
        let wavelength = yarn.original_max_position_embeddings / (turns * std::f64::consts::TAU);
        width * wavelength.ln() / (2.0 * theta.ln())
    };
    let (mut low, mut high) = (of(yarn.beta_fast), of(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    (low, high) = (low.max(0.0), high.min(width - 1.0));
    [low, if low == high { high + 0.001 } else { high }]
}

/// Llama 3.1's rule as in transformers' `_compute_llama3_parameters`.
fn stretched(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        // Dynamic scaling changes the base, YaRN each dimension by its index.
        RopeScaling::None | RopeScaling::Dynamic { .. } | RopeScaling::Yarn(_) => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: original,
        } => {
            let wavelength = std::f64::consts::TAU / frequency;
            if wavelength > original / low_freq_factor {
                frequency / factor
            } else if wavelength < original / high_freq_factor {
                frequency
            } else {
                let ramp = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - ramp) * frequency / factor + ramp * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        assert_eq!(stretched(1.0, &scaling), 1.0);
        assert_eq!(stretched(1e-5, &scaling), 1e-5 / 8.0);
        // Wavelength 4096 = 8192 / 2: ramp (2 - 1) / (4 - 1) = 1/3, so f (2/3/8 + 1/3) = f * 5/12.
        let frequency = std::f64::consts::TAU / 4096.0;
        assert!((stretched(frequency, &scaling) / frequency - 5.0 / 12.0).abs() < 1e-12);
    }

    #[test]
    fn rotation_by_a_quarter_turn_swaps_the_halves() {
        let device = Device::flex();
        let mut config = LlamaConfig::new(8, 2, 1, 1);
        config.rope.theta = 1.0;
        // head_dim 2: one pair with frequency 1, so position p turns by p radians.
        let tables = RopeTables::new(&config, &Positions::within_limit(&[0, 1]), [1, 2], DType::F64, &device);
        let x = Tensor::<4>::from_data(
            TensorData::new(vec![1.0f64, 0.0, 1.0, 0.0], [1, 1, 2, 2]),
            (&device, DType::F64),
        );
        let y = tables.rotate(x).into_data().iter::<f64>().collect::<Vec<_>>();
        for (got, expected) in y.iter().zip([1.0, 0.0, 1f64.cos(), 1f64.sin()]) {
            assert!((got - expected).abs() < 1e-12, "{y:?}");
        }
    }
}
