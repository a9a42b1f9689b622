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
        "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"],
        "mlp_bias": true, "hidden_act": "gelu", "num_key_value_heads": 2, "head_dim": 63,
        "rope_scaling": {"rope_type": "longrope", "factor": 2.0}, "vocab_size": 0, "rms_norm_eps": -1.0,
        "sliding_window": 4096, "hidden_size": "wide", "wmtp": {"n_heads": 0, "format": 9},
    })))
    .unwrap_err();
    for part in [
        "`model_type` is \"gemma2\"",
        "\"Gemma2ForCausalLM\"",
        "`mlp_bias` is true",
        "`hidden_act` is \"gelu\"",
        "(9) is not a multiple of `num_key_value_heads` (2)",
        "`head_dim` is 63",
        "`rope_scaling.rope_type` is \"longrope\"",
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

/// Before a list of them is made.
#[test]
fn more_layers_than_any_model_has_are_refused() {
    for layers in [4097, 1 << 32, 1 << 63, u64::MAX] {
        for (model_type, architecture) in [
            ("llama", "LlamaForCausalLM"),
            ("qwen2", "Qwen2ForCausalLM"),
            ("qwen3", "Qwen3ForCausalLM"),
            ("smollm3", "SmolLM3ForCausalLM"),
        ] {
            let with = json!({"model_type": model_type, "architectures": [architecture], "num_hidden_layers": layers});
            let error = parse(&changed(with)).unwrap_err();
            let says = format!("`num_hidden_layers` is {layers}, it must be from 1 to 4096");
            assert!(error.contains(&says), "{model_type}: {error}");
        }
    }
}

#[test]
fn nonsense_in_fields_that_nothing_computes_with_is_refused_too() {
    for (field, value, says) in [
        (
            "torch_dtype",
            json!("banana"),
            "`torch_dtype` is \"banana\", which is no type of weights",
        ),
        ("dtype", json!(32), "`dtype` is 32, which is no type of weights"),
        ("rms_norm_eps", json!(1e308), "it must be 1 or less"),
        (
            "num_hidden_layers",
            json!(16_777_216),
            "`num_hidden_layers` is 16777216, it must be from 1 to 4096",
        ),
        (
            "head_dim",
            json!(16_777_216),
            "`num_attention_heads` (9) times `head_dim` (16777216) must be at most 16777216",
        ),
        (
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 1e4}),
            "`rope_theta` is 100000 and `rope_parameters.rope_theta` is 10000",
        ),
    ] {
        let error = parse(&changed(json!({field: value}))).unwrap_err();
        assert!(error.contains(says) && error.lines().count() == 1, "{field}: {error}");
    }
    for known in ["float32", "torch.bfloat16", "float16", "auto", "float8_e4m3fn"] {
        parse(&changed(json!({"torch_dtype": known}))).unwrap();
    }
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

/// The configuration of another family: only what differs from SmolLM2's.
fn of_family(model_type: &str, changes: Value) -> Value {
    let mut config = changed(changes);
    config["model_type"] = json!(model_type);
    config.as_object_mut().unwrap().shift_remove("architectures");
    config
}

fn windows(config: &Value) -> Vec<Option<usize>> {
    let kinds = parse(config).unwrap().layer_spec().kinds;
    kinds.iter().map(|kind| kind.window).collect()
}

#[test]
fn windows_and_layers_without_rotation_are_those_of_the_family() {
    let three = |changes: Value| {
        let mut all = json!({"num_hidden_layers": 3});
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        all
    };
    let mistral = |changes| windows(&of_family("mistral", three(changes)));
    assert_eq!(mistral(json!({})), [Some(4096); 3]);
    assert_eq!(mistral(json!({"sliding_window": null})), [None; 3]);
    assert_eq!(mistral(json!({"sliding_window": 16})), [Some(16); 3]);
    let qwen2 = |changes| windows(&of_family("qwen2", three(changes)));
    assert_eq!(qwen2(json!({"sliding_window": 16, "max_window_layers": 1})), [None; 3]);
    let used = json!({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 1});
    assert_eq!(qwen2(used), [None, Some(16), Some(16)]);
    let named = json!({
        "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention", "full_attention"],
    });
    assert_eq!(qwen2(named), [Some(4096), None, None]);
    let rotary = |changes| {
        let kinds = parse(&of_family("smollm3", changes)).unwrap().layer_spec().kinds;
        kinds.iter().map(|kind| kind.rotary).collect::<Vec<_>>()
    };
    assert_eq!(rotary(json!({"num_hidden_layers": 5})), [true, true, true, false, true]);
    // More entries than layers are allowed.
    let listed = json!({"num_hidden_layers": 2, "no_rope_layers": [0, 1, 1]});
    assert_eq!(rotary(listed), [false, true]);
}

