//! Generation of random tiny models, held against a plain loop that runs the whole model again for
//! every token, without cache or batch.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::cell::Cell;

use burn::tensor::{DType, Device};
use common::tiny::{config, greedy, prompt, request, run, with_heads, without_cache};
use wmtp_model::{CausalLm, Decoding, Effort, Finish, Generation, MtpLlama, Request, Sampling, generate_all};

/// In f64 every backend's own operations compute, in f32 on flex slices of memory.
const WAYS: [DType; 2] = [DType::F64, DType::F32];

fn tiny([layers, heads, kv_heads]: [usize; 3], seed: u64, dtype: DType) -> MtpLlama {
    config(layers, heads, kv_heads).init_dtype(seed, dtype, &Device::flex())
}

fn sampling(temperature: f64, top_p: f64, max_new_tokens: usize) -> Sampling {
    Sampling {
        temperature,
        top_p,
        max_new_tokens,
    }
}

fn tokens(made: &[Generation]) -> Vec<Vec<u32>> {
    made.iter().map(|made| made.tokens.clone()).collect()
}

/// All prompts with the same seed.
fn all(prompts: &[Vec<u32>], sampling: &Sampling) -> Vec<Request> {
    let of = |tokens: &Vec<u32>| request(tokens.clone(), 0, sampling.clone());
    prompts.iter().map(of).collect()
}

#[test]
fn a_cache_changes_no_token() {
    for dtype in WAYS {
        for (seed, sizes) in [[1, 2, 2], [2, 4, 2], [3, 4, 1]].into_iter().enumerate() {
            let model = tiny(sizes, seed as u64, dtype);
            for length in [1, 2, 9] {
                let prompt = prompt(length, 5);
                let expected = without_cache(&model, &prompt, 20);
                let mut distinct = expected.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert!(distinct.len() > 2, "a text without variety shows nothing: {expected:?}");
                let got = greedy(&model, &[prompt], 20);
                assert_eq!(got, [expected], "{dtype:?}, {sizes:?}, {length} tokens");
            }
        }
    }
}

#[test]
fn a_cache_that_has_to_grow_changes_no_token() {
    for dtype in WAYS {
        let model = tiny([2, 2, 1], 9, dtype);
        let prompt = prompt(3, 1);
        let found = greedy(&model, std::slice::from_ref(&prompt), 110);
        assert_eq!(found[0], without_cache(&model, &prompt, 110));
    }
}

#[test]
fn a_prompt_that_is_read_in_parts_changes_no_token() {
    // 32 heads: the scores of 1200 tokens at once would be 46 million. Together more than is read at
    // a time on any device.
    let model = config(2, 32, 2).init_dtype(10, DType::F64, &Device::flex());
    let lengths = [1200, 3];
    let prompts: Vec<_> = lengths.iter().map(|length| prompt(*length, *length)).collect();
    let together = greedy(&model, &prompts, 4);
    for (prompt, together) in prompts.iter().zip(together) {
        assert_eq!(together, without_cache(&model, prompt, 4), "{} tokens", prompt.len());
    }
    let model = tiny([2, 4, 2], 10, DType::F32);
    let lengths = [1023, 1200, 1199, 800, 2040, 3, 1];
    let prompts: Vec<_> = lengths.iter().map(|length| prompt(*length, *length)).collect();
    for (prompt, together) in prompts.iter().zip(greedy(&model, &prompts, 4)) {
        assert_eq!(together, without_cache(&model, prompt, 4), "{} tokens", prompt.len());
    }
}

#[test]
fn prompts_of_different_lengths_do_not_disturb_each_other() {
    for dtype in WAYS {
        let model = tiny([3, 4, 2], 4, dtype);
        let prompts: Vec<_> = [4, 1, 17, 9, 2].iter().map(|length| prompt(*length, *length)).collect();
        let together = greedy(&model, &prompts, 24);
        for (prompt, together) in prompts.iter().zip(&together) {
            assert_eq!(&greedy(&model, std::slice::from_ref(prompt), 24)[0], together);
            assert_eq!(&without_cache(&model, prompt, 24), together);
        }
    }
}

#[test]
fn texts_that_leave_do_not_disturb_those_that_stay_or_come() {
    for dtype in WAYS {
        let model = tiny([2, 4, 2], 5, dtype);
        let prompts: Vec<_> = [6, 31, 3, 12, 20, 1, 9, 8]
            .iter()
            .map(|length| prompt(*length, *length))
            .collect();
        let whole = greedy(&model, &prompts, 30);
        // They leave one after another, and in batches of 1 to 9 others take their place.
        let ends = [25, 2, 11, 30, 1, 5, 17, 3];
        for rows in [1, 2, 3, 8, 9] {
            let decoding = Decoding {
                rows,
                ..Decoding::default()
            };
            let requests = all(&prompts, &Sampling::greedy(30));
            let made = generate_all(&model, &requests, &decoding, &mut |i, tokens| tokens.len() == ends[i]);
            for ((made, whole), end) in made.unwrap().iter().zip(&whole).zip(ends) {
                assert_eq!(made.tokens, whole[..end], "{rows} rows");
                assert_eq!(made.finish, Finish::Stop);
                assert_eq!(made.effort.trunk_forwards, end, "one pass for each token");
            }
        }
    }
}

