//! Texts, tokens and masks of conversations through templates of published models, against transformers 5
//! (`fixtures/chat/make_masks.py`).

use crate::{Clock, Conversation, ConversationOptions, Tokenizer, TrainOn, chat::Message};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fs, path::PathBuf};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/tests/fixtures")
}

/// A kind of tokenizer with special tokens after its largest id, and a chat template.
pub fn tokenizer(kind: &str, added: &[&str], template: &str) -> Tokenizer {
    let (dir, kind) = (tempfile::tempdir().unwrap(), fixtures().join("kinds").join(kind));
    let read = |name: &str| fs::read_to_string(kind.join(name)).unwrap();
    let mut tree: Value = serde_json::from_str(&read("tokenizer.json")).unwrap();
    let ids = tree["model"]["vocab"].as_object().unwrap().values().cloned();
    let added_ids = tree["added_tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["id"].clone());
    let largest = ids.chain(added_ids).map(|id| id.as_u64().unwrap()).max().unwrap();
    for (id, content) in (largest + 1..).zip(added) {
        tree["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        }));
    }
    fs::write(dir.path().join("tokenizer.json"), tree.to_string()).unwrap();
    for name in ["tokenizer_config.json", "config.json"] {
        fs::write(dir.path().join(name), read(name)).unwrap();
    }
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    Tokenizer::load(dir.path())
        .unwrap()
        .with_chat_date(Clock::parse("2024-07-26").unwrap())
}

/// As the data readers hand it over.
pub fn conversation(tokenizer: &Tokenizer, given: &Value) -> Result<Conversation, crate::DataError> {
    let messages: Vec<Message> = serde_json::from_value(given["messages"].clone()).unwrap();
    let options = ConversationOptions {
        train_on: match given["train_on"].as_str() {
            None => TrainOn::Assistant,
            Some(name) => serde_json::from_value(name.into()).unwrap(),
        },
        trained_from: given["trained_from"].as_u64().unwrap_or(0) as usize,
    };
    tokenizer.trained_conversation(&messages, given.get("tools"), options)
}

#[test]
fn masks_are_those_of_transformers() {
    let expected = fs::read_to_string(fixtures().join("chat/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let (mut compared, mut refused, mut untrained, mut wrong) = (0, 0, 0, Vec::new());
    for (name, how) in expected["templates"].as_object().unwrap() {
        let template = fixtures().join(format!("chat/templates/{name}.jinja"));
        let added: Vec<&str> = how["added"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_str().unwrap())
            .collect();
        let tokenizer = tokenizer(
            how["kind"].as_str().unwrap(),
            &added,
            &fs::read_to_string(template).unwrap(),
        );
        let entries = expected["entries"].as_array().unwrap().iter();
        for entry in entries.filter(|entry| entry["template"] == name.as_str()) {
            let title = entry["conversation"].as_str().unwrap();
            let found = conversation(&tokenizer, &expected["conversations"][title]);
            if entry["trained"].as_array().is_some_and(Vec::is_empty) {
                untrained += 1;
                let problem = found.unwrap_err().to_string();
                assert!(
                    problem.contains("no message is trained") || problem.contains("writes nothing"),
                    "{problem}"
                );
                continue;
            }
            let (Some(text), Ok(found)) = (entry["text"].as_str(), &found) else {
                refused += 1;
                if entry["error"].is_null() || found.is_ok() {
                    wrong.push(format!("{name}, {title}: {found:?}"));
                }
                continue;
            };
            compared += 1;
            assert_eq!(found.text, text, "{name}, {title}");
            let bytes: Vec<u8> = found.tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
            let digest = hex::encode(Sha256::digest(&bytes));
            assert_eq!(
                entry["sha256"],
                digest.as_str(),
                "{name}, {title}: {} tokens",
                found.tokens.len()
            );
            assert_eq!(entry["tokens"], found.tokens.len());
            let mut weights = vec![None; found.tokens.len()];
            for run in entry["trained"].as_array().unwrap() {
                let (begin, end) = (run[0].as_u64().unwrap() as usize, run[1].as_u64().unwrap() as usize);
                weights[begin..end].fill(Some(run[2].as_f64().unwrap() as f32));
            }
            let trained = found.trained.iter().zip(&found.weights);
            let trained: Vec<Option<f32>> = trained.map(|(trained, weight)| trained.then_some(*weight)).collect();
            if trained != weights {
                let at = trained.iter().zip(&weights).position(|(a, b)| a != b).unwrap();
                let around = found.offsets[at].0;
                let around: String = text.chars().skip(around.saturating_sub(20)).take(40).collect();
                wrong.push(format!(
                    "{name}, {title}: token {at} near {around:?}: {:?}, not {:?}",
                    trained[at], weights[at]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((compared, refused, untrained), (458, 40, 12));
}
