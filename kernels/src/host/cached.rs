//! Softmax attention of new queries over keys and values that are kept, one key head at a time.
//!
//! What generation with a cache does at every token. Keys and values may lie in several pieces, one
//! after the other: those of a prefix that other texts share, then a text's own. Every result is
//! summed up in an order that depends on the number of keys alone, so it is the same to the last bit
//! however the keys are cut into pieces, and whatever other queries are computed beside it.
//!
//! Keys lie in blocks of sixteen, the first value of all of them, then the second: sixteen scores are
//! one vector, and no sum has to be taken across one.

use super::attention::softmax;
use super::vectorised;

/// Keys in a block, and values in a vector.
const LANES: usize = 16;

/// Queries that are computed together at most.
const TOGETHER: usize = 4;

/// Keys whose values stay in the first cache while a group of queries passes over them.
const KEYS_AT_A_TIME: usize = 64;

/// Keys and values of one head that grow at the end.
#[derive(Debug, Clone)]
pub struct KeyValues {
    width: usize,
    length: usize,
    /// Block by block `[width][16]`.
    keys: Vec<[f32; LANES]>,
    /// Row by row, each filled up with zeros to whole vectors.
    values: Vec<[f32; LANES]>,
}

impl KeyValues {
    /// None yet, of `width` values each.
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

    /// Makes room for `more` keys beyond those that are there, and no more than that.
    pub fn reserve(&mut self, more: usize) {
        let length = self.length + more;
        let blocks = length.div_ceil(LANES) * self.width;
        self.keys.reserve_exact(blocks.saturating_sub(self.keys.len()));
        let rows = length * self.row();
        self.values.reserve_exact(rows.saturating_sub(self.values.len()));
    }

    /// Adds a key and its value. Without room the room grows by a quarter.
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

    /// Forgets all but the first `length`; the room stays.
    pub fn truncate(&mut self, length: usize) {
        if length < self.length {
            self.length = length;
            self.keys.truncate(length.div_ceil(LANES) * self.width);
            self.values.truncate(length * self.row());
        }
    }
}

/// Attention of `queries` `[Q, W]`, already scaled, over `kept`, one piece after the other, into `to`
/// `[Q, W]`. Query i sees the first `seen[i]` keys, at least one. `scratch` is memory that the next
/// call may use again.
///
/// # Panics
/// If the sizes do not fit together, or a query sees no key or more than there are.
pub fn attend(queries: &[f32], seen: &[usize], kept: &[&KeyValues], scratch: &mut Vec<f32>, to: &mut [f32]) {
    let Some(width) = kept.first().map(|piece| piece.width) else {
        assert!(seen.is_empty(), "{} queries without a key", seen.len());
        return;
    };
    let all: usize = kept.iter().map(|piece| piece.length).sum();
    assert!(
        queries.len() == seen.len() * width && to.len() == queries.len() && kept.iter().all(|k| k.width == width),
        "{} queries of {width} with {} values and {} results",
        seen.len(),
        queries.len(),
        to.len()
    );
    assert!(
        seen.iter().all(|n| (1..=all).contains(n)),
        "queries that see {seen:?} of {all} keys"
    );
    let last = seen.iter().copied().max().unwrap_or(0);
    // A whole block is written at a time, wherever it starts.
    let stride = last + LANES;
    scratch.resize(seen.len() * stride, 0.0);
    let groups = |i: usize| i..(i + TOGETHER).min(seen.len());
    for group in (0..seen.len()).step_by(TOGETHER).map(groups) {
        let queries = &queries[group.start * width..group.end * width];
        let scores = &mut scratch[group.start * stride..group.end * stride];
        let to = &mut to[group.start * width..group.end * width];
        let seen = &seen[group.clone()];
        match group.len() {
            1 => attend_group::<1>(queries, seen, kept, [width, last, stride], scores, to),
            2 => attend_group::<2>(queries, seen, kept, [width, last, stride], scores, to),
            3 => attend_group::<3>(queries, seen, kept, [width, last, stride], scores, to),
            _ => attend_group::<TOGETHER>(queries, seen, kept, [width, last, stride], scores, to),
        }
    }
}

