use crate::{Batch, BatchingConfig, Dataset, Epoch, StepShape, Tokenized};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Documents with globally unique token ids, so that every token can be traced.
fn documents(lengths: &[(usize, usize)]) -> Vec<Tokenized> {
    let mut next = 0;
    lengths
        .iter()
        .enumerate()
        .map(|(sample, &(prompt_len, response))| {
            let len = (prompt_len + response) as u32;
            next += len;
            Tokenized {
                sample,
                name: format!("doc/{sample}"),
                problem: sample as u32 / 3,
                tokens: (next - len..next).collect(),
                prompt_len,
                untrained: Vec::new(),
                given: Vec::new(),
                reward: None,
            }
        })
        .collect()
}

/// All micro-batches of an epoch.
fn all(epoch: &Epoch) -> Vec<Batch> {
    epoch.batches().collect::<Result<_, _>>().unwrap()
}

fn sizes() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((1usize..20, 1usize..20), 1..60)
}

/// Checks a list of batches against the documents they are made of: each exactly once.
fn check(batches: &[Batch], documents: &[Tokenized]) -> Result<(), TestCaseError> {
    let owner: BTreeMap<u32, usize> = documents
        .iter()
        .flat_map(|d| d.tokens.iter().map(|&t| (t, d.sample)))
        .collect();
    let mut head_1 = Vec::new();
    for batch in batches {
        let s = batch.seq_len;
        prop_assert_eq!(batch.tokens.len(), batch.rows * s);
        for (i, &doc) in batch.docs.iter().enumerate() {
            let start = i % s == 0 || batch.docs[i - 1] != doc;
            let padding = doc == Batch::PADDING;
            // Positions restart in each document, and a document is one unbroken run of one owner.
            prop_assert_eq!(
                batch.positions[i],
                if start || padding {
                    0
                } else {
                    batch.positions[i - 1] + 1
                }
            );
            if padding {
                prop_assert!(!batch.response[i]);
            } else if !start {
                prop_assert_eq!(owner[&batch.tokens[i]], owner[&batch.tokens[i - 1]]);
            }
        }
        // What attends to what: equal (row, doc) must mean equal owner.
        let mut numbers: BTreeMap<(usize, i32), usize> = BTreeMap::new();
        for (i, &doc) in batch.docs.iter().enumerate().filter(|(_, d)| **d != Batch::PADDING) {
            let sample = owner[&batch.tokens[i]];
            prop_assert_eq!(*numbers.entry((i / s, doc)).or_insert(sample), sample);
        }
        for k in 1..=4 {
            for (i, &target) in batch
                .targets(k)
                .iter()
                .enumerate()
                .filter(|(_, t)| **t != Batch::NO_TARGET)
            {
                // No target from another document, and it is the token k steps on.
                prop_assert_eq!(target as u32, batch.tokens[i] + k as u32);
                prop_assert_eq!(owner[&(target as u32)], owner[&batch.tokens[i]]);
            }
        }
        head_1.extend(
            batch
                .targets(1)
                .into_iter()
                .filter(|&t| t != Batch::NO_TARGET)
                .map(|t| t as u32),
        );
        for d in &batch.documents {
            let range = d.response(s);
            prop_assert!(batch.response[range.clone()].iter().all(|&r| r));
            prop_assert_eq!(range.len(), d.len - d.prompt_len);
            let base = d.row * s + d.start;
            prop_assert_eq!(&batch.tokens[base..base + d.len], &documents[d.sample].tokens[..]);
        }
    }
    // Every response token of every document exactly once as a head-1 target.
    head_1.sort_unstable();
    let wanted: Vec<u32> = documents
        .iter()
        .flat_map(|d| d.tokens[d.prompt_len..].to_vec())
        .collect();
    prop_assert_eq!(head_1, wanted);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_crosses_documents_and_every_response_token_is_learned_once(
        sizes in sizes(), seed: u64, epoch in 0usize..5, pack: bool, micro_batch in 1usize..4, accumulate in 1usize..4,
    ) {
        let documents = documents(&sizes);
        let set = Dataset::from_tokenized(documents.clone(), 40, pack).unwrap();
        let shape = StepShape { micro_batch, accumulate };
        let plan = set.epoch(seed, epoch, shape);
        let batches: Vec<Batch> = (0..plan.len()).flat_map(|s| plan.step(s).unwrap()).collect();
        check(&batches, &documents)?;
        let ragged: Vec<Batch> = batches.iter().map(Batch::ragged).collect();
        prop_assert!(ragged.iter().all(|b| b.rows == 1 && !b.docs.contains(&Batch::PADDING)));
        check(&ragged, &documents)?;
        prop_assert!(plan.step(plan.len()).unwrap().is_empty());
        for step in 0..plan.len() {
            let micro = plan.step(step).unwrap();
            prop_assert!(micro.len() <= accumulate);
            prop_assert!(micro.iter().all(|b| b.rows <= micro_batch));
            // Only the last step may be short.
            let rows: usize = micro.iter().map(|b| b.rows).sum();
            prop_assert!(rows == shape.rows() || step + 1 == plan.len());
            // Halved micro-batches hold the same rows.
            let tokens = |batches: &[Batch]| batches.iter().flat_map(|b| b.tokens.clone()).collect::<Vec<_>>();
            prop_assert_eq!(tokens(&plan.step_in(step, 1).unwrap()), tokens(&micro));
        }
        // A pure function of (seed, epoch): any step can be asked for again, in any order.
        let again = set.epoch(seed, epoch, shape);
        for step in (0..plan.len()).rev() {
            prop_assert_eq!(again.step(step).unwrap(), plan.step(step).unwrap());
        }
        check(&all(&set.in_order(micro_batch)), &documents)?;
        prop_assert_eq!(set.num_steps(seed, 3, shape), (0..3).map(|e| set.epoch(seed, e, shape).len()).sum::<usize>());
    }

    #[test]
    fn steps_by_problem_never_split_a_problem(sizes in sizes(), seed: u64, per_step in 1usize..12) {
        let documents = documents(&sizes);
        let set = Dataset::from_tokenized(documents.clone(), 40, true).unwrap();
        let plan = set.epoch_by_problem(seed, 0, per_step, 2, 0);
        let mut seen = BTreeSet::new();
        let mut batches = Vec::new();
        for step in 0..plan.len() {
            let micro = plan.step(step).unwrap();
            let problems: BTreeSet<u32> = micro.iter().flat_map(|b| &b.documents).map(|d| d.problem).collect();
            prop_assert!(problems.iter().all(|&p| seen.insert(p)));
            let count: usize = micro.iter().map(|b| b.documents.len()).sum();
            prop_assert!(count < per_step + 3 && (count >= per_step || step + 1 == plan.len()));
            batches.extend(micro);
        }
        check(&batches, &documents)?;

        // Some of them: the same in every epoch.
        let of = |epoch: usize| {
            let plan = set.epoch_by_problem(seed, epoch, per_step, 2, 3);
            let steps = (0..plan.len()).flat_map(|step| plan.step(step).unwrap());
            let mut samples: Vec<usize> = steps.flat_map(|b| b.documents).map(|d| d.sample).collect();
            samples.sort();
            samples
        };
        prop_assert_eq!(of(0), of(1));
        prop_assert!(of(0).len() >= documents.len().min(3) && of(0).len() < 3 + 3);
    }
}

