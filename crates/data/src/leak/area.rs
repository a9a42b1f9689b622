//! The area under the ROC curve, over everything and within groups.

use std::collections::BTreeMap;

/// The probability that a right program scores above a wrong one, ties counting one half: the Mann-Whitney
/// statistic from average ranks. None without both labels, or with a score that is NaN.
pub fn auroc(scores: &[(f64, bool)]) -> Option<f64> {
    let (ordered, pairs) = ordered_pairs(scores)?;
    (pairs > 0.0).then(|| ordered / pairs)
}

/// The same over the pairs of a right and a wrong program of one group. Groups count by their number of pairs;
/// what has no group is left out. None without a pair, or with a score that is NaN.
pub fn auroc_within<G: Ord>(scores: impl IntoIterator<Item = (Option<G>, (f64, bool))>) -> Option<f64> {
    let mut groups: BTreeMap<G, Vec<(f64, bool)>> = BTreeMap::new();
    for (group, score) in scores {
        if let Some(group) = group {
            groups.entry(group).or_default().push(score);
        }
    }
    let (mut ordered, mut pairs) = (0.0, 0.0);
    for scores in groups.values() {
        let (o, p) = ordered_pairs(scores)?;
        ordered += o;
        pairs += p;
    }
    (pairs > 0.0).then(|| ordered / pairs)
}

/// How many pairs of a right and a wrong program have the right one above, ties counting one half; and how
/// many there are. None with a score that is NaN.
fn ordered_pairs(scores: &[(f64, bool)]) -> Option<(f64, f64)> {
    if scores.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut right_sum, mut rights) = (0usize, 0.0, 0usize);
    for tied in sorted.chunk_by(|a, b| a.0 == b.0) {
        let here = tied.iter().filter(|(_, right)| *right).count();
        // Ranks below + 1 ..= below + tied.len(), all replaced by their average.
        right_sum += here as f64 * (below as f64 + (tied.len() + 1) as f64 / 2.0);
        rights += here;
        below += tied.len();
    }
    let (right, wrong) = (rights as f64, (sorted.len() - rights) as f64);
    Some((right_sum - right * (right + 1.0) / 2.0, right * wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_counts_ordered_pairs() {
        // Right at 3 and 1, wrong at 2 and 1: 3 > 2, 3 > 1, 1 < 2, 1 = 1: 2.5 of 4.
        let scores = [(3.0, true), (2.0, false), (1.0, true), (1.0, false)];
        assert_eq!(auroc(&scores), Some(0.625));
        assert_eq!(auroc(&[(1.0, true)]), None);
        assert_eq!(auroc(&[(f64::NAN, true), (1.0, false)]), None);
    }

    #[test]
    fn within_groups_only_pairs_of_a_group_count() {
        // Group a: 1 of 1. Group b: 2 > 1 no, both rights below one wrong: 0 of 2. c has no pair.
        let scores = [
            (Some('a'), (9.0, true)),
            (Some('a'), (8.0, false)),
            (Some('b'), (1.0, true)),
            (Some('b'), (0.0, true)),
            (Some('b'), (2.0, false)),
            (Some('c'), (7.0, false)),
            (None, (0.0, false)),
        ];
        assert_eq!(auroc_within(scores), Some(1.0 / 3.0));
        assert_eq!(auroc_within([(Some(1), (0.0, true)), (Some(2), (0.0, false))]), None);
    }
}
