//! Products against sums in f64, in every layout, at sizes around those of tiles and blocks.

use super::*;
#[cfg(target_arch = "x86_64")]
use crate::avx512::Lane;
use crate::test_values::values;
use half::bf16;
use proptest::prelude::*;

/// A factor: its values row-major, and the same in memory with gaps of NaNs.
struct Factor {
    shape: [usize; 2],
    strides: [usize; 2],
    exact: Vec<f32>,
    stored: Vec<f32>,
    short: Vec<bf16>,
    as_bf16: bool,
}

impl Factor {
    /// `layout` 0 and 3: contiguous rows; 1: contiguous columns; 2: every value apart.
    fn new(shape: [usize; 2], seed: u64, layout: usize, as_bf16: bool) -> Self {
        let [rows, columns] = shape;
        let strides = [[columns + 3, 1], [1, rows + 5], [2 * columns + 1, 2], [columns + 4, 1]][layout];
        let exact = values(rows * columns, seed);
        let mut stored = vec![f32::NAN; (rows - 1) * strides[0] + (columns - 1) * strides[1] + 1];
        for (index, value) in exact.iter().enumerate() {
            stored[index / columns * strides[0] + index % columns * strides[1]] = *value;
        }
        Self {
            shape,
            strides,
            short: stored.iter().map(|x| bf16::from_f32(*x)).collect(),
            exact,
            stored,
            as_bf16,
        }
    }

    fn view(&self) -> MatrixView<'_> {
        let data = if self.as_bf16 {
            FloatSlice::Bf16(&self.short)
        } else {
            FloatSlice::F32(&self.stored)
        };
        MatrixView::strided(data, self.shape, self.strides)
    }

    /// The value that takes part in the product.
    fn at(&self, i: usize, j: usize, precision: Precision) -> f64 {
        let value = self.exact[i * self.shape[1] + j];
        let rounds = self.as_bf16 || precision == Precision::Bf16;
        f64::from(if rounds { bf16::from_f32(value).to_f32() } else { value })
    }
}

type Multiply = fn(&mut [f32], usize, bool, [MatrixView<'_>; 2], Precision, Threads);

/// Largest error of `0.5 + left * right` relative to the sum of its terms' magnitudes.
fn error(multiply: Multiply, left: &Factor, right: &Factor, precision: Precision) -> f64 {
    let ([m, k], [_, n]) = (left.shape, right.shape);
    let stride = n + 2;
    let mut to = vec![0.5f32; m * stride];
    multiply(
        &mut to,
        stride,
        true,
        [left.view(), right.view()],
        precision,
        Threads::All,
    );
    let mut again = vec![0.5f32; m * stride];
    multiply(
        &mut again,
        stride,
        true,
        [left.view(), right.view()],
        precision,
        Threads::Calling,
    );
    assert_eq!(to, again, "one thread and all of them");
    let mut worst = 0.0f64;
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|l| left.at(i, l, precision) * right.at(l, j, precision));
            let (sum, size) = terms.fold((0.5, 0.5), |(sum, size), term| (sum + term, size + term.abs()));
            let found = f64::from(to[i * stride + j]);
            assert!(found.is_finite(), "a gap was read");
            worst = worst.max((found - sum).abs() / size);
        }
        assert_eq!(to[i * stride + n..][..2], [0.5, 0.5], "between the rows");
    }
    worst
}

#[cfg(target_arch = "x86_64")]
fn rounded(precision: Precision) -> Lane {
    match precision {
        Precision::F32 => Lane::F32,
        Precision::Bf16 => Lane::RoundedF32,
    }
}

#[cfg(target_arch = "x86_64")]
fn pairs(precision: Precision) -> Lane {
    match precision {
        Precision::F32 => Lane::F32,
        Precision::Bf16 => Lane::Bf16Pair,
    }
}

