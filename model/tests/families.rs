//! Tiny models of each family compute what transformers and PyTorch compute (`tests/fixtures/families`):
//! logits, greedy ids, and the gradients of a packed batch.

#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::path::PathBuf;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Int, Tensor, TensorData, activation};
use common::fixture;
use serde_json::Value;
use wmtp_model::{
    CausalLm, Compute, Decoding, LlamaConfig, LoadOptions, MtpLlama, Packed, Request, Sampling, SaveDtype, apply_lora,
    generate_all, load, merged, save,
};

const FAMILIES: [&str; 10] = [
    "mistral",
    "mistral-full",
    "qwen2",
    "qwen3",
    "qwen3-window",
    "smollm3",
    "smollm3-window",
    "yarn",
    "yarn-qwen2",
    "dynamic",
];

fn folder(name: &str) -> PathBuf {
    fixture("families").join(name)
}

fn reference(name: &str) -> Value {
    let text = std::fs::read_to_string(folder(name).join("reference.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

fn open(name: &str, n_heads: usize, dtype: DType, device: &Device) -> MtpLlama {
    let options = LoadOptions {
        n_heads: Some(n_heads),
        dtype,
        ..LoadOptions::default()
    };
    load(&folder(name), &options, device).unwrap()
}

/// Log probabilities of head `k` after each token of `text`, row by row.
fn log_p(model: &MtpLlama, k: usize, text: &[u32]) -> Vec<Vec<f64>> {
    let input = Packed::from_documents(&[text.to_vec()], &model.device());
    let ctx = model.context(&input);
    let logits = model.logits(model.head(k, model.trunk(&input, &ctx), &ctx));
    let values: Vec<f64> = activation::log_softmax(logits, 2).into_data().iter::<f64>().collect();
    values.chunks(model.config().vocab_size).map(<[f64]>::to_vec).collect()
}

/// The greedy ids that `model` writes, and those of the reference, of each prompt.
fn greedy(model: &MtpLlama, reference: &Value, decoding: &Decoding) -> [Vec<Vec<u32>>; 2] {
    let prompts = reference["prompts"].as_array().unwrap();
    let requests: Vec<Request> = prompts
        .iter()
        .map(|prompt| Request {
            tokens: ids(&prompt["token_ids"]),
            seed: 0,
            sampling: Sampling::greedy(ids(&prompt["greedy_ids"]).len()),
        })
        .collect();
    let made = generate_all(model, &requests, decoding, &mut |_, _| false).unwrap();
    [
        made.into_iter().map(|made| made.tokens).collect(),
        prompts.iter().map(|prompt| ids(&prompt["greedy_ids"])).collect(),
    ]
}

#[test]
fn logits_are_those_of_transformers() {
    for name in FAMILIES {
        for dtype in [DType::F32, DType::F64] {
            let model = open(name, 2, dtype, &Device::flex());
            let mut worst = 0.0f64;
            for prompt in reference(name)["prompts"].as_array().unwrap() {
                let text = ids(&prompt["token_ids"]);
                let top = ids(&prompt["top20_ids"]);
                for head in [1, 2] {
                    let rows = log_p(&model, head, &text);
                    for (t, expected) in numbers(&prompt["token_ce"]).into_iter().enumerate() {
                        worst = worst.max((-rows[t][text[t + 1] as usize] - expected).abs());
                    }
                    // Differences of logits are differences of log probabilities.
                    let (last, logits) = (rows.last().unwrap(), numbers(&prompt["top20_logits"]));
                    for (id, logit) in top.iter().zip(&logits) {
                        let found = last[*id as usize] - last[top[0] as usize];
                        worst = worst.max((found - (logit - logits[0])).abs());
                    }
                }
            }
            println!("{name}, {dtype:?}: {worst:.1e}");
            assert!(worst < 1e-4, "{name}, {dtype:?}: {worst:e}");
        }
    }
}

/// On slices (f32) and in burn's operations (f64); in a batch, in which texts end at different times; with
/// drafts of heads that are copies of the last layer.
#[test]
fn greedy_ids_are_those_of_transformers() {
    for name in FAMILIES.into_iter().filter(|name| *name != "dynamic") {
        let reference = reference(name);
        for dtype in [DType::F32, DType::F64] {
            let [made, expected] = greedy(&open(name, 1, dtype, &Device::flex()), &reference, &Decoding::default());
            assert!(expected.iter().all(|ids| ids.len() == 32));
            assert_eq!(made, expected, "{name}, {dtype:?}");
            let speculative = Decoding {
                speculative: true,
                adaptive: false,
                ..Decoding::default()
            };
            let [made, _] = greedy(&open(name, 4, dtype, &Device::flex()), &reference, &speculative);
            assert_eq!(made, expected, "{name}, {dtype:?}, speculative");
        }
    }
}

/// The first two prompts of the reference as two documents of one row, and what they predict.
struct Batch {
    input: Packed,
    /// `[1, S, V]`: minus one over the number of predicted tokens at each of them.
    targets: Tensor<3>,
}

fn batch(model: &MtpLlama, reference: &Value) -> Batch {
    let device = model.device();
    let documents: Vec<Vec<u32>> = (0..2).map(|i| ids(&reference["prompts"][i]["token_ids"])).collect();
    let (seq, vocabulary) = (documents.concat().len(), model.config().vocab_size);
    let count = (seq - documents.len()) as f64;
    let (mut positions, mut docs) = (Vec::new(), Vec::new());
    let mut targets = vec![0.0f64; seq * vocabulary];
    for (number, document) in documents.iter().enumerate() {
        for t in 0..document.len() {
            if let Some(next) = document.get(t + 1) {
                targets[positions.len() * vocabulary + *next as usize] = -1.0 / count;
            }
            positions.push(t as i64);
            docs.push(number as i64);
        }
    }
    let int = |values: Vec<i64>| Tensor::<2, Int>::from_data(TensorData::new(values, [1, seq]), &device);
    let targets = TensorData::new(targets, [1, seq, vocabulary]).convert_dtype(model.dtype());
    Batch {
        input: Packed {
            tokens: int(documents.concat().into_iter().map(i64::from).collect()),
            positions: int(positions),
            docs: int(docs),
        },
        targets: Tensor::from_data(targets, (&device, model.dtype())),
    }
}

/// The loss and its gradients by name.
fn gradients(model: &MtpLlama, reference: &Value) -> (f64, Vec<(String, Vec<f64>)>) {
    let Batch { input, targets } = batch(model, reference);
    let ctx = model.context(&input);
    let logits = model.logits(model.head(1, model.trunk(&input, &ctx), &ctx));
    let loss = (activation::log_softmax(logits, 2).cast(model.dtype()) * targets).sum();
    let value = loss.clone().into_data().iter::<f64>().sum();
    let grads = loss.backward();
    let mut named = Named {
        path: Vec::new(),
        last: model.config().num_hidden_layers - 1,
        grads: &grads,
        found: Vec::new(),
    };
    model.visit(&mut named);
    (value, named.found)
}

/// The gradients of a module under transformers' names.
struct Named<'a> {
    path: Vec<String>,
    /// The layer that is head 1.
    last: usize,
    grads: &'a Gradients,
    found: Vec<(String, Vec<f64>)>,
}

impl ModuleVisitor for Named<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let name = match path.strip_prefix("heads.0.") {
            Some(rest) => format!("model.layers.{}.{rest}", self.last),
            None if path == "embed_tokens" => "model.embed_tokens.weight".to_owned(),
            None if path.starts_with("lm_head") => path,
            None => format!("model.{path}"),
        };
        let gradient = param
            .val()
            .grad(self.grads)
            .unwrap_or_else(|| panic!("{name} has no gradient"));
        self.found.push((name, gradient.into_data().iter::<f64>().collect()));
    }
}

