//! Adapters as peft saves them, against the cross-entropy that peft computes with each
//! (`fixtures/peft/make_adapters.py`).
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeMap;

use burn::tensor::Device;
use common::{cross_entropy, fixture, max_diff, references, rows};
use serde::Deserialize;
use wmtp_model::{
    CausalLm, LlamaConfig, LoadOptions, MtpLlama, Packed, apply_lora, continue_adapter, load, load_adapted,
};

#[derive(Deserialize)]
struct Expected {
    adapters: BTreeMap<String, Adapter>,
}

#[derive(Deserialize)]
struct Adapter {
    base: String,
    /// None: what it needs is refused.
    token_ce: Option<Vec<f64>>,
}

fn expected() -> BTreeMap<String, Adapter> {
    let text = std::fs::read_to_string(fixture("peft/expected.json")).unwrap();
    serde_json::from_str::<Expected>(&text).unwrap().adapters
}

fn adapted(base: &str, adapter: &std::path::Path) -> Result<MtpLlama, String> {
    let options = LoadOptions::default();
    load_adapted(&fixture(base), adapter, &options, &Device::flex()).map_err(|error| error.to_string())
}

fn token_ce(model: &MtpLlama, base: &str) -> Vec<f64> {
    let ids = references(&fixture(base).join("reference.json"))
        .prompts
        .remove(0)
        .token_ids;
    let input = Packed::from_documents(std::slice::from_ref(&ids), &model.device());
    let ctx = model.context(&input);
    let logits = rows(model.logits(model.head(1, model.trunk(&input, &ctx), &ctx)));
    let pairs = logits.iter().zip(ids.iter().skip(1));
    pairs
        .map(|(row, target)| cross_entropy(row, *target as usize))
        .collect()
}