#[test]
fn a_row_by_eye() {
    let set = Dataset::from_tokenized(documents(&[(2, 2), (1, 2)]), 8, true).unwrap();
    let batches = all(&set.in_order(2));
    assert_eq!(batches.len(), 1);
    let batch = &batches[0];
    let p = Batch::PADDING;
    assert_eq!(batch.tokens, [0, 1, 2, 3, 4, 5, 6, 0]);
    assert_eq!(batch.positions, [0, 1, 2, 3, 0, 1, 2, 0]);
    assert_eq!(batch.docs, [0, 0, 0, 0, 1, 1, 1, p]);
    let response: Vec<u8> = batch.response.iter().map(|&r| r as u8).collect();
    assert_eq!(response, [0, 0, 1, 1, 0, 1, 1, 0]);
    assert_eq!(batch.targets(1), [-1, 2, 3, -1, 5, 6, -1, -1]);
    assert_eq!(batch.targets(2), [2, 3, -1, -1, 6, -1, -1, -1]);
    assert_eq!(batch.response_tokens(), 4);
}

#[test]
fn validation_takes_whole_problems_from_everywhere() {
    // Ten problems of three documents.
    let set = Dataset::from_tokenized(documents(&[(1, 1); 30]), 8, true).unwrap();
    let samples = |most: usize| {
        let batches = all(&set.for_validation(2, most)).into_iter();
        batches
            .flat_map(|batch| batch.documents)
            .map(|document| document.sample)
            .collect::<Vec<_>>()
    };
    let everything: Vec<usize> = (0..30).collect();
    for most in [0, 30, 31] {
        assert_eq!(samples(most), everything);
    }
    assert_eq!(samples(1), [0, 1, 2]);
    // Every fifth problem: 2 of 10 for 6 of 30 documents.
    assert_eq!(samples(6), [0, 1, 2, 15, 16, 17]);
    assert_eq!(samples(15), [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20, 24, 25, 26]);
    assert_eq!(samples(29).len(), 27);
}

