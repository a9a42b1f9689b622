//! LoRA: what is adapted, what is trained, the arithmetic, and peft's files.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use common::{max_diff, values};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use wmtp_model::{CausalLm, LlamaConfig, MtpLlama, Packed, apply_lora, load_adapter, merged, save_adapter};

const RANK: usize = 2;
const ALPHA: f64 = 6.0;

/// D 8, 2 layers of which one is head 1, one more head, vocabulary 11, shared key heads.
fn config() -> LlamaConfig {
    let mut config = LlamaConfig::new(11, 8, 2, 2);
    config.num_key_value_heads = 1;
    config.intermediate_size = 12;
    config.initializer_range = 0.3;
    config.n_heads = 2;
    config
}

/// (peft's name without factor, path in the module, out, in) of every adapted weight of [`config`].
fn adapted() -> Vec<(String, String, usize, usize)> {
    let parts = [
        ("self_attn.q_proj", 8, 8),
        ("self_attn.k_proj", 4, 8),
        ("self_attn.v_proj", 4, 8),
        ("self_attn.o_proj", 8, 8),
        ("mlp.gate_proj", 12, 8),
        ("mlp.up_proj", 12, 8),
        ("mlp.down_proj", 8, 12),
    ];
    let layers = [
        ("base_model.model.model.layers.0", "layers.0"),
        ("base_model.model.model.layers.1", "heads.0"),
        ("base_model.model.mtp.heads.2", "heads.1"),
    ];
    layers
        .iter()
        .flat_map(|(file, module)| {
            parts.iter().map(move |(part, out, width)| {
                (
                    format!("{file}.{part}"),
                    format!("{module}.{part}.weight"),
                    *out,
                    *width,
                )
            })
        })
        .collect()
}

fn hidden(model: &MtpLlama, k: usize) -> Tensor<3> {
    let device = model.device();
    let input = Packed::from_documents(&[vec![3, 1, 4, 1, 5], vec![9, 2, 6]], &device);
    let ctx = model.context(&input);
    model.head(k, model.trunk(&input, &ctx), &ctx)
}

/// What a visitor sees of a module's float parameters, by path.
#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    values: BTreeMap<String, Vec<f64>>,
    trained: BTreeMap<String, bool>,
    ids: BTreeMap<String, u64>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        self.values.insert(path.clone(), values(param.base()));
        self.trained.insert(path.clone(), param.is_require_grad());
        self.ids.insert(path, param.id.val());
    }
}

fn parameters(model: &MtpLlama) -> Parameters {
    let mut seen = Parameters::default();
    model.visit(&mut seen);
    seen
}

/// Adds host-made matrices to weights by path.
struct AddTo {
    path: Vec<String>,
    deltas: BTreeMap<String, Vec<f64>>,
}

impl ModuleMapper for AddTo {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(delta) = self.deltas.remove(&self.path.join(".")) else {
            return param;
        };
        param.map(|tensor| {
            let shape = tensor.shape();
            let sum: Vec<f32> = values(tensor.clone())
                .iter()
                .zip(delta)
                .map(|(w, d)| (w + d) as f32)
                .collect();
            Tensor::from_data(TensorData::new(sum, shape), &tensor.device())
        })
    }
}

/// A small value that differs from place to place.
fn made_up(seed: usize, i: usize) -> f32 {
    ((seed * 31 + i * 17) as f32).sin() * 0.3
}

/// Writes an adapter as peft would, by hand; returns the factors by name.
fn write_adapter(dir: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut written = BTreeMap::new();
    let mut tensors = Vec::new();
    for (n, (stem, _, out, width)) in adapted().into_iter().enumerate() {
        for (part, shape) in [("lora_A", [RANK, width]), ("lora_B", [out, RANK])] {
            let name = format!("{stem}.{part}.weight");
            let factor: Vec<f32> = (0..shape[0] * shape[1])
                .map(|i| made_up(2 * n + usize::from(part == "lora_B"), i))
                .collect();
            let bytes: Vec<u8> = factor.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.push((name.clone(), shape.to_vec(), bytes));
            written.insert(name, factor);
        }
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &dir.join("adapter_model.safetensors")).unwrap();
    std::fs::write(
        dir.join("adapter_config.json"),
        r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], "bias": "none"}"#,
    )
    .unwrap();
    written
}