#[test]
fn defaults_are_those_of_the_family() {
    let without = |model_type: &str| {
        let mut config = of_family(model_type, json!({}));
        for name in [
            "num_key_value_heads",
            "rope_theta",
            "tie_word_embeddings",
            "bos_token_id",
            "eos_token_id",
        ] {
            config.as_object_mut().unwrap().shift_remove(name);
        }
        config["num_attention_heads"] = json!(32);
        parse(&config).unwrap()
    };
    let (mistral, qwen3, smollm3) = (without("mistral"), without("qwen3"), without("smollm3"));
    assert_eq!(
        (mistral.num_key_value_heads, mistral.head_dim, mistral.bos_token_id),
        (8, 18, Some(1))
    );
    assert_eq!(
        (qwen3.num_key_value_heads, qwen3.head_dim, qwen3.bos_token_id),
        (32, 128, None)
    );
    assert!(qwen3.layer_spec().head_norms && !qwen3.tie_word_embeddings);
    assert_eq!((smollm3.num_key_value_heads, smollm3.rope.theta), (4, 2_000_000.0));
    assert_eq!(
        (smollm3.tie_word_embeddings, &smollm3.eos_token_ids[..]),
        (true, &[128_001][..])
    );
}

#[test]
fn what_a_family_cannot_mean_is_refused() {
    let all = |name: &str| json!(vec![name; 30]);
    for (model_type, changes, word) in [
        ("qwen2", json!({"layer_types": ["full_attention"]}), "one for each"),
        (
            "qwen2",
            json!({"layer_types": all("sliding_attention")}),
            "no window is in force",
        ),
        (
            "qwen3",
            json!({"layer_types": all("linear_attention")}),
            "`layer_types[0]`",
        ),
        ("mistral", json!({"sliding_window": 0}), "`sliding_window` is 0"),
        (
            "mistral",
            json!({"layer_types": all("full_attention")}),
            "`layer_types` is set",
        ),
        (
            "smollm3",
            json!({"no_rope_layers": [1, 0]}),
            "for each of the 30 layers",
        ),
        (
            "smollm3",
            json!({"no_rope_layer_interval": 0}),
            "`no_rope_layer_interval` is 0",
        ),
        ("smollm3", json!({"mlp_bias": true}), "`mlp_bias` is true"),
        ("gemma3_text", json!({}), "it scales embeddings"),
        ("qwen3_moe", json!({}), "it has experts"),
        (
            "qwen2",
            json!({"rope_scaling": {"type": "su", "factor": 2.0}}),
            "\"su\"",
        ),
        (
            "qwen2",
            json!({"rope_scaling": {"type": "yarn", "factor": 2.0, "beta_fast": 0.5}}),
            "beta_slow <= beta_fast",
        ),
        (
            "llama",
            json!({"rope_scaling": {"type": "dynamic", "factor": 0.5}}),
            "at least 1",
        ),
        (
            "llama",
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            "\"gptq\"",
        ),
        (
            "llama",
            json!({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}),
            "only FP8 (E4M3)",
        ),
        (
            "llama",
            json!({"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}),
            "\"compressed-tensors\"",
        ),
    ] {
        let error = parse(&of_family(model_type, changes.clone())).unwrap_err();
        assert!(error.contains(word), "{model_type}, {changes}: {error}");
    }
}
