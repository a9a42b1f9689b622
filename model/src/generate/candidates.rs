//! What may follow the next token of a text: candidates for drafts, from the heads and from the text.

use crate::sampling::{Sampling, most_probable};

/// A token of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draft {
    pub token: u32,
    /// Whether a head gave it, that of its depth; otherwise it is copied from the text.
    pub of_head: bool,
}

/// Tokens copied from the text, with the probability of the first and of each later one after those before it.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    pub tokens: &'a [u32],
    pub probabilities: [f64; 2],
}

/// Tokens that may follow the next one of a text, with their probabilities: a tree of branches, no two of which begin
/// with the same token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Candidates {
    branches: Vec<Vec<Draft>>,
    /// Probability and branch of each candidate, the most probable first; a token's ancestors before it.
    nodes: Vec<(f64, usize)>,
}

impl Candidates {
    /// From the `logits` of heads 2, 3, ... and from a copy; at most `most` tokens.
    ///
    /// A branch begins with one of head 2's `width` most probable tokens and continues with the best token of each
    /// later head; of all these tokens the `most` most probable ones are taken, by the product of the heads'
    /// probabilities up to them. A branch ends where no choice can be made. A copy is a branch as well; where a head
    /// begins with the same token the two are one branch, which continues as the copy does.
    pub fn new(sampling: &Sampling, logits: &[&[f32]], copied: Option<Copied<'_>>, [width, most]: [usize; 2]) -> Self {
        let sharpness = sampling.sharpness();
        let (first, later) = match logits.split_first() {
            Some((second, later)) => {
                let best = |logits: &&[f32]| most_probable(logits, 1, sharpness).pop();
                let later = later.iter().map_while(best).collect();
                (most_probable(second, width, sharpness), later)
            }
            None => (Vec::new(), Vec::new()),
        };
        Self::tree(first, later, copied, most)
    }

    /// The `most` most probable tokens of all branches.
    fn tree(first: Vec<(u32, f64)>, later: Vec<(u32, f64)>, copied: Option<Copied<'_>>, most: usize) -> Self {
        let of_head = |(token, p): &(u32, f64)| {
            (
                Draft {
                    token: *token,
                    of_head: true,
                },
                *p,
            )
        };
        let mut branches: Vec<Vec<(Draft, f64)>> = first
            .iter()
            .map(|first| std::iter::once(first).chain(&later).map(of_head).collect())
            .collect();
        if let Some((copied, token)) = copied.and_then(|copied| Some((copied, *copied.tokens.first()?))) {
            let [p_first, p_later] = copied.probabilities;
            let same = branches.iter().position(|branch| branch[0].0.token == token);
            let branch = same.unwrap_or_else(|| {
                branches.push(vec![(Draft { token, of_head: false }, 0.0)]);
                branches.len() - 1
            });
            let branch = &mut branches[branch];
            // Two that say the same are right unless both are wrong.
            branch[0].1 = 1.0 - (1.0 - branch[0].1) * (1.0 - p_first);
            for (i, &token) in copied.tokens.iter().enumerate().skip(1) {
                let of_head = same.is_some() && later.get(i - 1).is_some_and(|(best, _)| *best == token);
                branch.truncate(i);
                branch.push((Draft { token, of_head }, p_later));
            }
        }
        // Probability, branch, depth.
        let mut nodes = Vec::new();
        for (branch, drafts) in branches.iter().enumerate() {
            let mut product = 1.0;
            for (depth, (_, p)) in drafts.iter().enumerate() {
                product *= p;
                nodes.push((product, branch, depth));
            }
        }
        // A token's ancestors are never less probable, and are taken first among equals.
        nodes.sort_by(|(p, branch, depth), (q, other, deeper)| {
            q.total_cmp(p).then(depth.cmp(deeper)).then(branch.cmp(other))
        });
        nodes.truncate(most);
        let drafts = |branch: Vec<(Draft, f64)>| branch.into_iter().map(|(draft, _)| draft).collect();
        Self {
            branches: branches.into_iter().map(drafts).collect(),
            nodes: nodes.into_iter().map(|(p, branch, _)| (p, branch)).collect(),
        }
    }

