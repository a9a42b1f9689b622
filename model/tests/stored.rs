//! Weights as other trainers and quantisers store them (`fixtures/families/make_stored.py`): PyTorch's files,
//! 8 bits with scales, Fast-LLM's heads.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use common::tiny::{greedy, logits, request, run};
use common::{cross_entropy, fixture, max_diff};
use safetensors::SafeTensors;
use serde_json::Value;
use wmtp_model::{
    CausalLm, Decoding, ExportOptions, Heads, LlamaConfig, LoadOptions, MtpLlama, Sampling, SaveDtype, export,
    hf_to_meta, load, save, to_bytes,
};

fn folder(name: &str) -> PathBuf {
    fixture("families").join(name)
}

fn open(dir: &Path, n_heads: Option<usize>) -> MtpLlama {
    let options = LoadOptions {
        n_heads,
        ..LoadOptions::default()
    };
    load(dir, &options, &Device::flex()).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn pytorch_files_hold_the_same_model() {
    let expected = to_bytes(&open(&folder("smollm3"), None)).unwrap();
    assert!(to_bytes(&open(&folder("bin-shards"), None)).unwrap() == expected);
    let dir = tempfile::tempdir().unwrap();
    save(&open(&folder("qwen2"), None), dir.path(), SaveDtype::Bf16).unwrap();
    let expected = to_bytes(&open(dir.path(), None)).unwrap();
    assert!(to_bytes(&open(&folder("bin-legacy"), None)).unwrap() == expected);
}

#[test]
fn a_pytorch_file_is_exported_with_its_bits() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("exported");
    let exported = export(&folder("bin-legacy"), &to, &ExportOptions::default()).unwrap();
    assert_eq!(exported.dtype, SaveDtype::Bf16);
    assert!(to_bytes(&open(&to, None)).unwrap() == to_bytes(&open(&folder("bin-legacy"), None)).unwrap());
}

#[test]
fn damaged_pytorch_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| std::fs::copy(folder("bin-shards").join(name), dir.path().join(name)).unwrap();
    for name in [
        "config.json",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
    ] {
        copy(name);
    }
    let refused = || match load(dir.path(), &LoadOptions::default(), &Device::flex()) {
        Ok(_) => panic!("a damaged file loads"),
        Err(error) => error.to_string(),
    };
    let second = "pytorch_model-00002-of-00002.bin";
    assert!(refused().contains(second), "{}", refused());
    let whole = std::fs::read(folder("bin-shards").join(second)).unwrap();
    for content in [
        &whole[..whole.len() / 2],
        b"version https://git-lfs.github.com/spec/v1\n",
        b"",
    ] {
        std::fs::write(dir.path().join(second), content).unwrap();
        let error = refused();
        assert!(error.contains(second), "{error}");
    }
    assert!(refused().contains("empty"), "{}", refused());
}

/// The matrices that the files of a quantised model stand for.
fn check_matrices(model: &MtpLlama, of: &str) {
    let bytes = to_bytes(model).unwrap();
    let found = SafeTensors::deserialize(&bytes).unwrap();
    let expected = std::fs::read(folder(of).join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    assert_eq!(expected.len(), 3 * 7);
    for (name, tensor) in expected.tensors() {
        let expected: Vec<u8> = tensor
            .data()
            .chunks(2)
            .flat_map(|bf16| [0, 0, bf16[0], bf16[1]])
            .collect();
        assert!(found.tensor(&name).unwrap().data() == expected, "{of}, {name}");
    }
}

#[test]
fn weights_in_8_bits_are_read_as_what_they_stand_for() {
    for name in ["fp8-block", "fp8-tensor"] {
        let model = open(&folder(name), None);
        check_matrices(&model, name);
        // Exported, and saved with heads, the matrices are bf16 and no longer quantised.
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("exported");
        let exported = export(&folder(name), &to, &ExportOptions::default()).unwrap();
        assert_eq!(exported.dtype, SaveDtype::Bf16);
        assert!(json(&to.join("config.json")).get("quantization_config").is_none());
        check_matrices(&open(&to, None), name);
        let saved = dir.path().join("saved");
        save(&open(&folder(name), Some(2)), &saved, SaveDtype::Bf16).unwrap();
        assert!(json(&saved.join("config.json")).get("quantization_config").is_none());
        check_matrices(&open(&saved, Some(1)), name);
    }
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(folder("fp8-block").join(name), dir.path().join(name)).unwrap();
    }
    let path = dir.path().join("config.json");
    let changed = std::fs::read_to_string(&path)
        .unwrap()
        .replace("\"weight_block_size\"", "\"unknown\"");
    std::fs::write(&path, changed).unwrap();
    let error = load(dir.path(), &LoadOptions::default(), &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("do not fit its shape"), "{error}");
}