#[test]
fn a_fresh_adapter_changes_nothing_and_is_the_same_for_the_same_seed() {
    let device = Device::flex();
    let base = config().init(1, &device);
    let before = [values(hidden(&base, 1)), values(hidden(&base, 2))];
    let model = apply_lora(base.clone(), RANK, ALPHA, 5);
    assert_eq!(before, [values(hidden(&model, 1)), values(hidden(&model, 2))]);

    let (first, again) = (
        parameters(&model),
        parameters(&apply_lora(base.clone(), RANK, ALPHA, 5)),
    );
    assert_eq!(first.values, again.values);
    assert_eq!(first.ids, again.ids);
    let other = parameters(&apply_lora(base, RANK, ALPHA, 6));
    let right = "layers.0.mlp.down_proj.weight.lora.b";
    assert_ne!(first.values[right], other.values[right]);
    // peft's bound, 1 / sqrt(in), with in = 12.
    let largest = first.values[right].iter().fold(0.0f64, |max, v| max.max(v.abs()));
    assert!(largest > 0.1 && largest <= 1.0 / 12f64.sqrt(), "{largest}");
}

#[test]
fn adapters_sit_on_all_linear_maps_and_only_they_are_trained() {
    let device = Device::flex().autodiff();
    let base = config().init(1, &device);
    let frozen = parameters(&base).values;
    let model = apply_lora(base, RANK, ALPHA, 5);
    let seen = parameters(&model);

    let expected: Vec<String> = adapted()
        .iter()
        .flat_map(|(_, path, _, _)| [format!("{path}.lora.a"), format!("{path}.lora.b")])
        .collect();
    let mut trained: Vec<&String> = seen
        .trained
        .iter()
        .filter(|(_, on)| **on)
        .map(|(path, _)| path)
        .collect();
    let mut wanted: Vec<&String> = expected.iter().collect();
    trained.sort();
    wanted.sort();
    assert_eq!(trained, wanted);
    assert_eq!(seen.values.len(), frozen.len() + expected.len());
    for (path, before) in &frozen {
        assert_eq!(&seen.values[path], before, "{path}");
    }
}

/// Paths of the parameters that have a gradient, with whether it is all zeros.
struct Graded<'a> {
    path: Vec<String>,
    gradients: &'a Gradients,
    found: BTreeMap<String, bool>,
}

impl ModuleVisitor for Graded<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.base().grad(self.gradients) {
            self.found
                .insert(self.path.join("."), values(gradient).iter().all(|v| *v == 0.0));
        }
    }
}

#[test]
fn gradients_reach_the_adapters_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    write_adapter(dir.path());
    let model = apply_lora(config().init(1, &Device::flex().autodiff()), RANK, ALPHA, 5);
    let model = load_adapter(model, dir.path()).unwrap();
    let loss = hidden(&model, 1).powi_scalar(4).sum() + hidden(&model, 2).powi_scalar(4).sum();
    let gradients = loss.backward();
    let mut graded = Graded {
        path: Vec::new(),
        gradients: &gradients,
        found: BTreeMap::new(),
    };
    model.visit(&mut graded);
    assert_eq!(graded.found.len(), 2 * adapted().len());
    for (path, zero) in graded.found {
        assert!(path.ends_with(".lora.a") || path.ends_with(".lora.b"), "{path}");
        assert!(!zero, "the gradient of {path} is zero");
    }
}

#[test]
fn an_adapted_weight_is_the_base_plus_alpha_by_rank_times_b_a() {
    let dir = tempfile::tempdir().unwrap();
    let factors = write_adapter(dir.path());
    let device = Device::flex();
    let base = config().init(1, &device);
    let model = load_adapter(apply_lora(base.clone(), RANK, ALPHA, 5), dir.path()).unwrap();

    // alpha / rank = 3, computed on the host in f64 and added to the plain weights.
    let mut deltas = BTreeMap::new();
    for (stem, path, out, width) in adapted() {
        let (a, b) = (
            &factors[&format!("{stem}.lora_A.weight")],
            &factors[&format!("{stem}.lora_B.weight")],
        );
        let mut delta = Vec::new();
        for o in 0..out {
            for i in 0..width {
                let sum: f64 = (0..RANK)
                    .map(|r| f64::from(b[o * RANK + r]) * f64::from(a[r * width + i]))
                    .sum();
                delta.push(3.0 * sum);
            }
        }
        deltas.insert(path, delta);
    }
    let mut add = AddTo {
        path: Vec::new(),
        deltas,
    };
    let by_hand = base.clone().map(&mut add);
    assert!(add.deltas.is_empty(), "unknown paths: {:?}", add.deltas.keys());

    let plain = parameters(&merged(model.clone()));
    assert!(
        plain.values.keys().all(|path| !path.contains("lora")),
        "{:?}",
        plain.values.keys()
    );
    for (path, expected) in parameters(&by_hand).values {
        assert!(max_diff(&plain.values[&path], &expected) < 1e-6, "{path}");
    }
    for k in [1, 2] {
        let expected = values(hidden(&by_hand, k));
        assert!(max_diff(&values(hidden(&model, k)), &expected) < 2e-5, "head {k}");
        assert!(
            max_diff(&values(hidden(&merged(model.clone()), k)), &expected) < 2e-5,
            "head {k}, merged"
        );
        assert!(
            max_diff(&values(hidden(&base, k)), &expected) > 0.1,
            "the adapter does nothing"
        );
    }
}

