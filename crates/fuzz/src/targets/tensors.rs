//! Files of tensors: models, heads, adapters, scores, PyTorch's checkpoints.

use super::{file, root, words};
use crate::{
    Kind, Outcome, Target,
    mutate::{Shape, named, split, stored, zipped},
    scratch::{emptied, put, spread},
    target::FIRST,
};
use burn::tensor::Device;
use serde_json::{Map, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use wmtp_model::{
    LlamaConfig, LoadOptions, RewardModel, TensorSpec, ValueHead, apply_lora, convert, hf_to_meta, load, load_adapted,
    load_adapter, meta_to_hf, model_hash,
};
use wmtp_scorer::CachedScores;

/// The smallest Llama.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 6, "hidden_size": 4,
 "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2,
 "max_position_embeddings": 16, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
 "tie_word_embeddings": false, "eos_token_id": 2}"#;

/// Meta's description of it.
const PARAMS: &[u8] = br#"{"dim": 4, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 6, "multiple_of": 4, "norm_eps": 1e-6, "rope_theta": 10000.0}"#;

fn config(n_heads: usize) -> LlamaConfig {
    match LlamaConfig::parse(CONFIG) {
        Ok(config) => LlamaConfig { n_heads, ..config },
        Err(error) => panic!("the smallest Llama is read: {error}"),
    }
}

/// A safetensors file of these tensors in bf16, all of them 1.
fn safetensors(specs: &[TensorSpec], metadata: &[(&str, &str)]) -> Vec<u8> {
    let mut header = Map::new();
    let pairs: Map<String, serde_json::Value> = metadata.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    header.insert("__metadata__".into(), pairs.into());
    let mut end = 0;
    for spec in specs {
        let start = end;
        end += 2 * spec.shape.iter().product::<usize>();
        let tensor = json!({"dtype": "BF16", "shape": spec.shape, "data_offsets": [start, end]});
        header.insert(spec.name.clone(), tensor);
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let data = [0x80, 0x3f].repeat(end / 2);
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
    }
}

fn model_file() -> Vec<u8> {
    safetensors(&config(1).model_tensors(), &[("format", "pt")])
}

fn heads_file() -> Vec<u8> {
    safetensors(&config(2).head_tensors(2), &[])
}

/// Factors of rank 2 for the queries.
pub(super) fn adapter_file() -> Vec<u8> {
    let prefix = "base_model.model.model.layers.0.self_attn.q_proj";
    let factors = [
        spec(&format!("{prefix}.lora_A.weight"), &[2, 4]),
        spec(&format!("{prefix}.lora_B.weight"), &[4, 2]),
    ];
    safetensors(&factors, &[])
}

/// A directory with the smallest Llama.
pub(super) fn base(dir: &Path) -> PathBuf {
    let dir = emptied(dir);
    put(&dir.join("config.json"), CONFIG.as_bytes());
    put(&dir.join("model.safetensors"), &model_file());
    dir
}

/// The same model as PyTorch's file in Meta's layout.
pub(super) fn meta_checkpoint(dir: &Path) -> Vec<u8> {
    let meta = dir.join("made");
    if let Err(error) = hf_to_meta(&base(&dir.join("of")), &emptied(&meta)) {
        panic!("the smallest Llama is converted: {error}");
    }
    fs::read(meta.join("consolidated.pth")).unwrap_or_default()
}

pub(super) const MODEL: Target = Target {
    name: "safetensors",
    what: "model.safetensors, loaded and hashed",
    kind: Kind::Loader,
    shape: Shape::Safetensors,
    words: words::TENSORS,
    stack: FIRST,
    seeds: || {
        let plain = config(1).model_tensors();
        let prefixed: Vec<TensorSpec> = plain
            .iter()
            .map(|s| spec(&format!("base.{}", s.name), &s.shape))
            .collect();
        vec![model_file(), safetensors(&prefixed, &[]), safetensors(&plain[..3], &[])]
    },
    open: |dir| {
        let dir = base(dir);
        let device = Device::flex();
        Box::new(move |input| {
            put(&dir.join("model.safetensors"), input);
            let _ = model_hash(&dir);
            Outcome::of(&load(&dir, &LoadOptions::default(), &device))
        })
    },
};

