//! Token ids and text as the tokenizer means them.

use crate::{case::Case, common::lines};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Options of a training run of one step without extra heads.
const SHORT: [&str; 8] = [
    "train",
    "baseline",
    "--plain",
    "--max-steps",
    "1",
    "--set",
    "model.mtp.n_heads=1",
    "--json",
];

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
}

/// The model writes `▁▁▁ ▁return ▁x ▁+ ▁y </s>`: four spaces, as transformers decodes all ids.
#[test]
fn a_completion_of_a_llama_2_tokenizer_keeps_its_first_space() {
    let case = Case::new("metaspace-decode");
    let report = case.json(&[
        "generate",
        "--model",
        "model",
        "--prompt",
        "def add(x, y):\n",
        "--max-new-tokens",
        "20",
        "--json",
    ]);
    assert_eq!(report["completion"], "    return x + y");
    assert_eq!(report["finish"], "eos");

    let report = case.json(&[
        "eval",
        "humaneval",
        "--model",
        "model",
        "--tasks",
        "53",
        "--temperature",
        "0",
        "--max-new-tokens",
        "20",
        "--output",
        "out",
        "--json",
    ]);
    assert_eq!(report["pass_at_1"], 1.0, "{report}");
    let samples = lines(&run_dir(&case, &report).join("samples.jsonl"));
    assert_eq!(
        samples.first().map(|line| line["completion"].clone()),
        Some("    return x + y".into())
    );
}

/// Values of transformers 5.24 with `add_special_tokens` true and false (`expected.py`).
#[test]
fn score_adds_bos_as_the_post_processor_says_and_equals_transformers() {
    let case = Case::new("bos-template");
    let expected: Value = serde_json::from_str(&fs::read_to_string(case.path("expected.json")).unwrap()).unwrap();
    let score = |more: &[&str]| {
        let args = [&["score", "--model", "model", "--text", "text.txt", "--json"], more].concat();
        case.json(&args)
    };
    let check = |found: &Value, expected: &Value| {
        assert_eq!(found["token_ids"], expected["token_ids"]);
        assert_eq!(found["top20_ids"], expected["top20_ids"]);
        for (found, expected) in [
            (&found["ce"][0], &expected["ce"]),
            (&found["top20_logits"], &expected["top20_logits"]),
        ] {
            let (found, expected) = (found.as_array().unwrap(), expected.as_array().unwrap());
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                close(found.as_f64().unwrap(), expected.as_f64().unwrap());
            }
        }
    };
    let with = score(&[]);
    assert_eq!(with["token_ids"][0], 1);
    check(&with, &expected["auto"]);
    check(&score(&["--no-special-tokens"]), &expected["never"]);
    check(&score(&["--set", "data.special_tokens=never"]), &expected["never"]);
    check(&score(&["--set", "data.special_tokens=always"]), &expected["auto"]);
}

/// Runs a step of training in the case's directory, and returns the run's directory.
fn trained(case: &Case, more: &[&str]) -> PathBuf {
    // Run names made from the time would be the same within a second.
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed));
    let args = [&SHORT[..], &["--run-name", &name], more].concat();
    run_dir(case, &case.json(&args))
}

/// The directory that a report names.
fn run_dir(case: &Case, report: &Value) -> PathBuf {
    case.dir().join(report["run_dir"].as_str().expect("a directory"))
}

