//! Conversion between Hugging Face's layout and Meta's: against files that torch wrote, and there
//! and back.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use burn_store::pytorch_reader::PytorchReader;
use common::{fixture, max_diff, values};
use safetensors::SafeTensors;
use wmtp_model::{
    CausalLm, Direction, LlamaConfig, LoadOptions, Packed, SaveDtype, convert, hf_to_meta, load, meta_to_hf, save,
};

/// Name to (type, shape, bytes) of all tensors of the safetensors files among `names`.
type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn tensors(dir: &Path, names: &[&str]) -> Tensors {
    let mut all = Tensors::new();
    for path in names.iter().map(|name| dir.join(name)).filter(|path| path.exists()) {
        let bytes = std::fs::read(path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            all.insert(
                name,
                (
                    format!("{:?}", view.dtype()),
                    view.shape().to_vec(),
                    view.data().to_vec(),
                ),
            );
        }
    }
    all
}

const HF: [&str; 2] = ["model.safetensors", "mtp_heads.safetensors"];

#[test]
fn a_checkpoint_written_by_torch_becomes_what_transformers_stores() {
    for (name, heads, tied, count) in [("untied", 3, false, 39), ("tied", 1, true, 11)] {
        let dst = tempfile::tempdir().unwrap();
        let converted = convert(&fixture("meta").join(name), dst.path()).unwrap();
        assert_eq!(converted.direction, Direction::MetaToHf);
        assert_eq!(
            (converted.n_heads, converted.tied, converted.tensors),
            (heads, tied, count),
            "{name}"
        );
        let expected = tensors(&fixture("meta").join(name), &["expected.safetensors"]);
        assert_eq!(expected.len(), count);
        assert_eq!(tensors(dst.path(), &HF), expected, "{name}");
        // Heads lie apart, so that the directory loads as an ordinary Llama.
        assert!(
            tensors(dst.path(), &["model.safetensors"])
                .keys()
                .all(|name| !name.starts_with("mtp."))
        );

        let config = LlamaConfig::read(dst.path()).unwrap();
        assert_eq!(
            (config.vocab_size, config.hidden_size, config.intermediate_size),
            (10, 8, 12)
        );
        assert_eq!(
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim),
            (2, 1, 4)
        );
        assert_eq!(config.num_hidden_layers, if tied { 1 } else { 2 });
        assert_eq!(config.rope.theta, if tied { 10_000.0 } else { 1_000_000.0 });
        assert_eq!((config.n_heads, config.tie_word_embeddings), (heads, tied));
        load(dst.path(), &LoadOptions::default(), &Device::flex()).unwrap();
        // The index names the main file alone.
        let index = std::fs::read(dst.path().join("model.safetensors.index.json")).unwrap();
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let map = index["weight_map"].as_object().unwrap();
        let main = tensors(dst.path(), &["model.safetensors"]);
        assert!(map.keys().eq(main.keys()));
        assert!(map.values().all(|file| file == "model.safetensors"));
        let bytes: usize = main.values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(index["metadata"]["total_size"], bytes);

        assert!(dst.path().join("tokenizer.model").exists());
        assert!(
            converted
                .notes
                .iter()
                .any(|note| note.contains("tokenizer.model and no tokenizer.json: it is read"))
        );
    }
}

