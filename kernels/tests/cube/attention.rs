//! The attention kernels, and the plain form that the other backends run, against sums in f64.

use crate::common::{Numbers, distance, floats, values};
use crate::device;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use wmtp_kernels::attention::{causal_attention, document_starts};

struct Problem {
    /// B, H, K, S, W
    shape: [usize; 5],
    scale: f64,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
    above: Vec<f64>,
    /// `[B, S]`
    starts: Vec<i64>,
}

/// out, dq, dk and dv
type Found = [Vec<f64>; 4];

impl Problem {
    /// Documents of random length, with padding at the end of every second row.
    fn random(seed: u64, shape: [usize; 5], longest: usize) -> Self {
        let [b, h, k, s, w] = shape;
        let mut numbers = Numbers(seed);
        let mut starts = Vec::new();
        for row in 0..b {
            let mut documents: Vec<i64> = Vec::new();
            while documents.len() < s {
                let document = documents.last().map_or(0, |last| last + 1);
                let length = 1 + (numbers.bits() % longest as u64) as usize;
                documents.extend(vec![document; length.min(s - documents.len())]);
            }
            if row % 2 == 1 {
                documents[s - s / 4..].fill(-1);
            }
            starts.extend(document_starts(&documents));
        }
        Self {
            shape,
            scale: 1.0 / (w as f64).sqrt(),
            q: numbers.values(b * h * s * w, 2.0),
            k: numbers.values(b * k * s * w, 2.0),
            v: numbers.values(b * k * s * w, 1.0),
            above: numbers.values(b * h * s * w, 1.0),
            starts,
        }
    }

