//! Heads that draft change how fast a text comes, and not which text.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::tensor::{DType, Device};
use common::tiny::{best, config, logits, prompt, request, run, with_heads};
use wmtp_model::{
    CausalLm, Decoding, Finish, Generation, HeadInit, LoadOptions, MtpLlama, Request, Sampling, SaveDtype,
    generate_all, load, save,
};

const WAYS: [DType; 2] = [DType::F64, DType::F32];

fn speculative(rows: usize) -> Decoding {
    Decoding {
        rows,
        speculative: true,
        adaptive: false,
        ..Decoding::default()
    }
}

fn greedy(lengths: &[usize], tokens: usize) -> Vec<Request> {
    let of = |length: &usize| request(prompt(*length, *length), 0, Sampling::greedy(tokens));
    lengths.iter().map(of).collect()
}

/// Heads 2..H as copies of the last layer, which guess the next token once more.
fn copies(heads: usize, dtype: DType, seed: u64) -> MtpLlama {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(3, 4, 2);
    config.n_heads = 1;
    save(&config.init(seed, &Device::flex()), dir.path(), SaveDtype::F32).unwrap();
    let options = LoadOptions {
        n_heads: Some(heads),
        head_init: HeadInit::CopyLast,
        dtype,
        ..LoadOptions::default()
    };
    load(dir.path(), &options, &Device::flex()).unwrap()
}

/// A model with the trunk and head 1 of another one, so small in the trunk that it repeats itself and
/// drafts come true.
fn repetitive(heads: usize, dtype: DType) -> MtpLlama {
    let mut config = config(2, 4, 2);
    config.n_heads = heads;
    config.initializer_range = 0.05;
    config.tie_word_embeddings = true;
    config.init_dtype(5, dtype, &Device::flex())
}

/// The same tokens; where they first differ, the two best logits of head 1 lie within 1e-4. Returns
/// how many differ.
fn diverging(model: &MtpLlama, requests: &[Request], plain: &[Generation], other: &[Generation]) -> usize {
    let mut count = 0;
    for ((request, plain), other) in requests.iter().zip(plain).zip(other) {
        let first = plain.tokens.iter().zip(&other.tokens).position(|(a, b)| a != b);
        match first {
            None => assert_eq!((&plain.tokens, plain.finish), (&other.tokens, other.finish)),
            Some(at) => {
                count += 1;
                let text = [&request.tokens[..], &plain.tokens[..at]].concat();
                let mut logits = logits(model, 1, &text).pop().unwrap();
                logits.sort_by(|a, b| b.total_cmp(a));
                assert!(
                    logits[0] - logits[1] < 1e-4,
                    "another token {} below the best",
                    logits[0] - logits[1]
                );
            }
        }
    }
    count
}

#[test]
fn greedy_text_is_that_of_ordinary_decoding() {
    let requests = greedy(&[4, 1, 17, 9, 2, 30], 25);
    let mut accepted = 0;
    for dtype in WAYS {
        let models = (2..=4).flat_map(|heads| {
            [
                with_heads(heads, dtype, 7),
                copies(heads, dtype, 8),
                repetitive(heads, dtype),
            ]
        });
        for model in models {
            let plain = run(&model, &requests, &Decoding::default());
            for (rows, drafts) in [(1, 3), (3, 1), (6, 4), (3, 8), (1, 12), (6, 30)] {
                let decoding = Decoding {
                    drafts,
                    ..speculative(rows)
                };
                let fast = run(&model, &requests, &decoding);
                let diverging = diverging(&model, &requests, &plain, &fast);
                if dtype == DType::F32 {
                    assert_eq!(diverging, 0, "on slices every sum has the same order");
                }
                accepted += fast.iter().flat_map(|made| &made.effort.accepted).sum::<usize>();
            }
        }
    }
    assert!(
        accepted > 1000,
        "only {accepted} drafts were accepted: nothing was shown"
    );
}

