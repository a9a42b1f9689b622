//! Softmax attention of new queries over a KV cache, one key head at a time: what decoding does at every
//! token.
//!
//! Keys and values may lie in several segments in order: those of a shared prefix, then a sequence's own.
//! Every result is summed in an order that depends on the number of keys alone, so it is bit-identical
//! however the keys are cut into segments and whatever other queries are computed in the same call.
//!
//! Keys are stored in blocks of sixteen, transposed: the first value of all sixteen, then the second. So
//! sixteen scores are one vector, and no sum runs across the lanes of a vector.

use super::flex::softmax;
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// Keys of a block; lanes of a vector.
const LANES: usize = 16;

/// Maximum queries that are computed together.
const GROUP: usize = 8;

/// Keys whose values stay in the L1 cache while a group of queries is multiplied with them.
const KEYS_PER_PASS: usize = 64;

/// The cached keys and values of one head; appended to at the end.
#[derive(Debug, Clone)]
pub struct KvCache {
    width: usize,
    length: usize,
    /// Block by block `[width][16]`.
    keys: Vec<[f32; LANES]>,
    /// Row-major, each row padded with zeros to whole vectors.
    values: Vec<[f32; LANES]>,
}

impl KvCache {
    /// An empty cache for keys and values of `width` values.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            length: 0,
            keys: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Vectors of one row of values.
    fn row(&self) -> usize {
        self.width.div_ceil(LANES)
    }

    /// Reserves memory for exactly `more` further keys.
    pub fn reserve(&mut self, more: usize) {
        let length = self.length + more;
        let blocks = length.div_ceil(LANES) * self.width;
        self.keys.reserve_exact(blocks.saturating_sub(self.keys.len()));
        let rows = length * self.row();
        self.values.reserve_exact(rows.saturating_sub(self.values.len()));
    }

    /// Appends a key and its value. Without free capacity, capacity grows by a quarter.
    ///
    /// # Panics
    /// If one of them has another width.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        let width = self.width;
        assert!(
            key.len() == width && value.len() == width,
            "a key of {} and a value of {} values instead of {width}",
            key.len(),
            value.len()
        );
        if self.values.len() + self.row() > self.values.capacity() {
            self.reserve((self.length / 4).max(LANES));
        }
        let (block, lane) = (self.length / LANES, self.length % LANES);
        if self.keys.len() <= block * width {
            self.keys.resize((block + 1) * width, [0.0; LANES]);
        }
        for (keys, x) in self.keys[block * width..].iter_mut().zip(key) {
            keys[lane] = *x;
        }
        let (vectors, rest) = value.as_chunks::<LANES>();
        self.values.extend_from_slice(vectors);
        if !rest.is_empty() {
            let mut last = [0.0; LANES];
            last[..rest.len()].copy_from_slice(rest);
            self.values.push(last);
        }
        self.length += 1;
    }

    /// Appends the first `count` keys and values of `other`.
    ///
    /// # Panics
    /// If it has fewer or they have another width.
    pub fn extend_from(&mut self, other: &Self, count: usize) {
        assert!(count <= other.length, "{count} of {} keys", other.length);
        let mut key = vec![0.0; other.width];
        for i in 0..count {
            let block = &other.keys[i / LANES * other.width..];
            key.iter_mut().zip(block).for_each(|(x, lanes)| *x = lanes[i % LANES]);
            let value = other.values[i * other.row()..(i + 1) * other.row()].as_flattened();
            self.push(&key, &value[..other.width]);
        }
    }

    /// Drops all but the first `length` keys; capacity stays.
    pub fn truncate(&mut self, length: usize) {
        if length < self.length {
            self.length = length;
            self.keys.truncate(length.div_ceil(LANES) * self.width);
            self.values.truncate(length * self.row());
        }
    }
}