pub(super) const DIRECTORY: Target = Target {
    name: "model-directory",
    what: "a model's directory: configuration, weights, index of shards, heads; loaded and converted",
    shape: Shape::Parts,
    seeds: || {
        let with_heads = CONFIG.replacen('{', r#"{"wmtp": {"n_heads": 2, "format": 1}, "#, 1);
        let names = config(1).model_tensors();
        let of = |shard: &str| {
            names
                .iter()
                .map(|s| (s.name.clone(), json!(shard)))
                .collect::<Map<_, _>>()
        };
        let index = json!({"metadata": {"total_size": 1}, "weight_map": of("model-00001-of-00001.safetensors")});
        vec![
            named(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &model_file())]),
            named(&[
                ("config.json", with_heads.as_bytes()),
                ("model.safetensors", &model_file()),
                ("mtp_heads.safetensors", &heads_file()),
            ]),
            named(&[
                ("config.json", CONFIG.as_bytes()),
                ("model.safetensors.index.json", index.to_string().as_bytes()),
                ("model-00001-of-00001.safetensors", &model_file()),
                ("generation_config.json", b"{}"),
            ]),
        ]
    },
    words: words::MODEL,
    open: |dir| {
        let model = dir.join("model");
        let target = dir.join("target");
        let device = Device::flex();
        Box::new(move |input| {
            spread(&model, &split(input));
            let _ = model_hash(&model);
            let loaded = load(&model, &LoadOptions::default(), &device);
            let _ = convert(&model, &emptied(&target));
            Outcome::of(&loaded)
        })
    },
    ..MODEL
};

