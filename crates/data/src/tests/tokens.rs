use crate::{Clock, Example, Tokenized, Tokenizer, chat};
use proptest::prelude::*;
use serde_json::Value;
use std::{fs, path::Path};

fn micro() -> Tokenizer {
    Tokenizer::builtin_micro().unwrap()
}

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The built-in tokenizer's files in a directory, then changed.
fn copied(edit: impl Fn(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    micro().save(dir.path()).unwrap();
    edit(dir.path());
    dir
}

fn message(edit: impl Fn(&Path)) -> String {
    Tokenizer::load(copied(edit).path()).unwrap_err().to_string()
}

fn rewrite(dir: &Path, name: &str, from: &str, to: &str) {
    let path = dir.join(name);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in {name}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn ids_are_those_of_hugging_faces_package() {
    let rows = fixture(include_str!("fixtures/tokens.json"));
    for row in rows.as_array().unwrap() {
        let ids: Vec<u64> = micro()
            .encode(row["text"].as_str().unwrap())
            .unwrap()
            .iter()
            .map(|&i| i.into())
            .collect();
        let wanted: Vec<u64> = row["ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i.as_u64().unwrap())
            .collect();
        assert_eq!(ids, wanted, "{}", row["text"]);
    }
}

#[test]
fn chat_texts_are_those_of_transformers() {
    let all = fixture(include_str!("fixtures/chat.json"));
    let special: Vec<(String, String)> = all["special"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
        .collect();
    let cases = all["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 18);
    for case in cases {
        let template = all["templates"][case["template"].as_str().unwrap()].as_str().unwrap();
        let messages: Vec<chat::Message> = case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| chat::message(m[0].as_str().unwrap(), m[1].as_str().unwrap()))
            .collect();
        let text = chat::render(
            template,
            &messages,
            &special,
            case["add_generation_prompt"].as_bool().unwrap(),
            &Clock::EPOCH,
        );
        match case["error"].as_str() {
            Some(error) => assert!(text.unwrap_err().contains(error)),
            None => assert_eq!(
                text.unwrap(),
                case["rendered"].as_str().unwrap(),
                "{}",
                case["template"]
            ),
        }
    }
}

#[test]
fn the_micro_tokenizer_fits_the_micro_model() {
    let tokenizer = micro();
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.eos_id(), tokenizer.eos_ids()),
        (1024, 0, &[0][..])
    );
    let config: Value = serde_json::from_str(crate::MICRO_CONFIG).unwrap();
    tokenizer
        .check_vocab(config["vocab_size"].as_u64().unwrap() as usize)
        .unwrap();
    assert_eq!(config["eos_token_id"], 0);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let message = micro().check_vocab(49152).unwrap_err().to_string();
    assert!(
        message.starts_with("wrong tokenizer: the one of builtin:micro has 1024 tokens, the model 49152"),
        "{message}"
    );
    // More tokens than the model has embeddings: only texts that use them are refused.
    micro().check_vocab(1000).unwrap();
    micro().check_vocab(1088).unwrap();
}

#[test]
fn equality_is_by_content_and_not_by_layout() {
    let same = copied(|dir| {
        let path = dir.join("tokenizer.json");
        let value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::write(&path, serde_json::to_string(&value).unwrap()).unwrap();
        fs::remove_file(dir.join("generation_config.json")).unwrap();
    });
    let same = Tokenizer::load(same.path()).unwrap();
    assert_eq!(same.hash(), micro().hash());
    micro().check_same(&same).unwrap();
    // Two merges in the other order: other ids for some text, though the vocabulary is the same.
    let other = copied(|dir| {
        let path = dir.join("tokenizer.json");
        let mut value: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        value["model"]["merges"].as_array_mut().unwrap().swap(0, 1);
        fs::write(&path, value.to_string()).unwrap();
    });
    let other = Tokenizer::load(other.path()).unwrap();
    let message = micro().check_same(&other).unwrap_err().to_string();
    assert!(
        message.starts_with("wrong tokenizer: builtin:micro and ") && message.contains("same family"),
        "{message}"
    );
}

#[test]
fn the_end_of_sequence_is_found_where_it_is_named() {
    let several = copied(|dir| {
        rewrite(
            dir,
            "generation_config.json",
            "\"eos_token_id\": 0",
            "\"eos_token_id\": [7, 0, 9]",
        )
    });
    assert_eq!(Tokenizer::load(several.path()).unwrap().eos_ids(), [0, 7, 9]);
    let config_only = copied(|dir| {
        fs::remove_file(dir.join("generation_config.json")).unwrap();
        fs::remove_file(dir.join("tokenizer_config.json")).unwrap();
        fs::write(dir.join("config.json"), r#"{"eos_token_id": 5}"#).unwrap();
    });
    let loaded = Tokenizer::load(config_only.path()).unwrap();
    assert_eq!((loaded.eos_id(), loaded.eos_ids()), (5, &[5][..]));
    let message = loaded.chat(&[("user", "hi")], true).unwrap_err().to_string();
    assert!(
        message.contains("there is none; add `chat_template.jinja`"),
        "{message}"
    );
}

#[test]
fn unusable_files_are_named() {
    assert!(
        message(|dir| fs::remove_file(dir.join("tokenizer.json")).unwrap()).contains("tokenizer.json`: No such file")
    );
    assert!(
        message(|dir| fs::write(dir.join("tokenizer.json"), "{").unwrap())
            .contains("`tokenizer.json` is not a tokenizer")
    );
    assert!(
        message(|dir| fs::write(dir.join("tokenizer_config.json"), "[").unwrap())
            .contains("`tokenizer_config.json` is not JSON")
    );
    let foreign = |dir: &Path| {
        rewrite(
            dir,
            "tokenizer_config.json",
            "\"eos_token\": \"<|endoftext|>\"",
            "\"eos_token\": \"</s>\"",
        )
    };
    assert!(message(foreign).contains("eos_token `</s>` is not in its vocabulary"));
    let large = |dir: &Path| {
        rewrite(
            dir,
            "generation_config.json",
            "\"eos_token_id\": 0",
            "\"eos_token_id\": 128001",
        )
    };
    assert!(message(large).contains("eos_token_id 128001 of `generation_config.json`"));
    assert!(
        message(|dir| {
            fs::remove_file(dir.join("generation_config.json")).unwrap();
            fs::remove_file(dir.join("tokenizer_config.json")).unwrap();
        })
        .contains("no end-of-sequence token; name one")
    );
}

#[test]
fn a_template_file_comes_before_the_one_in_the_config() {
    let dir = copied(|dir| {
        fs::write(
            dir.join("chat_template.jinja"),
            "{{ messages[0].content }}!{{ eos_token }}",
        )
        .unwrap()
    });
    let loaded = Tokenizer::load(dir.path()).unwrap();
    assert_eq!(loaded.chat(&[("user", "hi")], true).unwrap(), "hi!<|endoftext|>");
    let broken = copied(|dir| fs::write(dir.join("chat_template.jinja"), "{% break %}").unwrap());
    let message = Tokenizer::load(broken.path())
        .unwrap()
        .chat(&[("user", "hi")], true)
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("chat template of "), "{message}");
}

#[test]
fn a_document_is_prompt_response_and_end() {
    let tokenizer = micro();
    let example = Example {
        sample: 3,
        name: "x".into(),
        problem: 4,
        prompt: "[BEGIN]\n".into(),
        response: "pass\n[DONE]".into(),
        task: String::new(),
        code: "pass".into(),
        reward: Some(1.0),
    };
    let done = Tokenized::new(&example, &tokenizer).unwrap();
    assert_eq!(tokenizer.decode(&done.tokens[..done.prompt_len]).unwrap(), "[BEGIN]\n");
    assert_eq!(
        tokenizer.decode(&done.tokens[done.prompt_len..]).unwrap(),
        "pass\n[DONE]<|endoftext|>"
    );
    assert_eq!(done.tokens.last(), Some(&tokenizer.eos_id()));
    assert_eq!((done.sample, done.problem, done.reward), (3, 4, Some(1.0)));
    let empty = Tokenized::new(
        &Example {
            prompt: String::new(),
            ..example
        },
        &tokenizer,
    );
    assert!(empty.unwrap_err().to_string().contains("no prompt in x"));
}

proptest! {
    #[test]
    fn any_text_comes_back(text in any::<String>()) {
        static MICRO: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(micro);
        let tokenizer = &*MICRO;
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
    }
}
