//! Model directories and adapters of other tools. Cross-entropies are those of transformers 5.24 and
//! peft 0.21 in float32, mean over `text.txt` in nats.

use crate::case::Case;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use std::fs;

/// The shared base model on the longer text.
const BASE_CE: f64 = 7.936764;

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
}

/// The case with the shared base's tensors under other names in `model/model.safetensors`.
fn renamed(name: &'static str, rename: impl Fn(&str) -> String) -> Case {
    let case = Case::new(name).with("peft-base");
    case.derive_tensors(
        "../peft-base/model.safetensors",
        "model/model.safetensors",
        |name, data| Some((rename(name), data.to_vec())),
    );
    case
}

/// Changes a JSON file of the case.
fn edit(case: &Case, file: &str, change: impl FnOnce(&mut Value)) {
    let path = case.path(file);
    let mut json = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
    change(&mut json);
    fs::write(path, json.to_string()).expect("writable");
}

/// What `wmtp score --model MODEL` says when it refuses; it must print nothing on standard output.
fn refusal(case: &Case, code: i32, model: &str) -> String {
    let args = ["score", "--model", model, "--text", "text.txt"];
    let said = case.refused(code, &args);
    let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn names_without_the_model_prefix_load() {
    let case = renamed("no-model-prefix", |name| {
        name.strip_prefix("model.").unwrap_or(name).to_owned()
    });
    close(case.mean_ce("model"), BASE_CE);
}

#[test]
fn wrappers_in_names_are_taken_off() {
    for prefix in ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."] {
        let case = renamed("orig-mod-prefix", |name| format!("{prefix}{name}"));
        close(case.mean_ce("model"), BASE_CE);
    }
    let case = renamed("orig-mod-prefix", |name| {
        name.replace(".self_attn.", "._fsdp_wrapped_module.self_attn.")
    });
    close(case.mean_ce("model"), BASE_CE);
}

#[test]
fn names_of_another_model_are_named_and_the_list_is_cut() {
    let case = renamed("orig-mod-prefix", |name| {
        name.replace("model.layers", "transformer.h").replace("model.", "t.")
    });
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("no tensor has an expected name: the first one here is `t.embed_tokens.weight`"),
        "{said}"
    );
    assert!(
        said.contains("20 tensors are missing") && said.contains("20 tensors are surplus"),
        "{said}"
    );
    assert!(said.contains("and 12 more") && said.lines().count() < 30, "{said}");
}

#[test]
fn an_adapter_that_was_not_merged_is_no_model() {
    let case = renamed("orig-mod-prefix", |name| match name {
        "model.layers.0.self_attn.q_proj.weight" => {
            "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight".into()
        }
        name => format!("base_model.model.{name}"),
    });
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("not merged") && said.contains("q_proj.base_layer.weight"),
        "{said}"
    );
}

#[test]
fn pytorch_weights_alone_are_read() {
    let case = Case::new("bin-only");
    let scored = case.json(&["score", "--model", "model", "--text", "text.txt", "--json"]);
    let losses = scored["ce"][0].as_array().expect("a list");
    assert!(
        losses.len() > 1 && losses.iter().all(serde_json::Value::is_number),
        "{scored}"
    );
}

#[test]
fn what_lies_in_place_of_the_weights_is_named() {
    let case = Case::new("st-lfs-pointer");
    let said = refusal(&case, 1, "model");
    assert!(
        said.contains("model.safetensors") && said.contains("git lfs pull"),
        "{said}"
    );
    for (content, word) in [
        (&b"<!DOCTYPE html><html><body>Sign in</body></html>"[..], "web page"),
        (b"Entry not found", "server's error"),
        (b"", "empty"),
        (b"PK\x03\x04archive", "PyTorch checkpoint"),
    ] {
        fs::write(case.path("model/model.safetensors"), content).expect("writable");
        let said = refusal(&case, 1, "model");
        assert!(
            said.contains("model.safetensors") && said.contains(word),
            "{word}: {said}"
        );
    }
    // The same in place of the configuration.
    fs::write(
        case.path("model/config.json"),
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 700\n",
    )
    .expect("writable");
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("config.json") && said.contains("Git LFS pointer"),
        "{said}"
    );
}