#[test]
fn heads_of_fast_llm_are_computed_with_their_own_norms() {
    let dir = tempfile::tempdir().unwrap();
    let reference = json(&folder("fast-llm").join("reference.json"));
    let numbers = |value: &Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };
    let ids: Vec<u32> = serde_json::from_value(reference["token_ids"].clone()).unwrap();
    let expected: Vec<u32> = serde_json::from_value(reference["greedy_ids"].clone()).unwrap();
    let model = open(&folder("fast-llm"), None);
    assert_eq!(model.n_heads(), 3);
    save(&model, &dir.path().join("saved"), SaveDtype::F32).unwrap();
    export(
        &folder("fast-llm"),
        &dir.path().join("exported"),
        &ExportOptions::default(),
    )
    .unwrap();
    let config = json(&dir.path().join("saved/config.json"));
    assert_eq!(
        (&config["model_type"], &config["wmtp"]["head_norms"]),
        (&Value::from("llama"), &Value::from(true))
    );
    for place in [
        folder("fast-llm"),
        dir.path().join("saved"),
        dir.path().join("exported"),
    ] {
        let model = open(&place, None);
        for k in 1..=3 {
            let rows = logits(&model, k, &ids);
            let ce: Vec<f64> = ids[k..]
                .iter()
                .zip(&rows)
                .map(|(id, row)| cross_entropy(row, *id as usize))
                .collect();
            let error = max_diff(&ce, &numbers(&reference["ce"][k - 1]));
            assert!(error < 1e-4, "{place:?}, head {k}: {error:e}");
        }
        assert_eq!(greedy(&model, std::slice::from_ref(&ids), 32)[0], expected);
    }
    // Drafts come from the heads' own norms, on slices and in burn's operations alike: the same are verified.
    let speculative = Decoding {
        speculative: true,
        adaptive: false,
        drafts: 2,
        ..Decoding::default()
    };
    let of = |dtype: DType| {
        let options = LoadOptions {
            dtype,
            ..LoadOptions::default()
        };
        let model = load(&folder("fast-llm"), &options, &Device::flex()).unwrap();
        let made = run(&model, &[request(ids.clone(), 0, Sampling::greedy(32))], &speculative);
        (made[0].tokens.clone(), made[0].effort.verified)
    };
    assert_eq!(of(DType::F32), of(DType::F64));
    assert_eq!(of(DType::F32).0, expected);
}

#[test]
fn heads_of_fast_llm_grow_are_dropped_and_have_no_place_in_metas_layout() {
    let dir = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..20).map(|i| (i * i + 3) % 64).collect();
    let model = open(&folder("fast-llm"), Some(4));
    // A new head is a copy of head 1 with its norm.
    assert_eq!(logits(&model, 4, &ids), logits(&model, 1, &ids));
    let options = ExportOptions {
        heads: Heads::Drop,
        ..ExportOptions::default()
    };
    let to = dir.path().join("plain");
    export(&folder("fast-llm"), &to, &options).unwrap();
    let plain = LlamaConfig::read(&to).unwrap();
    assert_eq!((plain.n_heads, plain.other.get("wmtp")), (1, None));
    assert_eq!(plain.other["architectures"], serde_json::json!(["LlamaForCausalLM"]));
    assert_eq!(logits(&open(&to, None), 1, &ids), logits(&model, 1, &ids));
    let error = hf_to_meta(&folder("fast-llm"), &dir.path().join("meta")).unwrap_err();
    assert!(error.to_string().contains("norms of their own"), "{error}");
}
