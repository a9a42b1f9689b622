//! Tiny Llamas made by transformers (`fixtures/make_fixtures.py`) compute the same here: grouped
//! queries, tied and untied, sharded, f32, f16 and bf16, Llama-3 rotary scaling, attention with biases.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use common::{cross_entropy, fixture, max_diff, references, rows, values};
use wmtp_model::{
    CausalLm, Decoding, Finish, Generation, LoadOptions, MtpLlama, Packed, Request, Sampling, generate_all, load,
};

const MODELS: [&str; 5] = [
    "tied-f32",
    "untied-bf16",
    "sharded-f16",
    "llama3-rope",
    "attention-bias",
];

fn open(name: &str) -> MtpLlama {
    load(&fixture(name), &LoadOptions::default(), &Device::flex()).unwrap()
}

fn greedy(tokens: Vec<u32>, max_new_tokens: usize) -> Request {
    Request {
        tokens,
        seed: 0,
        sampling: Sampling::greedy(max_new_tokens),
    }
}

fn run(model: &MtpLlama, requests: &[Request], eos: &[u32]) -> Vec<Generation> {
    let decoding = Decoding {
        eos: eos.to_vec(),
        ..Decoding::default()
    };
    generate_all(model, requests, &decoding, &mut |_, _| false).unwrap()
}

#[test]
fn cross_entropy_and_logits_are_those_of_transformers() {
    for name in MODELS {
        let model = open(name);
        for reference in references(&fixture(name).join("reference.json")).prompts {
            let input = Packed::from_documents(std::slice::from_ref(&reference.token_ids), &Device::flex());
            let ctx = model.context(&input);
            let logits = rows(model.logits(model.head(1, model.trunk(&input, &ctx), &ctx)));
            let ce: Vec<f64> = reference.token_ids[1..]
                .iter()
                .zip(&logits)
                .map(|(id, row)| cross_entropy(row, *id as usize))
                .collect();
            assert!(max_diff(&ce, &reference.token_ce) < 1e-4, "{name}: {ce:?}");
            let last = logits.last().unwrap();
            let top: Vec<f64> = reference.top20_ids.iter().map(|id| last[*id]).collect();
            assert!(max_diff(&top, &reference.top20_logits) < 1e-4, "{name}: {top:?}");
            let lowest = reference.top20_logits.last().unwrap() - 1e-4;
            assert!(
                last.iter().filter(|logit| **logit > lowest + 2e-4).count() <= 20,
                "{name}"
            );
        }
    }
}

#[test]
fn greedy_ids_are_those_of_transformers_alone_and_batched() {
    for name in MODELS {
        let model = open(name);
        let all = references(&fixture(name).join("reference.json")).prompts;
        let prompts: Vec<Request> = all.iter().map(|r| greedy(r.token_ids.clone(), 24)).collect();
        let expected: Vec<_> = all.iter().map(|r| r.greedy_ids.clone()).collect();
        let run = |prompts: &[Request]| -> Vec<Vec<u32>> {
            let made = run(&model, prompts, &[]);
            assert!(made.iter().all(|g| g.finish == Finish::Length));
            made.into_iter().map(|g| g.tokens).collect()
        };
        assert_eq!(run(&prompts), expected, "{name}, batched");
        for (prompt, expected) in prompts.iter().zip(&expected) {
            assert_eq!(&run(std::slice::from_ref(prompt))[0], expected, "{name}, alone");
        }
    }
}

#[test]
fn a_packed_document_has_the_hidden_states_that_it_has_alone() {
    let device = Device::flex();
    let model = load(
        &fixture("tied-f32"),
        &LoadOptions {
            n_heads: Some(3),
            ..LoadOptions::default()
        },
        &device,
    )
    .unwrap();
    let (a, b): (Vec<u32>, Vec<u32>) = ((6..15).collect(), (30..42).rev().collect());
    let int = |v: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(v, [1, 24]), &device);
    // Nine tokens, twelve tokens, three of padding.
    let packed = Packed {
        tokens: int(a.iter().chain(&b).chain(&[0, 0, 0]).map(|id| i64::from(*id)).collect()),
        positions: int((0..9).chain(0..12).chain([0, 0, 0]).collect()),
        docs: int([vec![4; 9], vec![5; 12], vec![-1; 3]].concat()),
    };
    let ctx = model.context(&packed);
    let trunk = model.trunk(&packed, &ctx);
    for k in 1..=3 {
        let together = model.head(k, trunk.clone(), &ctx);
        assert!(values(together.clone()).iter().all(|v| v.is_finite()));
        for (document, start) in [(&a, 0), (&b, 9)] {
            let alone = Packed::from_documents(std::slice::from_ref(document), &device);
            let ctx = model.context(&alone);
            let alone = values(model.head(k, model.trunk(&alone, &ctx), &ctx));
            let part = values(together.clone().narrow(1, start, document.len()));
            assert!(max_diff(&alone, &part) < 1e-5, "head {k}, document at {start}");
        }
    }
}

