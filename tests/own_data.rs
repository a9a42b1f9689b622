//! The user's own data through the built program: every schema trains, and what can't be trained on is refused.

mod common;

use common::{json, lines, succeed, wmtp};
use std::{fs, path::Path};

/// A file of each schema, and whether its rows have labels.
const FILES: &[(&str, bool)] = &[
    ("chat.parquet", false),
    ("chosen_messages.jsonl", true),
    ("chosen_rejected.jsonl", true),
    ("contest.jsonl", true),
    ("conversations.jsonl", false),
    ("conversations_chosen.jsonl", true),
    ("humaneval.jsonl", false),
    ("instruction.jsonl", true),
    ("mbpp.jsonl", false),
    ("messages.jsonl", false),
    ("messages_label.jsonl", true),
    ("prompt_chosen_rejected.jsonl", true),
    ("prompt_completion.jsonl", false),
    ("prompt_completion_messages.json", false),
    ("prompt_completions.jsonl", true),
    ("segments.jsonl", false),
    ("splits", false),
    ("text.jsonl", false),
];

fn file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
        .display()
        .to_string()
}

/// ChatML, with tools and contents that may be absent.
fn model(home: &Path) -> String {
    let dir = wmtp::pipeline::builtin_model("micro", home, &burn::tensor::Device::flex()).expect("a model");
    let config = dir.join("tokenizer_config.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&config).expect("a file")).expect("JSON");
    text["chat_template"] = "{% for m in messages %}{{ '### ' + m['role'] + '\n' + (m['content'] or '') + '\n' }}\
        {% if m['tool_calls'] %}{{ m['tool_calls'] | tojson }}{{ '\n' }}{% endif %}{% endfor %}\
        {% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
        .into();
    fs::write(&config, text.to_string()).expect("it works");
    dir.display().to_string()
}

fn train(home: &Path, model: &str, pipeline: &str, source: &str, sets: &[&str]) -> std::process::Output {
    let mut command = wmtp(home);
    command.args([
        "train",
        pipeline,
        "--model",
        model,
        "--max-steps",
        "3",
        "--output",
        "runs",
    ]);
    command.args([
        "--plain",
        "--run-name",
        "run",
        "--data",
        source,
        "--set",
        "batching.micro_batch=1",
    ]);
    command.args(["--set", "train.record.documents=0"]);
    for set in sets {
        command.args(["--set", set]);
    }
    let output = command.output().expect("it works");
    let _ = fs::remove_dir_all(home.join("last"));
    let _ = fs::rename(home.join("runs/run"), home.join("last"));
    output
}

fn read_json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn a_file_of_every_schema_trains_and_labels_train_a_critic() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    for (name, labelled) in FILES {
        let source = file(name);
        let output = train(home.path(), &model, "baseline", &source, &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {error}");
        let steps = lines(&home.path().join("last/metrics.jsonl"));
        let losses = steps.iter().filter_map(|line| line["loss"].as_f64());
        assert_eq!(losses.filter(|loss| loss.is_finite()).count(), 3, "{name}");
        if !labelled {
            continue;
        }
        let output = train(home.path(), &model, "critic", &source, &["scorer.max_steps=2"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{name}: {error}");
    }
    let output = train(home.path(), &model, "critic", &file("text.jsonl"), &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("has a label"), "{error}");
}

#[test]
fn shipped_labels_train_a_critic() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    for source in ["builtin:contest", "builtin:condefects"] {
        let sets = ["data.seq_len=1024", "scorer.max_steps=2", "scorer.validate_solutions=4"];
        let output = train(home.path(), &model, "critic", source, &sets);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{source}: {error}");
        let report = read_json(&home.path().join("last/critic/report.json"));
        let within = report["held_out"]["within_mean"].as_f64();
        assert!(
            within.is_some_and(|share| (0.0..=1.0).contains(&share)),
            "{source}: {report}"
        );
    }
}

#[test]
fn copies_of_evaluation_problems_are_refused_or_left_out() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    let problem = include_str!("../data/humaneval/HumanEval.jsonl")
        .lines()
        .next()
        .unwrap();
    let problem: serde_json::Value = serde_json::from_str(problem).unwrap();
    let row = |n: i32| serde_json::json!({"prompt": format!("Add 1 to {n}."), "completion": format!("{n} + 1")});
    let copy = serde_json::json!({"prompt": problem["prompt"], "completion": problem["canonical_solution"]});
    let mut rows: Vec<String> = (0..20).map(|n| row(n).to_string()).collect();
    rows.push(copy.to_string());
    let source = home.path().join("rows.jsonl");
    fs::write(&source, rows.join("\n")).unwrap();
    let source = source.display().to_string();

    // In a side that is held out nothing is compared, so most is trained on.
    let set = "data.valid_share=0.0001";
    let refused = train(home.path(), &model, "baseline", &source, &[set]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && error.contains("rows.jsonl:21 may not be trained on"),
        "{error}"
    );

    let dropped = train(home.path(), &model, "baseline", &source, &[set, "data.copies=drop"]);
    let error = String::from_utf8_lossy(&dropped.stderr).into_owned();
    assert!(dropped.status.success(), "{error}");
    let run = read_json(&home.path().join("last/run.json"));
    assert_eq!(
        (&run["documents"], &run["copies_left_out"]),
        (&19.into(), &1.into()),
        "{run}"
    );
}

#[test]
fn a_malformed_file_is_one_sentence_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let model = model(home.path());
    let expected = fs::read(file("malformed/expected.json")).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&expected).unwrap();
    assert!(expected.len() >= 30);
    for (name, sentence) in expected {
        let source = file(&format!("malformed/{name}"));
        let output = train(home.path(), &model, "baseline", &source, &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name} trains");
        let sentence = sentence.as_str().unwrap().replace("FILE", &source);
        assert!(error.contains(&sentence), "{name}: {error}\nexpected: {sentence}");
        assert_eq!(error.matches("error: ").count(), 1, "{name}: {error}");
        assert!(
            !home.path().join("runs/run").exists() && !home.path().join("last").exists(),
            "{name}"
        );
    }
}