#[test]
fn a_truncated_file_says_how_much_is_there() {
    let case = renamed("orig-mod-prefix", str::to_owned);
    let path = case.path("model/model.safetensors");
    let bytes = fs::read(&path).expect("readable");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("writable");
    let said = refusal(&case, 1, "model");
    let (half, whole) = (bytes.len() / 2, bytes.len());
    assert!(
        said.contains(&format!("truncated: it has {half} of {whole} bytes")),
        "{said}"
    );
}

/// Two shards as the case's index lists them; the second one holds the embedding as well, with
/// `change` applied to its bytes.
fn shards(change: impl Fn(&mut Vec<u8>)) -> Case {
    let case = Case::new("shards-duplicate").with("peft-base");
    let bytes = fs::read(case.path("../peft-base/model.safetensors")).expect("the base");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let index: Value =
        serde_json::from_slice(&fs::read(case.path("model/model.safetensors.index.json")).expect("the index"))
            .expect("JSON");
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let mut held: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, view) in tensors.iter() {
            let own = index["weight_map"][name] == shard;
            if own || name == "model.embed_tokens.weight" {
                let mut data = view.data().to_vec();
                if !own {
                    change(&mut data);
                }
                held.push((name.to_owned(), view.dtype(), view.shape().to_vec(), data));
            }
        }
        let views = held
            .iter()
            .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).expect("a tensor")));
        let file = safetensors::serialize(views, None).expect("a file");
        fs::write(case.path("model").join(shard), file).expect("writable");
    }
    case
}

#[test]
fn a_tensor_in_two_shards_loads_if_it_is_the_same() {
    close(shards(|_| ()).mean_ce("model"), BASE_CE);
    let said = refusal(&shards(|data| data[3] ^= 1), 2, "model");
    assert!(
        said.contains(
            "`model.embed_tokens.weight` is in model-00001-of-00002.safetensors and, with other values, in model-00002"
        ),
        "{said}"
    );
    assert!(!said.contains("missing") && said.lines().count() == 1, "{said}");
}

#[test]
fn an_incomplete_set_of_shards_names_the_shard_alone() {
    let case = shards(|_| ());
    fs::remove_file(case.path("model/model-00002-of-00002.safetensors")).expect("removable");
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("model-00002-of-00002.safetensors") && !said.contains("is missing"),
        "{said}"
    );
    fs::remove_file(case.path("model/model.safetensors.index.json")).expect("removable");
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("model.safetensors.index.json") && said.contains("download the index"),
        "{said}"
    );
}

#[test]
fn rotary_settings_in_both_spellings_are_read_as_transformers_does() {
    let case = Case::new("rope-both-spellings");
    close(case.mean_ce("model"), 7.770601);
    // The base that the block in force lacks: transformers would take 10,000 without a word.
    edit(&case, "model/config.json", |config| {
        config["rope_parameters"]["rope_theta"] = json!(5e5)
    });
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("`rope_parameters.rope_theta` is 500000") && said.contains("`rope_scaling.rope_theta`"),
        "{said}"
    );
    edit(&case, "model/config.json", |config| {
        config["rope_parameters"] = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4});
    });
    let said = refusal(&case, 2, "model");
    assert!(
        said.contains("`rope_scaling`") && said.contains("`rope_parameters`"),
        "{said}"
    );
}

#[test]
fn the_original_context_may_be_at_the_top_or_absent() {
    close(Case::new("rope-llama3-original-top").mean_ce("model"), 7.671062);
    close(Case::new("rope-llama3-no-original").mean_ce("model"), 7.673156);
}