#[test]
fn documents_that_do_not_fit_are_left_out_and_named() {
    let set = Dataset::from_tokenized(documents(&[(2, 2), (5, 4), (4, 4)]), 8, true).unwrap();
    assert_eq!(set.report().dropped, [("doc/1".to_string(), 9)]);
    assert_eq!(
        (
            set.report().documents,
            set.report().prompt_tokens,
            set.report().response_tokens
        ),
        (2, 6, 6)
    );
}

#[test]
fn the_hash_follows_the_content() {
    let hash = |sizes: &[(usize, usize)], edit: &dyn Fn(&mut Vec<Tokenized>)| {
        let mut documents = documents(sizes);
        edit(&mut documents);
        Dataset::from_tokenized(documents, 40, true).unwrap().hash().to_owned()
    };
    let plain = hash(&[(2, 3), (4, 5)], &|_| {});
    assert_eq!(plain, hash(&[(2, 3), (4, 5)], &|_| {}));
    assert_eq!(plain.len(), 64);
    assert_ne!(plain, hash(&[(3, 2), (4, 5)], &|_| {}));
    assert_ne!(plain, hash(&[(2, 3), (4, 5)], &|d| d[1].tokens[0] = 99));
    assert_ne!(plain, hash(&[(2, 3), (4, 5)], &|d| d[0].reward = Some(0.0)));
    assert_ne!(plain, hash(&[(2, 3), (4, 5)], &|d| d.swap(0, 1)));
}