/// The implementations that this machine can run, by name.
fn implementations() -> Vec<(&'static str, Multiply)> {
    let mut all: Vec<(&'static str, Multiply)> = vec![("portable", portable::matmul)];
    #[cfg(target_arch = "x86_64")]
    if Isa::Avx2.is_present() {
        all.push(("avx2", avx2::matmul));
        all.push((
            "avx2, right packed before",
            |to, stride, add, [left, right], precision, _| {
                avx2::PackedRight::new(right, precision).multiply(to, stride, add, [left, right], precision);
            },
        ));
    } else {
        println!("NOT RUN: this machine has no AVX2");
    }
    #[cfg(target_arch = "x86_64")]
    if processor::has_avx512() {
        all.push(("avx512, rounded", |to, stride, add, factors, precision, threads| {
            avx512::matmul(to, stride, add, factors, rounded(precision), threads)
        }));
        all.push((
            "avx512, right packed before, rounded",
            |to, stride, add, [left, right], precision, _| {
                let lane = rounded(precision);
                avx512::PackedRight::new(right, lane).multiply(to, stride, add, [left, right], lane)
            },
        ));
    } else {
        println!("NOT RUN: this machine has no AVX-512");
    }
    #[cfg(target_arch = "x86_64")]
    if processor::has_avx512_bf16() {
        all.push(("avx512, pairs", |to, stride, add, factors, precision, threads| {
            avx512::matmul(to, stride, add, factors, pairs(precision), threads)
        }));
        all.push((
            "avx512, right packed before, pairs",
            |to, stride, add, [left, right], precision, _| {
                let lane = pairs(precision);
                avx512::PackedRight::new(right, lane).multiply(to, stride, add, [left, right], lane)
            },
        ));
    } else {
        println!("NOT RUN: this machine has no AVX-512 with bf16");
    }
    all
}

fn check(shape: [usize; 3], layouts: [usize; 2], as_bf16: [bool; 2]) {
    let [m, n, k] = shape;
    let left = Factor::new([m, k], 3 + k as u64, layouts[0], as_bf16[0]);
    let right = Factor::new([k, n], 11 + n as u64, layouts[1], as_bf16[1]);
    for (name, multiply) in implementations() {
        for precision in [Precision::F32, Precision::Bf16] {
            let error = error(multiply, &left, &right, precision);
            assert!(
                error < 1e-6,
                "{name}, {precision:?}, {shape:?}, {layouts:?}, {as_bf16:?}: {error:e}"
            );
        }
    }
}

#[test]
fn sizes_around_the_tile_and_the_blocks() {
    for shape in [
        [1, 1, 1],
        [7, 47, 31],
        [97, 33, 40],
        [8, 48, 32],
        [9, 49, 33],
        [17, 95, 3],
        [65, 33, 64],
        // More than one block along K on AVX2, on AVX-512 in f32, and in bf16.
        [13, 17, 641],
        [3, 5, 769],
        [3, 5, 1537],
        [50, 4, 1601],
    ] {
        for layouts in [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2], [3, 0]] {
            check(shape, layouts, [false, false]);
            check(shape, layouts, [true, false]);
            check(shape, layouts, [true, true]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_size(m in 1usize..70, n in 1usize..110, k in 1usize..90, layouts in [0usize..4, 0usize..4], as_bf16: [bool; 2]) {
        check([m, n, k], layouts, as_bf16);
    }
}

/// [[1, 2], [3, 4], [5, 6]]^T * [[1, 0], [0, 1], [1, 1]] = [[6, 8], [8, 10]], worked out by hand.
#[test]
fn a_product_worked_out_by_hand() {
    let left = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let right = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    let (left, right) = (
        MatrixView::row_major(&left, [3, 2]).transposed(),
        MatrixView::row_major(&right, [3, 2]),
    );
    for precision in [Precision::F32, Precision::Bf16] {
        let mut to = [100.0f32; 4];
        matmul(&mut to, 2, false, left, right, precision);
        assert_eq!(to, [6.0, 8.0, 8.0, 10.0]);
        matmul(&mut to, 2, true, left, right, precision);
        assert_eq!(to, [12.0, 16.0, 16.0, 20.0]);
    }
}

/// 1 + 2^-8 lies half-way between two bf16 values and goes to the even one, 1; 1 + 3 * 2^-8 goes up.
#[test]
fn inputs_are_rounded_to_the_nearest_even_bf16() {
    let left = [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0];
    for (_, multiply) in implementations() {
        for (value, rounded) in [(left[0], 1.0), (left[1], 1.0 + 1.0 / 64.0)] {
            let mut to = [0.0];
            multiply(
                &mut to,
                1,
                false,
                [
                    MatrixView::row_major(&[value], [1, 1]),
                    MatrixView::row_major(&[1.0], [1, 1]),
                ],
                Precision::Bf16,
                Threads::Calling,
            );
            assert_eq!(to, [rounded]);
        }
    }
}

#[test]
fn nothing_to_sum_gives_zeros() {
    let mut to = [3.0f32; 2];
    matmul(
        &mut to,
        2,
        true,
        MatrixView::row_major(&[], [1, 0]),
        MatrixView::row_major(&[], [0, 2]),
        Precision::F32,
    );
    assert_eq!(to, [3.0, 3.0]);
    matmul(
        &mut to,
        2,
        false,
        MatrixView::row_major(&[], [1, 0]),
        MatrixView::row_major(&[], [0, 2]),
        Precision::F32,
    );
    assert_eq!(to, [0.0, 0.0]);
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_view_outside_its_slice_is_refused() {
    MatrixView::strided(FloatSlice::F32(&[0.0; 5]), [3, 2], [2, 1]);
}

#[test]
#[should_panic(expected = "[3, 2] times [3, 2] is not a product")]
fn shapes_that_do_not_fit_are_refused() {
    let data = [0.0f32; 6];
    let matrix = MatrixView::row_major(&data, [3, 2]);
    matmul(&mut [0.0; 9], 3, false, matrix, matrix, Precision::F32);
}

#[test]
#[should_panic(expected = "3 rows of 3, 3 apart, do not fit into 8 elements")]
fn a_result_larger_than_its_slice_is_refused() {
    let data = [0.0f32; 6];
    let matrix = MatrixView::row_major(&data, [3, 2]);
    matmul(&mut [0.0; 8], 3, false, matrix, matrix.transposed(), Precision::F32);
}

/// Rounded once from f32 sums: what rounding the product in f32 gives.
#[test]
fn products_in_bf16_are_rounded_once() {
    for [m, n, k] in [[1, 1, 1], [40, 33, 70], [3, 0, 5], [0, 3, 5], [2, 3, 0]] {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let (left, right) = (MatrixView::row_major(&a, [m, k]), MatrixView::row_major(&b, [k, n]));
        for precision in [Precision::F32, Precision::Bf16] {
            let mut sums = vec![0.0; m * n];
            if n > 0 {
                matmul(&mut sums, n, false, left, right, precision);
            }
            let expected: Vec<bf16> = sums.into_iter().map(bf16::from_f32).collect();
            assert_eq!(matmul_to_bf16(left, right, precision), expected, "[{m}, {n}, {k}]");
        }
        #[cfg(target_arch = "x86_64")]
        if m * n * k > 0 {
            let found = tiles_to_bf16::<tiles::Software>(left, right);
            for (i, found) in found.iter().enumerate() {
                let short = |value: f32| bf16::from_f32(value).to_f64();
                let terms = (0..k).map(|l| short(a[i / n * k + l]) * short(b[l * n + i % n]));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
                assert!((found.to_f64() - sum).abs() <= sum.abs() / 256.0 + size * 1e-6, "{i}");
            }
        }
    }
}
