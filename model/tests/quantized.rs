//! Generating with prepared weights: those of few bits give the same tokens as the model whose f32 weights have these
//! values, others those of the model itself.
#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::tensor::{DType, Device};
use wmtp_model::{
    CausalLm, Decoding, LlamaConfig, MtpLlama, PreparedWeights, Quantization, Request, Sampling, generate_all,
    with_rounded_matrices,
};

/// Rows of 40 and 56 values: no whole groups of 32.
fn model() -> MtpLlama {
    let mut config = LlamaConfig::new(61, 40, 3, 4);
    (config.num_key_value_heads, config.n_heads, config.initializer_range) = (2, 3, 0.2);
    config.intermediate_size = 56;
    config.init_dtype(1, DType::BF16, &Device::flex())
}

/// The same in f32.
fn in_f32() -> MtpLlama {
    let bytes = wmtp_model::to_bytes(&model()).expect("the model can be written");
    wmtp_model::from_bytes(model().config(), bytes, DType::F32, &Device::flex()).expect("the model can be read")
}

fn requests() -> Vec<Request> {
    let request = |i: usize| Request {
        tokens: (0..9 + 40 * i).map(|j| ((7 * i + j * (j + 3)) % 61) as u32).collect(),
        seed: 3,
        sampling: Sampling {
            temperature: if i == 1 { 0.7 } else { 0.0 },
            top_p: 0.95,
            max_new_tokens: 12,
        },
    };
    (0..3).map(request).collect()
}

fn tokens(model: &MtpLlama, decoding: &Decoding) -> Vec<Vec<u32>> {
    let written = generate_all(model, &requests(), decoding, &mut |_, _| false).expect("it generates");
    written.into_iter().map(|generation| generation.tokens).collect()
}

/// Greedy tokens are the likeliest ones of the f32 model with these weights, but for what the products' rounding of
/// activations to 8 bits moves; and drafts change no text.
#[test]
fn quantized_weights_generate_what_their_values_do() {
    let model = model();
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let rounded = with_rounded_matrices(in_f32(), Some(quantization));
        let texts = [false, true].map(|speculative| {
            let prepared = PreparedWeights::new(&model, speculative, Some(quantization)).expect("the model is on flex");
            assert!(
                prepared
                    .as_ref()
                    .is_some_and(|p| p.quantization() == Some(quantization))
            );
            let with = Decoding {
                speculative,
                prepared,
                ..Decoding::default()
            };
            let found = tokens(&model, &with);
            assert_eq!(found, tokens(&model, &with), "shared by two calls");
            found
        });
        assert_eq!(texts[0], texts[1], "{quantization:?}: drafts change no text");
        let mut likeliest = 0;
        for (request, text) in requests()
            .iter()
            .zip(&texts[0])
            .filter(|(r, _)| r.sampling.temperature == 0.0)
        {
            let all = [&request.tokens[..], text].concat();
            let logits = common::tiny::logits(&rounded, 1, &all[..all.len() - 1]);
            for (logits, token) in logits[request.tokens.len() - 1..].iter().zip(text) {
                let largest = logits.iter().copied().fold(f64::MIN, f64::max);
                let size = (logits.iter().map(|x| x * x).sum::<f64>() / logits.len() as f64).sqrt();
                let below = (largest - logits[*token as usize]) / size;
                assert!(below < 0.05, "{quantization:?}: {below} below the largest");
                likeliest += usize::from(below == 0.0);
            }
        }
        assert!(likeliest >= 20, "{quantization:?}: {likeliest} of 24 are the likeliest");
    }
}

/// An f32 model of bf16 numbers, and one with other numbers too: the tokens of its own weights, and drafts, which
/// are rounded to 8 bits, change no text.
#[test]
fn weights_that_are_not_quantized_generate_what_the_model_does() {
    let other = |precision| {
        let mut config = model().config().clone();
        config.tie_word_embeddings = false;
        config.init_dtype(2, precision, &Device::flex())
    };
    for model in [in_f32(), model(), other(DType::F32), other(DType::BF16)] {
        let own = tokens(&model, &Decoding::default());
        for speculative in [false, true] {
            let prepared = PreparedWeights::new(&model, speculative, None).expect("nothing is asked for");
            assert!(prepared.as_ref().is_some_and(|p| p.quantization().is_none()));
            let with = Decoding {
                speculative,
                prepared,
                ..Decoding::default()
            };
            assert_eq!(own, tokens(&model, &with), "speculative: {speculative}");
        }
    }
}

/// Logits stay near: with 8 bits nearer than with 4.
#[test]
fn rounding_moves_logits_little() {
    let logits = |model: MtpLlama| common::tiny::logits(&model, 1, &[1, 5, 9, 60, 3, 17, 22, 8]).concat();
    let exact = logits(in_f32());
    let size = exact.iter().map(|x| x * x).sum::<f64>().sqrt();
    let errors = [None, Some(Quantization::Int8), Some(Quantization::Int4)].map(|quantization| {
        let rounded = logits(with_rounded_matrices(in_f32(), quantization));
        let squares = exact.iter().zip(rounded).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f64>().sqrt() / size
    });
    assert_eq!(errors[0], 0.0, "weights in bf16 are their own roundings");
    assert!(errors[1] > 0.0 && errors[1] < 0.05, "{errors:?}");
    assert!(errors[2] > errors[1] && errors[2] < 0.5, "{errors:?}");
}

#[test]
fn speculation_needs_the_quantized_heads() {
    let model = model();
    let decoding = Decoding {
        speculative: true,
        prepared: PreparedWeights::new(&model, false, Some(Quantization::Int8)).expect("the model is on flex"),
        ..Decoding::default()
    };
    let error = generate_all(&model, &requests(), &decoding, &mut |_, _| false).expect_err("it is refused");
    assert!(
        error.to_string().contains("needs those of the heads that draft"),
        "{error}"
    );
}
