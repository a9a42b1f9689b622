//! Problems, devices and comparisons for the tests of `weighted_linear_cross_entropy`.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wmtp_kernels::WeightedCrossEntropy;

/// Every CPU device compiled in, without autodiff.
#[allow(dead_code)] // some test programs choose for themselves
pub fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        Device::ndarray(),
    ]
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers on every machine.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `count` values uniform in [-scale, scale).
    pub fn values(&mut self, count: usize, scale: f64) -> Vec<f64> {
        (0..count).map(|_| (self.unit() * 2.0 - 1.0) * scale).collect()
    }
}

/// Inputs in host memory.
#[derive(Debug, Clone)]
pub struct Problem {
    pub n: usize,
    pub d: usize,
    pub v: usize,
    pub hidden: Vec<f64>,
    pub unembedding: Vec<f64>,
    pub targets: Vec<i64>,
    pub weights: Vec<f64>,
}

impl Problem {
    /// Random, a fifth of the rows masked and a fifth of weight zero; the first row is kept.
    pub fn random(seed: u64, [n, d, v]: [usize; 3]) -> Self {
        let mut numbers = Numbers(seed);
        let hidden = numbers.values(n * d, 1.7);
        let unembedding = numbers.values(v * d, 1.7 / (d as f64).sqrt());
        let mut targets = Vec::new();
        let mut weights = Vec::new();
        for row in 0..n {
            let target = (numbers.bits() % v as u64) as i64;
            let kind = if row == 0 { 1.0 } else { numbers.unit() };
            targets.push(if kind < 0.2 { -1 } else { target });
            let weight = 0.05 + 2.95 * numbers.unit();
            weights.push(if (0.2..0.4).contains(&kind) { 0.0 } else { weight });
        }
        Self {
            n,
            d,
            v,
            hidden,
            unembedding,
            targets,
            weights,
        }
    }

    pub fn hidden(&self, dtype: DType, device: &Device) -> Tensor<2> {
        floats(&self.hidden, [self.n, self.d], dtype, device)
    }

    pub fn unembedding(&self, dtype: DType, device: &Device) -> Tensor<2> {
        floats(&self.unembedding, [self.v, self.d], dtype, device)
    }

    pub fn targets(&self, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(TensorData::new(self.targets.clone(), [self.n]), device)
    }

    pub fn weights(&self, dtype: DType, device: &Device) -> Tensor<1> {
        floats(&self.weights, [self.n], dtype, device)
    }

    /// Loss, ce, dX and dW by `operation`, on `device` with autodiff.
    pub fn solve(
        &self,
        operation: impl Fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) -> WeightedCrossEntropy,
        dtype: DType,
        device: &Device,
    ) -> Solution {
        let device = device.clone().autodiff();
        let hidden = self.hidden(dtype, &device).require_grad();
        let unembedding = self.unembedding(dtype, &device).require_grad();
        let found = operation(
            hidden.clone(),
            unembedding.clone(),
            self.targets(&device),
            self.weights(dtype, &device),
        );
        let gradients = found.loss.clone().backward();
        Solution {
            loss: values(found.loss),
            ce: values(found.ce),
            d_hidden: values(hidden.grad(&gradients).expect("gradient of the hidden states")),
            d_unembedding: values(unembedding.grad(&gradients).expect("gradient of the unembedding")),
        }
    }
}

#[allow(dead_code)] // some test programs name none
pub type Operation = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) -> WeightedCrossEntropy;

#[derive(Debug, Clone, PartialEq)]
pub struct Solution {
    pub loss: Vec<f64>,
    pub ce: Vec<f64>,
    pub d_hidden: Vec<f64>,
    pub d_unembedding: Vec<f64>,
}

impl Solution {
    /// Largest of the four relative errors, each |a - b| / |b| in the Euclidean norm.
    #[allow(dead_code)] // some test programs compare part by part
    pub fn relative_error(&self, expected: &Self) -> f64 {
        [
            distance(&self.loss, &expected.loss),
            distance(&self.ce, &expected.ce),
            distance(&self.d_hidden, &expected.d_hidden),
            distance(&self.d_unembedding, &expected.d_unembedding),
        ]
        .into_iter()
        .fold(0.0, |worst, error| if error <= worst { worst } else { error })
    }
}

/// |a - b| / |b|, or |a| where b is zero.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    if size == 0.0 { difference } else { difference / size }
}

pub fn floats<const D: usize>(values: &[f64], shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(dtype);
    Tensor::from_data(data, (device, dtype))
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