/// [`attend`] of Q queries; keys from `last` on are seen by none.
fn attend_group<const Q: usize>(
    queries: &[f32],
    seen: &[usize],
    kept: &[&KeyValues],
    [width, last, stride]: [usize; 3],
    scores: &mut [f32],
    to: &mut [f32],
) {
    // One value of all queries after another.
    let turned: Vec<[f32; Q]> = (0..width)
        .map(|w| std::array::from_fn(|q| queries[q * width + w]))
        .collect();
    vectorised(
        #[inline(always)]
        || {
            let mut from = 0;
            for piece in kept {
                let count = piece.length.min(last - from);
                let blocks = &piece.keys[..count.div_ceil(LANES) * width];
                // Two blocks at a time, so that enough sums are under way.
                let mut pairs = blocks.chunks_exact(2 * width.max(1));
                for (i, pair) in (&mut pairs).enumerate() {
                    let (left, right) = pair.split_at(width);
                    let sums = two_blocks(&turned, left, right);
                    for (row, [left, right]) in scores.chunks_exact_mut(stride).zip(sums) {
                        let to = &mut row[from + i * 2 * LANES..];
                        // What lies beyond the last key of a piece the next piece writes over.
                        to[..LANES].copy_from_slice(&left);
                        to[LANES..2 * LANES].copy_from_slice(&right);
                    }
                }
                if !pairs.remainder().is_empty() {
                    let i = blocks.len() / (2 * width);
                    let sums = one_block(&turned, pairs.remainder());
                    for (row, sums) in scores.chunks_exact_mut(stride).zip(sums) {
                        row[from + i * 2 * LANES..][..LANES].copy_from_slice(&sums);
                    }
                }
                from += count;
            }
        },
    );
    for (row, seen) in scores.chunks_exact_mut(stride).zip(seen) {
        let (seen, hidden) = row.split_at_mut(*seen);
        softmax(seen);
        hidden.fill(0.0);
    }
    mix::<Q>(scores, kept, [width, last, stride], to);
}

/// Scores of Q queries, value by value, with the keys of two blocks.
#[inline(always)]
fn two_blocks<const Q: usize>(
    queries: &[[f32; Q]],
    left: &[[f32; LANES]],
    right: &[[f32; LANES]],
) -> [[[f32; LANES]; 2]; Q] {
    let mut sums = [[[0.0f32; LANES]; 2]; Q];
    for ((x, left), right) in queries.iter().zip(left).zip(right) {
        for q in 0..Q {
            for l in 0..LANES {
                sums[q][0][l] += x[q] * left[l];
            }
            for l in 0..LANES {
                sums[q][1][l] += x[q] * right[l];
            }
        }
    }
    sums
}

/// The same with one block.
#[inline(always)]
fn one_block<const Q: usize>(queries: &[[f32; Q]], keys: &[[f32; LANES]]) -> [[f32; LANES]; Q] {
    let mut sums = [[0.0f32; LANES]; Q];
    for (x, keys) in queries.iter().zip(keys) {
        for q in 0..Q {
            for l in 0..LANES {
                sums[q][l] += x[q] * keys[l];
            }
        }
    }
    sums
}

/// The values, each times its share, added up for Q queries: `to` `[Q, width]`.
fn mix<const Q: usize>(shares: &[f32], kept: &[&KeyValues], [width, last, stride]: [usize; 3], to: &mut [f32]) {
    let vectors = width.div_ceil(LANES);
    let mut mixed = vec![[[0.0f32; LANES]; Q]; vectors];
    vectorised(
        #[inline(always)]
        || {
            let mut from = 0;
            for piece in kept {
                let count = piece.length.min(last - from);
                for first in (0..count).step_by(KEYS_AT_A_TIME) {
                    let keys = KEYS_AT_A_TIME.min(count - first);
                    let values = &piece.values[first * vectors..(first + keys) * vectors];
                    let rows: [&[f32]; Q] = std::array::from_fn(|q| &shares[q * stride + from + first..][..keys]);
                    for (group, mixed) in mixed.chunks_mut(4).enumerate() {
                        match mixed {
                            [a, b, c, d] => mix_four(&rows, values, [vectors, 4 * group], [a, b, c, d]),
                            some => {
                                for (i, mixed) in some.iter_mut().enumerate() {
                                    mix_one(&rows, values, [vectors, 4 * group + i], mixed);
                                }
                            }
                        }
                    }
                }
                from += count;
            }
        },
    );
    for (q, to) in to.chunks_exact_mut(width).enumerate() {
        for (to, mixed) in to.chunks_mut(LANES).zip(&mixed) {
            to.copy_from_slice(&mixed[q][..to.len()]);
        }
    }
}

