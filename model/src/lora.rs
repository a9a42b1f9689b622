//! Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685): attaching, merging, and peft's files.
//!
//! Every linear map of all decoder layers and prediction heads gets one; embeddings, unembedding and
//! norms never do. The arithmetic is burn's: a weight `W` `[out, in]` reads as
//! `W + alpha / rank * B A` with `A` `[rank, in]` and `B` `[out, rank]`, and only `A` and `B` are
//! trained. Burn calls the left factor `a` and the right one `b`, so its `a` is peft's `B`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{LoraAdapter, Module, ModuleMapper, Param, ParamId, Reparameterizer};
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use serde_json::{Map, Value, json};

use crate::causal_lm::CausalLm;
use crate::config::LlamaConfig;
use crate::decoder::Weight;
use crate::error::{ModelError, Problems};
use crate::fields::Fields;
use crate::llama::MtpLlama;
use crate::names::TensorSpec;
use crate::peft::Adapter;
use crate::random;
use crate::raw::{self, SaveDtype};
use crate::store::{CONFIG_FILE, METADATA, own_heads, write_json, write_or_remove};
use crate::tensor_file::{self, Outgoing, TensorFiles};

/// The linear maps that get an adapter, as peft's `target_modules`.
const TARGETS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

/// What peft puts before the names of the model that it wraps.
pub(crate) const PREFIX: &str = "base_model.model.";

/// Factors of trunk and head 1.
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Adapters of heads 2..H. They have a file of their own because converters and servers refuse tensors
/// that they cannot map, and peft reads only [`WEIGHTS_FILE`].
const HEADS_FILE: &str = "mtp_adapter.safetensors";
/// Settings of an adapter.
pub(crate) const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";

/// Attaches adapters of the given rank, scaled by `alpha / rank`, to all linear maps of all layers
/// and heads, and freezes every other parameter. The outputs do not change yet.
///
/// `A` is drawn as peft draws it, uniformly within `1 / sqrt(in)`, from `seed` and the weight's name
/// alone; `B` is zero. Adapters that the model already has are merged first.
///
/// # Panics
/// If `rank` is 0.
pub fn apply_lora(model: MtpLlama, rank: usize, alpha: f64, seed: u64) -> MtpLlama {
    assert!(rank > 0, "an adapter of rank 0 has no parameters");
    let model = merged(model);
    let targets = model
        .weights()
        .into_iter()
        .filter_map(|(name, weight)| match weight {
            Weight::Matrix(param) => Some((param.id, target(&name)?.to_owned())),
            Weight::Vector(_) => None,
        })
        .collect();
    model.apply_reparameterization(SeededLora {
        rank,
        alpha,
        seed,
        targets,
    })
}

/// The model with its adapters added into the weights; it has none afterwards. What was frozen stays
/// frozen. A model without adapters is returned as it is.
pub fn merged(model: MtpLlama) -> MtpLlama {
    model.materialize()
}

/// The name without `.weight`, where it is that of a linear map to be adapted.
pub(crate) fn target(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".weight")?;
    let (_, last) = stem.rsplit_once('.')?;
    TARGETS.contains(&last).then_some(stem)
}

/// Burn's `Lora`, but with factors from a seeded generator instead of the global one, and with the
/// factor that is zero at first on the side where peft has it.
struct SeededLora {
    rank: usize,
    alpha: f64,
    seed: u64,
    /// Names (without `.weight`) of the weights that get an adapter.
    targets: BTreeMap<ParamId, String>,
}

impl Reparameterizer for SeededLora {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let adapter = self.targets.get(&param.id).map(|stem| {
            let (shape, rank) = (param.lazy_shape().to_vec(), self.rank);
            let out = shape.first().copied().unwrap_or(0);
            let width = shape.last().copied().unwrap_or(0);
            let name = format!("{stem}.lora_A");
            let bound = 1.0 / (width.max(1) as f64).sqrt();
            let mut rng = random::generator(self.seed, &name);
            let right = (0..rank * width)
                .map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32)
                .collect();
            let base = param.base();
            LoraAdapter {
                a: factor(&format!("{stem}.lora_B"), vec![0.0; out * rank], [out, rank], &base),
                b: factor(&name, right, [rank, width], &base),
                scale: self.alpha / rank as f64,
            }
        });
        (param.set_require_grad(false), adapter)
    }
}

/// A trainable factor with the device and type of the weight it is for.
fn factor<const D: usize>(name: &str, values: Vec<f32>, shape: [usize; 2], base: &Tensor<D>) -> Param<Tensor<2>> {
    let (device, dtype) = (base.device(), base.dtype());
    let tensor = Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (&device, dtype));
    Param::initialized(random::param_id(name), tensor).set_require_grad(true)
}

/// One factor of an adapter with its name in peft's file.
struct Factor<'a> {
    spec: TensorSpec,
    param: &'a Param<Tensor<2>>,
    scale: f64,
    rank: usize,
}

