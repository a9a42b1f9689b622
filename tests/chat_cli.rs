//! `wmtp generate` and `wmtp chat` as a user meets them: streamed text, chat templates, conversations,
//! models named by a run.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod common;

use burn::tensor::{DType, Device};
use common::{json, succeed, wmtp};
use serde_json::Value;
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};
use wmtp::{
    data::Tokenizer,
    eval::{GenerationRequest, StopRule},
    pipeline::{ModelGenerator, builtin_model, load_model},
};
use wmtp_model::Sampling;

const TEMPLATE: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// The micro model with a chat template, as `model` in `home`.
fn chat_model(home: &Path) {
    let dir = builtin_model("micro", home, &Device::flex()).unwrap();
    let model = home.join("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    fs::write(model.join("chat_template.jinja"), TEMPLATE).unwrap();
}

fn generate(home: &Path, more: &[&str]) -> Command {
    let mut command = wmtp(home);
    command
        .args(["generate", "--model", "model", "--max-new-tokens", "24"])
        .args(more);
    command
}

/// Runs a command with this standard input.
fn piped(command: &mut Command, input: &str) -> (bool, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn streamed_text_is_that_of_the_document() {
    let home = tempfile::tempdir().unwrap();
    chat_model(home.path());
    for more in [
        &["--prompt", "def f(x):"][..],
        &["--prompt", "é 世界", "--temperature", "1.5", "--seed", "3"],
        &["--prompt", "x", "--speculative"],
        &["--prompt", "x", "--temperature", "1", "--stop", "e", "--stop", "a\n"],
        &["--prompt", "Hi", "--chat"],
    ] {
        let document = json(&succeed(generate(home.path(), more).arg("--json")));
        let text = String::from_utf8(succeed(&mut generate(home.path(), more)).stdout).unwrap();
        let completion = document["completion"].as_str().unwrap();
        let prompt = if more.contains(&"--chat") {
            ""
        } else {
            document["prompt"].as_str().unwrap()
        };
        let whole = format!("{prompt}{completion}");
        let newline = if whole.ends_with('\n') { "" } else { "\n" };
        assert_eq!(text, format!("{whole}{newline}"), "{more:?}");
    }
}

/// Every text that is shown begins the next one, and the last is the result.
#[test]
fn text_comes_as_it_is_written() {
    let home = tempfile::tempdir().unwrap();
    let dir = builtin_model("micro", home.path(), &Device::flex()).unwrap();
    let model = load_model(&dir, None, Some(1), DType::F32, &Device::flex()).unwrap();
    let generator = ModelGenerator::new(model, Tokenizer::load(&dir).unwrap(), Sampling::greedy(40));
    let request = |prompt: &str| GenerationRequest {
        prompt: prompt.into(),
        seed: 1,
        temperature: 0.0,
    };
    let mut shown: Vec<String> = Vec::new();
    let mut result = None;
    generator
        .write_watched(
            &[request("def f(x):")],
            &StopRule::Strings(&[]),
            &mut |_, text| {
                shown.push(text.to_owned());
                false
            },
            &mut |_, written| {
                result = Some(written);
                Ok(())
            },
        )
        .unwrap();
    let result = result.unwrap();
    assert_eq!(shown.len(), result.tokens.len());
    assert!(
        shown
            .iter()
            .all(|text| !text.contains('\u{fffd}') || result.text.contains('\u{fffd}'))
    );
    shown.push(result.text);
    assert!(shown.windows(2).all(|pair| pair[1].starts_with(&pair[0])), "{shown:?}");

    // A cancelled text ends at once and keeps what it has.
    let mut result = None;
    generator
        .write_watched(
            &[request("def f(x):")],
            &StopRule::Strings(&[]),
            &mut |_, text| text.len() >= 3,
            &mut |_, written| {
                result = Some(written);
                Ok(())
            },
        )
        .unwrap();
    let result = result.unwrap();
    assert_eq!(result.finish, "stop");
    assert!(result.text.len() >= 3 && result.tokens.len() < 40, "{result:?}");
}

#[test]
fn a_conversation_goes_through_the_models_template() {
    let home = tempfile::tempdir().unwrap();
    chat_model(home.path());
    let prompt = |more: &[&str]| {
        let document = json(&succeed(generate(home.path(), more).args(["--chat", "--json"])));
        document["prompt"].as_str().unwrap().to_owned()
    };
    assert_eq!(prompt(&["--prompt", "Hi"]), "<user>Hi\n<assistant>");
    assert_eq!(
        prompt(&["--prompt", "Hi", "--system", "Be terse."]),
        "<system>Be terse.\n<user>Hi\n<assistant>"
    );
    let turns = ["--message", "user:A", "--message", "assistant:B: b", "--prompt", "C"];
    let expected = "<user>A\n<assistant>B: b\n<user>C\n<assistant>";
    assert_eq!(prompt(&turns), expected);
    let file = home.path().join("turns.json");
    let messages = serde_json::json!([
        {"role": "user", "content": "A"},
        {"role": "assistant", "content": "B: b", "tool_calls": null},
        {"role": "user", "content": "C"},
    ]);
    fs::write(&file, messages.to_string()).unwrap();
    assert_eq!(prompt(&["--messages", "turns.json"]), expected);
    // From standard input, without the newline at its end.
    let (ok, stdout, _) = piped(&mut generate(home.path(), &["--chat", "--json"]), "Hi\n");
    assert!(ok);
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(document["prompt"], "<user>Hi\n<assistant>");

    for (more, expected) in [
        (&["--system", "x", "--prompt", "y"][..], "--chat"),
        (&["--chat", "--message", "hello", "--prompt", "y"], "write `user:TEXT`"),
        (&["--chat", "--messages", "nothing.json"], "nothing.json"),
        (&["--prompt", ""], "the prompt is empty"),
    ] {
        let output = generate(home.path(), more).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {error}");
        assert!(error.contains(expected), "{more:?}: {error}");
    }
}

#[test]
fn a_model_without_a_template_says_so() {
    let home = tempfile::tempdir().unwrap();
    chat_model(home.path());
    let model = home.path().join("model");
    fs::remove_file(model.join("chat_template.jinja")).unwrap();
    let config = model.join("tokenizer_config.json");
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("chat_template");
    fs::write(&config, json.to_string()).unwrap();
    for verb in [&["generate", "--chat", "--prompt", "x"][..], &["chat"]] {
        let (ok, _, error) = piped(wmtp(home.path()).args(verb).args(["--model", "model"]), "x\n");
        assert!(
            !ok && error.contains("chat template of model: there is none"),
            "{error}"
        );
    }
}

#[test]
fn lines_from_a_pipe_are_answered_in_turn() {
    let home = tempfile::tempdir().unwrap();
    chat_model(home.path());
    let mut chat = wmtp(home.path());
    chat.args(["chat", "--model", "model", "--max-new-tokens", "8", "--system", "S"]);
    let (ok, answers, errors) = piped(&mut chat, "one\ntwo\\\nmore\n/reset\nthree\n/quit\nnever\n");
    assert!(ok, "{errors}");
    let (ok, document, errors) = piped(chat.arg("--json"), "one\ntwo\\\nmore\n/reset\nthree\n/quit\nnever\n");
    assert!(ok, "{errors}");
    let document: Value = serde_json::from_str(&document).unwrap();
    let messages = document["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant"]);
    assert_eq!(messages[1]["content"], "three");
    let last = messages[2]["content"].as_str().unwrap();
    assert!(
        answers.trim_end_matches('\n').ends_with(last.trim_end_matches('\n')),
        "{answers:?} and {last:?}"
    );

    let (_, document, _) = piped(&mut chat, "one\ntwo\\\nmore\n");
    let document: Value = serde_json::from_str(&document).unwrap();
    let messages = document["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 5);
    assert_eq!(messages[3]["content"], "two\nmore");
}

#[test]
fn a_run_stands_for_its_best_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    chat_model(home.path());
    for checkpoint in ["best", "last"] {
        let dir = home.path().join("runs/mine/checkpoints").join(checkpoint);
        fs::create_dir_all(&dir).unwrap();
        for entry in fs::read_dir(home.path().join("model")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
    }
    fs::write(home.path().join("runs/mine/run.json"), "{}").unwrap();
    fs::write(home.path().join("text.txt"), "x y z").unwrap();
    for (uri, words) in [
        ("runs/mine", "`runs/mine` is a run"),
        ("auto", "`auto` is the newest run"),
    ] {
        let output = succeed(wmtp(home.path()).args(["score", "--text", "text.txt", "--json", "--model", uri]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(words) && said.contains("runs/mine/checkpoints/best"),
            "{said}"
        );
    }
    // Training names the checkpoint in its plan, and so in the recipe that it keeps.
    let plan = wmtp(home.path())
        .args(["train", "rho1", "--dry-run", "--json", "--model", "model"])
        .args(["--set", "model.reference=runs/mine"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&plan.stderr).into_owned();
    assert!(
        plan.status.success() && said.contains("runs/mine/checkpoints/best"),
        "{said}"
    );
    fs::remove_dir_all(home.path().join("runs/mine/checkpoints")).unwrap();
    let output = wmtp(home.path())
        .args(["score", "--text", "text.txt", "--model", "runs/mine"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("`runs/mine` is a run without a checkpoint"), "{error}");
}
