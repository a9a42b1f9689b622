//! Model directories: what is saved comes back bit for bit, and what does not fit is named at once.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use common::{fixture, max_diff, references, values};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use wmtp_model::{
    CausalLm, HeadInit, LlamaConfig, LoadOptions, MtpLlama, Packed, SaveDtype, from_bytes, load, model_hash, save,
    to_bytes,
};

fn with_heads(n: usize, head_init: HeadInit, seed: u64) -> LoadOptions {
    LoadOptions {
        n_heads: Some(n),
        head_init,
        seed,
        ..LoadOptions::default()
    }
}

fn open(dir: &Path, options: &LoadOptions) -> MtpLlama {
    load(dir, options, &Device::flex()).unwrap()
}

fn error(dir: &Path) -> String {
    load(dir, &LoadOptions::default(), &Device::flex())
        .unwrap_err()
        .to_string()
}

fn same(a: &MtpLlama, b: &MtpLlama) -> bool {
    to_bytes(a).unwrap() == to_bytes(b).unwrap()
}

/// A copy of a fixture that may be damaged.
fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    dir
}

/// Name to type, shape and bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn edit(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = file
        .iter()
        .map(|(name, view)| {
            (
                name.to_owned(),
                (view.dtype(), view.shape().to_vec(), view.data().to_vec()),
            )
        })
        .collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn edit_config(dir: &Path, name: &str, value: serde_json::Value) {
    let path = dir.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[name] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn saving_in_f32_and_loading_gives_the_same_bits() {
    let model = open(&fixture("untied-bf16"), &with_heads(3, HeadInit::Random, 9));
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save(&model, first.path(), SaveDtype::F32).unwrap();
    let loaded = open(first.path(), &LoadOptions::default());
    assert_eq!(loaded.n_heads(), 3);
    assert!(same(&model, &loaded));
    save(&loaded, second.path(), SaveDtype::F32).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "mtp_heads.safetensors",
    ] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap();
        assert_eq!(read(first.path()), read(second.path()), "{file}");
    }
    let files: Vec<_> = std::fs::read_dir(first.path()).unwrap().collect();
    assert_eq!(files.len(), 4, "no temporary file stays behind");
}