/// The probabilities of a head's tokens after a text.
fn softmax_of(model: &MtpLlama, head: usize, text: &[u32]) -> Vec<f64> {
    let logits = logits(model, head, text).pop().unwrap();
    let weights: Vec<f64> = logits.iter().map(|logit| logit.exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Worked out with the whole model for every token: the ways that a text tries at once, and what is
/// taken of them.
#[test]
fn ways_hold_the_most_probable_tokens_of_all_that_could_follow() {
    const MOST: usize = 9;
    let mut several = 0;
    for model in [
        with_heads(4, DType::F32, 7),
        repetitive(4, DType::F32),
        copies(3, DType::F32, 8),
    ] {
        let heads = model.n_heads();
        let prompt = prompt(6, 3);
        let end = prompt.len() + 20;
        let mut text = prompt.clone();
        // Continuations, each a prefix of a way: [[a], [a, x], [b], ...].
        let mut tree: Vec<Vec<u32>> = Vec::new();
        let mut effort = (0, 0, vec![0; heads - 1], vec![0; heads - 1]);
        while text.len() < end {
            effort.0 += 1;
            effort.1 += tree.len();
            let longest = tree.iter().map(Vec::len).max().unwrap_or(0);
            (0..longest).for_each(|i| effort.2[i] += 1);
            let mut taken: Vec<u32> = Vec::new();
            loop {
                let next = best(logits(&model, 1, &text).last().unwrap());
                text.push(next);
                taken.push(next);
                if !tree.contains(&taken) {
                    break;
                }
                effort.3[taken.len() - 1] += 1;
                if text.len() == end {
                    break;
                }
            }
            let room = end.saturating_sub(text.len() + 1).min(heads - 1);
            let before_last = &text[..text.len() - 1];
            let of_heads: Vec<Vec<f64>> = (2..=heads).map(|k| softmax_of(&model, k, before_last)).collect();
            let tops: Vec<u32> = (2..=heads)
                .map(|k| best(logits(&model, k, before_last).last().unwrap()))
                .collect();
            let mut all: Vec<(f64, Vec<u32>)> = Vec::new();
            for token in 0..of_heads[0].len() as u32 {
                let mut way = vec![token];
                let mut p = of_heads[0][token as usize];
                for depth in 1..=room {
                    all.push((p, way.clone()));
                    if depth < room {
                        way.push(tops[depth]);
                        p *= of_heads[depth][tops[depth] as usize];
                    }
                }
            }
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            // No more than fit into a way and the heads there are: one way.
            tree = if MOST <= room {
                (1..=MOST).map(|n| tops[..n].to_vec()).collect()
            } else {
                all.into_iter().take(MOST).map(|(_, way)| way).collect()
            };
            several += usize::from(tree.iter().filter(|way| way.len() == 1).count() > 1);
        }
        let decoding = Decoding {
            drafts: MOST,
            ..speculative(1)
        };
        let requests = [request(prompt.clone(), 0, Sampling::greedy(20))];
        let made = run(&model, &requests, &decoding).remove(0);
        assert_eq!(made.tokens, text[prompt.len()..]);
        let found = made.effort;
        assert_eq!(
            (found.trunk_forwards, found.verified, found.drafted, found.accepted),
            effort
        );
    }
    assert!(several > 20, "{several} passes with several ways: nothing was shown");
}

/// Worked out with the whole model for every token: which drafts are made, and which are taken.
#[test]
fn drafts_are_those_of_the_heads_at_the_last_token_that_stayed() {
    for dtype in WAYS {
        for model in [with_heads(4, dtype, 7), repetitive(4, dtype), copies(3, dtype, 8)] {
            let heads = model.n_heads();
            let prompt = prompt(6, 3);
            let mut text = prompt.clone();
            let mut drafts: Vec<u32> = Vec::new();
            let (mut passes, mut drafted, mut accepted) = (0, vec![0; heads - 1], vec![0; heads - 1]);
            while text.len() < prompt.len() + 20 {
                passes += 1;
                (0..drafts.len()).for_each(|i| drafted[i] += 1);
                let mut taken = 0;
                loop {
                    let next = best(logits(&model, 1, &text).last().unwrap());
                    text.push(next);
                    if drafts.get(taken) != Some(&next) {
                        break;
                    }
                    accepted[taken] += 1;
                    taken += 1;
                    if text.len() == prompt.len() + 20 {
                        break;
                    }
                }
                let room = (prompt.len() + 20).saturating_sub(text.len() + 1);
                let before_last = &text[..text.len() - 1];
                drafts = (2..=heads)
                    .take(room)
                    .map(|k| best(logits(&model, k, before_last).last().unwrap()))
                    .collect();
            }
            let requests = [request(prompt.clone(), 0, Sampling::greedy(20))];
            let one_way = Decoding {
                drafts: heads - 1,
                ..speculative(1)
            };
            let made = run(&model, &requests, &one_way).remove(0);
            assert_eq!(made.tokens, text[prompt.len()..]);
            assert_eq!(made.effort.trunk_forwards, passes, "{dtype:?}");
            assert_eq!(made.effort.verified, drafted.iter().sum::<usize>());
            assert_eq!(made.effort.drafted, drafted);
            assert_eq!(made.effort.accepted, accepted);
        }
    }
}

#[test]
fn an_accepted_draft_can_end_the_text() {
    for dtype in WAYS {
        let model = repetitive(4, dtype);
        let requests = greedy(&[6], 24);
        let whole = run(&model, &requests, &speculative(1)).remove(0);
        let drafts: usize = whole.effort.accepted.iter().sum();
        assert!(drafts >= 6, "{drafts} accepted drafts are too few to end inside of one");
        // By a stop, after each number of tokens.
        for end in 1..=24 {
            let mut asked = 0;
            let stopped = generate_all(&model, &requests, &speculative(1), &mut |_, tokens| {
                asked += 1;
                assert_eq!(tokens, &whole.tokens[..asked]);
                tokens.len() == end
            })
            .unwrap();
            assert_eq!(
                (&stopped[0].tokens[..], stopped[0].finish),
                (&whole.tokens[..end], Finish::Stop)
            );
            assert_eq!(asked, end);
            // By the length.
            let short = run(&model, &greedy(&[6], end), &speculative(1));
            assert_eq!(
                (&short[0].tokens[..], short[0].finish),
                (&whole.tokens[..end], Finish::Length)
            );
        }
        // By an end token.
        for end in &whole.tokens {
            let at = whole.tokens.iter().position(|token| token == end).unwrap();
            let decoding = Decoding {
                eos: vec![*end],
                ..speculative(1)
            };
            let ended = run(&model, &requests, &decoding);
            assert_eq!(
                (&ended[0].tokens[..], ended[0].finish),
                (&whole.tokens[..at], Finish::Eos)
            );
        }
    }
}

#[test]
fn drafts_stay_within_the_models_positions() {
    for dtype in WAYS {
        for positions in 6..14 {
            let mut config = config(2, 4, 2);
            (config.n_heads, config.max_position_embeddings) = (4, positions);
            (config.initializer_range, config.tie_word_embeddings) = (0.05, true);
            let model = config.init_dtype(5, dtype, &Device::flex());
            let requests = greedy(&[6, 5], usize::MAX);
            let made = run(&model, &requests, &speculative(2));
            let lengths: Vec<usize> = made.iter().map(|made| made.tokens.len()).collect();
            assert_eq!(lengths, [positions - 6, positions - 5]);
            diverging(&model, &requests, &run(&model, &requests, &Decoding::default()), &made);
        }
    }
}

/// A seed's tokens are those of ordinary decoding: on slices to the last one, with any number of drafts and with as
/// many as time allows.
#[test]
fn sampled_text_is_that_of_ordinary_decoding() {
    let requests: Vec<Request> = [(5, 0.2), (1, 1.0), (9, 0.7), (17, 0.0), (4, 1.5), (30, 0.4)]
        .iter()
        .zip(0..)
        .map(|((length, temperature), seed)| {
            let sampling = Sampling {
                temperature: *temperature,
                top_p: 0.95,
                max_new_tokens: 60,
            };
            request(prompt(*length, *length), seed, sampling)
        })
        .collect();
    let mut accepted = 0;
    for model in [
        with_heads(4, DType::F32, 7),
        repetitive(4, DType::F32),
        copies(3, DType::F32, 8),
    ] {
        let plain = run(&model, &requests, &Decoding::default());
        for (adaptive, rows, drafts) in [
            (false, 1, 2),
            (false, 6, 8),
            (false, 3, 30),
            (true, 1, 8),
            (true, 6, 8),
            (true, 2, 3),
        ] {
            let decoding = Decoding {
                adaptive,
                drafts,
                ..speculative(rows)
            };
            let fast = run(&model, &requests, &decoding);
            for (plain, fast) in plain.iter().zip(&fast) {
                assert_eq!((&plain.tokens, plain.finish), (&fast.tokens, fast.finish));
            }
            accepted += fast.iter().flat_map(|made| &made.effort.accepted).sum::<usize>();
        }
    }
    assert!(
        accepted > 500,
        "only {accepted} drafts were accepted: nothing was shown"
    );
}

#[test]
fn sampled_text_repeats_with_its_seed_whatever_its_neighbours() {
    for dtype in WAYS {
        let model = with_heads(3, dtype, 6);
        let of = |length: usize, seed, temperature| {
            let sampling = Sampling {
                temperature,
                top_p: 0.9,
                max_new_tokens: 20,
            };
            request(prompt(length, length), seed, sampling)
        };
        let requests = [
            of(5, 1, 1.0),
            of(5, 2, 1.0),
            of(9, 1, 0.4),
            of(1, 4, 0.0),
            of(5, 1, 1.0),
        ];
        let together = run(&model, &requests, &speculative(5));
        assert_eq!(together, run(&model, &requests, &speculative(5)));
        assert_eq!(together[0], together[4]);
        assert_ne!(together[0].tokens, together[1].tokens);
        for (request, together) in requests.iter().zip(&together) {
            assert_eq!(
                &run(&model, std::slice::from_ref(request), &speculative(1))[0],
                together
            );
        }
    }
}

/// Head 1's probabilities after `text`, with temperature and top-p by their definitions.
fn probabilities(model: &MtpLlama, text: &[u32], sampling: &Sampling) -> Vec<f64> {
    let logits = logits(model, 1, text).pop().unwrap();
    let weights: Vec<f64> = logits.iter().map(|x| (x / sampling.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    let mut nucleus = vec![0.0; weights.len()];
    let mut sum = 0.0;
    for id in order {
        nucleus[id] = weights[id] / total;
        sum += nucleus[id];
        if sum >= sampling.top_p {
            break;
        }
    }
    nucleus.iter().map(|p| p / sum).collect()
}

/// Pearson's statistic of counts against probabilities, in standard deviations above its mean (Wilson
/// and Hilferty 1931). What is expected fewer than 5 times is taken together.
fn surprise(counts: &[usize], probabilities: &[f64]) -> f64 {
    let n: usize = counts.iter().sum();
    let (mut statistic, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
    for (count, p) in counts.iter().zip(probabilities) {
        let expected = p * n as f64;
        if *p == 0.0 {
            assert_eq!(*count, 0, "a token without probability was drawn");
        } else if expected < 5.0 {
            rare = (rare.0 + *count as f64, rare.1 + expected);
        } else {
            statistic += (*count as f64 - expected).powi(2) / expected;
            cells += 1.0;
        }
    }
    if rare.1 >= 5.0 {
        statistic += (rare.0 - rare.1).powi(2) / rare.1;
        cells += 1.0;
    }
    let freedom: f64 = cells - 1.0;
    let spread = 2.0 / (9.0 * freedom);
    ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
}

/// The second, third and fourth token come by way of drafts; each has head 1's distribution given
/// the tokens before it, and so have pairs of consecutive ones.
#[test]
fn sampled_text_has_head_1s_distribution() {
    const DRAWS: u64 = 30_000;
    let mut small = config(2, 2, 1);
    (small.vocab_size, small.n_heads) = (7, 3);
    // One model whose drafts are mostly good, one whose heads disagree.
    let mut models = Vec::new();
    for range in [0.15, 0.3] {
        small.initializer_range = range;
        models.push(small.init(11, &Device::flex()));
    }
    for (model, top_p) in models.iter().zip([1.0, 0.9]) {
        let sampling = Sampling {
            temperature: 0.8,
            top_p,
            max_new_tokens: 4,
        };
        let prompt = vec![3, 1, 5];
        let requests: Vec<Request> = (0..DRAWS)
            .map(|seed| request(prompt.clone(), seed, sampling.clone()))
            .collect();
        let two = Decoding {
            drafts: 2,
            ..speculative(256)
        };
        let made = run(model, &requests, &two);
        let offered: usize = made.iter().flat_map(|made| &made.effort.drafted).sum();
        let accepted: usize = made.iter().flat_map(|made| &made.effort.accepted).sum();
        assert!(
            accepted * 10 > offered && accepted * 10 < offered * 9,
            "{accepted} of {offered} accepted"
        );

        // The exact distribution of all texts of four tokens.
        let mut exact = std::collections::BTreeMap::from([(Vec::new(), 1.0)]);
        for length in 1..=4 {
            let mut longer = std::collections::BTreeMap::new();
            for (text, p) in &exact {
                let whole = [&prompt[..], text].concat();
                for (token, q) in (0..7).zip(probabilities(model, &whole, &sampling)) {
                    longer.insert([&text[..], &[token]].concat(), p * q);
                }
            }
            exact = longer;
            // The token at this place, and the pair that ends there.
            for width in [1, 2] {
                if width > length {
                    continue;
                }
                let cell = |tokens: &[u32]| {
                    tokens[length - width..length]
                        .iter()
                        .fold(0, |n, t| n * 7 + *t as usize)
                };
                let mut expected = vec![0.0; 7usize.pow(width as u32)];
                exact.iter().for_each(|(text, p)| expected[cell(text)] += p);
                let mut counts = vec![0; expected.len()];
                made.iter().for_each(|made| counts[cell(&made.tokens)] += 1);
                let surprise = surprise(&counts, &expected);
                println!("top_p {top_p}, {width} tokens up to {length}: {surprise:.2} standard deviations");
                assert!(surprise < 3.5, "{counts:?} for {expected:?}");
            }
        }
        // All four together.
        let place = |tokens: &[u32]| tokens.iter().fold(0, |n, t| n * 7 + *t as usize);
        let mut counts = vec![0; 7usize.pow(4)];
        made.iter().for_each(|made| counts[place(&made.tokens)] += 1);
        let expected: Vec<f64> = exact.values().copied().collect();
        let surprise = surprise(&counts, &expected);
        println!("top_p {top_p}, all four: {surprise:.2} standard deviations");
        assert!(surprise < 3.5);
        // The same counts are no sample of a distribution that is a little off.
        let off: Vec<f64> = expected
            .iter()
            .enumerate()
            .map(|(i, p)| p * if i % 2 == 0 { 1.1 } else { 0.9 })
            .collect();
        let total: f64 = off.iter().sum();
        let off: Vec<f64> = off.iter().map(|p| p / total).collect();
        assert!(self::surprise(&counts, &off) > 3.5, "a test that would see nothing");
    }
}
