//! The client of Hugging Face and transformers read what `wmtp push` wrote: `HF_ENDPOINT` leads them to the
//! same stand-in. `HUB_PYTHON` names an interpreter that has both (`tests/compat/run.sh` sets it).

mod common;
#[path = "../crates/storage/tests/hub/mod.rs"]
mod hub;

use common::{json, succeed, wmtp};
use hub::{Behaviour, Hub};
use std::process::Command;

const TOKEN: &str = "hf_secretsecretsecret";
const READ: &str = r#"
import hashlib, json, pathlib, sys
from huggingface_hub import HfApi, ModelCard, snapshot_download

info = HfApi().model_info("owner/small")
assert info.private and info.sha == sys.argv[1], info
at = pathlib.Path(snapshot_download("owner/small"))
hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in at.iterdir()}
card = ModelCard.load(at / "README.md")
assert card.data.library_name == "transformers" and card.data.license == "other", card.data
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("owner/small")
tokens = AutoTokenizer.from_pretrained("owner/small")("def add(a, b):", return_tensors="pt")
assert model(**tokens).logits.isfinite().all()
print(json.dumps({"hashes": hashes, "parameters": sum(p.numel() for p in model.parameters())}))
"#;

#[test]
fn hugging_faces_client_reads_what_was_pushed() {
    let python = std::env::var("HUB_PYTHON").expect("HUB_PYTHON names an interpreter with transformers");
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let hub = Hub::start(Behaviour {
        token: Some(TOKEN),
        large: 1 << 20,
        chunk: Some(1 << 20),
        faults: Vec::new(),
    });
    let mut train = wmtp(home);
    train.args([
        "train",
        "baseline",
        "--plain",
        "--output",
        "runs",
        "--run-name",
        "small",
        "--max-steps",
        "1",
    ]);
    train.args([
        "--set",
        "data.train_tasks=[602,631]",
        "--set",
        "data.valid_tasks=[511,515]",
    ]);
    succeed(&mut train);
    let mut push = wmtp(home);
    push.env("HF_ENDPOINT", hub.url()).env("HF_TOKEN", TOKEN);
    push.args(["push", "small", "hf://owner/small", "--output", "runs", "--json"]);
    let pushed = json(&succeed(&mut push));

    let mut read = Command::new(python);
    read.args(["-c", READ, pushed["commit"].as_str().unwrap()])
        .current_dir(home);
    read.env("HF_ENDPOINT", hub.url())
        .env("HF_TOKEN", TOKEN)
        .env("HF_HOME", home.join("hf"));
    read.env("HF_HUB_DISABLE_XET", "1").env("HF_HUB_DISABLE_TELEMETRY", "1");
    let output = succeed(&mut read);
    let text = String::from_utf8_lossy(&output.stdout);
    let read: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for file in pushed["files"].as_array().unwrap() {
        let name = file["name"].as_str().unwrap();
        assert_eq!(read["hashes"][name], file["sha256"], "{name}");
    }
    // Trunk and head 1; the other heads are in a file that transformers does not read.
    assert!(read["parameters"].as_u64().unwrap() > 100_000, "{read}");
}
