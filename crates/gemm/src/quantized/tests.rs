//! Rounding by hand and against its bounds; products against sums in f64, and of all implementations bit for bit.

use super::*;
use crate::skinny::matmul_skinny;
use crate::test_values::values;

const BOTH: [Bits; 2] = [Bits::Eight, Bits::Four];

fn rounded(bits: Bits, values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    let inner = values.len();
    bits.round(&mut values, inner);
    values
}

/// A matrix `[n, k]` of these values.
fn matrix(bits: Bits, values: &[f32], shape: [usize; 2]) -> QuantizedMatrix {
    let k = shape[1];
    QuantizedMatrix::new(bits, |row| values[row * k..(row + 1) * k].to_vec(), shape)
}

/// 127 / 127 = 1 is the scale: integers are themselves, and 0.5 goes to the even one.
#[test]
fn eight_bits_by_hand() {
    let found = rounded(Bits::Eight, &[127.0, -3.0, 0.5, 1.5, -126.9]);
    assert_eq!(found, [127.0, -3.0, 0.0, 2.0, -127.0]);
}

/// Levels of the largest magnitude are themselves; half-way between the levels 0 and 10, and a little above.
#[test]
fn four_bits_by_hand() {
    let exact: Vec<f32> = LEVELS.iter().map(|level| f32::from(*level) * 2.0).collect();
    assert_eq!(rounded(Bits::Four, &exact), exact);
    assert_eq!(
        rounded(Bits::Four, &[127.0, -127.0, 4.9, 5.1, -5.9, -6.1]),
        [127.0, -127.0, 0.0, 10.0, 0.0, -12.0]
    );
}

/// The levels are those of NF4 (Dettmers et al. 2023, appendix E), within half a multiple of 1/127.
#[test]
fn levels_are_those_of_nf4() {
    let nf4 = [
        -1.0,
        -0.696_192_8,
        -0.525_073_05,
        -0.394_917_5,
        -0.284_441_38,
        -0.184_773_43,
        -0.091_050_036,
        0.0,
        0.079_580_3,
        0.160_930_2,
        0.246_112_3,
        0.337_915_24,
        0.440_709_83,
        0.562_617,
        0.722_956_84,
        1.0,
    ];
    for (level, exact) in LEVELS.iter().zip(nf4) {
        assert!((f64::from(*level) - 127.0 * exact).abs() <= 0.5, "{level} and {exact}");
    }
}

/// Errors of random groups against the bounds of their steps: half of a scale for integers (and what a scale that
/// was rounded down cuts off); the least scale of levels cuts off a fifth.
#[test]
fn errors_are_within_half_a_step() {
    for seed in 0..200 {
        let exact = values(32, seed);
        let largest = exact.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let error = |bits: Bits| {
            let rounded = rounded(bits, &exact);
            let errors = exact
                .iter()
                .zip(rounded)
                .map(|(exact, rounded)| (exact - rounded).abs());
            errors.fold(0.0, f32::max) / largest
        };
        assert!(error(Bits::Eight) <= 0.5 / 127.0 + 1.0 / 256.0);
        assert!(error(Bits::Four) <= 0.2 + 0.003);
    }
}

#[test]
fn nothing_and_what_is_not_finite_makes_no_panic() {
    for odd in [0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 4.0] {
        for bits in BOTH {
            let found = rounded(bits, &[odd; 3]);
            assert!(odd != 0.0 || found == [0.0; 3]);
        }
    }
}

#[test]
fn rows_of_a_matrix_are_its_rounded_values() {
    for (bits, [n, k]) in BOTH
        .into_iter()
        .flat_map(|bits| [[1, 1], [17, 40], [16, 64], [33, 97]].map(|s| (bits, s)))
    {
        let exact = values(n * k, 3);
        let matrix = matrix(bits, &exact, [n, k]);
        let mut expected = exact.clone();
        bits.round(&mut expected, k);
        for (row, expected) in expected.chunks(k).enumerate() {
            let mut found = vec![f32::NAN; k];
            matrix.copy_row(row, &mut found);
            assert_eq!(found, expected, "{bits:?}, row {row} of [{n}, {k}]");
        }
    }
    // 8.5 and 4.5 bits of each of 64 values.
    let [eight, four] = BOTH.map(|bits| matrix(bits, &values(64, 1), [1, 64]).row_bytes());
    assert_eq!([eight, four], [68, 36]);
}

