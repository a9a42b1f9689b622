//! The loss over the software tile unit against f64, and the processor's against the software's.

use super::*;
use crate::test_values::values;
use half::bf16;
use wmtp_gemm::FloatSlice;
use wmtp_gemm::tiles::{Amx, Software, has_amx};

const BOTH: RequestedGradients = RequestedGradients {
    hidden: true,
    unembedding: true,
};

/// Hidden states and unembedding on bf16's grid, and rows of which every fifth is not kept; every third weight is
/// negative.
struct Problem {
    shape: [usize; 3],
    hidden: Vec<f32>,
    unembedding: Vec<bf16>,
    rows: Vec<KeptRow>,
}

impl Problem {
    fn new([n, d, v]: [usize; 3]) -> Self {
        let on_grid = |value: f32| bf16::from_f32(value);
        let hidden = values(n * d, 1).into_iter().map(|x| on_grid(2.0 * x).to_f32());
        let unembedding = values(v * d, 2).into_iter().map(on_grid);
        let kept = (0..n).filter(|index| index % 5 != 3).map(|index| KeptRow {
            index,
            target: index * 97 % v,
            weight: (index % 4 + 1) as f64 * if index % 3 == 0 { -0.25 } else { 0.25 },
        });
        Self {
            shape: [n, d, v],
            hidden: hidden.collect(),
            unembedding: unembedding.collect(),
            rows: kept.collect(),
        }
    }

    fn solve<U: TileUnit>(&self, requested: RequestedGradients, gradient: Precision, batch_rows: usize) -> Found {
        let [n, d, v] = self.shape;
        let unembedding = MatrixView::strided(FloatSlice::Bf16(&self.unembedding), [v, d], [d, 1]);
        let hidden = MatrixView::row_major(&self.hidden, [n, d]);
        let output = in_batches::<U>(hidden, unembedding, &self.rows, requested, gradient, batch_rows);
        Found {
            loss: output.loss,
            ce: output.ce,
            d_hidden: output.d_hidden,
            d_unembedding: output.d_unembedding.map(|gradient| match gradient {
                UnembeddingGradient::F32(values) => values,
                UnembeddingGradient::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
            }),
        }
    }

    /// Cross-entropies, dX and dW in f64.
    fn exact(&self) -> [Vec<f64>; 3] {
        let [n, d, v] = self.shape;
        let x = |i: usize| &self.hidden[i * d..][..d];
        let w = |t: usize| &self.unembedding[t * d..][..d];
        let (mut ce, mut d_x, mut d_w) = (vec![0.0; n], vec![0.0; n * d], vec![0.0; v * d]);
        for row in &self.rows {
            let product = |(a, b): (&f32, &bf16)| f64::from(*a) * b.to_f64();
            let logits: Vec<f64> = (0..v)
                .map(|t| x(row.index).iter().zip(w(t)).map(product).sum())
                .collect();
            let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
            ce[row.index] = log_sum - logits[row.target];
            for (t, logit) in logits.iter().enumerate() {
                let at_label = f64::from(u8::from(t == row.target));
                let gradient = row.weight * ((logit - log_sum).exp() - at_label);
                for k in 0..d {
                    d_x[row.index * d + k] += gradient * w(t)[k].to_f64();
                    d_w[t * d + k] += gradient * f64::from(x(row.index)[k]);
                }
            }
        }
        [ce, d_x, d_w]
    }
}

#[derive(Debug, PartialEq)]
struct Found {
    loss: f32,
    ce: Vec<f32>,
    d_hidden: Option<Vec<f32>>,
    d_unembedding: Option<Vec<f32>>,
}

fn distance(found: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let error: f64 = found.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let size: f64 = exact.iter().map(|value| value * value).sum();
    (error / size.max(1e-30)).sqrt()
}