/// Vectors `at` to `at + 3` of the rows of `values`, `vectors` each.
#[inline(always)]
fn mix_four<const Q: usize>(
    shares: &[&[f32]; Q],
    values: &[[f32; LANES]],
    [vectors, at]: [usize; 2],
    mixed: [&mut [[f32; LANES]; Q]; 4],
) {
    let mut sums: [[[f32; LANES]; Q]; 4] = std::array::from_fn(|v| *mixed[v]);
    for (t, row) in values.chunks_exact(vectors).enumerate() {
        let row = &row[at..at + 4];
        for q in 0..Q {
            let share = shares[q][t];
            for v in 0..4 {
                for l in 0..LANES {
                    sums[v][q][l] += share * row[v][l];
                }
            }
        }
    }
    for (mixed, sums) in mixed.into_iter().zip(sums) {
        *mixed = sums;
    }
}

/// Vector `at` of the rows of `values`.
#[inline(always)]
fn mix_one<const Q: usize>(
    shares: &[&[f32]; Q],
    values: &[[f32; LANES]],
    [vectors, at]: [usize; 2],
    mixed: &mut [[f32; LANES]; Q],
) {
    let mut sums = *mixed;
    for (t, row) in values.chunks_exact(vectors).enumerate() {
        for q in 0..Q {
            let share = shares[q][t];
            for l in 0..LANES {
                sums[q][l] += share * row[at][l];
            }
        }
    }
    *mixed = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_values::values;
    use proptest::prelude::*;

    /// `lengths` keys in each piece.
    fn pieces(lengths: &[usize], width: usize, seed: u64) -> Vec<KeyValues> {
        let all: usize = lengths.iter().sum();
        let (keys, kept) = (values(all * width, seed), values(all * width, seed + 1));
        let mut rows = keys.chunks_exact(width).zip(kept.chunks_exact(width));
        lengths
            .iter()
            .map(|length| {
                let mut piece = KeyValues::new(width);
                rows.by_ref()
                    .take(*length)
                    .for_each(|(key, value)| piece.push(key, value));
                piece
            })
            .collect()
    }

    fn attended(queries: &[f32], seen: &[usize], pieces: &[KeyValues]) -> Vec<f32> {
        let mut to = vec![f32::NAN; queries.len()];
        let mut scratch = vec![f32::NAN; 7];
        attend(queries, seen, &pieces.iter().collect::<Vec<_>>(), &mut scratch, &mut to);
        to
    }

    /// The definition in f64.
    fn expected(queries: &[f32], seen: &[usize], count: usize, width: usize, seed: u64) -> Vec<f64> {
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
            let weights: Vec<f64> = (0..*seen).map(weight).collect();
            let total: f64 = weights.iter().sum();
            to.extend((0..width).map(|w| {
                let terms = weights.iter().enumerate();
                terms
                    .map(|(t, p)| p / total * f64::from(kept[t * width + w]))
                    .sum::<f64>()
            }));
        }
        to
    }

    fn check(lengths: &[usize], seen: &[usize], width: usize) {
        let count: usize = lengths.iter().sum();
        let queries = values(seen.len() * width, 5);
        let found = attended(&queries, seen, &pieces(lengths, width, 9));
        for (found, expected) in found.iter().zip(expected(&queries, seen, count, width, 9)) {
            assert!(
                (f64::from(*found) - expected).abs() < 3e-6,
                "{lengths:?}, {seen:?}, width {width}: {found} instead of {expected}"
            );
        }
        // In one piece, and each query alone.
        assert_eq!(found, attended(&queries, seen, &pieces(&[count], width, 9)));
        for (i, seen) in seen.iter().enumerate() {
            let alone = &queries[i * width..(i + 1) * width];
            let alone = attended(alone, &[*seen], &pieces(lengths, width, 9));
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
        let mut short = pieces(&[40], 20, 3).remove(0);
        let whole = short.clone();
        for (cut, queries) in [(39, 1), (17, 2), (16, 1), (1, 4)] {
            short.truncate(cut);
            assert_eq!(short.len(), cut);
            let queries = values(queries * 20, 1);
            let seen = vec![cut; queries.len() / 20];
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
        assert_eq!(attended(&queries, &[40], &[short]), attended(&queries, &[40], &[whole]));
    }

    #[test]
    #[should_panic(expected = "queries that see [4] of 3 keys")]
    fn no_query_sees_more_than_there_is() {
        attended(&values(8, 1), &[4], &pieces(&[3], 8, 1));
    }
}