#[test]
fn each_request_has_its_own_settings() {
    for dtype in WAYS {
        let model = tiny([2, 4, 2], 6, dtype);
        let requests = [
            request(prompt(5, 2), 1, sampling(2.0, 0.95, 24)),
            request(prompt(5, 2), 1, Sampling::greedy(7)),
            request(prompt(5, 2), 1, sampling(2.0, 1.0, 1)),
            request(prompt(5, 2), 1, sampling(0.5, 0.3, 12)),
        ];
        let together = run(&model, &requests, &Decoding::default());
        let lengths: Vec<usize> = together.iter().map(|made| made.tokens.len()).collect();
        assert_eq!(lengths, [24, 7, 1, 12]);
        for (request, together) in requests.iter().zip(&together) {
            let alone = run(&model, std::slice::from_ref(request), &Decoding::default());
            assert_eq!(&alone[0], together);
        }
    }
}

#[test]
fn a_seed_repeats_and_another_differs() {
    for dtype in WAYS {
        let model = tiny([2, 2, 2], 6, dtype);
        let seeded = |seed| request(prompt(5, 2), seed, sampling(2.0, 0.95, 24));
        let run = |requests: &[Request]| run(&model, requests, &Decoding::default());
        let first = run(&[seeded(1), seeded(2), seeded(1)]);
        assert_eq!(first, run(&[seeded(1), seeded(2), seeded(1)]));
        assert_eq!(first[0], first[2], "equal prompts and seeds in one call");
        assert_ne!(first[0].tokens, first[1].tokens, "another seed");
        assert_eq!(first[1], run(&[seeded(2)])[0], "alone");
    }
}

#[test]
fn a_tiny_nucleus_is_greedy() {
    let model = tiny([2, 4, 2], 7, DType::F32);
    let prompts = [prompt(3, 1), prompt(8, 2)];
    let narrow = run(&model, &all(&prompts, &sampling(1.5, 1e-9, 24)), &Decoding::default());
    assert_eq!(tokens(&narrow), greedy(&model, &prompts, 24));
}

#[test]
fn stop_sees_every_token_and_ends_its_own_prompt_only() {
    for dtype in WAYS {
        let model = tiny([2, 2, 2], 8, dtype);
        let prompts = [prompt(3, 1), prompt(8, 2)];
        let whole = greedy(&model, &prompts, 12);
        let mut seen = [Vec::new(), Vec::new()];
        let requests = all(&prompts, &Sampling::greedy(12));
        let made = generate_all(&model, &requests, &Decoding::default(), &mut |index, tokens| {
            seen[index].push(tokens.to_vec());
            index == 1 && tokens.len() == 4
        })
        .unwrap();
        assert_eq!((&made[0].tokens, made[0].finish), (&whole[0], Finish::Length));
        assert_eq!((&made[1].tokens[..], made[1].finish), (&whole[1][..4], Finish::Stop));
        for (seen, whole, count) in [(&seen[0], &whole[0], 12), (&seen[1], &whole[1], 4)] {
            let expected: Vec<_> = (1..=count).map(|n| whole[..n].to_vec()).collect();
            assert_eq!(seen, &expected);
        }
    }
}

#[test]
fn an_end_token_ends_without_being_part_of_the_text() {
    let model = tiny([2, 2, 2], 8, DType::F32);
    let whole = greedy(&model, &[prompt(8, 2)], 12).remove(0);
    let end = *whole.last().unwrap();
    let at = whole.iter().position(|token| *token == end).unwrap();
    let asked = Cell::new(0);
    let decoding = Decoding {
        eos: vec![end],
        ..Decoding::default()
    };
    let requests = all(&[prompt(8, 2)], &Sampling::greedy(40));
    let made = generate_all(&model, &requests, &decoding, &mut |_, tokens| {
        asked.set(asked.get() + 1);
        assert!(!tokens.contains(&end));
        false
    })
    .unwrap();
    let expected = Generation {
        tokens: whole[..at].to_vec(),
        finish: Finish::Eos,
        effort: Effort {
            trunk_forwards: at + 1,
            ..Effort::default()
        },
    };
    assert_eq!(made, [expected]);
    assert_eq!(asked.get(), at);
}

#[test]
fn prompt_and_text_stay_within_the_models_positions() {
    for dtype in WAYS {
        let mut config = config(2, 2, 2);
        config.max_position_embeddings = 10;
        let model = config.init_dtype(1, dtype, &Device::flex());
        let prompts = [prompt(10, 0), prompt(7, 0), prompt(2, 0)];
        let made = run(&model, &all(&prompts, &Sampling::greedy(5)), &Decoding::default());
        let lengths: Vec<usize> = made.iter().map(|made| made.tokens.len()).collect();
        assert_eq!(lengths, [0, 3, 5]);
        assert!(made.iter().all(|made| made.finish == Finish::Length));
        // An unbounded wish is no allocation.
        assert_eq!(greedy(&model, &[prompt(7, 0)], usize::MAX)[0].len(), 3);
        assert!(greedy(&model, &[prompt(7, 0)], 0)[0].is_empty());
    }
}