/// [127, -127, 0] and [254, 2, 0] (scales 1 and 2) times [127, 1, 5] and [0, -127, 1] (scale 1).
#[test]
fn a_product_worked_out_by_hand() {
    let weight = matrix(Bits::Eight, &[127.0, 1.0, 5.0, 0.0, -127.0, 1.0], [2, 3]);
    let mut to = [f32::NAN; 4];
    matmul_skinny(&mut to, &[127.0, -127.0, 0.0, 254.0, 2.0, 0.0], &weight, [2, 2, 3]);
    assert_eq!(to, [16002.0, 16129.0, 32260.0, -254.0]);
}

/// What the rows are rounded to, in f64.
fn rounded_rows(rows: &[f32], k: usize) -> Vec<f64> {
    let groups = rows.chunks(k).flat_map(|row| row.chunks(GROUP_VALUES));
    let of_group = |group: &[f32]| {
        let largest = group.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let scale = largest / 127.0;
        let integers = group.iter().map(|value| (value / scale).round_ties_even());
        integers
            .map(|value| f64::from(value) * f64::from(scale))
            .collect::<Vec<_>>()
    };
    groups.flat_map(of_group).collect()
}

#[test]
fn products_are_those_of_rounded_rows_and_weights() {
    for [r, n, k] in [
        [1, 1, 1],
        [1, 9, 576],
        [2, 16, 33],
        [3, 7, 64],
        [8, 33, 100],
        [9, 4, 31],
        [33, 70, 96],
    ] {
        let (rows, exact) = (values(r * k, 5), values(n * k, 6));
        for bits in BOTH {
            let weight = matrix(bits, &exact, [n, k]);
            let (mut of_rows, mut values) = (rounded_rows(&rows, k), exact.clone());
            let mut in_place = rows.clone();
            round_rows(&mut in_place, k);
            for (found, exact) in in_place.iter().zip(&of_rows) {
                // A value half-way between two integers may go to either.
                assert!((f64::from(*found) - exact).abs() < 1.001 / 127.0);
            }
            let near = in_place
                .iter()
                .zip(&of_rows)
                .filter(|(a, b)| (f64::from(**a) - **b).abs() < 1e-6);
            assert!(near.count() * 1000 >= 998 * in_place.len());
            bits.round(&mut values, k);
            let mut found = vec![f32::NAN; r * n];
            matmul_skinny(&mut found, &rows, &weight, [r, n, k]);
            let mut worst = 0.0_f64;
            for (i, j) in (0..r).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let terms = |rows: &[f64]| {
                    let terms = (0..k).map(|l| rows[i * k + l] * f64::from(values[j * k + l]));
                    terms.fold((0.0, 1e-30), |(sum, size), term| (sum + term, size + term.abs()))
                };
                let (sum, size) = terms(&of_rows);
                let error = (f64::from(found[i * n + j]) - sum).abs() / size;
                // Two values half-way between integers may be rounded either way by the two divisions.
                assert!(
                    error < 1e-6 || error * size < 2.0 / 127.0 / 127.0,
                    "{bits:?} [{r}, {n}, {k}]: {error:e}"
                );
                worst = worst.max(error);
            }
            assert!(worst < 1e-3, "{bits:?} [{r}, {n}, {k}]: {worst:e}");
            // And near those of the rows as they were.
            of_rows = rows.iter().map(|x| f64::from(*x)).collect();
            let exact = |i: usize, j: usize| {
                (0..k)
                    .map(|l| of_rows[i * k + l] * f64::from(values[j * k + l]))
                    .sum::<f64>()
            };
            let size = |i: usize| {
                let squares = of_rows[i * k..(i + 1) * k].iter().map(|x| x * x);
                squares.sum::<f64>().sqrt()
            };
            for (i, j) in (0..r).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let error = (f64::from(found[i * n + j]) - exact(i, j)).abs();
                let norm = values[j * k..(j + 1) * k]
                    .iter()
                    .map(|x| f64::from(x * x))
                    .sum::<f64>()
                    .sqrt();
                assert!(
                    error <= 0.01 * size(i) * norm + 1e-9,
                    "{bits:?} [{r}, {n}, {k}]: {error:e}"
                );
            }
        }
    }
}