#[test]
fn sampling_repeats_with_its_seed_whatever_its_neighbours() {
    let model = open("untied-bf16");
    let prompt = |n: u32, seed| Request {
        tokens: (6..6 + n).collect(),
        seed,
        sampling: Sampling {
            temperature: 0.8,
            top_p: 0.95,
            max_new_tokens: 16,
        },
    };
    let run = |prompts: &[Request]| run(&model, prompts, &[2, 5]);
    let together = run(&[prompt(9, 1), prompt(3, 2), prompt(9, 3), prompt(1, 1)]);
    assert_eq!(together[0], run(&[prompt(9, 1)])[0]);
    assert_eq!(together[1], run(&[prompt(20, 8), prompt(3, 2)])[1]);
    assert_ne!(together[0].tokens, together[2].tokens, "another seed, another text");
    let eos = together.iter().filter(|g| g.finish == Finish::Eos);
    assert!(eos.clone().all(|g| !g.tokens.contains(&2) && !g.tokens.contains(&5)));
}

#[test]
fn each_continuation_ends_for_its_own_reason() {
    let model = open("tied-f32");
    let all = references(&fixture("tied-f32").join("reference.json")).prompts;
    let expected: Vec<_> = all.iter().map(|r| &r.greedy_ids).collect();
    let prompts: Vec<Request> = all.iter().map(|r| greedy(r.token_ids.clone(), 10)).collect();
    // Prompt 0 stops after 3 tokens; the token that prompt 1 writes first ends texts.
    let eos = expected[1][0];
    let mut calls = 0;
    let decoding = Decoding {
        eos: vec![eos],
        ..Decoding::default()
    };
    let made = generate_all(&model, &prompts, &decoding, &mut |i, tokens| {
        calls += 1;
        i == 0 && tokens.len() == 3
    })
    .unwrap();
    let until_eos =
        |ids: &[u32], n: usize| -> Vec<u32> { ids.iter().take(n).take_while(|id| **id != eos).copied().collect() };
    assert_eq!(made[0].tokens, until_eos(expected[0], 3));
    assert_eq!((made[1].tokens.len(), made[1].finish), (0, Finish::Eos));
    assert_eq!(made[2].tokens, until_eos(expected[2], 10));
    assert_eq!(calls, made.iter().map(|g| g.tokens.len()).sum::<usize>());
}

#[test]
fn half_precision_computes_about_the_same() {
    for dtype in [DType::BF16, DType::F16] {
        let options = LoadOptions {
            dtype,
            ..LoadOptions::default()
        };
        let model = load(&fixture("untied-bf16"), &options, &Device::flex()).unwrap();
        let all = references(&fixture("untied-bf16").join("reference.json")).prompts;
        let reference = &all[0];
        let input = Packed::from_documents(std::slice::from_ref(&reference.token_ids), &Device::flex());
        let ctx = model.context(&input);
        let hidden = model.head(1, model.trunk(&input, &ctx), &ctx);
        // Between the layers flex computes bf16 models in f32.
        let between = if dtype == DType::BF16 { DType::F32 } else { dtype };
        assert_eq!(hidden.dtype(), between);
        let logits = rows(model.logits(hidden));
        let mean = |ce: &[f64]| ce.iter().sum::<f64>() / ce.len() as f64;
        let ce: Vec<f64> = reference.token_ids[1..]
            .iter()
            .zip(&logits)
            .map(|(id, row)| cross_entropy(row, *id as usize))
            .collect();
        assert!(
            (mean(&ce) - mean(&reference.token_ce)).abs() < 0.05,
            "{dtype:?}: {}",
            mean(&ce)
        );
        let made = run(&model, &[greedy(reference.token_ids.clone(), 3)], &[]);
        assert_eq!(made[0].tokens.len(), 3);
    }
}
