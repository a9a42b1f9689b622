//! Biases of the attention sublayer (`attention_bias` of transformers' Llama): against transformers, through
//! every way of decoding, and in every file that is written.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor};
use common::tiny::{greedy, request, run};
use common::{fixture, max_diff, references, rows};
use wmtp_model::{
    CausalLm, Decoding, ExportOptions, HeadInit, LoadOptions, MtpLlama, Packed, Sampling, SaveDtype, apply_lora,
    export, from_bytes, hf_to_meta, load, load_adapted, load_adapter, merged, save, save_adapter, to_bytes,
};

const LAYERS: usize = 3;

fn open(n_heads: usize, dtype: DType) -> MtpLlama {
    let options = LoadOptions {
        n_heads: Some(n_heads),
        dtype,
        ..LoadOptions::default()
    };
    load(&fixture("attention-bias"), &options, &Device::flex()).unwrap()
}

fn logits(model: &MtpLlama, k: usize, text: &[u32]) -> Vec<f64> {
    common::tiny::logits(model, k, text).concat()
}

const TEXT: [u32; 9] = [17, 3, 80, 41, 9, 9, 55, 62, 70];

/// Adds to every parameter that is trained.
struct Shifted;

impl ModuleMapper for Shifted {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let (trained, device) = (tensor.is_require_grad(), tensor.device());
            let by = if trained { 0.05 } else { 0.0 };
            let shifted = Tensor::from_data((tensor + by).into_data(), &device);
            shifted.set_require_grad(trained)
        })
    }
}

/// Whether each bias has a gradient.
struct Graded<'a> {
    path: Vec<String>,
    grads: &'a Gradients,
    biases: Vec<bool>,
}

impl ModuleVisitor for Graded<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.path.last().is_some_and(|name| name == "bias") {
            self.biases.push(param.base().grad(self.grads).is_some());
        }
    }
}

fn graded_biases(model: &MtpLlama) -> Vec<bool> {
    let input = Packed::from_documents(&[TEXT.to_vec()], &model.device());
    let ctx = model.context(&input);
    let hidden = model.head(2, model.trunk(&input, &ctx), &ctx);
    let grads = hidden.powf_scalar(2.0).sum().backward();
    let mut graded = Graded {
        path: Vec::new(),
        grads: &grads,
        biases: Vec::new(),
    };
    model.visit(&mut graded);
    graded.biases
}

#[test]
fn logits_are_those_of_transformers() {
    for dtype in [DType::F32, DType::F64] {
        let model = open(1, dtype);
        for reference in references(&fixture("attention-bias").join("reference.json")).prompts {
            let input = Packed::from_documents(std::slice::from_ref(&reference.token_ids), &Device::flex());
            let ctx = model.context(&input);
            let logits = rows(model.logits(model.head(1, model.trunk(&input, &ctx), &ctx)));
            let last = logits.last().unwrap();
            let top: Vec<f64> = reference.top20_ids.iter().map(|id| last[*id]).collect();
            let error = max_diff(&top, &reference.top20_logits);
            println!("{dtype:?}: {error:.1e}");
            assert!(error < 1e-5, "{dtype:?}: {error:e}");
        }
    }
}

#[test]
fn every_way_of_decoding_writes_what_transformers_writes() {
    let all = references(&fixture("attention-bias").join("reference.json")).prompts;
    let expected: Vec<_> = all.iter().map(|reference| reference.greedy_ids.clone()).collect();
    // Twice the same prompts: the second ones share their prefixes with the first.
    let prompts: Vec<_> = all.iter().map(|reference| reference.token_ids.clone()).collect();
    let twice = [prompts.clone(), prompts].concat();
    let expected = [expected.clone(), expected].concat();
    // In f64 burn's operations compute, in f32 slices in host memory.
    for dtype in [DType::F32, DType::F64] {
        assert_eq!(greedy(&open(1, dtype), &twice, 24), expected, "{dtype:?}");
        let requests: Vec<_> = twice
            .iter()
            .map(|ids| request(ids.clone(), 0, Sampling::greedy(24)))
            .collect();
        let speculative = Decoding {
            speculative: true,
            adaptive: false,
            ..Decoding::default()
        };
        let made = run(&open(4, dtype), &requests, &speculative);
        assert!(made.iter().any(|made| made.effort.verified > 0), "nothing was drafted");
        let made: Vec<_> = made.into_iter().map(|made| made.tokens).collect();
        assert_eq!(made, expected, "{dtype:?}, speculative");
    }
}

