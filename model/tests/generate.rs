//! Generation of random tiny models, held against a plain loop that runs the whole model again for
//! every token, without cache, padding or batch.

use std::cell::Cell;

use burn::tensor::{DType, Device};
use wmtp_model::{Finish, Generation, LlamaConfig, MtpLlama, Packed, Prompt, Sampling, generate};

const VOCABULARY: usize = 61;

/// Weights large enough that random logits are far apart.
fn tiny(layers: usize, heads: usize, kv_heads: usize, seed: u64) -> MtpLlama {
    config(layers, heads, kv_heads).init_dtype(seed, DType::F64, &Device::flex())
}

fn config(layers: usize, heads: usize, kv_heads: usize) -> LlamaConfig {
    let mut config = LlamaConfig::new(VOCABULARY, 8 * heads, layers, heads);
    config.num_key_value_heads = kv_heads;
    config.initializer_range = 0.4;
    config.n_heads = 2;
    config.tie_word_embeddings = false;
    config
}

fn sampling(temperature: f64, top_p: f64, max_new_tokens: usize) -> Sampling {
    Sampling {
        temperature,
        top_p,
        max_new_tokens,
    }
}

/// Tokens that repeat nowhere near each other.
fn prompt(length: usize, offset: usize) -> Prompt {
    let tokens = (0..length)
        .map(|i| ((offset + i * (i + 7)) % VOCABULARY) as u32)
        .collect();
    Prompt { tokens, seed: 0 }
}

fn run(model: &MtpLlama, prompts: &[Prompt], sampling: &Sampling, eos: &[u32]) -> Vec<Generation> {
    generate(model, prompts, sampling, eos, &mut |_, _| false).unwrap()
}

fn greedy(model: &MtpLlama, prompts: &[Prompt], tokens: usize) -> Vec<Vec<u32>> {
    let made = run(model, prompts, &Sampling::greedy(tokens), &[]);
    made.into_iter().map(|made| made.tokens).collect()
}

/// Greedy tokens by the public forward pass on the whole text, once a token.
fn without_cache(model: &MtpLlama, prompt: &Prompt, tokens: usize) -> Vec<u32> {
    let mut text = prompt.tokens.clone();
    for _ in 0..tokens {
        let input = Packed::from_documents(&[text.clone()], &model.device());
        let ctx = model.context(&input);
        let hidden = model.head(1, model.trunk(&input, &ctx), &ctx);
        let logits = model.logits(hidden.narrow(1, text.len() - 1, 1));
        let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        text.push(best.unwrap() as u32);
    }
    text.split_off(prompt.tokens.len())
}

#[test]
fn a_cache_changes_no_token() {
    for (seed, (layers, heads, kv_heads)) in [(1, 2, 2), (2, 4, 2), (3, 4, 1)].into_iter().enumerate() {
        let model = tiny(layers, heads, kv_heads, seed as u64);
        for length in [1, 2, 9] {
            let prompt = prompt(length, 5);
            let expected = without_cache(&model, &prompt, 20);
            let mut distinct = expected.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.len() > 2, "a text without variety shows nothing: {expected:?}");
            let got = greedy(&model, &[prompt], 20);
            assert_eq!(
                got,
                [expected],
                "{layers} layers, {heads}/{kv_heads} heads, {length} tokens"
            );
        }
    }
}

#[test]
fn a_cache_that_has_to_grow_changes_no_token() {
    let model = tiny(2, 2, 1, 9);
    let prompt = prompt(3, 1);
    assert_eq!(
        greedy(&model, std::slice::from_ref(&prompt), 110)[0],
        without_cache(&model, &prompt, 110)
    );
}

#[test]
fn a_prefill_in_pieces_changes_no_token() {
    // 4 heads and 6 prompts: a layer's scores for 1200 columns at once would be 34 million.
    let model = tiny(2, 4, 2, 10);
    let lengths = [1200, 1199, 800, 400, 3, 1];
    let prompts: Vec<Prompt> = lengths.iter().map(|length| prompt(*length, *length)).collect();
    let together = greedy(&model, &prompts, 4);
    for (prompt, together) in prompts.iter().zip(together) {
        assert_eq!(
            together,
            without_cache(&model, prompt, 4),
            "{} tokens",
            prompt.tokens.len()
        );
    }
}