    /// Their probabilities, the highest first.
    pub fn probabilities(&self) -> impl Iterator<Item = f64> {
        self.nodes.iter().map(|(p, _)| *p)
    }

    /// The branches of the `count` most probable of them.
    pub fn branches(&self, count: usize) -> Vec<Vec<Draft>> {
        let mut lengths = vec![0; self.branches.len()];
        for (_, branch) in self.nodes.iter().take(count) {
            lengths[*branch] += 1;
        }
        let taken = self.branches.iter().zip(lengths).filter(|(_, length)| *length > 0);
        taken.map(|(branch, length)| branch[..length].to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(copied: Option<Copied<'_>>, most: usize) -> Candidates {
        Candidates::tree(vec![(1, 0.5), (2, 0.25)], vec![(3, 0.5), (4, 0.5)], copied, most)
    }

    fn tokens(candidates: &Candidates, count: usize) -> Vec<Vec<u32>> {
        let branches = candidates.branches(count);
        branches
            .iter()
            .map(|branch| branch.iter().map(|draft| draft.token).collect())
            .collect()
    }

    fn of_heads(candidates: &Candidates) -> Vec<Vec<bool>> {
        let branches = candidates.branches(usize::MAX);
        branches
            .iter()
            .map(|branch| branch.iter().map(|draft| draft.of_head).collect())
            .collect()
    }

    #[test]
    fn the_most_probable_tokens_of_all_branches_are_taken() {
        let all = tree(None, 6);
        // 1: 0.5, 0.25, 0.125; 2: 0.25, 0.125, 0.0625; at equals the shallower one.
        assert_eq!(
            all.probabilities().collect::<Vec<_>>(),
            [0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]
        );
        assert_eq!(tokens(&all, 2), [vec![1], vec![2]]);
        assert_eq!(tokens(&all, 4), [vec![1, 3], vec![2, 3]]);
        assert_eq!(tokens(&tree(None, 3), 9), [vec![1, 3], vec![2]]);
    }

    #[test]
    fn a_copy_is_a_branch() {
        let copied = Copied {
            tokens: &[7, 8],
            probabilities: [0.75, 0.5],
        };
        let all = tree(Some(copied), 4);
        assert_eq!(all.probabilities().collect::<Vec<_>>(), [0.75, 0.5, 0.375, 0.25]);
        assert_eq!(tokens(&all, 4), [vec![1], vec![2], vec![7, 8]]);
        assert_eq!(of_heads(&all), [vec![true], vec![true], vec![false, false]]);
        let alone = Candidates::tree(Vec::new(), Vec::new(), Some(copied), 9);
        assert_eq!(tokens(&alone, 9), [[7, 8]]);
    }

    #[test]
    fn a_copy_that_begins_as_a_head_does_is_one_branch_with_it() {
        let copied = |tokens| Copied {
            tokens,
            probabilities: [0.5, 0.5],
        };
        // 1 - 0.75 * 0.5 for both; then as the copy continues, of which the second token is head 3's too.
        let all = tree(Some(copied(&[2, 3, 9])), 6);
        assert_eq!(tokens(&all, 9), [vec![1, 3, 4], vec![2, 3, 9]]);
        assert_eq!(of_heads(&all), [vec![true; 3], vec![true, true, false]]);
        assert_eq!(
            all.probabilities().collect::<Vec<_>>(),
            [0.625, 0.5, 0.3125, 0.25, 0.15625, 0.125]
        );
        // A single token leaves the heads' continuation.
        assert_eq!(tokens(&tree(Some(copied(&[2])), 6), 9), [vec![1, 3, 4], vec![2, 3, 4]]);
        assert_eq!(tokens(&tree(Some(copied(&[])), 2), 9), [vec![1], vec![2]]);
    }
}