#[test]
fn a_score_that_is_not_finite_is_a_failure() {
    let case = Case::new("nan-weights").with("peft-base");
    case.derive_tensors(
        "../peft-base/model.safetensors",
        "model/model.safetensors",
        |name, data| {
            let mut data = data.to_vec();
            if name == "model.layers.1.mlp.up_proj.weight" {
                data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
            }
            Some((name.to_owned(), data))
        },
    );
    let args = ["score", "--model", "model", "--text", "text.txt"];
    let said = case.refused(1, &args);
    assert!(
        said.contains("not finite") && said.contains("`model.layers.1.mlp.up_proj.weight`"),
        "{said}"
    );
    let output = case.run(&[&args[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(
        report["ce"][0]
            .as_array()
            .is_some_and(|ce| ce.iter().any(Value::is_null)),
        "{report}"
    );
    case.refused(1, &["inspect", "heads", "--model", "model", "--text", "text.txt"]);
    let said = case.run(&["generate", "--model", "model", "--prompt", "a", "--max-new-tokens", "2"]);
    assert!(!said.status.success(), "{said:?}");
}

#[test]
fn adapters_as_peft_writes_them_load_on_their_base() {
    for (name, expected) in [
        ("peft-all-linear", 7.549064),
        ("peft-qv-only", 7.782408),
        ("peft-rslora", 7.160170),
        ("peft-lmhead-target", 7.649888),
        ("peft-embed-saved", 7.549064),
    ] {
        let case = Case::new(name).with("peft-base");
        assert!(!case.path("adapter/config.json").exists());
        close(case.mean_ce("adapter"), expected);
        // Without a tokenizer of its own it takes the base's.
        for file in ["tokenizer.json", "tokenizer_config.json"] {
            fs::remove_file(case.path("adapter").join(file)).expect("removable");
        }
        close(case.mean_ce("adapter"), expected);
    }
}

#[test]
fn an_adapter_says_what_is_not_supported() {
    let case = Case::new("peft-qv-only").with("peft-base");
    edit(&case, "adapter/adapter_config.json", |config| {
        config["peft_type"] = json!("LOHA")
    });
    let said = refusal(&case, 2, "adapter");
    assert!(
        said.contains("LoRA adapter in")
            && said.contains("`peft_type` is \"LOHA\"")
            && said.contains("merge_and_unload"),
        "{said}"
    );
}

#[test]
fn the_base_of_an_adapter_is_found_from_elsewhere() {
    let case = Case::new("lora-relative-base");
    close(case.mean_ce("work/adapter"), 7.088296);
    // Moved away from its base: the error names the adapter, the base and the flag.
    fs::create_dir(case.path("away")).expect("a folder");
    fs::rename(case.path("work/models/tiny"), case.path("away/base")).expect("moved");
    edit(&case, "work/adapter/adapter_config.json", |config| {
        config["base_model_name_or_path"] = json!("../models/tiny");
    });
    let said = refusal(&case, 2, "work/adapter");
    for part in ["`work/adapter` is a LoRA adapter", "`../models/tiny`", "--base DIR"] {
        assert!(said.contains(part), "{said}");
    }
    let report = case.json(&[
        "score",
        "--model",
        "work/adapter",
        "--base",
        "away/base",
        "--text",
        "text.txt",
        "--json",
    ]);
    let ce: Vec<f64> = report["ce"][0]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    close(ce.iter().sum::<f64>() / ce.len() as f64, 7.088296);
    let said = case.refused(
        2,
        &[
            "score",
            "--model",
            "work/adapter",
            "--base",
            "nowhere",
            "--text",
            "text.txt",
        ],
    );
    assert!(
        said.contains("--base nowhere") && said.contains("does not exist"),
        "{said}"
    );
}

#[test]
fn a_run_is_resumed_from_another_directory() {
    let case = Case::new("lora-relative-base");
    let train = |steps: &'static str| {
        [
            "train",
            "baseline",
            "--plain",
            "--run-name",
            "one",
            "--max-steps",
            steps,
            "--set",
            "data.valid_tasks=[511, 520]",
            "--set",
            "data.train_tasks=[601, 620]",
            "--set",
            "data.seq_len=512",
            "--set",
            "model.mtp.n_heads=1",
            "--set",
            "train.lora={rank: 2, alpha: 4}",
            "--model",
            "models/tiny",
        ]
    };
    let work = case.path("work");
    let mut first = case.command(&train("2"));
    crate::common::succeed(first.current_dir(&work));
    let saved: Value = serde_json::from_slice(
        &fs::read(work.join("runs/one/checkpoints/last/adapter_config.json")).expect("an adapter"),
    )
    .expect("JSON");
    let base = saved["base_model_name_or_path"].as_str().expect("a path");
    assert!(base.starts_with('/') && base.ends_with("models/tiny"), "{base}");
    assert!(case.mean_ce("work/runs/one/checkpoints/last").is_finite());
    // A finished run is resumed: nothing is left to do, but the model has to be found.
    let resume = [
        "train",
        "baseline",
        "--plain",
        "--resume",
        "one",
        "--output",
        "work/runs",
    ];
    crate::common::succeed(&mut case.command(&resume));
    fs::create_dir(case.path("away")).expect("a folder");
    fs::rename(case.path("work/models/tiny"), case.path("away/base")).expect("moved");
    let said = case.refused(2, &resume);
    assert!(said.contains("`models/tiny`") && said.contains("--base DIR"), "{said}");
    crate::common::succeed(&mut case.command(&[&resume[..], &["--base", "away/base"]].concat()));
}

/// `wmtp train` for two steps with a rate that changes nothing, on a few problems.
fn train(case: &Case, args: &[&str]) {
    let common = [
        "--plain",
        "--max-steps",
        "2",
        "--set",
        "data.valid_tasks=[511, 520]",
        "--set",
        "data.train_tasks=[601, 610]",
        "--set",
        "data.seq_len=512",
        "--set",
        "model.mtp.n_heads=1",
        "--set",
        "optim.lr=1e-9",
    ];
    crate::common::succeed(&mut case.command(&[&["train"], args, &common].concat()));
}

#[test]
fn training_starts_from_an_adapter() {
    let case = Case::new("peft-qv-only").with("peft-base");
    train(&case, &["baseline", "--model", "adapter", "--run-name", "all"]);
    let within = |model: &str| {
        let ce = case.mean_ce(model);
        assert!((ce - 7.782408).abs() < 1e-4, "{model}: {ce}");
    };
    within("runs/all/checkpoints/last");
    let lora = ["baseline", "--model", "adapter", "--run-name", "factors", "--set"];
    train(&case, &[&lora[..], &["train.lora={rank: 4, alpha: 8}"]].concat());
    within("runs/factors/checkpoints/last");
    let said = case.refused(
        2,
        &[&["train"], &lora[..], &["train.lora={rank: 8, alpha: 8}"]].concat(),
    );
    assert!(said.contains("`train.lora` rank 8 and scale 1"), "{said}");
}

#[test]
fn offline_scores_are_made_anew_for_another_computation() {
    let case = Case::new("peft-qv-only").with("peft-base");
    let scores = || {
        let files = fs::read_dir(case.path("cache")).expect("a cache").flatten();
        files
            .filter(|file| file.file_name().to_string_lossy().starts_with("scores-"))
            .count()
    };
    let run = |name: &str| {
        let rho1 = ["rho1", "--model", "../peft-base", "--run-name", name];
        let offline = ["--set", "scorer.when=offline", "--set", "model.reference=adapter"];
        train(&case, &[&rho1[..], &offline].concat());
    };
    run("first");
    run("again");
    assert_eq!(scores(), 1);
    // The same tensors, and another epsilon; then another rotation.
    edit(&case, "../peft-base/config.json", |config| {
        config["rms_norm_eps"] = json!(1e-3)
    });
    run("epsilon");
    assert_eq!(scores(), 2);
    edit(&case, "../peft-base/config.json", |config| {
        config["rope_parameters"] = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4});
    });
    run("rotation");
    assert_eq!(scores(), 3);
}