#[test]
fn prompts_of_different_lengths_do_not_disturb_each_other() {
    let model = tiny(3, 4, 2, 4);
    let prompts: Vec<Prompt> = [4, 1, 17, 9, 2].iter().map(|length| prompt(*length, *length)).collect();
    let together = greedy(&model, &prompts, 24);
    for (prompt, together) in prompts.iter().zip(&together) {
        assert_eq!(&greedy(&model, std::slice::from_ref(prompt), 24)[0], together);
        assert_eq!(&without_cache(&model, prompt, 24), together);
    }
}

#[test]
fn rows_that_leave_do_not_disturb_those_that_stay() {
    let model = tiny(2, 4, 2, 5);
    let prompts: Vec<Prompt> = [6, 31, 3, 12, 20, 1]
        .iter()
        .map(|length| prompt(*length, *length))
        .collect();
    let whole = greedy(&model, &prompts, 30);
    // One after another, the row of the longest prompt among the first.
    let ends = [25, 2, 11, 30, 1, 5];
    let made = generate(&model, &prompts, &Sampling::greedy(30), &[], &mut |i, tokens| {
        tokens.len() == ends[i]
    });
    for ((made, whole), end) in made.unwrap().iter().zip(&whole).zip(ends) {
        assert_eq!(made.tokens, whole[..end]);
        assert_eq!(made.finish, Finish::Stop);
    }
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let model = tiny(2, 2, 2, 6);
    let seeded = |seed| Prompt { seed, ..prompt(5, 2) };
    let warm = sampling(2.0, 0.95, 24);
    let first = run(&model, &[seeded(1), seeded(2), seeded(1)], &warm, &[]);
    assert_eq!(first, run(&model, &[seeded(1), seeded(2), seeded(1)], &warm, &[]));
    assert_eq!(first[0], first[2], "equal prompts and seeds in one call");
    assert_ne!(first[0], first[1], "another seed");
    assert_eq!(first[1], run(&model, &[seeded(2)], &warm, &[])[0], "alone");
}

#[test]
fn a_tiny_nucleus_is_greedy() {
    let model = tiny(2, 4, 2, 7);
    let prompts = [prompt(3, 1), prompt(8, 2)];
    let narrow = run(&model, &prompts, &sampling(1.5, 1e-9, 24), &[]);
    let narrow: Vec<_> = narrow.into_iter().map(|made| made.tokens).collect();
    assert_eq!(narrow, greedy(&model, &prompts, 24));
}

#[test]
fn stop_sees_every_token_and_ends_its_own_prompt_only() {
    let model = tiny(2, 2, 2, 8);
    let prompts = [prompt(3, 1), prompt(8, 2)];
    let whole = greedy(&model, &prompts, 12);
    let mut seen = [Vec::new(), Vec::new()];
    let made = generate(&model, &prompts, &Sampling::greedy(12), &[], &mut |index, tokens| {
        seen[index].push(tokens.to_vec());
        index == 1 && tokens.len() == 4
    })
    .unwrap();
    assert_eq!(
        made[0],
        Generation {
            tokens: whole[0].clone(),
            finish: Finish::Length
        }
    );
    assert_eq!(
        made[1],
        Generation {
            tokens: whole[1][..4].to_vec(),
            finish: Finish::Stop
        }
    );
    for (seen, whole, count) in [(&seen[0], &whole[0], 12), (&seen[1], &whole[1], 4)] {
        let expected: Vec<_> = (1..=count).map(|n| whole[..n].to_vec()).collect();
        assert_eq!(seen, &expected);
    }
}

#[test]
fn an_end_token_ends_without_being_part_of_the_text() {
    let model = tiny(2, 2, 2, 8);
    let whole = greedy(&model, &[prompt(8, 2)], 12).remove(0);
    let end = *whole.last().unwrap();
    let at = whole.iter().position(|token| *token == end).unwrap();
    let asked = Cell::new(0);
    let made = generate(
        &model,
        &[prompt(8, 2)],
        &Sampling::greedy(40),
        &[end],
        &mut |_, tokens| {
            asked.set(asked.get() + 1);
            assert!(!tokens.contains(&end));
            false
        },
    )
    .unwrap();
    assert_eq!(
        made,
        [Generation {
            tokens: whole[..at].to_vec(),
            finish: Finish::Eos
        }]
    );
    assert_eq!(asked.get(), at);
}

