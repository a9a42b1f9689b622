//! Beginnings that prompts share are computed once, and nothing else changes.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::tensor::{DType, Device};
use common::tiny::{VOCABULARY, config, request, with_heads, without_cache};
use wmtp_model::{Decoding, Generation, MtpLlama, Request, Sampling, Totals, generate};

const WAYS: [DType; 2] = [DType::F64, DType::F32];

/// `count` tokens that follow one another from `first` in a way of their own.
fn tokens(first: usize, count: usize) -> impl Iterator<Item = u32> {
    (0..count).map(move |i| ((first * 13 + i * (i + first)) % VOCABULARY) as u32)
}

/// A beginning of 40, one of two middles of 20 and an end of its own; one prompt is a beginning alone,
/// two are equal, one has nothing in common, one is one token long.
fn prompts() -> Vec<Vec<u32>> {
    let start = || tokens(1, 40);
    vec![
        start().chain(tokens(2, 20)).chain(tokens(10, 5)).collect(),
        start().chain(tokens(3, 20)).chain(tokens(11, 9)).collect(),
        tokens(7, 12).collect(),
        start().chain(tokens(2, 20)).chain(tokens(12, 1)).collect(),
        start().collect(),
        start().chain(tokens(3, 20)).chain(tokens(13, 2)).collect(),
        start().chain(tokens(2, 20)).chain(tokens(10, 5)).collect(),
        vec![5],
        start().chain(tokens(14, 30)).collect(),
    ]
}

fn run(model: &MtpLlama, requests: &[Request], decoding: &Decoding) -> (Vec<Generation>, Totals) {
    let mut found: Vec<Option<Generation>> = vec![None; requests.len()];
    let totals = generate(
        model,
        requests,
        decoding,
        &mut |_, _| false,
        &mut |index, generation| {
            let before = found[index].replace(generation);
            assert!(before.is_none(), "request {index} came twice");
        },
    )
    .unwrap();
    (found.into_iter().map(Option::unwrap).collect(), totals)
}

fn requests(temperature: f64) -> Vec<Request> {
    let of = |(i, tokens): (usize, Vec<u32>)| {
        let sampling = Sampling {
            temperature,
            top_p: 0.9,
            max_new_tokens: 3 + i * 2,
        };
        request(tokens, i as u64, sampling)
    };
    prompts().into_iter().enumerate().map(of).collect()
}

#[test]
fn sharing_changes_no_text_in_batches_of_any_size() {
    for dtype in WAYS {
        for (heads, speculative) in [(1, false), (3, true)] {
            let model = with_heads(heads, dtype, 3);
            for temperature in [0.0, 1.0] {
                let requests = requests(temperature);
                for rows in [1, 2, 4, 20] {
                    let shared = Decoding {
                        rows,
                        speculative,
                        adaptive: false,
                        ..Decoding::default()
                    };
                    let apart = Decoding {
                        share_prefixes: false,
                        rows: 1,
                        ..shared.clone()
                    };
                    let (found, totals) = run(&model, &requests, &shared);
                    let (expected, all) = run(&model, &requests, &apart);
                    assert_eq!(found, expected, "{dtype:?}, {heads} heads, {temperature}, {rows} rows");
                    assert_eq!((all.prompt_tokens, all.prompt_tokens_read), (445, 445));
                    // 39 of the beginning (one prompt's last token is its 40th), the rest of it with
                    // either middle, and alone 4 twice, 8, 1, 30 and 11; each prompt's last token is
                    // read with the first step.
                    let once = 39 + 21 + 21 + 4 + 4 + 8 + 1 + 30 + 11 + 9;
                    assert_eq!((totals.prompt_tokens, totals.prompt_tokens_read), (445, once));
                }
            }
        }
    }
}

#[test]
fn shared_texts_are_those_of_the_whole_model_without_a_cache() {
    for dtype in WAYS {
        let model = with_heads(1, dtype, 4);
        let requests = requests(0.0);
        let (found, _) = run(
            &model,
            &requests,
            &Decoding {
                rows: 3,
                ..Decoding::default()
            },
        );
        for (request, found) in requests.iter().zip(found) {
            let expected = without_cache(&model, &request.tokens, request.sampling.max_new_tokens);
            assert_eq!(found.tokens, expected);
        }
    }
}

/// Many samples of one prompt read it once.
#[test]
fn equal_prompts_are_read_once() {
    let model = config(2, 4, 2).init(1, &Device::flex());
    let sampling = Sampling {
        temperature: 1.5,
        top_p: 1.0,
        max_new_tokens: 6,
    };
    let prompt: Vec<u32> = tokens(1, 50).collect();
    let requests: Vec<Request> = (0..12)
        .map(|seed| request(prompt.clone(), seed, sampling.clone()))
        .collect();
    let (found, totals) = run(
        &model,
        &requests,
        &Decoding {
            rows: 5,
            ..Decoding::default()
        },
    );
    assert_eq!((totals.prompt_tokens, totals.prompt_tokens_read), (600, 49 + 12));
    assert_eq!(totals.tokens, 72);
    let mut texts: Vec<_> = found.into_iter().map(|made| made.tokens).collect();
    texts.sort();
    texts.dedup();
    assert!(texts.len() > 8, "seeds draw different texts");
}

#[test]
fn a_prompt_whose_room_is_used_up_holds_no_shared_piece() {
    let mut config = config(2, 4, 2);
    config.max_position_embeddings = 40;
    let model = config.init(1, &Device::flex());
    let full: Vec<u32> = tokens(1, 40).collect();
    let requests = [
        request(full.clone(), 0, Sampling::greedy(5)),
        request(full[..30].to_vec(), 0, Sampling::greedy(5)),
        request(full.clone(), 0, Sampling::greedy(5)),
        request(full[..30].to_vec(), 0, Sampling::greedy(0)),
    ];
    let (found, totals) = run(&model, &requests, &Decoding::default());
    let lengths: Vec<usize> = found.iter().map(|made| made.tokens.len()).collect();
    assert_eq!(lengths, [0, 5, 0, 0]);
    assert_eq!(totals.prompt_tokens, 30);
}