    /// Query by query, from the definition.
    fn expected(&self) -> Found {
        let [b, h, k, s, w] = self.shape;
        let mut out = vec![0.0; self.q.len()];
        let [mut dq, mut dk, mut dv] = [&self.q, &self.k, &self.v].map(|x| vec![0.0; x.len()]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for row in 0..b * h * s {
            let (batch, head, i) = (row / (h * s), row / s % h, row % s);
            let base = (batch * k + head / (h / k)) * s;
            let keys = self.starts[batch * s + i] as usize..=i;
            let at = |j: usize| (base + j) * w..(base + j + 1) * w;
            let (query, above) = (&self.q[row * w..][..w], &self.above[row * w..][..w]);
            let scores: Vec<f64> = keys.clone().map(|j| self.scale * dot(query, &self.k[at(j)])).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
            let shares: Vec<f64> = scores.iter().map(|s| (s - largest).exp() / sum).collect();
            let d_shares: Vec<f64> = keys.clone().map(|j| dot(above, &self.v[at(j)])).collect();
            let mean = dot(&shares, &d_shares);
            for ((j, share), d_share) in keys.zip(&shares).zip(&d_shares) {
                let d_score = self.scale * share * (d_share - mean);
                for d in 0..w {
                    let key = (base + j) * w + d;
                    out[row * w + d] += share * self.v[key];
                    dv[key] += share * above[d];
                    dq[row * w + d] += d_score * self.k[key];
                    dk[key] += d_score * query[d];
                }
            }
        }
        [out, dq, dk, dv]
    }

    fn found(&self, dtype: DType, device: &Device) -> Found {
        let [b, h, k, s, w] = self.shape;
        let device = device.clone().autodiff();
        let leaf = |x: &[f64], heads| floats(x, [b, heads, s, w], dtype, &device).require_grad();
        let inputs = [leaf(&self.q, h), leaf(&self.k, k), leaf(&self.v, k)];
        let starts: Tensor<2, Int> = Tensor::from_data(TensorData::new(self.starts.clone(), [b, s]), &device);
        let [q, k, v] = inputs.clone();
        let out = causal_attention(q, k, v, starts, self.scale);
        let above = floats(&self.above, [b, h, s, w], dtype, &device);
        let gradients = (out.clone() * above).sum().backward();
        let [dq, dk, dv] = inputs.map(|x| values(x.grad(&gradients).expect("a gradient")));
        [values(out), dq, dk, dv]
    }

    fn assert(&self, dtype: DType, bound: f64, device: &Device) {
        let parts = ["out", "dq", "dk", "dv"];
        let (found, expected) = (self.found(dtype, device), self.expected());
        for (part, (found, expected)) in parts.iter().zip(found.iter().zip(&expected)) {
            let error = distance(found, expected);
            assert!(
                error < bound,
                "{:?} in {dtype:?}: {part} is off by {error:e}",
                self.shape
            );
        }
    }
}

/// Shapes B, H, K, S, W with ones and odd numbers, S around blocks of 16, 32 and 64, heads up to 128
/// wide, and the longest document.
const PROBLEMS: [([usize; 5], usize); 14] = [
    ([1, 1, 1, 1, 1], 1),
    ([1, 1, 1, 2, 2], 2),
    ([2, 3, 1, 5, 3], 3),
    ([1, 2, 2, 15, 4], 100),
    ([1, 2, 1, 16, 8], 100),
    ([1, 4, 2, 17, 7], 100),
    ([2, 1, 1, 31, 16], 9),
    ([1, 2, 1, 32, 16], 100),
    ([2, 9, 3, 33, 64], 40),
    ([1, 1, 1, 63, 33], 100),
    ([1, 2, 1, 64, 64], 50),
    ([2, 2, 1, 65, 64], 200),
    ([1, 2, 1, 70, 128], 30),
    ([2, 3, 3, 200, 20], 25),
];

#[test]
fn equals_f64_in_f32() {
    let device = device();
    for (seed, (shape, longest)) in PROBLEMS.into_iter().enumerate() {
        Problem::random(seed as u64, shape, longest).assert(DType::F32, 1e-5, &device);
    }
}

#[test]
fn equals_f64_in_f16_where_the_device_has_it() {
    let device = device();
    if !device.supports_dtype(DType::F16) {
        println!("no f16 on this device");
        return;
    }
    for (seed, (shape, longest)) in PROBLEMS.into_iter().enumerate() {
        Problem::random(seed as u64, shape, longest).assert(DType::F16, 1e-2, &device);
    }
}

#[test]
fn the_plain_form_equals_f64() {
    for (seed, (shape, longest)) in PROBLEMS.into_iter().enumerate() {
        let problem = Problem::random(seed as u64, shape, longest);
        problem.assert(DType::F64, 1e-12, &Device::flex());
        problem.assert(DType::F32, 1e-5, &Device::flex());
    }
}

/// Scores of +-1e4, from integers, so that they are exact in f32. Keys come in pairs whose scores
/// differ by one: two share each query's attention, and gradients are of ordinary size. Nothing
/// overflows, and the shares are not blurred by the rounding of a large log-sum-exp, which would
/// cost 5e-4. dq is a difference of terms 64 times as large, which is what the bound leaves room for.
#[test]
fn scores_of_magnitude_1e4() {
    let mut problem = Problem::random(5, [1, 2, 1, 40, 4], 100);
    problem.starts.fill(0);
    problem.scale = 1.0;
    for x in problem.q.iter_mut().chain(&mut problem.k) {
        *x = (*x * 32.0).round();
    }
    problem.q.iter_mut().step_by(4).for_each(|x| *x = x.signum());
    for pair in problem.k.chunks_exact_mut(8) {
        pair.copy_within(..4, 4);
        pair[4] += 1.0;
    }
    for device in [device(), Device::flex()] {
        problem.assert(DType::F32, 5e-5, &device);
    }
}

/// What stands in another document does not show, to the bit.
#[test]
fn other_documents_are_not_seen() {
    let mut problem = Problem::random(6, [1, 1, 1, 80, 8], 1);
    problem.starts = document_starts(&[vec![0; 39], vec![1; 41]].concat());
    let device = device();
    let before = problem.found(DType::F32, &device);
    problem.q[39 * 8..].iter_mut().for_each(|x| *x += 1.0);
    problem.k[39 * 8..].iter_mut().for_each(|x| *x -= 1.0);
    problem.v[39 * 8..].iter_mut().for_each(|x| *x *= 2.0);
    let after = problem.found(DType::F32, &device);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before[..39 * 8], after[..39 * 8]);
        assert_ne!(before[39 * 8..], after[39 * 8..]);
    }
}
