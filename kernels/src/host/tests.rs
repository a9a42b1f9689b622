//! Each operation against a definition in f64 written out here, and its gradient against central
//! differences of that definition.

use super::*;
use crate::adamw::AdamWStep;
use wmtp_gemm::{FloatSlice, Precision};
use crate::test_values::values;
use attention::Heads;
use rotary::Turn;
use std::ops::Range;

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// The gradient of `sum of upstream * f(x)` by central differences.
fn differences(x: &[f32], upstream: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let step = 1e-5;
    let at = |i: usize, delta: f64| {
        let mut x = wide(x);
        x[i] += delta;
        f(&x).iter().zip(upstream).map(|(y, u)| y * f64::from(*u)).sum::<f64>()
    };
    (0..x.len())
        .map(|i| (at(i, step) - at(i, -step)) / (2.0 * step))
        .collect()
}

/// Errors relative to the largest expected value.
fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |a: f64, b| a.max(b.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / scale;
        assert!(error < tolerance, "{what}, value {i}: {found} instead of {expected}");
    }
}

/// |found - expected| / |expected| in the Frobenius norm.
fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    difference / norm(&mut expected.iter().copied())
}

fn rms_norm_f64(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let d = weight.len();
    let row = |x: &[f64]| {
        let r = (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x / r * w).collect::<Vec<_>>()
    };
    x.chunks(d).flat_map(row).collect()
}

#[test]
fn rms_norm_and_its_gradients() {
    for (n, d) in [(1, 1), (3, 5), (17, 16), (33, 37)] {
        let (x, weight, upstream) = (values(n * d, 1), values(d, 2), values(n * d, 3));
        let mut y = vec![0.0; n * d];
        rms_norm::forward(&x, &weight, 1e-5, &mut y);
        let eps = f64::from(1e-5f32);
        assert_close("y", &y, &rms_norm_f64(&wide(&x), &wide(&weight), eps), 1e-6);
        let mut d_x = vec![1.0; n * d];
        let d_weight = rms_norm::backward(&x, &weight, 1e-5, &upstream, &mut d_x);
        let of_x = differences(&x, &upstream, |x| rms_norm_f64(x, &wide(&weight), eps));
        let added: Vec<f64> = of_x.iter().map(|g| g + 1.0).collect();
        assert_close("dx", &d_x, &added, 1e-5);
        let of_weight = differences(&weight, &upstream, |w| rms_norm_f64(&wide(&x), w, eps));
        assert_close("dw", &d_weight, &of_weight, 1e-5);
    }
}