#[test]
fn prompt_and_text_stay_within_the_models_positions() {
    let mut config = config(2, 2, 2);
    config.max_position_embeddings = 10;
    let model = config.init(1, &Device::flex());
    let made = run(
        &model,
        &[prompt(10, 0), prompt(7, 0), prompt(2, 0)],
        &Sampling::greedy(5),
        &[],
    );
    let lengths: Vec<usize> = made.iter().map(|made| made.tokens.len()).collect();
    assert_eq!(lengths, [0, 3, 5]);
    assert!(made.iter().all(|made| made.finish == Finish::Length));
    // An unbounded wish is no allocation.
    let made = run(&model, &[prompt(7, 0)], &Sampling::greedy(usize::MAX), &[]);
    assert_eq!(made[0].tokens.len(), 3);
    assert!(
        run(&model, &[prompt(7, 0)], &Sampling::greedy(0), &[])[0]
            .tokens
            .is_empty()
    );

    let long = generate(
        &model,
        &[prompt(1, 0), prompt(11, 0)],
        &Sampling::greedy(5),
        &[],
        &mut |_, _| false,
    );
    assert_eq!(
        long.unwrap_err().to_string(),
        "prompt 1 has 11 tokens, more than the 10 positions of the model: shorten it"
    );
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
    let model = tiny(1, 2, 2, 1);
    let message = |tokens: &[u32], sampling: Sampling| {
        let prompts = [
            prompt(2, 0),
            Prompt {
                tokens: tokens.to_vec(),
                seed: 0,
            },
        ];
        generate(&model, &prompts, &sampling, &[], &mut |_, _| false)
            .unwrap_err()
            .to_string()
    };
    assert!(message(&[], Sampling::greedy(1)).starts_with("prompt 1 is empty: give at least one token"));
    assert!(message(&[3, 61], Sampling::greedy(1)).starts_with("prompt 1 holds token 61, the model knows 0 to 60"));
    for temperature in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(message(&[1], sampling(temperature, 1.0, 1)).contains("temperature is"));
    }
    for top_p in [0.0, -1.0, 1.01, f64::NAN] {
        assert!(message(&[1], sampling(1.0, top_p, 1)).contains("top_p is"));
    }
    assert_eq!(run(&model, &[], &Sampling::greedy(1), &[]), []);
}

#[test]
fn a_model_whose_logits_overflow_says_so() {
    let mut config = config(1, 2, 2);
    config.initializer_range = 1e38;
    let model = config.init(1, &Device::flex());
    let made = generate(&model, &[prompt(4, 0)], &Sampling::greedy(2), &[], &mut |_, _| false);
    let message = made.unwrap_err().to_string();
    assert!(
        message.contains("logits that are not finite for prompt 0 after 0 new tokens"),
        "{message}"
    );
}

/// What is wide in memory on flex may be stored in bf16: the tokens are those of the same values in
/// f32, by the plain loop as well, and a row is what it is alone.
#[test]
fn weights_in_bf16_give_the_tokens_of_their_values_in_f32() {
    for (seed, (layers, heads, kv_heads)) in [(1, 2, 2), (2, 4, 2), (3, 4, 1)].into_iter().enumerate() {
        let short = config(layers, heads, kv_heads).init_dtype(seed as u64, DType::BF16, &Device::flex());
        let wide = short.clone().in_dtype(DType::F32);
        assert_eq!((short.dtype(), wide.dtype()), (DType::BF16, DType::F32));
        // One row, few rows, and more than a product of few rows takes; 33 tokens are a prefill of many.
        for count in [1, 3, 40] {
            let prompts: Vec<Prompt> = (0..count).map(|i| prompt(1 + (i * 11) % 33, i)).collect();
            let found = greedy(&short, &prompts, 12);
            assert_eq!(found, greedy(&wide, &prompts, 12), "{count} prompts");
            for (prompt, tokens) in prompts.iter().zip(&found).take(3) {
                assert_eq!(*tokens, without_cache(&wide, prompt, 12), "{count} prompts");
            }
        }
        let other = config(layers, heads, kv_heads).init_dtype(seed as u64, DType::F32, &Device::flex());
        let prompts: Vec<Prompt> = (0..40).map(|i| prompt(9, i)).collect();
        assert_ne!(
            greedy(&other, &prompts, 12),
            greedy(&wide, &prompts, 12),
            "rounding the weights changed no token of 480: bf16 was not seen"
        );
    }
}