#[test]
fn merged_adapters_give_the_cross_entropy_of_peft() {
    let mut compared = 0;
    for (
        name,
        Adapter {
            base,
            token_ce: expected,
        },
    ) in expected()
    {
        let Some(expected) = expected else { continue };
        let model = adapted(&base, &fixture("peft").join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let found = token_ce(&model, &base);
        let gaps = found
            .iter()
            .zip(&expected)
            .map(|(found, expected)| (found - expected).abs());
        let mean = gaps.sum::<f64>() / expected.len() as f64;
        let worst = max_diff(&found, &expected);
        assert!(
            mean < 1e-5 && worst < 3e-5,
            "{name}: {mean} nats from peft, {worst} at most"
        );
        compared += 1;
    }
    assert_eq!(compared, 26);
}

#[test]
fn what_cannot_be_merged_is_refused_by_key_and_value() {
    for (name, said) in [
        ("lora-bias", "`lora_bias` is true"),
        ("pissa", "`init_lora_weights` is \"pissa\""),
        ("olora", "`init_lora_weights` is \"olora\""),
        ("tokens", "`trainable_token_indices` is [3,5]"),
        ("replicated", "`layer_replication` is [[0,2],[1,3]]"),
        ("dora-embed", "`use_dora` is true and the embedding is a target"),
        ("ia3", "`peft_type` is \"IA3\""),
    ] {
        let Adapter { base, token_ce } = &expected()[name];
        assert!(token_ce.is_none(), "{name} can be merged");
        let error = adapted(base, &fixture("peft").join(name)).unwrap_err();
        let place = fixture("peft").join(name).display().to_string();
        assert!(
            error.contains(said) && error.contains(&place) && error.contains("merge_and_unload"),
            "{name}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

/// A copy of an adapter with one change to its settings.
fn changed(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixture("peft").join(name).join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().join("adapter_config.json");
    let mut config = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    dir
}

#[test]
fn tensors_and_settings_that_contradict_each_other_are_refused() {
    let error = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        adapted("tied-f32", changed(name, change).path()).unwrap_err()
    };
    let more = error("qv", &|config| {
        config["target_modules"] = ["q_proj", "v_proj", "o_proj"].into()
    });
    assert!(
        more.contains("6 tensors are missing") && more.contains("`lora_A` of `model.layers.0.self_attn.o_proj`"),
        "{more}"
    );
    let fewer = error("qv", &|config| config["target_modules"] = ["q_proj"].into());
    assert!(
        fewer.contains("6 tensors are surplus") && fewer.contains("v_proj.lora_A.weight"),
        "{fewer}"
    );
    let rank = error("qv", &|config| config["r"] = 3.into());
    assert!(rank.contains("([2, 16], expected [3, 16])"), "{rank}");
    let largest = LlamaConfig::read(&fixture("tied-f32")).unwrap().largest_rank();
    for (r, shown) in [
        (0, "0"),
        (1 << 32, "4294967296"),
        (i64::MAX as u64, "9223372036854775807"),
        (1 << 63, "9223372036854775808"),
    ] {
        let rank = error("qv", &|config| config["r"] = r.into());
        let says = format!("rank {shown}, it must be from 1 to {largest}");
        assert!(rank.contains(&says) && rank.contains("q_proj"), "{rank}");
        let pattern = error("qv", &|config| {
            config["rank_pattern"] = serde_json::json!({"q_proj": r})
        });
        assert!(pattern.contains("it must be from 1 to"), "{pattern}");
    }
    let keys = |keys: Vec<String>| -> serde_json::Value {
        keys.into_iter()
            .map(|key| (key, 4.into()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    for (patterns, says) in [
        (
            keys((0..1001).map(|n| format!("k{n}")).collect()),
            "`rank_pattern` has more than 1000 keys",
        ),
        (
            keys(vec!["x".repeat(1001)]),
            "has a pattern of 1001 bytes, at most 1000 are read",
        ),
        (
            keys(vec![r"(([a-z_.0-9])*)*\1x".into()]),
            "a pattern takes too many steps",
        ),
    ] {
        let begun = std::time::Instant::now();
        let refused = error("qv", &|config| config["rank_pattern"] = patterns.clone());
        assert!(refused.contains(says), "{refused}");
        assert!(begun.elapsed().as_secs() < 5, "{says}: {:?}", begun.elapsed());
    }
    let unsaved = error("embed-saved-tied", &|config| {
        config["modules_to_save"] = serde_json::Value::Null
    });
    let exempt = adapted("tied-f32", changed("embed-saved-tied", |_| ()).path());
    assert!(exempt.is_ok() && unsaved.contains("embed_tokens"), "{unsaved}");
    let dora = error("qv", &|config| config["use_dora"] = true.into());
    assert!(dora.contains("`lora_magnitude_vector` of"), "{dora}");
    let magnitudes = error("dora", &|config| config["use_dora"] = false.into());
    assert!(
        magnitudes.contains("lora_magnitude_vector` ") || magnitudes.contains("are surplus"),
        "{magnitudes}"
    );
    let future = error("qv", &|config| config["use_sparse_lora"] = true.into());
    assert!(future.contains("`use_sparse_lora` is true"), "{future}");
    let task = error("qv", &|config| config["task_type"] = "SEQ_CLS".into());
    assert!(task.contains("`task_type` is \"SEQ_CLS\""), "{task}");
    let other = adapted("sharded-f16", &fixture("peft/qv")).unwrap_err();
    assert!(other.contains("have another shape"), "{other}");
}

/// The heads of a multi-token base that peft does not know of stay as they are; a head that the base
/// lacks is a copy of the merged last layer.
#[test]
fn extra_heads_follow_from_the_merged_layer() {
    let options = LoadOptions {
        n_heads: Some(2),
        ..LoadOptions::default()
    };
    let device = Device::flex();
    let model = load_adapted(&fixture("tied-f32"), &fixture("peft/qv"), &options, &device).unwrap();
    let input = Packed::from_documents(&[vec![7, 8, 9, 10]], &device);
    let ctx = model.context(&input);
    let trunk = model.trunk(&input, &ctx);
    let [first, second] = [1, 2].map(|k| common::values(model.head(k, trunk.clone(), &ctx)));
    assert_eq!(first, second);
    let plain = load(&fixture("tied-f32"), &options, &device).unwrap();
    let ctx = plain.context(&input);
    let unadapted = common::values(plain.head(1, plain.trunk(&input, &ctx), &ctx));
    assert!(max_diff(&first, &unadapted) > 1e-3);
}

/// An adapter that is trained further computes what it did, as long as nothing was trained.
#[test]
fn adapters_are_continued_where_low_rank_products_express_them() {
    let base = fixture("tied-f32");
    let continued = |name: &str, rank: usize, alpha: f64| {
        let model = load(&base, &LoadOptions::default(), &Device::flex()).unwrap();
        let model = apply_lora(model, rank, alpha, 3);
        continue_adapter(model, &base, &fixture("peft").join(name), rank, alpha).map_err(|error| error.to_string())
    };
    // 6 / sqrt(2) = 8.485... / 2.
    for (name, alpha) in [
        ("qv", 6.0),
        ("one-layer", 6.0),
        ("regex", 6.0),
        ("rslora", 6.0 * 2f64.sqrt()),
    ] {
        let model = continued(name, 2, alpha).unwrap();
        let expected = expected()[name].token_ce.clone().unwrap();
        let gap = max_diff(&token_ce(&model, "tied-f32"), &expected);
        assert!(gap < 3e-5, "{name}: {gap} nats from peft");
    }
    for (name, rank, alpha, said) in [
        ("qv", 4, 12.0, "rank 2 and scale 3"),
        ("qv", 2, 4.0, "rank 2 and scale 3"),
        ("patterns", 2, 6.0, "`train.lora` rank 2 and scale 3"),
        ("dora", 2, 6.0, "more than a low-rank product"),
        ("head-target-tied", 2, 6.0, "`lm_head`"),
        ("norms-saved", 2, 6.0, "more than a low-rank product"),
        ("ia3", 2, 6.0, "`peft_type` is \"IA3\""),
    ] {
        let error = continued(name, rank, alpha).unwrap_err();
        assert!(error.contains(said), "{name}: {error}");
    }
}
