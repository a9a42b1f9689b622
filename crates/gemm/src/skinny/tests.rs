//! Few rows against sums in f64, at sizes around those of tiles, vectors and tasks.

use super::*;
use crate::test_values::values;
use half::bf16;
use proptest::prelude::*;

/// The implementations that this machine can run, by name.
fn implementations() -> Vec<(&'static str, Rearrange, Kernel)> {
    let mut all: Vec<(&'static str, Rearrange, Kernel)> = vec![("portable", portable::rearrange, portable::multiply)];
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx2.is_present() {
        all.push(("avx2", avx2::rearrange, avx2::multiply));
    } else {
        println!("NOT RUN: this machine has no AVX2");
    }
    #[cfg(target_arch = "x86_64")]
    if crate::processor::has_avx512() {
        all.push(("avx512", avx512::rearrange, avx512::multiply));
    } else {
        println!("NOT RUN: this machine has no AVX-512");
    }
    all
}

fn on_threads(threads: usize, task: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(task);
}

/// [`super::multiply`] with one weight.
fn multiply(
    to: &mut [f32],
    rows: &[f32],
    weight: SkinnyWeight<'_>,
    [r, n, k]: [usize; 3],
    rearrange: Rearrange,
    kernel: Kernel,
) {
    super::multiply(&mut [SkinnyOutput { to, weight, n }], rows, [r, k], rearrange, kernel);
}

#[test]
fn several_weights_at_once_are_what_they_are_one_by_one() {
    let (r, k) = (5, 70);
    let rows = values(r * k, 1);
    for (name, rearrange, kernel) in implementations() {
        let weights: Vec<Vec<f32>> = [3, 0, 600, 41].iter().map(|n| values(n * k, 2 + *n as u64)).collect();
        let mut together: Vec<Vec<f32>> = weights.iter().map(|w| vec![f32::NAN; w.len() / k * r]).collect();
        let mut outputs: Vec<SkinnyOutput<'_>> = weights
            .iter()
            .zip(&mut together)
            .map(|(weight, to)| SkinnyOutput {
                to,
                weight: SkinnyWeight::F32(weight),
                n: weight.len() / k,
            })
            .collect();
        super::multiply(&mut outputs, &rows, [r, k], rearrange, kernel);
        for (weight, together) in weights.iter().zip(&together) {
            let n = weight.len() / k;
            let mut alone = vec![f32::NAN; r * n];
            multiply(
                &mut alone,
                &rows,
                SkinnyWeight::F32(weight),
                [r, n, k],
                rearrange,
                kernel,
            );
            assert_eq!(&alone, together, "{name}");
        }
    }
}

#[test]
#[should_panic(expected = "weights of different types")]
fn weights_of_one_product_have_one_type() {
    let (mut a, mut b) = ([0.0], [0.0]);
    let short = [bf16::ONE];
    let mut outputs = [
        SkinnyOutput {
            to: &mut a,
            weight: SkinnyWeight::F32(&[1.0]),
            n: 1,
        },
        SkinnyOutput {
            to: &mut b,
            weight: SkinnyWeight::Bf16(&short),
            n: 1,
        },
    ];
    matmul_skinny_many(&mut outputs, &[1.0], [1, 1]);
}

fn check([r, n, k]: [usize; 3], in_bf16: bool) {
    let rows = values(r * k, 3 + k as u64);
    let exact = values(n * k, 11 + n as u64);
    let short: Vec<bf16> = exact.iter().map(|x| bf16::from_f32(*x)).collect();
    let weight = if in_bf16 {
        FloatSlice::Bf16(&short)
    } else {
        FloatSlice::F32(&exact)
    };
    for (name, rearrange, kernel) in implementations() {
        let mut to = vec![f32::NAN; r * n];
        on_threads(1, || {
            multiply(&mut to, &rows, weight.into(), [r, n, k], rearrange, kernel)
        });
        for i in 0..r {
            for j in 0..n {
                let terms = (0..k).map(|l| f64::from(rows[i * k + l]) * f64::from(weight.at(j * k + l)));
                let (sum, size) = terms.fold((0.0, 1e-30), |(sum, size), term| (sum + term, size + term.abs()));
                let error = (f64::from(to[i * n + j]) - sum).abs() / size;
                assert!(
                    error < 1e-6,
                    "{name}, bf16 {in_bf16}, [{r}, {n}, {k}], {i}, {j}: {error:e}"
                );
            }
        }
        let mut again = vec![f32::NAN; r * n];
        on_threads(3, || {
            multiply(&mut again, &rows, weight.into(), [r, n, k], rearrange, kernel)
        });
        assert_eq!(to, again, "{name}: one thread and three");
        // The last row alone is what it is among the others.
        let mut alone = vec![f32::NAN; n];
        multiply(
            &mut alone,
            &rows[(r - 1) * k..],
            weight.into(),
            [1, n, k],
            rearrange,
            kernel,
        );
        assert_eq!(to[(r - 1) * n..], alone, "{name}: a row alone");
    }
}

#[test]
fn sizes_around_the_tile_the_vectors_and_the_tasks() {
    for r in [1, 2, 5, 6, 7, 12, 13, 32, 33] {
        for [n, k] in [
            [1, 1],
            [3, 15],
            [4, 16],
            [5, 17],
            [7, 31],
            [8, 32],
            [9, 33],
            [2, 63],
            [6, 65],
        ] {
            check([r, n, k], false);
            check([r, n, k], true);
        }
    }
    // Tasks of 28 and 56 rows of 576 values, and of 4 rows of very many.
    for [n, k] in [[27, 576], [28, 576], [29, 576], [57, 576], [113, 577], [9, 20_001]] {
        check([2, n, k], false);
        check([2, n, k], true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn any_size(r in 1usize..40, n in 1usize..90, k in 1usize..200, in_bf16: bool) {
        check([r, n, k], in_bf16);
    }
}

/// [[1, 2, 3], [4, 5, 6]] * [[1, 0, 1], [0, 2, 0], [1, 1, 1], [-1, 0, 0], [0, 0, 0.5]]^T by hand.
#[test]
fn a_product_worked_out_by_hand() {
    let rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let weight = [
        1.0, 0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.5,
    ];
    let short = weight.map(bf16::from_f32);
    for weight in [FloatSlice::F32(&weight), FloatSlice::Bf16(&short)] {
        let mut to = [7.0; 10];
        matmul_skinny(&mut to, &rows, weight, [2, 5, 3]);
        assert_eq!(to, [4.0, 4.0, 6.0, -1.0, 1.5, 10.0, 10.0, 15.0, -4.0, 3.0]);
    }
}

#[test]
fn nothing_to_sum_gives_zeros_and_no_rows_give_nothing() {
    let mut to = [3.0; 4];
    matmul_skinny(&mut to, &[], FloatSlice::F32(&[]), [2, 2, 0]);
    assert_eq!(to, [0.0; 4]);
    matmul_skinny(&mut [], &[], FloatSlice::F32(&[1.0, 2.0]), [0, 1, 2]);
    matmul_skinny(&mut [], &[1.0, 2.0], FloatSlice::Bf16(&[]), [1, 0, 2]);
}

/// Infinities and NaNs of a row or a weight row reach its own results only.
#[test]
fn infinities_do_not_spread() {
    for (name, rearrange, kernel) in implementations() {
        let mut rows = vec![1.0; 2 * 33];
        rows[33 + 32] = f32::INFINITY;
        let mut weight = vec![1.0; 5 * 33];
        weight[4 * 33] = f32::NAN;
        let mut to = [0.0; 10];
        multiply(
            &mut to,
            &rows,
            SkinnyWeight::F32(&weight),
            [2, 5, 33],
            rearrange,
            kernel,
        );
        assert_eq!(to[..4], [33.0; 4], "{name}");
        assert_eq!(to[5..9], [f32::INFINITY; 4], "{name}");
        assert!(to[4].is_nan() && to[9].is_nan(), "{name}");
    }
}

#[test]
#[should_panic(expected = "[2, 3] times the transpose of [4, 3] with 6 and 8 elements and a weight of 11 f32 values")]
fn a_weight_of_another_size_is_refused() {
    matmul_skinny(&mut [0.0; 8], &[0.0; 6], FloatSlice::F32(&[0.0; 11]), [2, 4, 3]);
}