/// A product by a kernel.
fn by(
    kernel: impl Fn(&[Line], rows::Some<'_>, &mut [[f32; PANEL_ROWS]]),
    rows: &[f32],
    weight: &QuantizedMatrix,
) -> Vec<u32> {
    let [n, k] = weight.shape();
    let rows = QuantizedRows::new(rows, k);
    let mut to = vec![f32::NAN; rows.count() * n];
    panels(&mut to, &rows, weight, [0, n], kernel);
    to.into_iter().map(f32::to_bits).collect()
}

#[test]
fn every_implementation_computes_the_same_bits() {
    #[cfg(target_arch = "x86_64")]
    {
        if !avx512::has_vnni() {
            println!("NOT TESTED: this machine has no AVX-512 with VNNI");
        }
        if !crate::Isa::Avx2.is_present() {
            println!("NOT TESTED: this machine has no AVX2 with FMA");
        }
    }
    for (r, [n, k]) in (1..=18).flat_map(|r| [[1, 1], [17, 40], [40, 128], [20, 97]].map(|shape| (r, shape))) {
        let rows: Vec<f32> = values(r * k, 7).iter().map(|x| x * 3.0).collect();
        for bits in BOTH {
            let weight = matrix(bits, &values(n * k, 8), [n, k]);
            let portable = by(
                |panel, rows, sums| portable::multiply(panel, rows, bits, sums),
                &rows,
                &weight,
            );
            #[cfg(target_arch = "x86_64")]
            if crate::Isa::Avx2.is_present() {
                let found = by(
                    |panel, rows, sums| avx2::multiply(panel, rows, bits, sums),
                    &rows,
                    &weight,
                );
                assert_eq!(found, portable, "AVX2, {bits:?} [{r}, {n}, {k}]");
            }
            #[cfg(target_arch = "x86_64")]
            if avx512::has_vnni() {
                let found = by(
                    |panel, rows, sums| avx512::multiply(panel, rows, bits, sums),
                    &rows,
                    &weight,
                );
                assert_eq!(found, portable, "{bits:?} [{r}, {n}, {k}]");
            }
            let last = by(
                |panel, rows, sums| portable::multiply(panel, rows, bits, sums),
                &rows[(r - 1) * k..],
                &weight,
            );
            assert_eq!(last, portable[(r - 1) * n..], "a row alone");
        }
    }
}

/// Tasks of some panels on several threads, weights of 8 and 4 bits in one product, and the first rows of a weight.
#[test]
fn a_product_does_not_depend_on_threads_or_on_what_is_beside_it() {
    let (r, k) = (3, 576);
    let rows = values(r * k, 1);
    let weights = [(Bits::Eight, 700), (Bits::Four, 41), (Bits::Eight, 16)];
    let weights = weights.map(|(bits, n)| matrix(bits, &values(n * k, n as u64), [n, k]));
    let on = |threads: usize, ns: [usize; 3]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut results = ns.map(|n| vec![f32::NAN; r * n]);
        let mut outputs = Vec::new();
        for ((to, weight), n) in results.iter_mut().zip(&weights).zip(ns) {
            let weight = weight.into();
            outputs.push(crate::SkinnyOutput { to, weight, n });
        }
        pool.install(|| crate::matmul_skinny_many(&mut outputs, &rows, [r, k]));
        results
    };
    let all = on(1, [700, 41, 16]);
    assert_eq!(on(3, [700, 41, 16]), all);
    let some = on(2, [330, 41, 5]);
    for ((some, all), [n, of]) in some.iter().zip(&all).zip([[330, 700], [41, 41], [5, 16]]) {
        for (some, all) in some.chunks(n).zip(all.chunks(of)) {
            assert_eq!(some, &all[..n]);
        }
    }
}

/// Infinities and NaNs of a row reach its own results only; a row of zeros and a tiny one give zeros.
#[test]
fn what_is_not_finite_stays_in_its_row() {
    let weight = matrix(Bits::Four, &values(5 * 70, 2), [5, 70]);
    let mut rows = vec![1.0; 5 * 70];
    (rows[3], rows[70 + 65]) = (f32::NAN, f32::INFINITY);
    rows[3 * 70..4 * 70].fill(0.0);
    rows[4 * 70..].fill(1e-40);
    let mut to = vec![0.0; 25];
    matmul_skinny(&mut to, &rows, &weight, [5, 5, 70]);
    assert!(to[..10].iter().all(|x| x.is_nan()), "{to:?}");
    assert!(to[10..15].iter().all(|x| x.is_finite() && *x != 0.0));
    assert_eq!(to[15..], [0.0; 10]);
}

#[test]
#[should_panic(expected = "with 3 and 4 elements and a quantized weight [2, 3]")]
fn a_weight_of_another_size_is_refused() {
    let weight = matrix(Bits::Eight, &values(6, 2), [2, 3]);
    matmul_skinny(&mut [0.0; 4], &[0.0; 3], &weight, [1, 4, 3]);
}