#[test]
fn query_rows_go_from_neighbouring_pairs_to_halves_and_back() {
    let (hf, meta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Row r of this query matrix holds the number r: 2 heads of width 4.
    meta_to_hf(&fixture("meta/tied"), hf.path()).unwrap();
    let firsts = |bytes: &[u8]| -> Vec<f32> {
        bytes
            .as_chunks()
            .0
            .iter()
            .step_by(8)
            .map(|b| f32::from_le_bytes(*b))
            .collect()
    };
    let stored = tensors(hf.path(), &HF);
    let rows = firsts(&stored["model.layers.0.self_attn.q_proj.weight"].2);
    assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);

    hf_to_meta(hf.path(), meta.path()).unwrap();
    let reader = PytorchReader::new(meta.path().join("consolidated.pth")).unwrap();
    let rows = firsts(&reader.get("layers.0.attention.wq.weight").unwrap().read().unwrap());
    assert_eq!(rows, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
}

/// A mapped file can be used in place.
#[test]
fn every_entry_of_a_checkpoint_starts_at_a_multiple_of_64() {
    let (hf, meta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    meta_to_hf(&fixture("meta/tied"), hf.path()).unwrap();
    hf_to_meta(hf.path(), meta.path()).unwrap();
    let file = std::fs::File::open(meta.path().join("consolidated.pth")).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    assert!(archive.len() > 3);
    for index in 0..archive.len() {
        let entry = archive.by_index(index).unwrap();
        assert_eq!(entry.data_start().unwrap() % 64, 0, "{}", entry.name().unwrap());
        assert_eq!(entry.size(), entry.compressed_size());
    }
}

#[test]
fn what_torch_wrote_comes_back_as_it_was() {
    for name in ["untied", "tied"] {
        let (hf, meta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        meta_to_hf(&fixture("meta").join(name), hf.path()).unwrap();
        let converted = hf_to_meta(hf.path(), meta.path()).unwrap();
        let read = |dir: &Path| -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
            let reader = PytorchReader::new(dir.join("consolidated.pth")).unwrap();
            let tensors = reader.tensors().iter().filter(|(name, _)| *name != "rope.freqs");
            tensors
                .map(|(name, t)| {
                    (
                        name.clone(),
                        (format!("{:?}", t.dtype()), t.shape().to_vec(), t.read().unwrap()),
                    )
                })
                .collect()
        };
        let before = read(&fixture("meta").join(name));
        assert_eq!(read(meta.path()), before, "{name}");
        assert_eq!(converted.tensors, before.len());
        let params = |dir: &Path| -> serde_json::Value {
            serde_json::from_str(&std::fs::read_to_string(dir.join("params.json")).unwrap()).unwrap()
        };
        let (old, new) = (params(&fixture("meta").join(name)), params(meta.path()));
        for field in [
            "dim",
            "n_layers",
            "n_heads",
            "n_kv_heads",
            "norm_eps",
            "n_future_tokens",
            "rope_theta",
        ] {
            assert_eq!(new[field], old[field], "{field} of {name}");
        }
        // Meta's rule: int(2/3 * 4 * dim), times the multiplier, rounded up.
        let multiple = new["multiple_of"].as_u64().unwrap();
        let width = (21.0 * new["ffn_dim_multiplier"].as_f64().unwrap_or(1.0)) as u64;
        assert_eq!(width.div_ceil(multiple) * multiple, 12);
    }
}

#[test]
fn hugging_face_to_meta_and_back_is_bit_identical() {
    let made = tempfile::tempdir().unwrap();
    let mut config = LlamaConfig::new(23, 12, 3, 3);
    config.num_key_value_heads = 1;
    config.intermediate_size = 20;
    config.tie_word_embeddings = false;
    config.n_heads = 4;
    save(&config.init(3, &Device::flex()), made.path(), SaveDtype::F16).unwrap();
    for src in [made.path().to_path_buf(), fixture("tied-f32"), fixture("untied-bf16")] {
        let (meta, hf) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(convert(&src, meta.path()).unwrap().direction, Direction::HfToMeta);
        assert_eq!(convert(meta.path(), hf.path()).unwrap().direction, Direction::MetaToHf);
        let (before, after) = (tensors(&src, &HF), tensors(hf.path(), &HF));
        assert!(before.len() > 20);
        assert_eq!(after, before, "{}", src.display());
        let (before, after) = (LlamaConfig::read(&src).unwrap(), LlamaConfig::read(hf.path()).unwrap());
        assert_eq!(after.rope, before.rope);
        assert_eq!(after.model_tensors(), before.model_tensors());
        assert_eq!(after.n_heads, before.n_heads);

        // The same numbers come out of the converted model.
        let run = |dir: &Path| {
            let model = load(dir, &LoadOptions::default(), &Device::flex()).unwrap();
            let input = Packed::from_documents(&[vec![3, 1, 4, 1, 5, 9]], &model.device());
            let ctx = model.context(&input);
            values(model.logits(model.head(1, model.trunk(&input, &ctx), &ctx)))
        };
        assert_eq!(max_diff(&run(&src), &run(hf.path())), 0.0);
    }
}

/// A directory with everything that a conversion could lose.
fn rich(dir: &Path) -> serde_json::Value {
    let mut config = LlamaConfig::new(23, 12, 3, 3);
    config.num_key_value_heads = 1;
    config.intermediate_size = 20;
    config.tie_word_embeddings = false;
    config.n_heads = 4;
    save(&config.init(3, &Device::flex()), dir, SaveDtype::Bf16).unwrap();
    // An unembedding that equals the embedding and is a matrix of its own all the same.
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let embedding = stored.tensor("model.embed_tokens.weight").unwrap();
    let views: Vec<_> = stored
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            if name == "lm_head.weight" {
                (name, embedding.clone())
            } else {
                (name, view)
            }
        })
        .collect();
    let new = safetensors::serialize(views, None).unwrap();
    std::fs::write(&path, new).unwrap();

    let path = dir.join("config.json");
    let mut document: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (name, value) in [
        ("max_position_embeddings", serde_json::json!(8192)),
        ("pad_token_id", serde_json::json!(7)),
        ("initializer_range", serde_json::json!(0.041)),
        ("bos_token_id", serde_json::json!(3)),
        ("eos_token_id", serde_json::json!([4, 5])),
        ("attention_dropout", serde_json::json!(0.125)),
        ("use_cache", serde_json::json!(false)),
        ("something_else", serde_json::json!({"of": ["another", "tool"]})),
    ] {
        document[name] = value;
    }
    std::fs::write(&path, document.to_string()).unwrap();
    for (name, content) in [
        ("tokenizer.json", "{}"),
        ("tokenizer.model", "a sentencepiece model"),
        ("tokenizer_config.json", "{\"a\": 1}"),
        ("special_tokens_map.json", "{\"b\": 2}"),
        ("added_tokens.json", "{\"c\": 3}"),
        ("vocab.json", "{\"d\": 4}"),
        ("merges.txt", "a b"),
        ("chat_template.jinja", "{{ messages }}\n"),
        ("chat_template.json", "{\"e\": 5}"),
        (
            "generation_config.json",
            "{\"temperature\": 0.6, \"eos_token_id\": [4]}",
        ),
        ("value_head.safetensors", "a value head"),
    ] {
        std::fs::write(dir.join(name), content).unwrap();
    }
    document
}

