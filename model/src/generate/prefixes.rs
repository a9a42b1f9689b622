//! Common prefixes of prompts, found in a radix tree (Morrison 1968; for KV caches Zheng et al. 2024,
//! SGLang, arXiv 2312.07104).
//!
//! All requests of a call are known, so nothing is cached speculatively: each shared prefix has the number
//! of requests that need it. Requests are taken in the order of the tree, depth first, so that in addition
//! to the segments of running texts at most those of one path are held.

use std::collections::BTreeMap;

/// Least tokens of a shared prefix. A shorter one saves less than its segment costs, which every attention
/// looks up.
const LEAST: usize = 16;

/// A run of tokens that several prompts share, after those of its ancestors.
#[derive(Debug, PartialEq, Eq)]
pub struct Shared {
    /// The run before, an index of [`Prefixes::shared`].
    pub parent: Option<usize>,
    /// A prompt that has it, and where: its tokens from `from` up to `to`.
    pub prompt: usize,
    pub from: usize,
    pub to: usize,
    /// Prompts that begin with it.
    pub users: usize,
}

/// The shared prefixes of the prompts of a call.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// Parents stand before their children.
    pub shared: Vec<Shared>,
    /// Each prompt's longest shared prefix, an index of `shared`.
    pub last: Vec<Option<usize>>,
    /// The prompts in the order in which they are taken.
    pub order: Vec<usize>,
}

/// A node of the tree: the tokens `from..to` of `prompt`.
struct Node {
    prompt: usize,
    from: usize,
    to: usize,
    /// By first token.
    children: BTreeMap<u32, usize>,
    /// Prompts that end here.
    ends: Vec<usize>,
    users: usize,
    /// The lowest index of a prompt below.
    first: usize,
}

impl Node {
    fn new(prompt: usize, from: usize, to: usize) -> Self {
        Self {
            prompt,
            from,
            to,
            children: BTreeMap::new(),
            ends: Vec::new(),
            users: 0,
            first: usize::MAX,
        }
    }

    fn pass(&mut self, prompt: usize) {
        self.users += 1;
        self.first = self.first.min(prompt);
    }
}

impl Prefixes {
    /// Nothing shared, in the order as given.
    pub fn none(prompts: usize) -> Self {
        Self {
            shared: Vec::new(),
            last: vec![None; prompts],
            order: (0..prompts).collect(),
        }
    }

    /// The common prefixes of `prompts`.
    pub fn of(prompts: &[&[u32]]) -> Self {
        let tree = tree(prompts);
        let mut found = Self {
            shared: Vec::new(),
            last: vec![None; prompts.len()],
            order: Vec::new(),
        };
        // Nodes with the shared run above each; the last one is taken next.
        let mut open = vec![(0, None)];
        while let Some((index, mut above)) = open.pop() {
            let node: &Node = &tree[index];
            let from = above.map_or(0, |above: usize| found.shared[above].to);
            if node.users > 1 && node.to - from >= LEAST {
                found.shared.push(Shared {
                    parent: above,
                    prompt: node.prompt,
                    from,
                    to: node.to,
                    users: node.users,
                });
                above = Some(found.shared.len() - 1);
            }
            for prompt in &node.ends {
                found.last[*prompt] = above;
                found.order.push(*prompt);
            }
            let mut below: Vec<usize> = node.children.values().copied().collect();
            below.sort_by_key(|child| std::cmp::Reverse(tree[*child].first));
            open.extend(below.into_iter().map(|child| (child, above)));
        }
        found
    }
}

/// The radix tree of the prompts; the root comes first.
fn tree(prompts: &[&[u32]]) -> Vec<Node> {
    let mut tree = vec![Node::new(0, 0, 0)];
    for (index, prompt) in prompts.iter().enumerate() {
        let mut at = 0;
        tree[at].pass(index);
        while tree[at].to < prompt.len() {
            let from = tree[at].to;
            let Some(&child) = tree[at].children.get(&prompt[from]) else {
                tree.push(Node::new(index, from, prompt.len()));
                let new = tree.len() - 1;
                tree[at].children.insert(prompt[from], new);
                tree[new].pass(index);
                at = new;
                break;
            };
            let edge = &prompts[tree[child].prompt][from..tree[child].to];
            let same = edge.iter().zip(&prompt[from..]).take_while(|(a, b)| a == b).count();
            if same < edge.len() {
                // The child is split: the common part comes before it.
                let (next, first, users) = (edge[same], tree[child].first, tree[child].users);
                let mut upper = Node::new(tree[child].prompt, from, from + same);
                upper.children.insert(next, child);
                (upper.first, upper.users) = (first, users);
                tree[child].from = from + same;
                tree.push(upper);
                let new = tree.len() - 1;
                tree[at].children.insert(prompt[from], new);
                at = new;
            } else {
                at = child;
            }
            tree[at].pass(index);
        }
        tree[at].ends.push(index);
    }
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(prompts: &[Vec<u32>]) -> Prefixes {
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        Prefixes::of(&prompts)
    }

    /// `count` tokens from `first` on, then `more`.
    fn text(first: u32, count: u32, more: &[u32]) -> Vec<u32> {
        (first..first + count).chain(more.iter().copied()).collect()
    }

    #[test]
    fn the_longest_common_prefix_is_one_run() {
        let found = of(&[text(0, 20, &[90, 91]), text(0, 20, &[92]), text(0, 20, &[93, 94, 95])]);
        let expected = Shared {
            parent: None,
            prompt: 0,
            from: 0,
            to: 20,
            users: 3,
        };
        assert_eq!(found.shared, [expected]);
        assert_eq!(found.last, [Some(0); 3]);
        assert_eq!(found.order, [0, 1, 2]);
    }

    #[test]
    fn runs_follow_one_another_and_prompts_are_taken_depth_first() {
        let prompts = [
            text(0, 20, &[]),
            text(50, 30, &[1]),
            text(0, 40, &[7]),
            text(50, 30, &[2]),
            text(0, 40, &[8]),
            vec![99],
        ];
        let found = of(&prompts);
        let shared: Vec<_> = found
            .shared
            .iter()
            .map(|s| (s.parent, prompts[s.prompt][s.from..s.to].to_vec(), s.users))
            .collect();
        assert_eq!(
            shared,
            [
                (None, text(0, 20, &[]), 3),
                (Some(0), text(20, 20, &[]), 2),
                (None, text(50, 30, &[]), 2)
            ]
        );
        assert_eq!(found.last, [Some(0), Some(2), Some(1), Some(2), Some(1), None]);
        assert_eq!(found.order, [0, 2, 4, 1, 3, 5]);
    }

    #[test]
    fn equal_prompts_share_all_of_it_and_short_runs_are_part_of_the_next() {
        let found = of(&[text(0, 17, &[]), text(0, 17, &[]), text(0, 8, &[70]), text(0, 8, &[70])]);
        // The first 8 tokens are common to all, which is too little; the first two share 17.
        let shared: Vec<_> = found.shared.iter().map(|s| (s.parent, s.from, s.to, s.users)).collect();
        assert_eq!(shared, [(None, 0, 17, 2)]);
        assert_eq!(found.last, [Some(0), Some(0), None, None]);
    }

    #[test]
    fn nothing_in_common_keeps_the_order() {
        let found = of(&[vec![], vec![3], vec![1], vec![]]);
        assert!(found.shared.is_empty());
        let mut order = found.order.clone();
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(of(&[]).order.is_empty());
        assert_eq!(Prefixes::none(3).order, [0, 1, 2]);
    }
}