#[test]
fn heads_start_as_copies_with_the_biases_and_are_saved_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(3, DType::F32);
    // Head 1 and its copies agree.
    let first = logits(&model, 1, &TEXT);
    assert_eq!(first, logits(&model, 3, &TEXT));
    assert_eq!(model.num_params(), model.config().num_params());

    save(&model, &dir.path().join("saved"), SaveDtype::F32).unwrap();
    export(
        &dir.path().join("saved"),
        &dir.path().join("exported"),
        &ExportOptions::default(),
    )
    .unwrap();
    for name in ["saved", "exported"] {
        let back = load(&dir.path().join(name), &LoadOptions::default(), &Device::flex()).unwrap();
        assert_eq!(back.n_heads(), 3);
        assert_eq!(logits(&back, 3, &TEXT), first, "{name}");
    }
    let bytes = to_bytes(&model).unwrap();
    let back = from_bytes(model.config(), bytes, DType::F32, &Device::flex()).unwrap();
    assert_eq!(logits(&back, 2, &TEXT), first);

    let error = hf_to_meta(&dir.path().join("saved"), &dir.path().join("meta")).unwrap_err();
    assert!(error.to_string().contains("Meta's layout has no biases"), "{error}");
}

#[test]
fn new_biases_are_zero() {
    let mut config = wmtp_model::LlamaConfig::new(96, 16, LAYERS, 4);
    let plain = logits(&config.init(3, &Device::flex()), 1, &TEXT);
    config.other.insert("attention_bias".to_owned(), true.into());
    let model = config.init(3, &Device::flex());
    assert_eq!(model.num_params(), config.num_params());
    assert_eq!(logits(&model, 1, &TEXT), plain);
    let options = LoadOptions {
        n_heads: Some(2),
        head_init: HeadInit::Random,
        ..LoadOptions::default()
    };
    let random = load(&fixture("attention-bias"), &options, &Device::flex()).unwrap();
    assert_ne!(logits(&random, 2, &TEXT), logits(&random, 1, &TEXT));
}

/// Adapters change the matrices; biases are added as they are, and are not trained.
#[test]
fn adapters_train_on_layers_with_biases() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::flex().autodiff();
    let options = LoadOptions {
        n_heads: Some(2),
        ..LoadOptions::default()
    };
    let base = || load(&fixture("attention-bias"), &options, &device).unwrap();
    let before = logits(&base(), 2, &TEXT);
    // Four maps with a bias in the trunk's two layers and both heads; head 1 is not computed.
    let trained = [vec![true; 8], vec![false; 4], vec![true; 4]].concat();
    assert_eq!(graded_biases(&base()), trained);

    let adapted = apply_lora(base(), 2, 4.0, 7);
    assert!(max_diff(&logits(&adapted, 2, &TEXT), &before) < 1e-5);
    assert_eq!(graded_biases(&adapted), [false; 16]);
    let adapted = adapted.map(&mut Shifted);
    let after = logits(&adapted, 2, &TEXT);
    assert!(max_diff(&after, &before) > 1e-3);

    save_adapter(&adapted, dir.path(), "base", 2, 4.0).unwrap();
    let back = load_adapter(apply_lora(base(), 2, 4.0, 1), dir.path()).unwrap();
    assert!(max_diff(&logits(&back, 2, &TEXT), &after) < 1e-5);
    assert!(max_diff(&logits(&merged(adapted), 2, &TEXT), &after) < 1e-5);
    let loaded = load_adapted(&fixture("attention-bias"), dir.path(), &options, &device).unwrap();
    assert!(max_diff(&logits(&loaded, 2, &TEXT), &after) < 1e-5);
}