#[test]
fn a_response_is_trained_as_the_continuation_of_its_prompt_after_bos() {
    let case = Case::new("bos-template");
    let mbpp = [
        "--model",
        "model",
        "--output",
        "out",
        "--set",
        "data.train_tasks=[602,603]",
        "--set",
        "data.valid_tasks=[511,511]",
        "--set",
        "train.record.documents=2",
    ];
    let run = trained(&case, &mbpp);
    let recorded = lines(&run.join("tokens.jsonl"));
    let documents: Vec<&Value> = recorded.iter().filter(|line| line["tokens"].is_array()).collect();
    assert!(!documents.is_empty(), "{recorded:?}");
    for document in documents {
        let tokens: Vec<&str> = document["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let (prompt, response) = tokens.split_at(document["prompt_tokens"].as_u64().unwrap() as usize);
        assert_eq!(prompt.first(), Some(&"<s>"));
        assert!(prompt.concat().ends_with("[BEGIN]\n"), "{prompt:?}");
        assert!(!response[0].starts_with(' '), "{response:?}");
        assert!(response.concat().ends_with("\n[DONE]</s>"), "{response:?}");
    }
    let run_json: Value = serde_json::from_str(&fs::read_to_string(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(run_json["tokens"]["special_tokens"], "auto");
    assert_eq!(run_json["tokens"]["begin_ids"], serde_json::json!([1]));
    assert_eq!(run_json["tokens"]["end_ids"], serde_json::json!([2]));
}

#[test]
fn a_model_trained_without_bos_is_scored_and_evaluated_without_it() {
    let case = Case::new("bos-template");
    let run = trained(
        &case,
        &[
            "--model",
            "model",
            "--output",
            "out",
            "--set",
            "data.train_tasks=[602,603]",
            "--set",
            "data.valid_tasks=[511,511]",
            "--set",
            "data.special_tokens=never",
        ],
    );
    let checkpoint = run.join("checkpoints/last").display().to_string();
    let score = |more: &[&str]| {
        let args = [&["score", "--model", &checkpoint, "--text", "text.txt", "--json"], more].concat();
        case.json(&args)["token_ids"][0].clone()
    };
    assert_ne!(score(&[]), 1);
    assert_eq!(score(&["--set", "data.special_tokens=always"]), 1);
    let report = case.json(&[
        "eval",
        "mbpp",
        "--model",
        &checkpoint,
        "--tasks",
        "11",
        "--prompt",
        "zero-shot",
        "--temperature",
        "0",
        "--max-new-tokens",
        "2",
        "--output",
        "evaluated",
        "--json",
    ]);
    let asked = fs::read_to_string(run_dir(&case, &report).join("run.json")).unwrap();
    let asked: Value = serde_json::from_str(&asked).unwrap();
    assert_eq!(asked["request"]["origin"]["special_tokens"], "never");
    assert_eq!(asked["request"]["origin"]["begin_ids"], "[]");
}

/// 1025 tokens, 1024 embeddings, as transformers loads it.
#[test]
fn a_tokenizer_with_a_pad_token_beyond_the_embedding_loads() {
    let case = Case::new("pad-token-beyond-vocab");
    close(case.mean_ce("model"), 7.93676);
    // Only a text that uses the token is refused, wherever it comes from.
    fs::write(case.path("pad.txt"), "x = 1 [PAD]\n").unwrap();
    let pad = case.path("pad.txt").display().to_string();
    let refused = [
        case.refused(2, &["score", "--model", "model", "--text", &pad]),
        case.refused(2, &["generate", "--model", "model", "--prompt", "x [PAD]"]),
        case.refused(
            2,
            &[
                &SHORT[..],
                &["--model", "model", "--output", "out", "--set", "data.text=[pad.txt]"],
            ]
            .concat(),
        ),
    ];
    for message in refused {
        assert!(
            message.contains("the token `[PAD]` (id 1024), but the model has only 1024 embeddings"),
            "{message}"
        );
    }
    // Training, whose prompts do not use it, works.
    let run = trained(
        &case,
        &[
            "--model",
            "model",
            "--output",
            "out",
            "--set",
            "data.train_tasks=[602,603]",
        ],
    );
    assert!(run.join("checkpoints/last/model.safetensors").is_file());
}

fn plan(case: &Case, file: &str, more: &[&str]) -> Value {
    let text = format!("data.text=[{file}]");
    let args = [
        &[
            "train",
            "baseline",
            "--dry-run",
            "--json",
            "--set",
            &text,
            "--set",
            "data.train_tasks=[602,604]",
            "--set",
        ],
        &["data.valid_tasks=[511,512]"][..],
        more,
    ]
    .concat();
    case.json(&args)["tokens"].clone()
}

#[test]
fn special_tokens_spelt_in_a_text_are_counted_and_can_stay_plain() {
    let case = Case::new("text-data");
    let spelled = fs::read_to_string(case.path("eot.py"))
        .unwrap()
        .matches("<|endoftext|>")
        .count();
    for more in [&[][..], &["--set", "data.special_in_text=plain"]] {
        let tokens = plan(&case, "eot.py", more);
        assert_eq!(tokens["spelled_special_tokens"]["<|endoftext|>"], spelled, "{tokens}");
    }
    // Id 0 is the end token: spelt `spelled` times and once at the end, or once only.
    let ends = |more: &[&str]| {
        let base = [
            "--output",
            "out",
            "--set",
            "data.text=[eot.py]",
            "--set",
            "data.train_tasks=[602,602]",
            "--set",
            "data.valid_tasks=[511,511]",
            "--set",
            "train.record.documents=10",
        ];
        let run = trained(&case, &[&base[..], more].concat());
        let recorded = lines(&run.join("tokens.jsonl"));
        let line = recorded
            .iter()
            .find(|line| line["document"].as_str().is_some_and(|d| d.contains("eot.py")));
        let tokens = line.expect("the text's document")["tokens"].as_array().unwrap().clone();
        tokens.iter().filter(|token| *token == "<|endoftext|>").count()
    };
    assert_eq!(ends(&[]), spelled + 1);
    assert_eq!(ends(&["--set", "data.special_in_text=plain"]), 1);
}

#[test]
fn text_files_too_short_to_train_on_are_named() {
    let case = Case::new("text-data");
    let output = case.run(&[
        "train",
        "baseline",
        "--dry-run",
        "--set",
        "data.text=[empty.py, one.py, crlf.py]",
        "--set",
        "data.train_tasks=[602,604]",
        "--set",
        "data.valid_tasks=[511,512]",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("2 text files are too short"), "{text}");
    for name in ["empty.py (0 tokens)", "one.py (1 tokens)"] {
        assert!(text.contains(name), "{text}");
    }
    let tokens = plan(&case, "empty.py", &[]);
    assert_eq!(
        tokens["text_files_too_short"],
        serde_json::json!([{"name": "text/empty.py", "tokens": 0}])
    );
}

#[test]
fn a_byte_order_mark_at_the_start_of_a_text_is_not_trained() {
    let case = Case::new("text-data");
    let run = trained(
        &case,
        &[
            "--output",
            "out",
            "--set",
            "data.text=[bom.py]",
            "--set",
            "data.train_tasks=[602,602]",
            "--set",
            "data.valid_tasks=[511,511]",
            "--set",
            "train.record.documents=10",
        ],
    );
    let recorded = lines(&run.join("tokens.jsonl"));
    let line = recorded
        .iter()
        .find(|line| line["document"].as_str().is_some_and(|d| d.contains("bom.py")));
    let tokens = line.expect("the text's document")["tokens"].as_array().unwrap().clone();
    let text: String = tokens.iter().filter_map(Value::as_str).collect();
    let expected = fs::read_to_string(case.path("bom.py")).unwrap();
    assert_eq!(
        text,
        format!(
            "{}<|endoftext|>",
            expected.trim_start_matches('\u{feff}').replace("\r\n", "\n")
        )
    );
}

/// The same documents in one micro-batch of 8 rows or in 8 of one row, each beginning with BOS.
#[test]
fn accumulated_rows_that_begin_with_bos_give_the_loss_of_one_batch() {
    let case = Case::new("bos-template");
    let losses = |micro: &str, accumulate: &str| -> Vec<f64> {
        let micro = format!("batching.micro_batch={micro}");
        let accumulate = format!("batching.accumulate={accumulate}");
        let name = format!("run-{}", accumulate.replace(['.', '='], "-"));
        let run = case.json(&[
            "train",
            "baseline",
            "--plain",
            "--json",
            "--model",
            "model",
            "--output",
            "out",
            "--run-name",
            &name,
            "--max-steps",
            "3",
            "--set",
            "model.mtp.n_heads=1",
            "--set",
            "data.train_tasks=[602,650]",
            "--set",
            "data.valid_tasks=[511,511]",
            "--set",
            "data.pack=false",
            "--set",
            &micro,
            "--set",
            &accumulate,
        ]);
        let run = case.dir().join(run["run_dir"].as_str().expect("a directory"));
        let lines = lines(&run.join("metrics.jsonl"));
        lines.iter().filter_map(|line| line["loss"].as_f64()).collect()
    };
    let (whole, parts) = (losses("8", "1"), losses("1", "8"));
    assert!(whole.len() >= 3 && whole.len() == parts.len(), "{whole:?} {parts:?}");
    for (whole, parts) in whole.iter().zip(&parts) {
        assert!(((whole - parts) / whole).abs() < 1e-6, "{whole} {parts}");
    }
}

/// Both read the trained model's ids: they need its tokenizer and a position for every token of a row.
#[test]
fn the_reward_model_and_the_reference_are_checked_like_the_trained_model() {
    let case = Case::new("text-data");
    let micro = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/micro");
    let companion = case.path("companion");
    fs::create_dir(&companion).unwrap();
    let copy = |name: &str| fs::copy(micro.join(name), companion.join(name)).unwrap();
    copy("config.json");
    let critic = [
        "train",
        "critic",
        "--dry-run",
        "--model",
        "builtin:micro",
        "--set",
        "scorer.reward=reward_model",
        "--set",
        "model.reward=companion",
    ];
    let rho1 = [
        "train",
        "rho1",
        "--dry-run",
        "--model",
        "builtin:micro",
        "--set",
        "model.reference=companion",
    ];
    for args in [&critic[..], &rho1] {
        let message = case.refused(2, args);
        assert!(message.contains("companion/tokenizer.json"), "{message}");
    }
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        copy(name);
    }
    assert!(case.run(&critic[..]).status.success());
    // A plan also looks at the weights of the reference, which are missing still.
    let message = case.refused(2, &rho1);
    assert!(
        message.contains("companion") && message.contains("safetensors"),
        "{message}"
    );
    let edit = |name: &str, change: &dyn Fn(&mut Value)| {
        let path = companion.join(name);
        let mut value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
    };
    edit("config.json", &|config| config["max_position_embeddings"] = 256.into());
    for (args, what) in [(&critic[..], "reward model"), (&rho1, "reference model")] {
        let message = case.refused(2, args);
        let expected = format!("`data.seq_len` is 512, but the {what} in");
        assert!(
            message.contains(&expected) && message.contains("256 positions"),
            "{message}"
        );
    }
    edit("tokenizer.json", &|tokenizer| {
        tokenizer["model"]["merges"].as_array_mut().unwrap().swap(0, 1);
    });
    for args in [&critic[..], &rho1] {
        let message = case.refused(2, args);
        assert!(message.contains("do not have the same tokenizer"), "{message}");
    }
}
