//! Rotary position embedding with transformers' half-rotation, from explicit positions.
//!
//! Pairs dimension `i` with `i + head_dim / 2`. Frequencies and angles are rounded to f32 as
//! transformers does, so that long contexts agree with it; tables are made on the host.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::config::{LlamaConfig, RopeConfig, RopeScaling};
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
        positions: &[i64],
        [batch, seq]: [usize; 2],
        dtype: DType,
        device: &Device,
    ) -> Self {
        let angles = angles(config, positions);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = angles.iter().map(|angle| f(*angle)).collect();
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

/// Cosines and sines `[N, W / 2]` of some positions: for keys, and times `1 / sqrt(W)` for queries.
#[derive(Debug)]
pub(crate) struct SliceTables {
    /// `[N, W / 2]` each.
    pub keys: [Vec<f32>; 2],
    /// `[N, W / 2]` each.
    pub queries: [Vec<f32>; 2],
}

impl SliceTables {
    /// For `positions`, one a row.
    pub fn new(config: &LlamaConfig, positions: &[i64]) -> Self {
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let angles = angles(config, positions);
        let table = |f: fn(f64) -> f64, scale: f64| angles.iter().map(|a| (f(*a) * scale) as f32).collect();
        Self {
            keys: [table(f64::cos, 1.0), table(f64::sin, 1.0)],
            queries: [table(f64::cos, scale), table(f64::sin, scale)],
        }
    }
}

/// The angles by which the `head_dim / 2` pairs of each position turn, position by position.
pub(crate) fn angles(config: &LlamaConfig, positions: &[i64]) -> Vec<f64> {
    let frequencies = inverse_frequencies(&config.rope, config.head_dim);
    let of = |p: &i64| frequencies.iter().map(|f| f64::from(*p as f32 * f)).collect::<Vec<_>>();
    positions.iter().flat_map(of).collect()
}

/// The `head_dim / 2` inverse frequencies, stretched as the configuration says.
pub(crate) fn inverse_frequencies(rope: &RopeConfig, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|i| {
            let plain = (1.0 / rope.theta.powf((2 * i) as f64 / head_dim as f64)) as f32;
            stretched(f64::from(plain), &rope.scaling) as f32
        })
        .collect()
}

/// Llama 3.1's rule as in transformers' `_compute_llama3_parameters`.
fn stretched(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
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
        let tables = RopeTables::new(&config, &[0, 1], [1, 2], DType::F64, &device);
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