/// Attention of `queries` `[Q, W]`, already scaled, over the segments of `cache` in order, into `to` `[Q,
/// W]`. Query i sees the keys `seen[i]`, at least one. `scratch` is memory that the next call may reuse.
///
/// # Panics
/// If the sizes do not fit together, or a query sees no key or more than there are.
pub fn attend(queries: &[f32], seen: &[Range<usize>], cache: &[&KvCache], scratch: &mut Vec<f32>, to: &mut [f32]) {
    let Some(width) = cache.first().map(|segment| segment.width) else {
        assert!(seen.is_empty(), "{} queries without a key", seen.len());
        return;
    };
    let all: usize = cache.iter().map(|segment| segment.length).sum();
    assert!(
        queries.len() == seen.len() * width && to.len() == queries.len() && cache.iter().all(|k| k.width == width),
        "{} queries of {width} with {} values and {} results",
        seen.len(),
        queries.len(),
        to.len()
    );
    assert!(
        seen.iter().all(|seen| seen.start < seen.end && seen.end <= all),
        "queries that see {seen:?} of {all} keys"
    );
    let keys =
        seen.iter().map(|seen| seen.start).min().unwrap_or(0)..seen.iter().map(|seen| seen.end).max().unwrap_or(0);
    let rows = ScoreRows::of(keys);
    scratch.resize(seen.len() * rows.stride, 0.0);
    let groups = |i: usize| i..(i + GROUP).min(seen.len());
    for group in (0..seen.len()).step_by(GROUP).map(groups) {
        let queries = &queries[group.start * width..group.end * width];
        let scores = &mut scratch[group.start * rows.stride..group.end * rows.stride];
        let to = &mut to[group.start * width..group.end * width];
        let seen = &seen[group.clone()];
        match group.len() {
            1 => attend_group::<1>(queries, seen, cache, &rows, scores, to),
            2 => attend_group::<2>(queries, seen, cache, &rows, scores, to),
            3 => attend_group::<3>(queries, seen, cache, &rows, scores, to),
            4 => attend_group::<4>(queries, seen, cache, &rows, scores, to),
            5 => attend_group::<5>(queries, seen, cache, &rows, scores, to),
            6 => attend_group::<6>(queries, seen, cache, &rows, scores, to),
            7 => attend_group::<7>(queries, seen, cache, &rows, scores, to),
            _ => attend_group::<GROUP>(queries, seen, cache, &rows, scores, to),
        }
    }
}

/// The keys that a row of scores is for.
struct ScoreRows {
    /// Keys that some query sees.
    keys: Range<usize>,
    /// The key of a row's first score: blocks of scores are written as a whole, wherever they start.
    origin: usize,
    /// Scores of a row.
    stride: usize,
}

impl ScoreRows {
    fn of(keys: Range<usize>) -> Self {
        let origin = keys.start.saturating_sub(LANES - 1);
        let stride = keys.end - origin + LANES;
        Self { keys, origin, stride }
    }

    /// The keys of a segment that some query sees, counted in the segment, whose first key is `from`.
    fn within(&self, from: usize, segment: &KvCache) -> Range<usize> {
        let end = segment.length.min(self.keys.end.saturating_sub(from));
        self.keys.start.saturating_sub(from).min(end)..end
    }
}

/// [`attend`] of Q queries.
fn attend_group<const Q: usize>(
    queries: &[f32],
    seen: &[Range<usize>],
    cache: &[&KvCache],
    rows: &ScoreRows,
    scores: &mut [f32],
    to: &mut [f32],
) {
    let width = to.len() / Q;
    // Transposed: the first value of all queries, then the second.
    let transposed: Vec<[f32; Q]> = (0..width)
        .map(|w| std::array::from_fn(|q| queries[q * width + w]))
        .collect();
    let arch = Arch::new();
    arch.dispatch(Scores {
        queries: &transposed,
        cache,
        rows,
        scores,
    });
    for (row, seen) in scores.chunks_exact_mut(rows.stride).zip(seen) {
        let (row, after) = row.split_at_mut(seen.end - rows.origin);
        let (before, row) = row.split_at_mut(seen.start - rows.origin);
        softmax(row);
        before.fill(0.0);
        after.fill(0.0);
    }
    let vectors = width.div_ceil(LANES);
    let mut attended = vec![0.0; Q * vectors * LANES];
    arch.dispatch(WeightedValues::<Q> {
        probabilities: scores,
        cache,
        rows,
        to: &mut attended,
    });
    for (to, attended) in to.chunks_exact_mut(width).zip(attended.chunks_exact(vectors * LANES)) {
        to.copy_from_slice(&attended[..width]);
    }
}

/// Scores of Q queries with all keys of the rows.
struct Scores<'a, const Q: usize> {
    queries: &'a [[f32; Q]],
    cache: &'a [&'a KvCache],
    rows: &'a ScoreRows,
    scores: &'a mut [f32],
}