/// Runs are resumed by these: what they were before documents could be on disk.
#[test]
fn hashes_and_epochs_are_those_of_earlier_versions() {
    let other = documents(&[(2, 3), (4, 5)]).remove(1);
    let data = Dataset::from_tokenized(vec![conversation(), other], 12, true).unwrap();
    assert_eq!(
        data.hash(),
        "bd620c98bee5142d5e8c0bebe78dc1009e6705bb01c85cdc0c10e4139f7897e7"
    );
    let mut many = documents(&[(2, 3), (4, 5), (1, 1), (7, 3), (2, 2), (30, 20)]);
    many[1].reward = Some(0.5);
    let parts = vec![(0.5, many[..4].to_vec()), (2.0, many[4..].to_vec())];
    assert_eq!(
        Dataset::mixed(parts, 12, true).unwrap().hash(),
        "91b243103e19eec998558afce93086abfcb9422cb717867101e8aef81138db42"
    );
    let sizes = [(2, 3), (4, 5), (1, 1), (7, 3), (2, 2), (3, 2), (1, 6), (2, 5)];
    let data = Dataset::from_tokenized(documents(&sizes), 12, true).unwrap();
    let samples = |epoch: Epoch| -> Vec<Vec<(usize, usize)>> {
        let batches = all(&epoch).into_iter();
        batches
            .map(|b| b.documents.iter().map(|d| (d.row, d.sample)).collect())
            .collect()
    };
    let shape = StepShape {
        micro_batch: 2,
        accumulate: 1,
    };
    assert_eq!(
        samples(data.epoch(7, 3, shape)),
        [
            vec![(0, 4), (0, 2), (0, 0), (1, 3)],
            vec![(0, 7), (0, 5), (1, 6)],
            vec![(0, 1)]
        ]
    );
    assert_eq!(
        samples(data.epoch_by_problem(7, 3, 3, 2, 0)),
        [
            vec![(0, 3), (1, 4), (1, 5)],
            vec![(0, 0), (0, 2), (1, 1)],
            vec![(0, 6), (1, 7)]
        ]
    );
}

#[test]
fn the_step_shape_follows_the_recipe() {
    let shape = |micro_batch, accumulate, tokens_per_step| {
        let batching = BatchingConfig {
            micro_batch,
            accumulate,
            tokens_per_step,
        };
        batching.shape(512).map(|s| (s.micro_batch, s.accumulate))
    };
    assert_eq!(shape(2, None, None).unwrap(), (2, 1));
    assert_eq!(shape(2, Some(4), None).unwrap(), (2, 4));
    assert_eq!(shape(2, None, Some(8192)).unwrap(), (2, 8));
    assert!(
        shape(2, None, Some(1000))
            .unwrap_err()
            .to_string()
            .contains("is 1000, it must be a multiple of batching.micro_batch * data.seq_len = 1024")
    );
    assert!(
        shape(2, Some(2), Some(2048))
            .unwrap_err()
            .to_string()
            .contains("remove one of the two")
    );
    assert!(shape(0, None, None).is_err() && shape(2, Some(0), None).is_err() && shape(2, None, Some(0)).is_err());
}

/// A conversation of 9 tokens: 2 of the prompt, then 3..5 and 7..9 trained, the last two with weight 0.5.
fn conversation() -> Tokenized {
    Tokenized {
        untrained: vec![2..3, 5..7],
        given: vec![(7..9, 0.5)],
        ..documents(&[(2, 7)]).remove(0)
    }
}

#[test]
fn untrained_turns_are_no_targets_and_weights_follow_their_tokens() {
    let data = Dataset::from_tokenized(vec![conversation()], 12, true).unwrap();
    assert_eq!((data.report().prompt_tokens, data.report().response_tokens), (2, 4));
    let batch = &all(&data.in_order(1))[0];
    for batch in [batch, &batch.ragged()] {
        let trained: Vec<usize> = batch.trained(&batch.documents[0]).collect();
        assert_eq!(trained, [3, 4, 7, 8]);
        // Head 2 at position t predicts token t + 2.
        let valid: Vec<usize> = (0..batch.tokens.len()).filter(|&t| batch.valid(2)[t]).collect();
        assert_eq!(valid, [1, 2, 5, 6]);
        assert_eq!(batch.given[..9], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]);
    }
}

#[test]
fn a_document_is_cut_with_its_mask_and_weights() {
    let mut document = conversation();
    document.cut(8);
    assert_eq!((document.tokens.len(), document.trained_tokens()), (8, 3));
    assert_eq!(document.given, [(7..8, 0.5)]);
    document.cut(6);
    assert_eq!(
        (document.untrained.clone(), document.trained_tokens()),
        (vec![2..3, 5..6], 2)
    );
    assert!(document.given.is_empty());
    document.cut(3);
    assert_eq!(document.trained_tokens(), 0);
}
