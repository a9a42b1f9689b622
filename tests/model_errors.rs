//! Models, data and runs that do not fit, through the built program: one sentence that names what
//! and where (with a list below it where there are many tensors), exit code 2 or 1, and no run directory.

mod common;

use common::{succeed, wmtp};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use wmtp::data::Tokenizer;
use wmtp_model::{LlamaConfig, SaveDtype};

struct Room {
    home: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        let room = Self {
            home: tempfile::tempdir().expect("a temporary directory"),
        };
        room.model("good", json!({}));
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A small model with the micro model's tokenizer; `changes` go into its configuration.
    fn model(&self, name: &str, changes: Value) -> PathBuf {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
            "vocab_size": 1024, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
            "max_position_embeddings": 1024, "tie_word_embeddings": true, "eos_token_id": 0
        });
        for (key, value) in changes.as_object().expect("an object") {
            config[key] = value.clone();
        }
        let config = LlamaConfig::parse(&config.to_string()).expect("a valid configuration");
        let dir = self.path(name);
        wmtp_model::save(&config.init(1, &burn::tensor::Device::flex()), &dir, SaveDtype::F32).expect("saved");
        Tokenizer::builtin_micro().expect("built in").save(&dir).expect("saved");
        dir
    }

    /// Changes one field of a directory's JSON file.
    fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let path = self.path(file);
        let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("JSON");
        change(&mut json);
        std::fs::write(&path, json.to_string()).expect("writable");
    }

    /// The arguments must fail with the code and a sentence that holds all fragments.
    fn refuses(&self, args: &[&str], code: i32, says: &[&str]) {
        let output = wmtp(self.home.path())
            .args(args)
            .args(["--output", "runs"])
            .output()
            .expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{args:?}: {stderr}");
        for fragment in says {
            assert!(
                stderr.contains(fragment),
                "{args:?} does not say {fragment:?}: {stderr}"
            );
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
    }

    fn nothing_written(&self) {
        assert!(!self.path("runs").exists(), "a refused run left something behind");
    }
}

fn truncate(path: &Path) {
    let bytes = std::fs::read(path).expect("readable");
    std::fs::write(path, &bytes[..bytes.len() / 2]).expect("writable");
}

#[test]
fn a_model_that_does_not_fit_is_named() {
    let room = Room::new();
    let train = |model: &'static str| ["train", "baseline", "--model", model];

    room.model("shape", json!({}));
    room.edit("shape/config.json", |c| c["intermediate_size"] = 32.into());
    room.refuses(
        &train("shape"),
        2,
        &["shape", "mlp.gate_proj.weight", "[32, 16]", "[24, 16]"],
    );

    room.model("layers", json!({}));
    room.edit("layers/config.json", |c| c["num_hidden_layers"] = 3.into());
    room.refuses(&train("layers"), 2, &["model.layers.2.", "missing"]);

    room.model("bias", json!({}));
    room.edit("bias/config.json", |c| c["mlp_bias"] = true.into());
    room.refuses(&train("bias"), 2, &["bias/config.json", "mlp_bias"]);

    room.model("gpt", json!({}));
    room.edit("gpt/config.json", |c| c["model_type"] = "gpt2".into());
    room.refuses(&train("gpt"), 2, &["gpt/config.json", "gpt2"]);

    let dir = room.model("short", json!({}));
    truncate(&dir.join("model.safetensors"));
    room.refuses(&train("short"), 1, &["short/model.safetensors"]);

    let dir = room.model("broken", json!({}));
    truncate(&dir.join("config.json"));
    room.refuses(&train("broken"), 2, &["broken/config.json", "not valid JSON"]);

    let dir = room.model("mute", json!({}));
    std::fs::remove_file(dir.join("tokenizer.json")).expect("removable");
    room.refuses(&train("mute"), 2, &["tokenizer.json"]);

    room.model("vocabulary", json!({"vocab_size": 300}));
    room.refuses(&train("vocabulary"), 2, &["has the token", "300 embeddings"]);
    room.nothing_written();
}

#[test]
fn data_that_do_not_fit_are_named() {
    let room = Room::new();
    let train = |set: &'static str| ["train", "baseline", "--model", "good", "--set", set];
    room.refuses(&train("data.seq_len=16"), 2, &["data.seq_len"]);
    room.refuses(
        &train("data.seq_len=4096"),
        2,
        &["`data.seq_len` is 4096", "1024 positions"],
    );
    room.refuses(&train("data.train_tasks=[500, 974]"), 2, &["test ids 11..510"]);
    room.refuses(&train("data.exclude_tasks=[]"), 2, &["mbpp/"]);
    room.refuses(&train("data.valid_tasks=[601, 620]"), 2, &["data.valid_tasks"]);
    std::fs::create_dir(room.path("empty")).expect("a directory");
    room.refuses(
        &["train", "baseline", "--model", "good", "--data", "empty"],
        2,
        &["empty", "holds no JSON, Parquet or text file"],
    );
    room.nothing_written();
}

#[test]
fn companions_of_another_model_are_refused() {
    let room = Room::new();
    // Another tokenizer: the same tokens, two of them with each other's numbers.
    room.model("other", json!({}));
    room.edit("other/tokenizer.json", |t| {
        let vocab = &mut t["model"]["vocab"];
        let (y, z) = (vocab["y"].clone(), vocab["z"].clone());
        assert!(y.is_u64() && z.is_u64(), "y and z are tokens");
        vocab["y"] = z;
        vocab["z"] = y;
    });
    room.refuses(
        &["train", "rho1", "--model", "good", "--set", "model.reference=other"],
        2,
        &["tokenizer"],
    );
    let head = wmtp_model::ValueHead::init(16, 1, &burn::tensor::Device::flex());
    head.save(&room.path("head.safetensors"), "0123").expect("saved");
    let head = format!("scorer.value_head={}", room.path("head.safetensors").display());
    room.refuses(
        &["train", "critic", "--model", "good", "--set", &head],
        2,
        &["head.safetensors", "0123"],
    );
    room.nothing_written();
}

#[test]
fn runs_are_neither_overwritten_nor_continued_with_another_recipe() {
    let room = Room::new();
    let args = [
        "train",
        "baseline",
        "--model",
        "good",
        "--run-name",
        "one",
        "--max-steps",
        "2",
        "--output",
        "runs",
    ];
    succeed(
        wmtp(room.home.path())
            .args(args)
            .args(["--set", "data.valid_tasks=[511, 514]"]),
    );
    room.refuses(
        &["train", "baseline", "--model", "good", "--run-name", "one"],
        2,
        &["exists already", "--resume"],
    );
    room.refuses(
        &["train", "baseline", "--resume", "one", "--set", "optim.lr=0.5"],
        2,
        &["`optim.lr` is 0.0001", "and 0.5 now"],
    );
}