fn swiglu_f64(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

#[test]
fn swiglu_and_its_gradients() {
    for n in [1, 15, 100, 8193] {
        let mut gate: Vec<f32> = values(n, 4).iter().map(|g| 8.0 * g).collect();
        if n > 2 {
            (gate[0], gate[1]) = (-200.0, 200.0);
        }
        let (up, upstream) = (values(n, 5), values(n, 6));
        let mut y = gate.clone();
        swiglu::forward(&mut y, &up);
        let expected = swiglu_f64(&wide(&gate), &wide(&up));
        assert_close("y", &y, &expected, 1e-6);
        let (mut d_gate, mut d_up, mut result) = (gate.clone(), up.clone(), upstream.clone());
        swiglu::backward(&mut d_gate, &mut d_up, &mut result);
        assert_close("the result again", &result, &expected, 1e-6);
        // Element-wise, so the derivative of each is that of its own element.
        let step = 1e-5;
        let slope = |f: &dyn Fn(f64) -> f64, at: f64| (f(at + step) - f(at - step)) / (2.0 * step);
        let one = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u;
        let each = |i: usize| (f64::from(gate[i]), f64::from(up[i]), f64::from(upstream[i]));
        let of_gate: Vec<f64> = (0..n).map(each).map(|(g, u, d)| d * slope(&|g| one(g, u), g)).collect();
        let of_up: Vec<f64> = (0..n).map(each).map(|(g, u, d)| d * slope(&|u| one(g, u), u)).collect();
        assert_close("d gate", &d_gate, &of_gate, 1e-5);
        assert_close("d up", &d_up, &of_up, 1e-5);
    }
}

#[test]
fn rotation_turns_pairs_of_halves_and_back() {
    // Two rows with one head of width 4 to turn and one value that stays; angles 90 and 0 degrees
    // for the first pair, 0 and 180 for the second.
    let mut rows = [1.0, 2.0, 3.0, 4.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0];
    let (cos, sin) = ([0.0, 1.0, 1.0, -1.0], [1.0, 0.0, 0.0, 0.0]);
    let before = rows;
    rotary::rotate(&mut rows, 5, 0..1, 2, [&cos, &sin], Turn::Forward);
    assert_eq!(rows, [-3.0, 2.0, 1.0, 4.0, 9.0, 1.0, -2.0, 3.0, -4.0, 9.0]);
    rotary::rotate(&mut rows, 5, 0..1, 2, [&cos, &sin], Turn::Back);
    assert_eq!(rows, before);
}

fn attention_f64(qkv: &[f64], heads: Heads, documents: &[Range<usize>]) -> Vec<f64> {
    let (row, w) = (heads.row(), heads.width);
    let n = qkv.len() / row;
    let mut out = vec![0.0; n * heads.heads * w];
    for rows in documents {
        for h in 0..heads.heads {
            let kv = h / (heads.heads / heads.kv_heads);
            for i in rows.clone() {
                let q = &qkv[i * row + h * w..][..w];
                let key = |j: usize| &qkv[j * row + (heads.heads + kv) * w..][..w];
                let value = |j: usize| &qkv[j * row + (heads.heads + heads.kv_heads + kv) * w..][..w];
                let score = |j: usize| q.iter().zip(key(j)).map(|(q, k)| q * k).sum::<f64>();
                let scores: Vec<f64> = (rows.start..=i).map(score).collect();
                let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
                let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                for (j, score) in (rows.start..=i).zip(&scores) {
                    let share = (score - largest).exp() / sum;
                    for (c, v) in value(j).iter().enumerate() {
                        out[i * heads.heads * w + h * w + c] += share * v;
                    }
                }
            }
        }
    }
    out
}

#[test]
#[allow(clippy::single_range_in_vec_init)] // a list of documents of which there is one
fn attention_and_its_gradient() {
    let heads = |heads, kv_heads, width| Heads { heads, kv_heads, width };
    let cases: [(Heads, usize, Vec<Range<usize>>); 5] = [
        (heads(1, 1, 2), 1, vec![0..1]),
        (heads(2, 1, 4), 5, vec![0..2, 2..5]),
        (heads(4, 2, 2), 9, vec![0..1, 1..6, 7..9]),
        (heads(3, 3, 3), 7, vec![0..7]),
        // More than one block of queries.
        (heads(2, 1, 2), 70, vec![0..67, 67..70]),
    ];
    for (heads, n, documents) in cases {
        let qkv: Vec<f32> = values(n * heads.row(), 7).iter().map(|x| 2.0 * x).collect();
        let upstream = values(n * heads.keys(), 8);
        let y = attention::forward(FloatSlice::F32(&qkv), heads, &documents, Precision::F32);
        let expected = attention_f64(&wide(&qkv), heads, &documents);
        assert_close("y", &y, &expected, 1e-6);
        let d = attention::backward(FloatSlice::F32(&qkv), heads, &documents, &upstream, Precision::F32);
        let expected = differences(&qkv, &upstream, |qkv| attention_f64(qkv, heads, &documents));
        assert_close("d qkv", &d, &expected, 1e-5);
        // In bf16 against f64 on the same rounded inputs.
        let rounded = Store::new(qkv, Precision::Bf16);
        let qkv = rounded.clone().into_f32();
        let y = attention::forward(rounded.floats(), heads, &documents, Precision::Bf16);
        let exact = attention_f64(&wide(&qkv), heads, &documents);
        let d = attention::backward(rounded.floats(), heads, &documents, &upstream, Precision::Bf16);
        let differences = differences(&qkv, &upstream, |qkv| attention_f64(qkv, heads, &documents));
        for (what, found, exact) in [("y", &y, &exact), ("d qkv", &d, &differences)] {
            let error = relative_error(found, exact);
            println!("{what} of {n} rows in bf16: {error:.1e}");
            assert!(error < 1e-2, "{what} of {n} rows in bf16: {error:e}");
        }
    }
}

#[test]
fn scores_of_any_size_stay_finite() {
    let heads = Heads {
        heads: 1,
        kv_heads: 1,
        width: 1,
    };
    // Scores of 1e4 * 1e4: the largest key takes everything.
    let qkv = [1e4, 1.0, 1.0, 1e4, 1e4, 2.0, 1e4, -1e4, 3.0];
    let y = attention::forward(FloatSlice::F32(&qkv), heads, std::slice::from_ref(&(0..3)), Precision::F32);
    assert_eq!(y, [1.0, 2.0, 2.0]);
}

/// Against the formulas in f64, over three updates.
#[test]
fn adamw_follows_its_formula() {
    let n = 20_000;
    let (mut w, mut m, mut v) = (values(n, 9), vec![0.0; n], vec![0.0; n]);
    let (mut we, mut me, mut ve) = (wide(&w), vec![0.0f64; n], vec![0.0f64; n]);
    for time in 1..=3 {
        let g = values(n, 10 + time as u64);
        let update = AdamWStep {
            learning_rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: time as u32,
            gradient_scale: 0.5,
        };
        let moments = [FloatSliceMut::F32(&mut m), FloatSliceMut::F32(&mut v)];
        adamw::update(FloatSliceMut::F32(&mut w), moments, FloatSlice::F32(&g), &update);
        for i in 0..n {
            let g = 0.5 * f64::from(g[i]);
            me[i] = 0.9 * me[i] + 0.1 * g;
            ve[i] = 0.95 * ve[i] + 0.05 * g * g;
            let first = me[i] / (1.0 - 0.9f64.powi(time));
            let second = ve[i] / (1.0 - 0.95f64.powi(time));
            we[i] = we[i] * (1.0 - 1e-2 * 0.1) - 1e-2 * first / (second.sqrt() + 1e-8);
        }
    }
    assert_close("weight", &w, &we, 1e-6);
    assert_close("first moment", &m, &me, 1e-6);
    assert_close("second moment", &v, &ve, 1e-6);
}