/// All factors of a model, `A` before `B`; empty for a model without adapters.
fn factors(model: &MtpLlama) -> Vec<Factor<'_>> {
    let mut found = Vec::new();
    for (name, weight) in model.weights() {
        let (Weight::Matrix(param), Some(stem)) = (weight, target(&name)) else {
            continue;
        };
        let Some(adapter) = param.adapter() else {
            continue;
        };
        for (part, factor) in [("lora_A", &adapter.b), ("lora_B", &adapter.a)] {
            let name = format!("{PREFIX}{stem}.{part}.weight");
            let spec = TensorSpec {
                name,
                shape: factor.lazy_shape().to_vec(),
            };
            let rank = adapter.b.lazy_shape().to_vec().first().copied().unwrap_or(0);
            found.push(Factor {
                spec,
                param: factor,
                scale: adapter.scale,
                rank,
            });
        }
    }
    found
}

/// Writes the adapters to `dir` (made if absent) as peft does: `adapter_model.safetensors` and
/// `adapter_config.json`, and in addition the model's `config.json`. Adapters of heads 2..H go into
/// `mtp_adapter.safetensors`. `base` is the name or path of the model that the adapters belong to.
/// Factors are stored in their own type (f64 as f32).
///
/// # Errors
/// The model has no adapters, or others than `rank` and `alpha` say; a file cannot be written.
pub fn save_adapter(model: &MtpLlama, dir: &Path, base: &str, rank: usize, alpha: f64) -> Result<(), ModelError> {
    let model = model.valid();
    let factors = factors(&model);
    let Some(first) = factors.first() else {
        return Err(ModelError::Request(
            "the model has no LoRA adapters to save: apply them first, or save the model itself".to_owned(),
        ));
    };
    if first.rank != rank || first.scale != alpha / rank as f64 {
        return Err(ModelError::Request(format!(
            "the model's adapters have rank {} and scale {}, so they cannot be saved as rank {rank} and alpha {alpha} (scale {})",
            first.rank,
            first.scale,
            alpha / rank as f64
        )));
    }
    let dtype = SaveDtype::of(model.dtype());
    let (heads, trunk): (Vec<_>, Vec<_>) = factors
        .into_iter()
        .map(|factor| Outgoing {
            spec: factor.spec,
            dtype,
            bytes: Box::new(move || dtype.encode(&raw::to_f32(factor.param.base().into_data()))),
        })
        .partition(|factor| is_of_head(&factor.spec.name));
    std::fs::create_dir_all(dir).map_err(|source| ModelError::io("create", dir, source))?;
    write_factors(dir, trunk, heads)?;
    write_json(&dir.join(CONFIG_FILE), &model.config().to_json(dtype.torch_name()))?;
    write_json(&dir.join(ADAPTER_CONFIG_FILE), &adapter_config(base, rank, alpha))
}

/// Whether a factor is that of a prediction head 2..H.
pub(crate) fn is_of_head(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|name| name.starts_with("mtp."))
}

/// Writes the two files of an adapter; without factors of heads, the second one is removed.
pub(crate) fn write_factors(dir: &Path, trunk: Vec<Outgoing<'_>>, heads: Vec<Outgoing<'_>>) -> Result<(), ModelError> {
    tensor_file::write(&dir.join(WEIGHTS_FILE), &METADATA, trunk)?;
    write_or_remove(&dir.join(HEADS_FILE), heads)
}

/// All tensors of the adapter in `dir`. Adapters of before `mtp_adapter.safetensors` was introduced have
/// those of the heads in the first file.
pub(crate) fn open_factors(dir: &Path) -> Result<TensorFiles, ModelError> {
    let path = dir.join(WEIGHTS_FILE);
    if !path.exists() && dir.join("adapter_model.bin").exists() {
        return Err(crate::missing_file::weights(dir));
    }
    let mut files = TensorFiles::open(&path)?;
    let heads = dir.join(HEADS_FILE);
    if heads.exists() {
        files.add(&heads)?;
    }
    Ok(files)
}

/// `adapter_config.json` with the fields that every version of peft since 0.8 reads.
fn adapter_config(base: &str, rank: usize, alpha: f64) -> Value {
    // peft types alpha as an integer, and takes a float too.
    let alpha = if alpha.fract() == 0.0 && alpha.abs() < 1e15 {
        json!(alpha as i64)
    } else {
        json!(alpha)
    };
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": TARGETS,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "layers_to_transform": null,
        "layers_pattern": null,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": false,
        "use_dora": false,
    })
}