impl<const Q: usize> WithSimd for Scores<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let parts = LANES / S::F32_LANES;
        let width = self.queries.len();
        let mut from = 0;
        for segment in self.cache {
            let keys = self.rows.within(from, segment);
            let first = keys.start / LANES;
            let end = if keys.is_empty() {
                first
            } else {
                keys.end.div_ceil(LANES)
            };
            let blocks = segment.keys[first * width..end * width].chunks_exact(width.max(1));
            for (i, block) in (first..).zip(blocks) {
                let at = from + i * LANES - self.rows.origin;
                let (block, _) = S::as_simd_f32s(block.as_flattened());
                for part in 0..parts {
                    let mut sums = [simd.splat_f32s(0.0); Q];
                    for (x, keys) in self.queries.iter().zip(block.chunks_exact(parts)) {
                        for q in 0..Q {
                            sums[q] = simd.mul_add_e_f32s(simd.splat_f32s(x[q]), keys[part], sums[q]);
                        }
                    }
                    for (row, sums) in self.scores.chunks_exact_mut(self.rows.stride).zip(sums) {
                        // The next segment overwrites the scores beyond the last key of this one.
                        let to = &mut row[at + part * S::F32_LANES..][..S::F32_LANES];
                        simd.partial_store_f32s(to, sums);
                    }
                }
            }
            from += segment.length;
        }
    }
}

/// The sum of the values weighted by the attention probabilities, for Q queries, in rows of whole vectors.
struct WeightedValues<'a, const Q: usize> {
    probabilities: &'a [f32],
    cache: &'a [&'a KvCache],
    rows: &'a ScoreRows,
    to: &'a mut [f32],
}

impl<const Q: usize> WithSimd for WeightedValues<'_, Q> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            probabilities,
            cache,
            rows,
            to,
        } = self;
        let row = to.len() / Q / S::F32_LANES;
        let (to, _) = S::as_mut_simd_f32s(to);
        let mut from = 0;
        for segment in cache {
            let keys = rows.within(from, segment);
            let (values, _) = S::as_simd_f32s(segment.values.as_flattened());
            for first in keys.clone().step_by(KEYS_PER_PASS) {
                let count = KEYS_PER_PASS.min(keys.end - first);
                let values = &values[first * row..(first + count) * row];
                let at = from + first - rows.origin;
                let probabilities: [&[f32]; Q] =
                    std::array::from_fn(|q| &probabilities[q * rows.stride + at..][..count]);
                let mut at = 0;
                while at + 2 <= row {
                    columns::<S, Q, 2>(simd, &probabilities, values, [row, at], to);
                    at += 2;
                }
                if at < row {
                    columns::<S, Q, 1>(simd, &probabilities, values, [row, at], to);
                }
            }
            from += segment.length;
        }
    }
}