#[test]
fn half_types_come_back_as_they_were_stored() {
    for (name, dtype) in [("untied-bf16", SaveDtype::Bf16), ("sharded-f16", SaveDtype::F16)] {
        let dir = tempfile::tempdir().unwrap();
        save(&open(&fixture(name), &LoadOptions::default()), dir.path(), dtype).unwrap();
        assert_eq!(
            model_hash(dir.path()).unwrap(),
            model_hash(&fixture(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn the_models_hash_is_the_documented_one() {
    for name in ["tied-f32", "untied-bf16", "sharded-f16", "llama3-rope"] {
        let expected = references(&fixture(name).join("reference.json")).model_hash;
        assert_eq!(model_hash(&fixture(name)).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_model_in_memory_comes_back_and_a_damaged_one_is_named() {
    let model = open(&fixture("llama3-rope"), &with_heads(2, HeadInit::CopyLast, 0));
    let bytes = to_bytes(&model).unwrap();
    let read = |config: &LlamaConfig, bytes: Vec<u8>| from_bytes(config, bytes, model.dtype(), &Device::flex());
    assert!(same(&model, &read(model.config(), bytes.clone()).unwrap()));
    let error = read(model.config(), bytes[..bytes.len() - 1].to_vec())
        .unwrap_err()
        .to_string();
    assert!(error.contains("it is truncated"), "{error}");
    let mut fewer = model.config().clone();
    fewer.n_heads = 1;
    let error = read(&fewer, bytes).unwrap_err().to_string();
    assert!(error.contains("`mtp.heads.2.mlp.up_proj.weight` is surplus"), "{error}");
}

#[test]
fn missing_heads_are_made_as_asked_and_stored_ones_kept() {
    let dir = fixture("tied-f32");
    let input = Packed::from_documents(&[(6..20).collect()], &Device::flex());
    let hidden = |model: &MtpLlama, k| {
        let ctx = model.context(&input);
        values(model.head(k, model.trunk(&input, &ctx), &ctx))
    };
    let copied = open(&dir, &with_heads(3, HeadInit::CopyLast, 0));
    assert_eq!(hidden(&copied, 3), hidden(&copied, 1));

    let random = open(&dir, &with_heads(3, HeadInit::Random, 5));
    assert!(same(&random, &open(&dir, &with_heads(3, HeadInit::Random, 5))));
    assert!(!same(&random, &open(&dir, &with_heads(3, HeadInit::Random, 6))));
    assert!(max_diff(&hidden(&random, 2), &hidden(&random, 3)) > 0.1);
    assert_eq!(hidden(&random, 1), hidden(&copied, 1), "head 1 is the checkpoint's");

    let saved = tempfile::tempdir().unwrap();
    save(&random, saved.path(), SaveDtype::F32).unwrap();
    let more = open(saved.path(), &with_heads(4, HeadInit::CopyLast, 0));
    assert_eq!(hidden(&more, 3), hidden(&random, 3));
    assert_eq!(hidden(&more, 4), hidden(&more, 1));
    let fewer = open(saved.path(), &with_heads(1, HeadInit::CopyLast, 0));
    assert_eq!(fewer.n_heads(), 1);
    // Saved over the larger model, no head of it is left.
    save(&fewer, saved.path(), SaveDtype::F32).unwrap();
    assert!(!saved.path().join("mtp_heads.safetensors").exists());
    assert!(same(&fewer, &open(saved.path(), &LoadOptions::default())));
}

#[test]
fn all_that_does_not_fit_is_listed_in_one_error() {
    let dir = copy_of("untied-bf16");
    edit(&dir.path().join("model.safetensors"), |tensors| {
        tensors.remove("model.layers.1.mlp.up_proj.weight");
        let norm = tensors.remove("model.norm.weight").unwrap();
        tensors.insert("model.norm.bias".to_owned(), norm);
        let q = tensors.get_mut("model.layers.0.self_attn.q_proj.weight").unwrap();
        q.1 = vec![8, 32];
        let k = tensors.get_mut("model.layers.2.self_attn.k_proj.weight").unwrap();
        k.0 = Dtype::I16;
    });
    let error = error(dir.path());
    for part in [
        "2 tensors are missing",
        "`model.layers.1.mlp.up_proj.weight` of shape [32, 16]",
        "`model.norm.weight` of shape [16]",
        "`model.norm.bias` is surplus",
        "`model.layers.0.self_attn.q_proj.weight` ([8, 32], expected [16, 16]) has another shape",
        "`model.layers.2.self_attn.k_proj.weight` (I16, expected F32, F16 or BF16) has another type",
    ] {
        assert!(error.contains(part), "{part} not in: {error}");
    }
    assert_eq!(error.matches("\n  - ").count(), 4, "{error}");
}

#[test]
fn damaged_and_missing_files_are_named() {
    let dir = copy_of("tied-f32");
    let file = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let error = error(dir.path());
        assert!(
            error.contains("model.safetensors is not a readable safetensors file"),
            "{length}: {error}"
        );
    }
    std::fs::write(&file, [bytes.as_slice(), b"x"].concat()).unwrap();
    assert!(error(dir.path()).contains("it is damaged"));
    std::fs::remove_file(&file).unwrap();
    assert!(error(dir.path()).contains("has no `model.safetensors`"));
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(error(dir.path()).contains("config.json"));
}

#[test]
fn what_is_wrong_with_shards_is_named() {
    let dir = copy_of("sharded-f16");
    std::fs::remove_file(dir.path().join("model-00002-of-00005.safetensors")).unwrap();
    edit(&dir.path().join("model-00001-of-00005.safetensors"), |tensors| {
        let (_, tensor) = tensors.pop_first().unwrap();
        tensors.insert("unknown".to_owned(), tensor);
    });
    let message = error(dir.path());
    assert!(
        message.contains("shard model-00002-of-00005.safetensors: cannot read"),
        "{message}"
    );
    assert!(
        message.contains("is not in model-00001-of-00005.safetensors, where the index says it is"),
        "{message}"
    );
    // What else is missing or surplus follows from that.
    assert!(
        !message.contains("surplus") && !message.contains("missing"),
        "{message}"
    );

    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(
        &index,
        r#"{"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}"#,
    )
    .unwrap();
    assert!(error(dir.path()).contains("the shard of `model.norm.weight` is not a plain file name"));
    std::fs::write(&index, "{}").unwrap();
    assert!(error(dir.path()).contains("it has no `weight_map`"));
}

#[test]
fn harmless_extras_are_accepted_and_a_false_copy_is_not() {
    let dir = copy_of("tied-f32");
    let file = dir.path().join("model.safetensors");
    edit(&file, |tensors| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".to_owned(), embedding);
        let inv_freq = (Dtype::F32, vec![2], vec![0; 8]);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), inv_freq);
    });
    let plain = open(&fixture("tied-f32"), &LoadOptions::default());
    assert!(same(&open(dir.path(), &LoadOptions::default()), &plain));
    edit(&file, |tensors| tensors.get_mut("lm_head.weight").unwrap().2[3] ^= 1);
    let error = error(dir.path());
    assert!(
        error.contains("`lm_head.weight` differs from `model.embed_tokens.weight`"),
        "{error}"
    );
}

#[test]
fn heads_that_do_not_fit_the_configuration_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(&fixture("tied-f32"), &with_heads(3, HeadInit::CopyLast, 0));
    save(&model, dir.path(), SaveDtype::Bf16).unwrap();
    let block = |n: usize| serde_json::json!({"n_heads": n, "format": 1});
    edit_config(dir.path(), "wmtp", block(2));
    let surplus = error(dir.path());
    assert!(
        surplus.contains("9 tensors are surplus: `wmtp.n_heads` is 2"),
        "{surplus}"
    );
    assert!(surplus.contains("`mtp.heads.3.mlp.up_proj.weight`"), "{surplus}");
    edit_config(dir.path(), "wmtp", block(4));
    let missing = error(dir.path());
    assert!(missing.contains("9 tensors are missing"), "{missing}");
    assert!(
        missing.contains("`mtp.heads.4.mlp.up_proj.weight` of shape [32, 16]"),
        "{missing}"
    );
    std::fs::remove_file(dir.path().join("mtp_heads.safetensors")).unwrap();
    assert!(error(dir.path()).contains("mtp_heads.safetensors"));
    // Head 1 alone needs no other file.
    open(dir.path(), &with_heads(1, HeadInit::CopyLast, 0));
    let none = load(dir.path(), &with_heads(0, HeadInit::CopyLast, 0), &Device::flex()).unwrap_err();
    assert!(none.to_string().contains("at least one prediction head"));
}
