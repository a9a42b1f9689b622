//! Configurations of models and adapters.

use super::{
    file,
    tensors::{adapter_file, base, meta_checkpoint},
    words,
};
use crate::{
    Kind, Outcome, Target,
    mutate::Shape,
    scratch::{emptied, put},
    target::FIRST,
};
use wmtp_model::{LlamaConfig, adapted_config, meta_to_hf};

pub(super) const CONFIG: Target = Target {
    name: "model-config",
    what: "a model's config.json",
    kind: Kind::Memory,
    shape: Shape::Json,
    words: words::MODEL,
    stack: FIRST,
    seeds: || {
        let families = [
            "bin-legacy",
            "dynamic",
            "fast-llm",
            "fp8-block",
            "mistral",
            "qwen3",
            "smollm3-window",
            "yarn-qwen2",
        ];
        let of = |family: &str| file(&format!("model/tests/fixtures/families/{family}/config.json"));
        let mut seeds: Vec<Vec<u8>> = families.into_iter().map(of).collect();
        seeds.push(file("model/tests/fixtures/llama3-rope/config.json"));
        seeds
    },
    open: |_| {
        Box::new(|input| {
            let parsed = LlamaConfig::parse(&String::from_utf8_lossy(input));
            if let Ok(config) = &parsed {
                let _ = (config.num_params(), config.query_size(), config.key_value_size());
                let _ = LlamaConfig::parse(&config.to_json("bfloat16").to_string());
            }
            Outcome::of(&parsed)
        })
    },
};

pub(super) const PARAMS: Target = Target {
    name: "meta-params",
    what: "params.json of Meta's layout, converted with its weights",
    kind: Kind::Loader,
    seeds: || {
        let tiny = br#"{"dim": 4, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "vocab_size": 6, "multiple_of": 4, "norm_eps": 1e-6, "rope_theta": 10000.0}"#;
        vec![tiny.to_vec(), file("model/tests/fixtures/meta/untied/params.json")]
    },
    open: |dir| {
        let source = emptied(&dir.join("meta"));
        put(&source.join("consolidated.pth"), &meta_checkpoint(dir));
        let target = dir.join("hf");
        Box::new(move |input| {
            put(&source.join("params.json"), input);
            Outcome::of(&meta_to_hf(&source, &emptied(&target)))
        })
    },
    ..CONFIG
};

pub(super) const ADAPTER_CONFIG: Target = Target {
    name: "adapter-config",
    what: "an adapter's adapter_config.json, against its base and its tensors",
    words: words::ADAPTER,
    seeds: || {
        let peft = [
            "qv",
            "all-linear",
            "patterns",
            "regex",
            "dora-rslora",
            "one-layer",
            "excluded",
            "head-saved-tied",
        ];
        let of = |kind: &str| file(&format!("model/tests/fixtures/peft/{kind}/adapter_config.json"));
        let mut seeds: Vec<Vec<u8>> = peft.into_iter().map(of).collect();
        seeds.push(br#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}"#.to_vec());
        seeds
    },
    open: |dir| {
        let base = base(&dir.join("base"));
        let adapter = emptied(&dir.join("adapter"));
        put(&adapter.join("adapter_model.safetensors"), &adapter_file());
        Box::new(move |input| {
            put(&adapter.join("adapter_config.json"), input);
            Outcome::of(&adapted_config(&base, &adapter))
        })
    },
    ..CONFIG
};
