//! Exported directories: bits, types, heads, adapters, refusals.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use common::{fixture, values};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use wmtp_model::{
    CausalLm, Companions, ExportOptions, Heads, LlamaConfig, LoadOptions, MtpLlama, Packed, SaveDtype, apply_lora,
    export, export_model, load, load_adapter, merged, save, save_adapter, stored_dtype,
};

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn config() -> LlamaConfig {
    let mut config = LlamaConfig::new(23, 8, 2, 2);
    config.num_key_value_heads = 1;
    config.intermediate_size = 12;
    config.initializer_range = 0.3;
    config.n_heads = 3;
    config
}

/// A checkpoint with three heads, stored in f32.
fn checkpoint(dir: &Path) -> MtpLlama {
    let model = config().init(1, &Device::flex());
    save(&model, dir, SaveDtype::F32).unwrap();
    for (name, content) in [
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "{{ messages }}"),
        ("generation_config.json", "{\"top_k\": 3}"),
        ("tokenizer.model", "pieces"),
        ("optimizer.bpk", "moments"),
        ("trainer.json", "{}"),
        ("manifest.json", "{}"),
        ("value_head.safetensors", "head"),
    ] {
        std::fs::write(dir.join(name), content).unwrap();
    }
    model
}

fn options(heads: Heads, dtype: Option<SaveDtype>) -> ExportOptions {
    ExportOptions { heads, dtype }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_keeps_its_type_keeps_its_bits_and_training_files_stay_behind() {
    let (src, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    checkpoint(src.path());
    let dst = root.path().join("new/model");
    let exported = export(src.path(), &dst, &ExportOptions::default()).unwrap();
    assert_eq!((exported.n_heads, exported.tensors, exported.adapter), (3, 38, false));
    assert!(exported.notes[0].starts_with("value_head.safetensors was left out"));
    assert_eq!(
        names(&dst),
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "mtp_heads.safetensors",
            "tokenizer.json",
            "tokenizer.model",
        ]
    );
    for name in names(&dst) {
        let read = |dir: &Path| std::fs::read(dir.join(&name)).unwrap();
        assert_eq!(read(&dst), read(src.path()), "{name}");
    }
    assert_eq!(names(root.path()), ["new"], "no temporary directory stays behind");
    assert_eq!(names(&root.path().join("new")), ["model"]);
}

#[test]
fn heads_can_be_dropped_and_the_type_changed() {
    let (src, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    checkpoint(src.path());
    let dst = root.path().join("plain");
    let exported = export(src.path(), &dst, &options(Heads::Drop, Some(SaveDtype::Bf16))).unwrap();
    assert_eq!(exported.n_heads, 1);
    assert!(!dst.join("mtp_heads.safetensors").exists());
    let written = read_json(&dst.join("config.json"));
    assert_eq!(written["wmtp"], Value::Null);
    assert_eq!(written["torch_dtype"], "bfloat16");
    let (before, after) = (
        tensors(&src.path().join("model.safetensors")),
        tensors(&dst.join("model.safetensors")),
    );
    assert_eq!(before.len(), after.len());
    for (name, (_, shape, bytes)) in &before {
        let (dtype, new_shape, new) = &after[name];
        assert_eq!((*dtype, new_shape), (Dtype::BF16, shape), "{name}");
        // Round to nearest even, in integers.
        for (old, new) in bytes.as_chunks::<4>().0.iter().zip(new.as_chunks::<2>().0) {
            let bits = u32::from_le_bytes(*old);
            let rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
            assert_eq!(u32::from(u16::from_le_bytes(*new)), rounded, "{name}");
        }
    }
    let index = read_json(&dst.join("model.safetensors.index.json"));
    assert!(index["weight_map"].as_object().unwrap().keys().eq(after.keys()));
    assert_eq!(
        load(&dst, &LoadOptions::default(), &Device::flex()).unwrap().n_heads(),
        1
    );
    assert_eq!(stored_dtype(&dst).unwrap(), SaveDtype::Bf16);
}

#[test]
fn shards_become_one_file_with_the_same_hash() {
    let root = tempfile::tempdir().unwrap();
    let dst = root.path().join("one");
    export(&fixture("sharded-f16"), &dst, &ExportOptions::default()).unwrap();
    assert_eq!(
        wmtp_model::model_hash(&dst).unwrap(),
        wmtp_model::model_hash(&fixture("sharded-f16")).unwrap()
    );
    // Everything of config.json that the model does not change is as it was.
    let (mut before, after) = (
        read_json(&fixture("sharded-f16").join("config.json")),
        read_json(&dst.join("config.json")),
    );
    assert_eq!(after["dtype"], "float16");
    before["dtype"] = json!("float16");
    assert_eq!(after, before);
}

#[test]
fn values_beyond_half_precision_are_refused_and_nothing_is_left() {
    let (src, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut large = config();
    large.initializer_range = 1e6;
    save(&large.init(1, &Device::flex()), src.path(), SaveDtype::F32).unwrap();
    let dst = root.path().join("half");
    let error = export(src.path(), &dst, &options(Heads::Keep, Some(SaveDtype::F16))).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("has values too large for float16: choose `bf16` or `f32`"),
        "{error}"
    );
    let model = large.init(1, &Device::flex());
    let error = export_model(&model, &Companions::default(), &dst, SaveDtype::F16).unwrap_err();
    assert!(error.to_string().contains("too large for float16"), "{error}");
    assert_eq!(names(root.path()), Vec::<String>::new());
    export(src.path(), &dst, &options(Heads::Keep, Some(SaveDtype::Bf16))).unwrap();
}

#[test]
fn a_directory_in_use_is_not_touched() {
    let (src, dst) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    checkpoint(src.path());
    std::fs::write(dst.path().join("precious"), "x").unwrap();
    let error = export(src.path(), dst.path(), &ExportOptions::default()).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert_eq!(names(dst.path()), ["precious"]);
    let error = export(src.path(), src.path(), &ExportOptions::default()).unwrap_err();
    assert!(error.to_string().contains("is not empty"), "{error}");
}

/// A model whose adapters do something, with the directory of these adapters.
fn adapted(dir: &Path) -> MtpLlama {
    let model = apply_lora(config().init(1, &Device::flex()), 2, 6.0, 5);
    save_adapter(&model, dir, "org/base", 2, 6.0).unwrap();
    for name in ["adapter_model.safetensors", "mtp_adapter.safetensors"] {
        let path = dir.join(name);
        let filled: Vec<(String, Vec<usize>, Vec<u8>)> = tensors(&path)
            .into_iter()
            .enumerate()
            .map(|(n, (name, (_, shape, bytes)))| {
                let value = |i: usize| (((n * 31 + i * 17) as f32).sin() * 0.3).to_le_bytes();
                (name, shape, (0..bytes.len() / 4).flat_map(value).collect())
            })
            .collect();
        let views = filled.iter().map(|(name, shape, bytes)| {
            (
                name,
                safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
    }
    load_adapter(model, dir).unwrap()
}

fn hidden(model: &MtpLlama, k: usize) -> Vec<f64> {
    let input = Packed::from_documents(&[vec![3, 1, 4, 1, 5, 9]], &model.device());
    let ctx = model.context(&input);
    values(model.head(k, model.trunk(&input, &ctx), &ctx))
}

#[test]
fn a_merged_adapter_computes_what_the_adapted_model_does() {
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = adapted(dir.path());
    let dst = root.path().join("merged");
    let exported = export_model(&model, &Companions::default(), &dst, SaveDtype::F32).unwrap();
    assert_eq!((exported.tensors, exported.n_heads), (38, 3));
    assert!(exported.notes[0].contains("no tokenizer"));
    let plain = load(&dst, &LoadOptions::default(), &Device::flex()).unwrap();
    let base = config().init(1, &Device::flex());
    for k in 1..=3 {
        assert_eq!(hidden(&plain, k), hidden(&merged(model.clone()), k), "head {k}");
        assert!(common::max_diff(&hidden(&plain, k), &hidden(&base, k)) > 0.1);
    }
}

#[test]
fn an_adapter_is_exported_as_one_and_an_old_ones_heads_move_to_their_own_file() {
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let model = adapted(dir.path());
    std::fs::write(dir.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    let (trunk, heads) = (
        tensors(&dir.path().join("adapter_model.safetensors")),
        tensors(&dir.path().join("mtp_adapter.safetensors")),
    );
    assert_eq!((trunk.len(), heads.len()), (28, 28));
    // As before the heads had a file of their own.
    let old = tempfile::tempdir().unwrap();
    for name in names(dir.path()).iter().filter(|name| !name.ends_with("safetensors")) {
        std::fs::copy(dir.path().join(name), old.path().join(name)).unwrap();
    }
    let all: Tensors = trunk.clone().into_iter().chain(heads.clone()).collect();
    let views = all.iter().map(|(name, (dtype, shape, bytes))| {
        (
            name,
            safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &old.path().join("adapter_model.safetensors")).unwrap();
    let fresh = || apply_lora(config().init(1, &Device::flex()), 2, 6.0, 9);
    assert_eq!(
        hidden(&load_adapter(fresh(), old.path()).unwrap(), 3),
        hidden(&model, 3)
    );

    for (name, src) in [("old", old.path()), ("new", dir.path())] {
        let dst = root.path().join(name);
        let exported = export(src, &dst, &ExportOptions::default()).unwrap();
        assert_eq!((exported.adapter, exported.n_heads, exported.tensors), (true, 3, 56));
        assert_eq!(tensors(&dst.join("adapter_model.safetensors")), trunk);
        assert_eq!(tensors(&dst.join("mtp_adapter.safetensors")), heads);
        assert_eq!(
            read_json(&dst.join("adapter_config.json")),
            read_json(&src.join("adapter_config.json"))
        );
        assert!(dst.join("chat_template.jinja").exists());
    }
    let dst = root.path().join("plain");
    let exported = export(old.path(), &dst, &options(Heads::Drop, Some(SaveDtype::Bf16))).unwrap();
    assert_eq!((exported.n_heads, exported.dtype), (1, SaveDtype::Bf16));
    assert!(!dst.join("mtp_adapter.safetensors").exists());
    assert_eq!(read_json(&dst.join("config.json"))["wmtp"], Value::Null);
    assert!(
        tensors(&dst.join("adapter_model.safetensors"))
            .values()
            .all(|(dtype, ..)| *dtype == Dtype::BF16)
    );
}