/// Adds C vectors from `at` on of each row of `values`, weighted by its probability for each of Q queries.
#[inline(always)]
fn columns<S: Simd, const Q: usize, const C: usize>(
    simd: S,
    probabilities: &[&[f32]; Q],
    values: &[S::f32s],
    [row, at]: [usize; 2],
    to: &mut [S::f32s],
) {
    let mut sums: [[S::f32s; C]; Q] = std::array::from_fn(|q| std::array::from_fn(|c| to[q * row + at + c]));
    for (t, values) in values.chunks_exact(row).enumerate() {
        let values: [S::f32s; C] = std::array::from_fn(|c| values[at + c]);
        for q in 0..Q {
            let probability = simd.splat_f32s(probabilities[q][t]);
            for c in 0..C {
                sums[q][c] = simd.mul_add_e_f32s(probability, values[c], sums[q][c]);
            }
        }
    }
    for (q, sums) in sums.into_iter().enumerate() {
        for (c, sum) in sums.into_iter().enumerate() {
            to[q * row + at + c] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_values::values;
    use proptest::prelude::*;

    /// `lengths` keys in each segment.
    fn segments(lengths: &[usize], width: usize, seed: u64) -> Vec<KvCache> {
        let all: usize = lengths.iter().sum();
        let (keys, kept) = (values(all * width, seed), values(all * width, seed + 1));
        let mut rows = keys.chunks_exact(width).zip(kept.chunks_exact(width));
        lengths
            .iter()
            .map(|length| {
                let mut segment = KvCache::new(width);
                rows.by_ref()
                    .take(*length)
                    .for_each(|(key, value)| segment.push(key, value));
                segment
            })
            .collect()
    }

    fn attended(queries: &[f32], seen: &[Range<usize>], segments: &[KvCache]) -> Vec<f32> {
        let mut to = vec![f32::NAN; queries.len()];
        let mut scratch = vec![f32::NAN; 7];
        attend(
            queries,
            seen,
            &segments.iter().collect::<Vec<_>>(),
            &mut scratch,
            &mut to,
        );
        to
    }

    /// The definition in f64.
    fn expected(queries: &[f32], seen: &[Range<usize>], count: usize, width: usize, seed: u64) -> Vec<f64> {
        let (keys, kept) = (values(count * width, seed), values(count * width, seed + 1));
        let row = |values: &[f32], i: usize| -> Vec<f64> {
            values[i * width..(i + 1) * width]
                .iter()
                .map(|x| f64::from(*x))
                .collect()
        };
        let mut to = Vec::new();
        for (i, seen) in seen.iter().enumerate() {
            let q = row(queries, i);
            let weight = |t: usize| row(&keys, t).iter().zip(&q).map(|(k, q)| k * q).sum::<f64>().exp();
            let weights: Vec<f64> = seen.clone().map(weight).collect();
            let total: f64 = weights.iter().sum();
            to.extend((0..width).map(|w| {
                let terms = seen.clone().zip(&weights);
                terms
                    .map(|(t, p)| p / total * f64::from(kept[t * width + w]))
                    .sum::<f64>()
            }));
        }
        to
    }

    /// Queries that see the first keys, all of them and with windows.
    fn check(lengths: &[usize], seen: &[usize], width: usize) {
        let from = |first: &dyn Fn(usize) -> usize| seen.iter().map(|end| first(*end)..*end).collect::<Vec<_>>();
        check_ranges(lengths, &from(&|_| 0), width);
        for window in [1, 3, 16, 50] {
            check_ranges(lengths, &from(&|end| end.saturating_sub(window)), width);
        }
    }

    fn check_ranges(lengths: &[usize], seen: &[Range<usize>], width: usize) {
        let count: usize = lengths.iter().sum();
        let queries = values(seen.len() * width, 5);
        let found = attended(&queries, seen, &segments(lengths, width, 9));
        for (found, expected) in found.iter().zip(expected(&queries, seen, count, width, 9)) {
            assert!(
                (f64::from(*found) - expected).abs() < 3e-6,
                "{lengths:?}, {seen:?}, width {width}: {found} instead of {expected}"
            );
        }
        // In one segment, and each query alone.
        assert_eq!(found, attended(&queries, seen, &segments(&[count], width, 9)));
        for (i, seen) in seen.iter().enumerate() {
            let alone = &queries[i * width..(i + 1) * width];
            let alone = attended(alone, std::slice::from_ref(seen), &segments(lengths, width, 9));
            assert_eq!(found[i * width..(i + 1) * width], alone, "query {i} alone");
        }
    }

    #[test]
    fn attention_is_its_definition_however_keys_are_cut() {
        check(&[1], &[1], 64);
        check(&[15, 1, 17], &[33, 32, 1], 64);
        check(&[0, 40, 0, 3, 0], &[43, 42, 41, 40, 39, 1], 8);
        check(&[600, 90], &[690, 690, 690], 64);
        check(&[31], &[31, 2, 16, 17], 72);
        check(&[5, 5], &[10], 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_sizes(
            lengths in proptest::collection::vec(0usize..70, 1..4),
            shares in proptest::collection::vec(0.0f64..1.0, 1..14),
            width in 1usize..90,
        ) {
            let count: usize = lengths.iter().sum();
            if count > 0 {
                let seen: Vec<usize> = shares.iter().map(|s| 1 + (s * count as f64) as usize % count).collect();
                check(&lengths, &seen, width);
            }
        }
    }

    #[test]
    fn what_was_cut_off_is_forgotten() {
        let mut short = segments(&[40], 20, 3).remove(0);
        let whole = short.clone();
        for (cut, queries) in [(39, 1), (17, 2), (16, 1), (1, 4)] {
            short.truncate(cut);
            assert_eq!(short.len(), cut);
            let queries = values(queries * 20, 1);
            let seen = vec![0..cut; queries.len() / 20];
            assert_eq!(
                attended(&queries, &seen, std::slice::from_ref(&short)),
                attended(&queries, &seen, std::slice::from_ref(&whole))
            );
        }
        // Written again after the cut.
        let (keys, kept) = (values(40 * 20, 3), values(40 * 20, 4));
        for t in 1..40 {
            short.push(&keys[t * 20..(t + 1) * 20], &kept[t * 20..(t + 1) * 20]);
        }
        let queries = values(20, 1);
        let all = std::slice::from_ref(&(0..40));
        assert_eq!(attended(&queries, all, &[short]), attended(&queries, all, &[whole]));
    }

    #[test]
    #[should_panic(expected = "queries that see [0..4] of 3 keys")]
    fn no_query_sees_more_than_there_is() {
        attended(&values(8, 1), std::slice::from_ref(&(0..4)), &segments(&[3], 8, 1));
    }
}