#[test]
fn a_model_in_training_generates_the_same() {
    let config = config(2, 4, 2);
    let plain = config.init(3, &Device::flex());
    let training = config.init(3, &Device::flex().autodiff());
    let prompts = [prompt(3, 1), prompt(8, 2)];
    assert_eq!(greedy(&training, &prompts, 12), greedy(&plain, &prompts, 12));
}

#[test]
fn requests_that_cannot_be_served_are_refused_in_one_sentence() {
    let mut config = config(1, 2, 2);
    config.max_position_embeddings = 10;
    let model = config.init(1, &Device::flex());
    let message = |tokens: &[u32], sampling: Sampling| {
        let requests = [
            request(prompt(2, 0), 0, Sampling::greedy(1)),
            request(tokens.to_vec(), 0, sampling),
        ];
        generate_all(&model, &requests, &Decoding::default(), &mut |_, _| {
            panic!("a token before the refusal")
        })
        .unwrap_err()
        .to_string()
    };
    assert!(message(&[], Sampling::greedy(1)).starts_with("prompt 1 is empty: give at least one token"));
    assert!(message(&[3, 61], Sampling::greedy(1)).starts_with("prompt 1 holds token 61, the model knows 0 to 60"));
    assert_eq!(
        message(&prompt(11, 0), Sampling::greedy(5)),
        "prompt 1 has 11 tokens, more than the 10 positions of the model: shorten it"
    );
    for temperature in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(message(&[1], sampling(temperature, 1.0, 1)).contains("temperature is"));
    }
    for top_p in [0.0, -1.0, 1.01, f64::NAN] {
        assert!(message(&[1], sampling(1.0, top_p, 1)).contains("top_p is"));
    }
    assert_eq!(run(&model, &[], &Decoding::default()), []);

    let refused = |model: &MtpLlama, decoding: Decoding| {
        let requests = [request(vec![1], 0, Sampling::greedy(1))];
        let made = generate_all(model, &requests, &decoding, &mut |_, _| false);
        made.unwrap_err().to_string()
    };
    let none = Decoding {
        rows: 0,
        ..Decoding::default()
    };
    assert!(refused(&model, none).starts_with("a batch of 0 rows"));
    let speculative = Decoding {
        speculative: true,
        ..Decoding::default()
    };
    assert_eq!(
        refused(&with_heads(1, DType::F32, 1), speculative),
        "speculative decoding needs heads that draft, and this model has one head only: train a model with n_heads 2 or more, or generate without speculation"
    );
}

#[test]
fn a_model_whose_logits_overflow_says_so() {
    for dtype in [DType::F32, DType::F16] {
        let mut config = config(1, 2, 2);
        config.initializer_range = 1e38;
        let model = config.init_dtype(1, dtype, &Device::flex());
        let requests = all(&[prompt(4, 0)], &Sampling::greedy(2));
        let made = generate_all(&model, &requests, &Decoding::default(), &mut |_, _| false);
        let message = made.unwrap_err().to_string();
        assert!(
            message.contains("logits that are not finite for prompt 0 after 0 new tokens"),
            "{message}"
        );
    }
}

/// What is wide in memory on flex may be stored in bf16: the tokens are those of the same values in
/// f32, by the plain loop as well.
#[test]
fn weights_in_bf16_give_the_tokens_of_their_values_in_f32() {
    for (seed, (layers, heads, kv_heads)) in [(1, 2, 2), (2, 4, 2), (3, 4, 1)].into_iter().enumerate() {
        let short = config(layers, heads, kv_heads).init_dtype(seed as u64, DType::BF16, &Device::flex());
        let wide = short.clone().in_dtype(DType::F32);
        assert_eq!((short.dtype(), wide.dtype()), (DType::BF16, DType::F32));
        for count in [1, 3, 40] {
            let prompts: Vec<_> = (0..count).map(|i| prompt(1 + (i * 11) % 33, i)).collect();
            let found = greedy(&short, &prompts, 12);
            assert_eq!(found, greedy(&wide, &prompts, 12), "{count} prompts");
            for (prompt, tokens) in prompts.iter().zip(&found).take(3) {
                assert_eq!(*tokens, without_cache(&wide, prompt, 12), "{count} prompts");
            }
        }
        let other = config(layers, heads, kv_heads).init_dtype(seed as u64, DType::F32, &Device::flex());
        let prompts: Vec<_> = (0..40).map(|i| prompt(9, i)).collect();
        assert_ne!(
            greedy(&other, &prompts, 12),
            greedy(&wide, &prompts, 12),
            "rounding the weights changed no token of 480: bf16 was not seen"
        );
    }
}