#[test]
fn sources_are_mixed_by_weight_and_columns_are_mapped() {
    let home = tempfile::tempdir().unwrap();
    let rows = |name: &str, count: usize, question: &str, answer: &str| {
        let row = |n: usize| format!("{{\"{question}\": \"{name} {n}\\n\", \"{answer}\": \"answer {n} of {name}\"}}\n");
        fs::write(home.path().join(name), (0..count).map(row).collect::<String>()).unwrap();
    };
    rows("a.jsonl", 40, "prompt", "completion");
    rows("b.jsonl", 40, "question", "answer");
    let mix = "data.source=[{source: a.jsonl, weight: 0.5}, \
               {source: b.jsonl, weight: 2, columns: {prompt: question, completion: answer}}]";
    let mut command = wmtp(home.path());
    command.args([
        "train",
        "baseline",
        "--output",
        "runs",
        "--run-name",
        "mix",
        "--plain",
        "--set",
        mix,
    ]);
    command.args([
        "--set",
        "data.pack=false",
        "--set",
        "train.epochs=1",
        "--set",
        "data.seq_len=32",
    ]);
    command.args(["--set", "batching.micro_batch=8"]);
    succeed(&mut command);
    let steps = lines(&home.path().join("runs/mix/steps.jsonl"));
    let names = steps[0]["documents"].as_object().unwrap();
    let of = |start: &str| {
        names
            .values()
            .filter(|name| name.as_str().unwrap().contains(start))
            .count()
    };
    let (a, b) = (of("a.jsonl"), of("b.jsonl"));
    assert!(a + b > 60 && a + b < 80, "some of 80 are held out: {a}, {b}");
    let trained: Vec<&str> = steps[1..]
        .iter()
        .flat_map(|step| step["documents"].as_array().unwrap())
        .flat_map(|micro_batch| micro_batch.as_array().unwrap())
        .filter_map(|number| names[&number.to_string()].as_str())
        .collect();
    let times = |start: &str| trained.iter().filter(|name| name.contains(start)).count();
    assert_eq!(times("a.jsonl"), (a as f64 * 0.5).round() as usize);
    assert_eq!(times("b.jsonl"), 2 * b);
}

#[test]
fn trained_tokens_are_shown() {
    let home = tempfile::tempdir().unwrap();
    let row = r#"{"prompt": "Say hello.\n", "completion": "hello", "weight": 2.0}"#;
    let other = r#"{"prompt": "Say goodbye.\n", "completion": "goodbye"}"#;
    fs::write(home.path().join("rows.jsonl"), format!("{row}\n{other}\n")).unwrap();
    let mut command = wmtp(home.path());
    command.args([
        "inspect",
        "data",
        "--data",
        "rows.jsonl",
        "--show",
        "3",
        "--html",
        "page.html",
        "--json",
    ]);
    let shown = json(&succeed(&mut command));
    assert_eq!(
        shown["documents"].as_u64().unwrap() + shown["held_out"].as_u64().unwrap(),
        2
    );
    let tokens = shown["shown"][0]["tokens"].as_array().unwrap();
    let text = |trained: bool| -> String {
        let of = tokens.iter().filter(|token| token[1].as_bool() == Some(trained));
        of.filter_map(|token| token[0].as_str()).collect()
    };
    assert!(text(false).starts_with("Say "), "{tokens:?}");
    assert!(text(true).ends_with("<|endoftext|>"), "{tokens:?}");
    assert!(["hello<|endoftext|>", "goodbye<|endoftext|>"].contains(&text(true).as_str()));
    let page = fs::read_to_string(home.path().join("page.html")).unwrap();
    assert!(page.contains("class=\"trained\""));
}
