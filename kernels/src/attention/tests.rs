//! Attention on slices against its definition in f64, its gradient against central differences of it, and the
//! starts of documents.

use super::document_starts;
use super::flex::{self, Documents, Heads};
use crate::saved::SavedActivations;
use crate::test_support::{assert_close, differences, relative_error, wide};
use crate::test_values::values;
use std::ops::Range;
#[cfg(target_arch = "x86_64")]
use wmtp_gemm::tiles::{Amx, Software, has_amx};
use wmtp_gemm::{FloatSlice, Precision};

#[test]
fn starts_follow_documents_and_padding_sees_itself() {
    assert_eq!(document_starts(&[0, 0, 0, 1, 2, 2, -1, -1]), [0, 0, 0, 3, 4, 4, 6, 7]);
    assert_eq!(document_starts(&[]), Vec::<i64>::new());
}

fn attention_f64(qkv: &[f64], heads: Heads, documents: Documents<'_>) -> Vec<f64> {
    let (row, w) = (heads.row(), heads.width);
    let n = qkv.len() / row;
    let mut out = vec![0.0; n * heads.heads * w];
    for rows in documents.rows {
        for h in 0..heads.heads {
            let kv = h / (heads.heads / heads.kv_heads);
            for i in rows.clone() {
                let q = &qkv[i * row + h * w..][..w];
                let key = |j: usize| &qkv[j * row + (heads.heads + kv) * w..][..w];
                let value = |j: usize| &qkv[j * row + (heads.heads + heads.kv_heads + kv) * w..][..w];
                let score = |j: usize| q.iter().zip(key(j)).map(|(q, k)| q * k).sum::<f64>();
                let first = documents
                    .window
                    .map_or(rows.start, |w| rows.start.max((i + 1).saturating_sub(w)));
                let scores: Vec<f64> = (first..=i).map(score).collect();
                let largest = scores.iter().fold(f64::NEG_INFINITY, |a, b| a.max(*b));
                let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                for (j, score) in (first..=i).zip(&scores) {
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
    let cases: [(Heads, usize, Vec<Range<usize>>); 6] = [
        (heads(1, 1, 2), 1, vec![0..1]),
        (heads(2, 1, 4), 5, vec![0..2, 2..5]),
        (heads(4, 2, 2), 9, vec![0..1, 1..6, 6..6, 7..9]),
        (heads(3, 3, 3), 7, vec![0..7]),
        // More than one block of queries.
        (heads(2, 1, 2), 70, vec![0..67, 67..70]),
        // Heads of more than a tile, more than one block of keys, and rows of no document.
        (heads(2, 1, 34), 40, vec![1..37, 38..40]),
    ];
    let windows = [None, Some(1), Some(3), Some(64), Some(66)];
    for ((heads, n, rows), window) in cases
        .into_iter()
        .flat_map(|case| windows.map(|window| (case.clone(), window)))
    {
        let documents = Documents { rows: &rows, window };
        // Scores of a like size, whatever the width.
        let size = 2.0 / (heads.width as f32 / 4.0).max(1.0).sqrt();
        let qkv: Vec<f32> = values(n * heads.row(), 7).iter().map(|x| size * x).collect();
        let upstream = values(n * heads.keys(), 8);
        let y = flex::forward(FloatSlice::F32(&qkv), heads, documents, Precision::F32);
        let expected = attention_f64(&wide(&qkv), heads, documents);
        assert_close("y", &y, &expected, 1e-6);
        let d = flex::backward(FloatSlice::F32(&qkv), heads, documents, &upstream, Precision::F32);
        let expected = differences(&qkv, &upstream, |qkv| attention_f64(qkv, heads, documents));
        assert_close("d qkv", &d, &expected, 1e-5);
        // In bf16 against f64 on the same rounded inputs.
        let rounded = SavedActivations::new(qkv, Precision::Bf16);
        let qkv = rounded.clone().into_f32();
        let y = flex::forward(rounded.floats(), heads, documents, Precision::Bf16);
        let exact = attention_f64(&wide(&qkv), heads, documents);
        let d = flex::backward(rounded.floats(), heads, documents, &upstream, Precision::Bf16);
        let differences = differences(&qkv, &upstream, |qkv| attention_f64(qkv, heads, documents));
        let mut found = vec![("y", y, &exact), ("d qkv", d, &differences)];
        #[cfg(target_arch = "x86_64")]
        {
            let y = flex::tiles::forward::<Software>(rounded.floats(), heads, documents);
            let d = flex::tiles::backward::<Software>(rounded.floats(), heads, documents, &upstream);
            if has_amx() {
                assert_eq!(flex::tiles::forward::<Amx>(rounded.floats(), heads, documents), y);
                assert_eq!(
                    flex::tiles::backward::<Amx>(rounded.floats(), heads, documents, &upstream),
                    d
                );
            }
            found.extend([("y on tiles", y, &exact), ("d qkv on tiles", d, &differences)]);
        }
        for (what, found, exact) in &found {
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
    let y = flex::forward(
        FloatSlice::F32(&qkv),
        heads,
        std::slice::from_ref(&(0..3)),
        Precision::F32,
    );
    assert_eq!(y, [1.0, 2.0, 2.0]);
}
