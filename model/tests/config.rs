//! `config.json`: what transformers writes is understood and kept, what cannot be run is refused.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use common::fixture;
use serde_json::{Value, json};
use wmtp_model::{LlamaConfig, RopeScaling};

fn smollm2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        "rms_norm_eps": 1e-5, "rope_theta": 100000.0, "rope_scaling": null,
        "tie_word_embeddings": true, "eos_token_id": 2, "bos_token_id": 1,
        "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "is_llama_config": true,
    })
}

fn parse(value: &Value) -> Result<LlamaConfig, String> {
    LlamaConfig::parse(&value.to_string()).map_err(|error| error.to_string())
}

fn changed(changes: Value) -> Value {
    let mut config = smollm2();
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

#[test]
fn a_real_configuration_is_understood() {
    let config = parse(&smollm2()).unwrap();
    assert_eq!(
        (config.head_dim, config.n_heads, config.num_key_value_heads),
        (64, 1, 3)
    );
    assert_eq!(
        (config.eos_token_ids.as_slice(), config.bos_token_id),
        (&[2][..], Some(1))
    );
    assert_eq!(config.rope.theta, 100000.0);
    // 49152 * 576 + 30 layers of (2 * 576^2 + 2 * 192 * 576 + 3 * 1536 * 576 + 2 * 576) + 576.
    assert_eq!(config.num_params(), 134_515_008);
    let four = parse(&changed(json!({"wmtp": {"n_heads": 4, "format": 1}}))).unwrap();
    assert_eq!(four.num_params(), 134_515_008 + 3 * 3_540_096);
    // Queries and output have 576 biases each, keys and values 192.
    let biased = parse(&changed(json!({"attention_bias": true}))).unwrap();
    assert_eq!(biased.num_params(), 134_515_008 + 30 * 2 * (576 + 192));
}

#[test]
fn defaults_are_those_of_transformers() {
    let mut config = smollm2();
    for name in [
        "num_key_value_heads",
        "rope_theta",
        "rms_norm_eps",
        "tie_word_embeddings",
        "eos_token_id",
    ] {
        config.as_object_mut().unwrap().remove(name);
    }
    let config = parse(&config).unwrap();
    assert_eq!(config.num_key_value_heads, 9);
    assert_eq!((config.rope.theta, config.rms_norm_eps), (10_000.0, 1e-6));
    assert!(!config.tie_word_embeddings);
    assert_eq!(config.eos_token_ids, [2]);
}

#[test]
fn both_spellings_of_rotary_scaling_mean_the_same() {
    let block = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    });
    let old = parse(&changed(json!({"rope_theta": 5e5, "rope_scaling": block}))).unwrap();
    let mut new = changed(json!({"rope_parameters": block}));
    new["rope_parameters"]["rope_theta"] = json!(5e5);
    new.as_object_mut().unwrap().remove("rope_theta");
    let new = parse(&new).unwrap();
    assert_eq!(old.rope, new.rope);
    assert!(matches!(old.rope.scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
    assert_eq!(parse(&old.to_json("float32")).unwrap().rope, old.rope);
}

#[test]
fn what_is_written_reads_back_and_keeps_unknown_fields() {
    let config = parse(&changed(
        json!({"eos_token_id": [2, 7], "wmtp": {"n_heads": 4, "format": 1}}),
    ))
    .unwrap();
    let written = config.to_json("float32");
    assert_eq!(written["is_llama_config"], json!(true));
    assert_eq!(written["torch_dtype"], json!("float32"));
    assert_eq!(written["wmtp"], json!({"n_heads": 4, "format": 1}));
    let back = parse(&written).unwrap();
    assert_eq!(
        LlamaConfig {
            other: config.other.clone(),
            ..back
        },
        config
    );
    for name in ["tied-f32", "untied-bf16", "sharded-f16", "llama3-rope"] {
        LlamaConfig::read(&fixture(name)).unwrap();
    }
}

#[test]
fn everything_that_cannot_be_run_is_listed_at_once() {
    let error = parse(&changed(json!({
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
        "mlp_bias": true, "hidden_act": "gelu", "num_key_value_heads": 2, "head_dim": 63,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "vocab_size": 0, "rms_norm_eps": -1.0,
        "sliding_window": 4096, "hidden_size": "wide", "wmtp": {"n_heads": 0, "format": 9},
    })))
    .unwrap_err();
    for part in [
        "`model_type` is \"qwen2\"",
        "\"Qwen2ForCausalLM\"",
        "`mlp_bias` is true",
        "`hidden_act` is \"gelu\"",
        "(9) is not a multiple of `num_key_value_heads` (2)",
        "`head_dim` is 63",
        "`rope_scaling.rope_type` is \"yarn\"",
        "`vocab_size` is 0",
        "`rms_norm_eps` is -1",
        "`sliding_window` is set",
        "`hidden_size` is \"wide\", it must be a whole number",
        "`wmtp.n_heads` is 0",
        "`wmtp.format` is 9",
    ] {
        assert!(error.contains(part), "{part} not in: {error}");
    }
    assert_eq!(error.matches("\n  - ").count(), 13, "{error}");
}

#[test]
fn missing_fields_and_broken_documents_are_one_sentence() {
    let mut config = smollm2();
    config.as_object_mut().unwrap().remove("intermediate_size");
    let error = parse(&config).unwrap_err();
    assert!(
        error.ends_with("`intermediate_size` is missing, it must be a whole number"),
        "{error}"
    );
    assert!(
        LlamaConfig::parse("[1]")
            .unwrap_err()
            .to_string()
            .contains("not a JSON object")
    );
    assert!(
        LlamaConfig::parse("{")
            .unwrap_err()
            .to_string()
            .contains("not valid JSON")
    );
    let error = LlamaConfig::read(&fixture("nowhere")).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read ") && error.contains("config.json"),
        "{error}"
    );
}