/// Fills the adapters of a model ([`apply_lora`] first) from a directory in peft's layout.
///
/// # Errors
/// A file cannot be read or is damaged; names, shapes, types, rank or alpha differ from the model's,
/// or the adapter needs a variant of LoRA that is not supported: one error lists everything.
pub fn load_adapter(model: MtpLlama, dir: &Path) -> Result<MtpLlama, ModelError> {
    let factors = factors(&model);
    let Some(first) = factors.first() else {
        return Err(ModelError::Request(format!(
            "the adapter in {} needs a model with LoRA adapters: apply them with its rank and alpha first",
            dir.display()
        )));
    };
    let mut problems = check_config(&dir.join(ADAPTER_CONFIG_FILE), first.rank, first.scale)?;
    let files = open_factors(dir)?;
    let expected: Vec<TensorSpec> = factors.iter().map(|factor| factor.spec.clone()).collect();
    files.check(&expected, &mut problems);
    let known: BTreeSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    let surplus = files.names().filter(|name| !known.contains(name));
    problems.extend(surplus.map(|name| format!("`{name}` is surplus: the model has no adapter there")));
    let mut values = BTreeMap::new();
    if problems.is_empty() {
        for factor in &factors {
            match files.values(&factor.spec.name) {
                Some(found) => {
                    values.insert(factor.param.id, TensorData::new(found, factor.spec.shape.clone()));
                }
                None => problems.push(format!("`{}` could not be read", factor.spec.name)),
            }
        }
    }
    if !problems.is_empty() {
        return Err(ModelError::Weights {
            place: dir.display().to_string(),
            problems: Problems(problems),
        });
    }
    Ok(model.map(&mut Fill { values }))
}

/// Fills the adapters of a model ([`apply_lora`] of `rank` and `alpha` on the base that lies in `base`)
/// from an adapter of any maker, to train it further. Linear maps that it does not change start as
/// [`apply_lora`] left them, without an effect.
///
/// # Errors
/// The adapter cannot be read, does not fit the base, or does more than these adapters can express.
pub fn continue_adapter(
    model: MtpLlama,
    base: &Path,
    adapter: &Path,
    rank: usize,
    alpha: f64,
) -> Result<MtpLlama, ModelError> {
    let mut config = LlamaConfig::read(base)?;
    config.n_heads = own_heads(adapter)?.unwrap_or(1);
    let opened = Adapter::open(adapter, &mut config)?;
    let mut found = opened.as_factors(rank, alpha).map_err(|reason| {
        ModelError::Request(format!(
            "the adapter in {} {reason}: change `train.lora` accordingly, or leave it out to train all weights of the merged model",
            adapter.display()
        ))
    })?;
    let mut values = BTreeMap::new();
    for (name, weight) in model.weights() {
        let (Weight::Matrix(param), Some([a, b])) = (weight, found.remove(&name)) else {
            continue;
        };
        if let Some(adapter) = param.adapter() {
            for (factor, values_of) in [(&adapter.b, a), (&adapter.a, b)] {
                let shape = factor.lazy_shape().to_vec();
                values.insert(factor.id, TensorData::new(values_of, shape));
            }
        }
    }
    Ok(model.map(&mut Fill { values }))
}

/// Puts values into parameters by their identity.
struct Fill {
    values: BTreeMap<ParamId, TensorData>,
}

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.values.remove(&param.id) else {
            return param;
        };
        // `Param::map` keeps what a later `train` restores; the tensor's own flag is kept here.
        param.map(|old| {
            let (device, dtype) = (old.device(), old.dtype());
            let new = Tensor::from_data(data.convert_dtype(dtype), (&device, dtype));
            new.set_require_grad(old.is_require_grad())
        })
    }
}

/// What in `adapter_config.json` does not fit adapters of this rank and scale.
fn check_config(path: &Path, rank: usize, scale: f64) -> Result<Vec<String>, ModelError> {
    let text = std::fs::read(path).map_err(|source| ModelError::io("read", path, source))?;
    let map: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|error| ModelError::format(path, "adapter configuration", error))?;
    let mut fields = Fields::new(&map);
    if fields.get("peft_type").and_then(Value::as_str) != Some("LORA") {
        fields.problem("`peft_type` must be \"LORA\"".to_owned());
    }
    let (r, alpha) = (fields.size("r", None), fields.number("lora_alpha", None));
    if r != rank {
        fields.problem(format!("`r` is {r}, the model's adapters have rank {rank}"));
    } else if alpha / rank as f64 != scale {
        let wanted = scale * rank as f64;
        fields.problem(format!("`lora_alpha` is {alpha}, the model's adapters have {wanted}"));
    }
    for name in ["use_rslora", "use_dora", "fan_in_fan_out"] {
        if fields.flag(name, false) {
            fields.problem(format!("`{name}` is true, which is not supported"));
        }
    }
    if let Some(bias) = fields.get("bias").filter(|bias| bias.as_str() != Some("none")) {
        fields.problem(format!("`bias` is {bias}, only \"none\" is supported"));
    }
    for name in ["rank_pattern", "alpha_pattern", "modules_to_save"] {
        let empty = fields.get(name).is_none_or(|value| match value {
            Value::Object(map) => map.is_empty(),
            Value::Array(list) => list.is_empty(),
            _ => false,
        });
        if !empty {
            fields.problem(format!("`{name}` is set, which is not supported"));
        }
    }
    Ok(fields.problems)
}