pub(super) const HEADS: Target = Target {
    name: "heads",
    what: "mtp_heads.safetensors",
    seeds: || vec![heads_file(), model_file()],
    open: |dir| {
        let dir = base(dir);
        let with_heads = CONFIG.replacen('{', r#"{"wmtp": {"n_heads": 2, "format": 1}, "#, 1);
        put(&dir.join("config.json"), with_heads.as_bytes());
        let device = Device::flex();
        Box::new(move |input| {
            put(&dir.join("mtp_heads.safetensors"), input);
            Outcome::of(&load(&dir, &LoadOptions::default(), &device))
        })
    },
    ..MODEL
};

pub(super) const ADAPTER: Target = Target {
    name: "adapter",
    what: "an adapter's directory, merged into its base and resumed",
    shape: Shape::Parts,
    words: words::ADAPTER,
    seeds: || {
        let of = |settings: &str| format!(r#"{{"peft_type": "LORA", "r": 2, "lora_alpha": 4, {settings}}}"#);
        let magnitude = spec(
            "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
            &[4],
        );
        let saved = [
            spec("base_model.model.model.embed_tokens.weight", &[7, 4]),
            spec("base_model.model.lm_head.weight", &[7, 4]),
        ];
        let q_proj = r#""target_modules": ["q_proj"]"#;
        let dora = format!("{q_proj}, \"use_dora\": true");
        let patterns = format!("{q_proj}, \"rank_pattern\": {{\"q_proj\": 2}}, \"alpha_pattern\": {{\".*q_proj\": 8}}");
        let whole = r#""target_modules": [], "modules_to_save": ["embed_tokens", "lm_head"]"#;
        let pair = |settings: &str, tensors: &[u8]| {
            named(&[
                ("adapter_config.json", of(settings).as_bytes()),
                ("adapter_model.safetensors", tensors),
            ])
        };
        vec![
            pair(q_proj, &adapter_file()),
            pair(&patterns, &adapter_file()),
            pair(&dora, &safetensors(&[magnitude], &[])),
            pair(whole, &safetensors(&saved, &[])),
        ]
    },
    open: |dir| {
        let base = base(&dir.join("base"));
        let adapter = dir.join("adapter");
        let device = Device::flex();
        let model = match load(&base, &LoadOptions::default(), &device) {
            Ok(model) => apply_lora(model, 2, 4.0, 1),
            Err(error) => panic!("the smallest Llama is loaded: {error}"),
        };
        Box::new(move |input| {
            spread(&adapter, &split(input));
            let _ = load_adapter(model.clone(), &adapter);
            Outcome::of(&load_adapted(&base, &adapter, &LoadOptions::default(), &device))
        })
    },
    ..MODEL
};

pub(super) const REWARD: Target = Target {
    name: "reward-model",
    what: "a reward model's weights",
    seeds: || {
        let mut specs = config(1).model_tensors();
        specs.retain(|spec| spec.name != "lm_head.weight");
        specs.push(spec("score.weight", &[1, 4]));
        vec![safetensors(&specs, &[])]
    },
    open: |dir| {
        let dir = base(dir);
        let device = Device::flex();
        Box::new(move |input| {
            put(&dir.join("model.safetensors"), input);
            Outcome::of(&RewardModel::load(&dir, &device))
        })
    },
    ..MODEL
};

pub(super) const VALUE_HEAD: Target = Target {
    name: "value-head",
    what: "value_head.safetensors",
    seeds: || {
        let device = Device::flex();
        let path = std::env::temp_dir().join(format!("wmtp-fuzz-head-{}", std::process::id()));
        let saved = ValueHead::init(2, 1, &device).save(&path, "hash");
        let bytes = fs::read(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        saved.map(|()| vec![bytes]).unwrap_or_default()
    },
    words: &[
        "value_head.0.weight",
        "value_head.0.bias",
        "value_head.2.weight",
        "value_head.2.bias",
        "hash",
        "F32",
        "shape",
    ],
    open: |dir| {
        let path = dir.join("value_head.safetensors");
        let device = Device::flex();
        Box::new(move |input| {
            put(&path, input);
            Outcome::of(&ValueHead::load(&path, "hash", &device))
        })
    },
    ..MODEL
};

pub(super) const SCORES: Target = Target {
    name: "scores",
    what: "cached scores of a data set",
    seeds: || {
        let Ok(dir) = tempfile::tempdir() else {
            return Vec::new();
        };
        let saved = CachedScores::new("key".into()).save(dir.path());
        saved.ok().and_then(|path| fs::read(path).ok()).into_iter().collect()
    },
    words: &[
        "samples",
        "lengths",
        "scores",
        "U64",
        "F32",
        "key",
        "sha256",
        "__metadata__",
        "shape",
        "data_offsets",
    ],
    open: |dir| {
        let dir = dir.to_owned();
        let path = CachedScores::path(&dir, "key");
        Box::new(move |input| {
            put(&path, input);
            match CachedScores::load(&dir, "key") {
                Ok(None) => Outcome::refused("absent"),
                loaded => Outcome::of(&loaded),
            }
        })
    },
    ..MODEL
};

pub(super) const PYTORCH: Target = Target {
    name: "pytorch",
    what: "PyTorch's checkpoints: pickles, archives, the older format",
    shape: Shape::Pickle,
    seeds: || {
        let Ok(dir) = tempfile::tempdir() else {
            return Vec::new();
        };
        let zip = meta_checkpoint(dir.path());
        let legacy = root().join("model/tests/fixtures/families/bin-legacy/pytorch_model.bin");
        let mut seeds = vec![fs::read(legacy).unwrap_or_default()];
        seeds.extend(stored(&zip, "data.pkl"));
        seeds.extend(stored(
            &file("model/tests/fixtures/meta/tied/consolidated.pth"),
            "data.pkl",
        ));
        seeds.push(zip);
        seeds
    },
    open: |dir| {
        let meta = emptied(&dir.join("meta"));
        put(&meta.join("params.json"), PARAMS);
        let model = emptied(&dir.join("model"));
        let config = file("model/tests/fixtures/families/bin-legacy/config.json");
        put(&model.join("config.json"), &config);
        let target = dir.join("target");
        let device = Device::flex();
        Box::new(move |input| {
            let is_file = input.starts_with(b"PK") || input.len() % 5 == 0 || input.len() > 8 << 10;
            let bytes = if is_file { input.to_vec() } else { archive(input) };
            put(&meta.join("consolidated.pth"), &bytes);
            put(&model.join("pytorch_model.bin"), &bytes);
            let loaded = load(&model, &LoadOptions::default(), &device);
            let converted = meta_to_hf(&meta, &emptied(&target));
            match loaded {
                Ok(_) => Outcome::Accepted,
                Err(_) => Outcome::of(&converted),
            }
        })
    },
    ..MODEL
};

/// An archive with this pickle, and bytes for each of its tensors.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let names: Vec<String> = (0..12).map(|key| format!("a/data/{key}")).collect();
    let data = [0x80, 0x3f].repeat(24);
    let mut files = vec![
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/version", b"3\n"),
    ];
    files.extend(names.iter().map(|name| (name.as_str(), data.as_slice())));
    zipped(&files)
}