#[test]
fn gradients_are_those_of_pytorch() {
    for name in FAMILIES {
        let reference = reference(name);
        let stride = reference["stride"].as_u64().unwrap() as usize;
        for (dtype, recompute) in [
            (DType::F32, false),
            (DType::F32, true),
            (DType::F64, false),
            (DType::F64, true),
        ] {
            let compute = Compute {
                recompute,
                ..Compute::default()
            };
            let model = open(name, 1, dtype, &Device::flex().autodiff()).with_compute(compute);
            let (loss, found) = gradients(&model, &reference);
            assert!(
                (loss - reference["loss"].as_f64().unwrap()).abs() < 1e-5,
                "{name}: {loss}"
            );
            assert_eq!(found.len(), reference["gradients"].as_object().unwrap().len(), "{name}");
            let mut worst = 0.0f64;
            for (tensor, gradient) in &found {
                let expected = &reference["gradients"][tensor];
                let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
                let mut error = (norm - expected["norm"].as_f64().unwrap()).abs();
                let values = numbers(&expected["values"]);
                let some: Vec<f64> = gradient.iter().step_by(stride).copied().collect();
                assert_eq!(some.len(), values.len(), "{name}, {tensor}");
                for (found, expected) in some.iter().zip(&values) {
                    error = error.max((found - expected).abs());
                }
                assert!(error < 1e-4, "{name}, {tensor}, {dtype:?}: {error:e}");
                worst = worst.max(error);
            }
            println!("{name}, {dtype:?}, recompute {recompute}: {worst:.1e}");
        }
    }
}

/// What is saved is the same model: names, fields of the family, heads 2..H, adapters merged.
#[test]
fn saved_models_load_as_the_same_family() {
    for name in FAMILIES {
        let dir = tempfile::tempdir().unwrap();
        let model = open(name, 3, DType::F32, &Device::flex());
        let text = ids(&reference(name)["prompts"][0]["token_ids"]);
        save(&model, dir.path(), SaveDtype::F32).unwrap();
        let back = load(dir.path(), &LoadOptions::default(), &Device::flex()).unwrap();
        assert_eq!(back.config().layer_spec(), model.config().layer_spec(), "{name}");
        assert_eq!(back.n_heads(), 3);
        assert_eq!(log_p(&back, 3, &text), log_p(&model, 1, &text), "{name}");
        let (saved, original) = (
            LlamaConfig::read(dir.path()).unwrap(),
            LlamaConfig::read(&folder(name)).unwrap(),
        );
        let names = saved.model_tensors();
        assert_eq!(names, original.model_tensors(), "{name}");
        for field in [
            "model_type",
            "architectures",
            "sliding_window",
            "layer_types",
            "no_rope_layers",
        ] {
            assert_eq!(saved.other.get(field), original.other.get(field), "{name}: {field}");
        }
        let merged = merged(apply_lora(back, 2, 4.0, 7));
        assert_eq!(log_p(&merged, 1, &text), log_p(&model, 1, &text), "{name}, adapter");
    }
}
