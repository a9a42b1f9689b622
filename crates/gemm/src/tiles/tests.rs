//! Products over the software unit against f64, and the processor's against the software's.

use super::*;
use crate::{FloatSlice, MatrixView, Threads, test_values::values};
use half::bf16;

/// The product set, added and rounded, as bits, from the same start.
fn results<U: TileUnit>(left: Factor<'_>, right: Factor<'_>, [m, n, k]: [usize; 3], threads: Threads) -> [Vec<u32>; 3] {
    let stride = n + 3;
    let (mut set, mut add) = (vec![9.0_f32; m * stride], values(m * stride, 3));
    let mut short = vec![bf16::from_f32(9.0); m * stride];
    let target = |data: *mut u8, kind: Kind| Target {
        data,
        rows: m,
        columns: n,
        stride,
        kind,
    };
    // SAFETY: each has room for m rows of n, `stride` apart.
    unsafe {
        multiply::<U>(target(set.as_mut_ptr().cast(), Kind::Set), left, right, threads);
        multiply::<U>(target(add.as_mut_ptr().cast(), Kind::Add), left, right, threads);
        if k <= LONGEST {
            multiply::<U>(target(short.as_mut_ptr().cast(), Kind::Rounded), left, right, threads);
        }
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let short = short.into_iter().map(|value| value.to_f32().to_bits()).collect();
    [bits(set), bits(add), short]
}

/// Both factors in every layout and type, at sizes that fill tiles and stripes and sizes that do not.
#[test]
fn products_are_those_of_f64() {
    if !has_amx() {
        eprintln!("NOT TESTED on the processor: it has no AMX");
    }
    let shapes = [
        [1, 1, 1],
        [64, 64, 96],
        [5, 48, 64],
        [17, 35, 33],
        [50, 90, 70],
        [70, 33, 40],
        [300, 20, 32],
        [3, 5, LONGEST + 40],
    ];
    for [m, n, k] in shapes {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let shorts = [&a, &b].map(|values| values.iter().map(|value| bf16::from_f32(*value)).collect::<Vec<_>>());
        for case in 0..8 {
            let [a, b] = match case / 4 {
                0 => [FloatSlice::F32(&a), FloatSlice::F32(&b)],
                _ => [FloatSlice::Bf16(&shorts[0]), FloatSlice::Bf16(&shorts[1])],
            };
            let strides = |count: usize, along: bool| if along { [k, 1] } else { [1, count] };
            let left = MatrixView::strided(a, [m, k], strides(m, case & 1 == 0));
            let right = MatrixView::strided(b, [n, k], strides(n, case & 2 == 0));
            let threads = if case < 4 { Threads::All } else { Threads::Calling };
            let factors = [Factor::Lines(left), Factor::Lines(right)];
            let found = results::<Software>(factors[0], factors[1], [m, n, k], threads);
            check(&found, left, right);
            if has_amx() {
                let amx = results::<Amx>(factors[0], factors[1], [m, n, k], threads);
                assert!(
                    amx == found,
                    "[{m}, {k}] times [{k}, {n}], case {case}: the processor differs"
                );
            }
            if k > LONGEST {
                continue;
            }
            let mut packed = [Packed::default(), Packed::default()];
            packed[0].fill(left, Side::Left, threads);
            packed[1].fill(right, Side::Right, threads);
            let [packed_left, packed_right] = [Factor::Packed(&packed[0]), Factor::Packed(&packed[1])];
            for [left, right] in [
                [packed_left, packed_right],
                [packed_left, factors[1]],
                [factors[0], packed_right],
            ] {
                let again = results::<Software>(left, right, [m, n, k], threads);
                assert!(
                    again == found,
                    "[{m}, {k}] times [{k}, {n}], case {case}: packed differs"
                );
            }
        }
    }
}

/// Against f64: 2^-21 of the sum of the products' sizes for f32, half a unit of bf16 more where it is rounded.
fn check(found: &[Vec<u32>; 3], left: MatrixView<'_>, right: MatrixView<'_>) {
    let ([m, k], [n, _]) = (left.shape(), right.shape());
    let stride = n + 3;
    let start = values(m * stride, 3);
    let short = |value: f32| f64::from(bf16::from_f32(value).to_f32());
    for (i, j) in (0..m).flat_map(|i| (0..stride).map(move |j| (i, j))) {
        let at = i * stride + j;
        let value = |kind: usize| f64::from(f32::from_bits(found[kind][at]));
        if j >= n {
            assert_eq!([value(0), value(2)], [9.0, 9.0], "beyond the columns");
            assert_eq!(found[1][at], start[at].to_bits(), "beyond the columns");
            continue;
        }
        let products = || (0..k).map(|l| short(left.at(i, l)) * short(right.at(j, l)));
        let (exact, size) = (products().sum::<f64>(), products().map(f64::abs).sum::<f64>());
        let bound = size * 2_f64.powi(-21) + 1e-7;
        assert!(
            (value(0) - exact).abs() <= bound,
            "{m} {n} {k}: {} and {exact}",
            value(0)
        );
        assert!(
            (value(1) - exact - f64::from(start[at])).abs() <= bound + 1e-6,
            "{m} {n} {k}"
        );
        if k <= LONGEST {
            assert!((value(2) - exact).abs() <= bound + exact.abs() / 256.0, "{m} {n} {k}");
        }
    }
}

/// Sums do not depend on the number of threads.
#[test]
fn threads_do_not_change_results() {
    let (a, b) = (values(200 * 70, 1), values(70 * 90, 2));
    let left = Factor::Lines(MatrixView::row_major(&a, [200, 70]));
    let right = Factor::Lines(MatrixView::row_major(&b, [90, 70]));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| results::<Software>(left, right, [200, 90, 70], Threads::All))
    };
    let one = on(1);
    assert!([2, 3, 7].into_iter().all(|threads| on(threads) == one));
}

/// Random shapes, layouts and types: the processor and the software, bit for bit; without AMX some of them against
/// f64.
#[test]
fn the_processor_computes_the_software_s_products() {
    let count = if has_amx() { 2000 } else { 60 };
    let mut random = {
        let mut state = 7_u64;
        move |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        }
    };
    for round in 0..count {
        let [m, n, k] = [1 + random(90), 1 + random(90), 1 + random(150)];
        let (a, b) = (values(m * k, random(1000) as u64), values(k * n, random(1000) as u64));
        let shorts = [&a, &b].map(|values| values.iter().map(|value| bf16::from_f32(*value)).collect::<Vec<_>>());
        let factor = |floats, short, count: usize, kind: usize| {
            let data = if kind & 1 == 0 {
                FloatSlice::F32(floats)
            } else {
                FloatSlice::Bf16(short)
            };
            let strides = if kind & 2 == 0 { [k, 1] } else { [1, count] };
            MatrixView::strided(data, [count, k], strides)
        };
        let left = factor(&a, &shorts[0], m, random(4));
        let right = factor(&b, &shorts[1], n, random(4));
        let factors = [Factor::Lines(left), Factor::Lines(right)];
        let software = results::<Software>(factors[0], factors[1], [m, n, k], Threads::All);
        if has_amx() {
            let amx = results::<Amx>(factors[0], factors[1], [m, n, k], Threads::All);
            assert!(amx == software, "round {round}: [{m}, {k}] times [{k}, {n}]");
        } else {
            check(&software, left, right);
        }
    }
}