#[test]
fn there_and_back_loses_nothing() {
    let (src, meta, hf) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let document = rich(src.path());
    convert(src.path(), meta.path()).unwrap();
    let back = convert(meta.path(), hf.path()).unwrap();
    assert_eq!(back.notes, Vec::<String>::new());
    assert!(!back.tied);
    assert_eq!(tensors(hf.path(), &HF), tensors(src.path(), &HF));
    assert_eq!(
        wmtp_model::model_hash(hf.path()).unwrap(),
        wmtp_model::model_hash(src.path()).unwrap()
    );
    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(hf.path()), names(src.path()));
    for name in names(src.path()) {
        let read = |dir: &Path| std::fs::read(dir.join(&name)).unwrap();
        if name == "config.json" || name.ends_with("index.json") {
            let json = |dir: &Path| -> serde_json::Value { serde_json::from_slice(&read(dir)).unwrap() };
            assert_eq!(json(hf.path()), json(src.path()), "{name}");
        } else if !HF.contains(&name.as_str()) {
            assert_eq!(read(hf.path()), read(src.path()), "{name}");
        }
    }
    let restored: serde_json::Value =
        serde_json::from_slice(&std::fs::read(hf.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(restored, document);
}

#[test]
fn what_changed_in_metas_layout_is_taken_from_there_and_said() {
    let (src, meta) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    rich(src.path());
    hf_to_meta(src.path(), meta.path()).unwrap();
    let params = meta.path().join("params.json");
    let mut changed: serde_json::Value = serde_json::from_slice(&std::fs::read(&params).unwrap()).unwrap();
    changed["rope_theta"] = serde_json::json!(500_000.0);
    changed["norm_eps"] = serde_json::json!(1e-6);
    std::fs::write(&params, changed.to_string()).unwrap();
    let hf = tempfile::tempdir().unwrap();
    let converted = meta_to_hf(meta.path(), hf.path()).unwrap();
    assert_eq!(
        converted.notes,
        [
            "hf_config.json differs from params.json or the weights in `rms_norm_eps`, `rope_theta and rope_scaling`: these were taken from the latter"
        ]
    );
    let config = LlamaConfig::read(hf.path()).unwrap();
    assert_eq!((config.rope.theta, config.rms_norm_eps), (500_000.0, 1e-6));
    assert_eq!((config.max_position_embeddings, config.bos_token_id), (8192, Some(3)));
    assert_eq!(config.other["pad_token_id"], 7);

    // A type that the weights do not have is corrected.
    let kept = meta.path().join("hf_config.json");
    let mut document: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
    document["torch_dtype"] = serde_json::json!("float32");
    document["rms_norm_eps"] = serde_json::json!(1e-6);
    document["rope_theta"] = serde_json::json!(500_000.0);
    document["rope_parameters"]["rope_theta"] = serde_json::json!(500_000.0);
    std::fs::write(&kept, document.to_string()).unwrap();
    let hf = tempfile::tempdir().unwrap();
    let converted = meta_to_hf(meta.path(), hf.path()).unwrap();
    assert_eq!(
        converted.notes,
        ["`torch_dtype` was corrected to bfloat16, the type of the weights"]
    );
}

#[test]
fn a_destination_in_use_is_refused_and_a_failure_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let used = dir.path().join("used");
    std::fs::create_dir(&used).unwrap();
    std::fs::write(used.join("precious"), "x").unwrap();
    let error = convert(&fixture("meta/tied"), &used).unwrap_err().to_string();
    assert!(
        error.contains("is not empty: choose a new or an empty directory"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(used.join("precious")).unwrap(), "x");

    // A tensor whose bytes were changed fails its checksum, after the destination was begun.
    let broken = dir.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::copy(fixture("meta/untied/params.json"), broken.join("params.json")).unwrap();
    let mut bytes = std::fs::read(fixture("meta/untied/consolidated.pth")).unwrap();
    let weights = tensors(&fixture("meta/untied"), &["expected.safetensors"]);
    let norm = &weights["mtp.heads.3.input_layernorm.weight"].2;
    let at = bytes.windows(norm.len()).position(|window| window == norm).unwrap();
    bytes[at] ^= 1;
    std::fs::write(broken.join("consolidated.pth"), bytes).unwrap();
    let error = convert(&broken, &dir.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("extra_heads.1.attention_norm.weight"), "{error}");
    let mut left: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["broken", "used"]);
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = convert(dir.path(), &out).unwrap_err().to_string();
    assert!(error.contains("holds no model"), "{error}");

    let src = dir.path().join("src");
    std::fs::create_dir(&src).unwrap();
    std::fs::copy(fixture("meta/untied/consolidated.pth"), src.join("consolidated.pth")).unwrap();
    std::fs::write(
        src.join("params.json"),
        r#"{"dim": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "n_future_tokens": 4, "vocab_size": 10}"#,
    )
    .unwrap();
    let error = convert(&src, &out).unwrap_err().to_string();
    for part in [
        "`dim` is 16, the weights have 8",
        "`n_layers` is 2, the weights have 4 layers, 2 extra heads among them",
        "`n_future_tokens` is 4, the weights have 3",
    ] {
        assert!(error.contains(part), "{part}\n{error}");
    }
    std::fs::write(src.join("config.json"), "{}").unwrap();
    assert!(
        convert(&src, &out)
            .unwrap_err()
            .to_string()
            .contains("the direction is unclear")
    );
    std::fs::remove_file(src.join("config.json")).unwrap();

    // Without `n_kv_heads` there are as many key heads as query heads, which these matrices do not have.
    std::fs::write(
        src.join("params.json"),
        r#"{"dim": 8, "n_layers": 4, "n_heads": 2, "n_future_tokens": 3, "vocab_size": -1}"#,
    )
    .unwrap();
    let error = convert(&src, &out).unwrap_err().to_string();
    assert!(
        error.contains("`extra_heads.1.attention.wk.weight` has shape [4, 8], expected [8, 8]"),
        "{error}"
    );

    let error = convert(&fixture("llama3-rope"), &out).unwrap_err().to_string();
    assert!(error.contains("cannot describe this model's rotary scaling"), "{error}");
    let error = convert(&fixture("sharded-f16"), &out).unwrap_err().to_string();
    assert!(error.contains("no field for attention heads of width 8"), "{error}");
    std::fs::write(src.join("consolidated.pth"), b"not a checkpoint").unwrap();
    let error = convert(&src, &out).unwrap_err().to_string();
    assert!(error.contains("is not a readable PyTorch checkpoint file"), "{error}");
    std::fs::write(src.join("consolidated.01.pth"), b"").unwrap();
    assert!(
        convert(&src, &out)
            .unwrap_err()
            .to_string()
            .contains("split over several devices")
    );
    assert!(!out.exists());
}