#[test]
fn files_have_pefts_names_and_come_back_bit_for_bit() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let factors = write_adapter(first.path());
    let base = config().init(1, &Device::flex());
    let model = load_adapter(apply_lora(base.clone(), RANK, ALPHA, 5), first.path()).unwrap();
    save_adapter(&model, second.path(), "org/base", RANK, ALPHA).unwrap();

    // Heads lie apart: converters and servers refuse an adapter with tensors that no plain Llama has.
    let trunk = std::fs::read(second.path().join("adapter_model.safetensors")).unwrap();
    let heads = std::fs::read(second.path().join("mtp_adapter.safetensors")).unwrap();
    let (trunk, heads) = (
        SafeTensors::deserialize(&trunk).unwrap(),
        SafeTensors::deserialize(&heads).unwrap(),
    );
    assert_eq!((trunk.len(), heads.len()), (28, 14));
    let of_head = |name: &str| name.starts_with("base_model.model.mtp.heads.2.");
    assert!(trunk.names().iter().all(|name| !of_head(name)));
    let stored = |name: &str| if of_head(name) { &heads } else { &trunk }.tensor(name).unwrap();
    assert_eq!(factors.len(), 42);
    for (name, factor) in &factors {
        let expected: Vec<u8> = factor.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(stored(name).data(), expected, "{name}");
    }
    for (name, shape) in [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [2, 8]),
        ("base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight", [4, 2]),
        ("base_model.model.model.layers.1.mlp.down_proj.lora_A.weight", [2, 12]),
        ("base_model.model.mtp.heads.2.mlp.gate_proj.lora_B.weight", [12, 2]),
    ] {
        assert_eq!(stored(name).shape(), shape, "{name}");
    }
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(second.path().join(name)).unwrap()).unwrap()
    };
    let config_file = json("adapter_config.json");
    assert_eq!(config_file["peft_type"], "LORA");
    assert_eq!(config_file["task_type"], "CAUSAL_LM");
    assert_eq!(config_file["base_model_name_or_path"], "org/base");
    assert_eq!(
        (config_file["r"].as_u64(), config_file["lora_alpha"].as_u64()),
        (Some(2), Some(6))
    );
    let targets = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ];
    assert_eq!(config_file["target_modules"], serde_json::json!(targets));
    assert_eq!(json("config.json")["wmtp"]["n_heads"], 2);

    let reloaded = load_adapter(apply_lora(base, RANK, ALPHA, 77), second.path()).unwrap();
    assert_eq!(parameters(&reloaded).values, parameters(&model).values);

    // What was loaded for inference can still be trained on, the adapters alone.
    let trained = parameters(&reloaded.train()).trained;
    assert!(trained["heads.1.mlp.up_proj.weight.lora.a"]);
    assert!(!trained["heads.1.mlp.up_proj.weight"]);
}

#[test]
fn an_adapter_without_extra_heads_leaves_no_file_of_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let mut plain = config();
    for n_heads in [2, 1] {
        plain.n_heads = n_heads;
        let model = apply_lora(plain.init(1, &Device::flex()), RANK, ALPHA, 5);
        save_adapter(&model, dir.path(), "org/base", RANK, ALPHA).unwrap();
        assert_eq!(dir.path().join("mtp_adapter.safetensors").exists(), n_heads == 2);
    }
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_everything_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    write_adapter(dir.path());
    let mut smaller = config();
    smaller.n_heads = 1;
    smaller.intermediate_size = 16;
    let model = apply_lora(smaller.init(1, &Device::flex()), 3, ALPHA, 5);
    let error = load_adapter(model, dir.path()).unwrap_err().to_string();
    for part in [
        "`r` is 2, the model's adapters have rank 3",
        "28 tensors have another shape",
        "`base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` ([2, 8], expected [3, 8])",
        "`base_model.model.mtp.heads.2.self_attn.q_proj.lora_A.weight` is surplus",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    let base = config().init(1, &Device::flex());
    let error = load_adapter(base.clone(), dir.path()).unwrap_err().to_string();
    assert!(error.contains("apply them with its rank and alpha first"), "{error}");
    let error = save_adapter(&base, dir.path(), "base", RANK, ALPHA)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no LoRA adapters"), "{error}");
    let error = save_adapter(&apply_lora(base, 2, 4.0, 1), dir.path(), "base", RANK, ALPHA).unwrap_err();
    assert!(error.to_string().contains("scale 2"), "{error}");
}