/// Rows, widths and vocabularies around those of tiles, blocks, stripes and ranges; batches of some rows and of all.
#[test]
fn loss_and_gradients_are_those_of_f64() {
    if !has_amx() {
        eprintln!("NOT TESTED on the processor: it has no AMX");
    }
    for (shape, batch_rows) in [
        ([1, 1, 1], 9),
        ([1, 3, 2], 9),
        ([33, 40, 31], 32),
        ([40, 33, 97], 11),
        ([70, 64, 600], 64),
        ([20, 20, 1537], 64),
        ([90, 31, 3100], 40),
    ] {
        let problem = Problem::new(shape);
        let [ce, d_x, d_w] = problem.exact();
        let loss: f64 = problem.rows.iter().map(|row| row.weight * ce[row.index]).sum();
        for (gradient, bound) in [(Precision::F32, 3e-3), (Precision::Bf16, 4e-3)] {
            let found = problem.solve::<Software>(BOTH, gradient, batch_rows);
            assert!(
                (f64::from(found.loss) - loss).abs() < 1e-5 * (1.0 + loss.abs()),
                "{shape:?}"
            );
            for (found, exact) in found.ce.iter().zip(&ce) {
                assert!((f64::from(*found) - exact).abs() < 1e-5 * (1.0 + exact), "{shape:?}");
            }
            let [of_x, of_w] = [&found.d_hidden, &found.d_unembedding].map(|found| found.as_ref().unwrap());
            let errors = [distance(of_x, &d_x), distance(of_w, &d_w)];
            assert!(errors.iter().all(|error| *error < bound), "{shape:?}: {errors:?}");
            if has_amx() {
                assert!(
                    problem.solve::<Amx>(BOTH, gradient, batch_rows) == found,
                    "{shape:?}: the processor differs"
                );
            }
        }
    }
}

/// Each gradient, and the loss, is the same without the others; and in one batch dW is that of several but for the
/// order of sums.
#[test]
fn gradients_do_not_depend_on_what_else_is_requested() {
    let problem = Problem::new([90, 40, 1100]);
    let all = problem.solve::<Software>(BOTH, Precision::F32, 128);
    for requested in [[true, false], [false, true], [false, false]] {
        let [hidden, unembedding] = requested;
        let found = problem.solve::<Software>(RequestedGradients { hidden, unembedding }, Precision::F32, 128);
        assert_eq!((found.loss, &found.ce), (all.loss, &all.ce));
        assert_eq!(found.d_hidden.as_ref(), all.d_hidden.as_ref().filter(|_| hidden));
        assert_eq!(
            found.d_unembedding.as_ref(),
            all.d_unembedding.as_ref().filter(|_| unembedding)
        );
    }
    let several = problem.solve::<Software>(BOTH, Precision::F32, 20);
    assert_eq!((several.ce, several.d_hidden), (all.ce, all.d_hidden));
    let exact: Vec<f64> = all.d_unembedding.unwrap().into_iter().map(f64::from).collect();
    assert!(distance(&several.d_unembedding.unwrap(), &exact) < 1e-6);
}

/// With 9 threads several share a part of the vocabulary.
#[test]
fn threads_do_not_change_results() {
    let problem = Problem::new([150, 40, 2100]);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| problem.solve::<Software>(BOTH, Precision::Bf16, 200))
    };
    let one = on(1);
    assert!([2, 3, 9, 40].into_iter().all(|threads| on(threads) == one));
}

/// A NaN stays in its row of dX, and reaches the loss and that row's cross-entropy.
#[test]
fn not_a_number_stays_in_its_row() {
    let mut problem = Problem::new([40, 20, 300]);
    problem.hidden[0] = f32::NAN;
    let found = problem.solve::<Software>(BOTH, Precision::F32, 64);
    assert!(found.loss.is_nan() && found.ce[0].is_nan());
    assert!(found.ce[1..].iter().all(|ce| ce.is_finite()));
    let d_hidden = found.d_hidden.unwrap();
    assert!(d_hidden[..20].iter().all(|x| x.is_nan()));
    assert!(d_hidden[20..].iter().all(|x| x.is_finite()));
}

#[test]
fn nothing_kept_is_zero() {
    let mut problem = Problem::new([8, 20, 30]);
    problem.rows.clear();
    let found = problem.solve::<Software>(BOTH, Precision::Bf16, 64);
    let of = |values: Option<Vec<f32>>| values.unwrap();
    let mut all = vec![found.loss];
    all.extend(found.ce);
    all.extend(of(found.d_hidden));
    all.extend(of(found.d_unembedding));
    assert!(all.iter().all(|x| *x == 0.0));
}
