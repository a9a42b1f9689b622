//! What a user sees of generation with drafts and of the heads' figures, through the built program and
//! the public interface.

mod common;

use burn::tensor::{DType, Device};
use common::{json, succeed, wmtp};
use wmtp::data::Tokenizer;
use wmtp::eval::{GenerationRequest, StopRule};
use wmtp::pipeline::{ModelGenerator, builtin_model, judge_heads, load_model, score_text};
use wmtp_model::{LlamaConfig, Sampling};

const TEXT: &str = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n";

#[test]
fn drafts_change_no_greedy_text_and_are_reported() {
    let home = tempfile::tempdir().unwrap();
    let generate = |more: &[&str]| {
        let base = [
            "generate",
            "--model",
            "builtin:micro",
            "--prompt",
            TEXT,
            "--max-new-tokens",
            "40",
            "--json",
        ];
        json(&succeed(wmtp(home.path()).args(base).args(more)))
    };
    let (plain, fast) = (generate(&[]), generate(&["--speculative"]));
    assert_eq!(plain["token_ids"], fast["token_ids"]);
    assert_eq!(plain["finish"], fast["finish"]);
    assert!(plain.get("speculative").is_none());
    let report = &fast["speculative"];
    let forwards = report["trunk_forwards"].as_u64().unwrap();
    let tokens = fast["token_ids"].as_array().unwrap().len() as u64;
    let heads = report["heads"].as_array().unwrap();
    let sum = |field: &str| heads.iter().map(|head| head[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(
        heads
            .iter()
            .map(|head| head["head"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [2, 3, 4]
    );
    let ended = u64::from(fast["finish"] == "eos");
    // A pass gives the drafts that were accepted, a head's or copied from the text, and one token more.
    let copied = report["copied"].as_u64().unwrap();
    assert_eq!(forwards + sum("accepted") + copied, tokens + ended);
    assert!(sum("drafted") >= sum("accepted"));
    let per_forward = report["tokens_per_forward"].as_f64().unwrap();
    assert!((per_forward - tokens as f64 / forwards as f64).abs() < 1e-12);
    // One way of one token a head, and several ways at once: the same text.
    let one_way = generate(&["--speculative", "--drafts", "3"]);
    assert_eq!(one_way["token_ids"], plain["token_ids"]);
    let judged = |run: &serde_json::Value| run["speculative"]["tokens_judged"].as_u64().unwrap();
    let passes = |run: &serde_json::Value| run["speculative"]["trunk_forwards"].as_u64().unwrap();
    assert!(judged(&one_way) <= 3 * passes(&one_way));
    // As many as pay, and no more than are allowed.
    assert!(judged(&fast) <= 7 * passes(&fast));
}

#[test]
fn a_model_with_one_head_refuses_to_speculate() {
    let home = tempfile::tempdir().unwrap();
    let dir = builtin_model("micro", home.path(), &Device::flex()).unwrap();
    let one = home.path().join("one");
    std::fs::create_dir(&one).unwrap();
    let model = load_model(&dir, None, Some(1), DType::F32, &Device::flex()).unwrap();
    wmtp_model::save(&model, &one, wmtp_model::SaveDtype::F32).unwrap();
    Tokenizer::load(&dir).unwrap().save(&one).unwrap();
    assert_eq!(LlamaConfig::read(&one).unwrap().n_heads, 1);
    let output = wmtp(home.path())
        .args(["generate", "--prompt", "x", "--speculative", "--model"])
        .arg(&one)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("speculative decoding needs heads that draft, and this model has one head only"),
        "{message}"
    );
}

#[test]
fn texts_come_as_they_end_each_with_its_own_temperature() {
    let home = tempfile::tempdir().unwrap();
    let dir = builtin_model("micro", home.path(), &Device::flex()).unwrap();
    let model = load_model(&dir, None, None, DType::F32, &Device::flex()).unwrap();
    let tokenizer = Tokenizer::load(&dir).unwrap();
    let mut generator = ModelGenerator::new(model, tokenizer, Sampling::greedy(12));
    generator.decoding.rows = 2;
    let requests: Vec<GenerationRequest> = (0..5)
        .map(|i| GenerationRequest {
            prompt: TEXT[..20 + 5 * i].to_owned(),
            seed: i as u64,
            temperature: if i % 2 == 0 { 0.0 } else { 1.0 },
        })
        .collect();
    let mut seen = vec![None; 5];
    let totals = generator
        .write_each(&requests, &StopRule::Strings(&[]), &mut |index, written| {
            seen[index] = Some(written.text);
            Ok(())
        })
        .unwrap();
    assert!(totals.tokens > 0);
    for (request, seen) in requests.iter().zip(seen) {
        generator.sampling.temperature = request.temperature;
        let alone = generator
            .write(&[(request.prompt.clone(), request.seed)], &StopRule::Strings(&[]))
            .unwrap();
        assert_eq!(seen.as_ref(), Some(&alone[0].text));
    }
}

/// Cross-entropies are those of `wmtp score`, which computes them without logits.
#[test]
fn the_heads_figures_are_those_of_the_text() {
    let home = tempfile::tempdir().unwrap();
    let dir = builtin_model("micro", home.path(), &Device::flex()).unwrap();
    let model = load_model(&dir, None, None, DType::F32, &Device::flex()).unwrap();
    let tokenizer = Tokenizer::load(&dir).unwrap();
    let text = TEXT.repeat(3);
    let score = score_text(&model, &tokenizer, &text).unwrap();
    let report = judge_heads(&model, &tokenizer, &text, score.token_ids.len()).unwrap();
    assert_eq!((report.tokens, report.heads.len()), (score.token_ids.len(), 4));
    for (head, ce) in report.heads.iter().zip(&score.ce) {
        assert_eq!(head.predictions, ce.len());
        let mean = ce.iter().map(|ce| f64::from(*ce)).sum::<f64>() / ce.len() as f64;
        assert!((head.ce - mean).abs() < 1e-5, "{} and {mean}", head.ce);
        assert_eq!(head.reliability.iter().map(|bin| bin.count).sum::<usize>(), ce.len());
    }
    let all: f64 = report.heads.iter().map(|head| head.error_share).sum();
    assert!((all - 1.0).abs() < 1e-9);
    assert!(judge_heads(&model, &tokenizer, &text, 3).is_err());
    assert!(judge_heads(&model, &tokenizer, "x", 16).is_err());

    let file = home.path().join("text.py");
    std::fs::write(&file, &text).unwrap();
    let output = succeed(
        wmtp(home.path())
            .args([
                "inspect",
                "heads",
                "--model",
                "builtin:micro",
                "--window",
                "32",
                "--json",
                "--output",
                "heads.json",
                "--text",
            ])
            .arg(&file),
    );
    let shown = json(&output);
    let written = std::fs::read_to_string(home.path().join("heads.json")).unwrap();
    assert_eq!(shown, serde_json::from_str::<serde_json::Value>(&written).unwrap());
    assert_eq!(shown["heads"][3]["reliability"].as_array().unwrap().len(), 15);
}
