//! Tokenizers: `tokenizer.json`, its companions, SentencePiece's models.

use super::{files, none, root, words};
use crate::{
    Kind, Outcome, Target,
    mutate::{Shape, named, split},
    scratch::{emptied, put, spread},
    target::FIRST,
};
use flate2::read::ZlibDecoder;
use serde_json::{Map, Value, json};
use std::{fs, io::Read, path::Path};
use wmtp_data::{Choice, SpecialInText, SpecialTokens, Tokenizer};

/// A byte pair encoding of printable ASCII with a few merges, and three special tokens.
fn tiny_json() -> Value {
    let mut vocabulary: Map<String, Value> = Map::new();
    let mut add = |token: String| {
        let id = vocabulary.len();
        vocabulary.insert(token, json!(id));
    };
    ["<unk>", "<s>", "</s>"]
        .into_iter()
        .for_each(|token| add(token.to_owned()));
    (b'!'..=b'~')
        .chain([b'\n', b' '])
        .for_each(|byte| add(char::from(byte).to_string()));
    let merges = [["i", "n"], ["a", "n"], ["in", "g"]];
    merges
        .iter()
        .for_each(|[first, second]| add(format!("{first}{second}")));
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " ?[a-z]+|\\s|."}, "behavior": "Isolated", "invert": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": merges},
    })
}

fn tiny_config() -> Value {
    json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
}

/// Writes the files of a tokenizer that is read in microseconds.
pub(super) fn tiny(dir: &Path) {
    put(&dir.join("tokenizer.json"), tiny_json().to_string().as_bytes());
    put(&dir.join("tokenizer_config.json"), tiny_config().to_string().as_bytes());
}

/// The same, with the template of `ChatML`.
pub(super) fn chatml(dir: &Path) -> Tokenizer {
    emptied(dir);
    tiny(dir);
    let template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}\
                    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    put(&dir.join("chat_template.jinja"), template.as_bytes());
    match Tokenizer::load(dir) {
        Ok(tokenizer) => tokenizer,
        Err(error) => panic!("the tiny tokenizer is read: {error}"),
    }
}

/// Reads a directory and does what is done with a tokenizer.
fn used(dir: &Path) -> Outcome {
    let tokenizer = match Tokenizer::load(dir) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return Outcome::refused(&error.to_string()),
    };
    let text = "def f(x):\n    return ' <s>é\u{1f600}\t' # being an </s>ant\r\n";
    let ids = tokenizer.document(text);
    let _ = tokenizer.decode(&ids.unwrap_or_default());
    let _ = tokenizer.decode(&[0, 1, 2, 3, 1000, u32::MAX]);
    let _ = tokenizer.trained_with_offsets("an ing ", "in é");
    let _ = (
        tokenizer.vocab_size(),
        tokenizer.notice(),
        tokenizer.check_vocab(100),
        tokenizer.config_file(),
    );
    let choice = Choice {
        special_tokens: SpecialTokens::Always,
        special_in_text: SpecialInText::Plain,
    };
    if let Ok(other) = tokenizer.clone().with_choice(choice) {
        let _ = other.document("<s>a");
    }
    if let Ok(small) = tokenizer.for_model(5) {
        let _ = small.encode("a b");
    }
    Outcome::Accepted
}

/// A target whose input is one file of a directory with the tiny tokenizer.
macro_rules! of_file {
    ($name:literal) => {
        |dir| {
            tiny(dir);
            let dir = dir.to_owned();
            Box::new(move |input| {
                put(&dir.join($name), input);
                used(&dir)
            })
        }
    };
}

pub(super) const JSON: Target = Target {
    name: "tokenizer",
    what: "tokenizer.json",
    kind: Kind::Memory,
    shape: Shape::Json,
    words: words::TOKENIZER,
    stack: FIRST,
    seeds: || vec![tiny_json().to_string().into_bytes()],
    open: of_file!("tokenizer.json"),
};

pub(super) const CONFIG: Target = Target {
    name: "tokenizer-config",
    what: "tokenizer_config.json",
    seeds: || {
        let mut seeds = vec![tiny_config().to_string().into_bytes()];
        for kind in ["llama2", "codellama", "deepseek-coder", "qwen2"] {
            let dir = format!("crates/data/src/tests/fixtures/kinds/{kind}");
            seeds.extend(files(&dir, "tokenizer_config.json"));
        }
        seeds
    },
    open: of_file!("tokenizer_config.json"),
    ..JSON
};

pub(super) const GENERATION: Target = Target {
    name: "generation-config",
    what: "generation_config.json, and the tokens of config.json",
    seeds: none,
    open: |dir| {
        tiny(dir);
        put(&dir.join("tokenizer_config.json"), b"{}");
        let dir = dir.to_owned();
        let mut executions = 0usize;
        Box::new(move |input| {
            executions += 1;
            let names = ["generation_config.json", "config.json"];
            put(&dir.join(names[executions % 2]), input);
            put(&dir.join(names[(executions + 1) % 2]), b"{\"eos_token_id\": 2}");
            used(&dir)
        })
    },
    ..JSON
};

pub(super) const COMPANIONS: Target = Target {
    name: "tokenizer-files",
    what: "a tokenizer's other files, all at once",
    shape: Shape::Parts,
    seeds: || {
        let map = br#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "additional_special_tokens": ["<x>"]}"#;
        let config = br#"{"added_tokens_decoder": {"99": {"content": "<x>", "special": true}}, "chat_template": [{"name": "default", "template": "x"}]}"#;
        let all = [
            ("special_tokens_map.json", &map[..]),
            ("tokenizer_config.json", config),
            ("generation_config.json", br#"{"eos_token_id": [2, 1]}"#),
            ("config.json", br#"{"model_type": "llama", "eos_token_id": 2}"#),
            ("added_tokens.json", br#"{"<x>": 99}"#),
            ("chat_template.jinja", b"{{ bos_token }}"),
        ];
        vec![named(&all), named(&all[..3])]
    },
    open: |dir| {
        let dir = dir.join("files");
        Box::new(move |input| {
            spread(&dir, &split(input));
            put(&dir.join("tokenizer.json"), tiny_json().to_string().as_bytes());
            used(&dir)
        })
    },
    ..JSON
};

pub(super) const PIECES: Target = Target {
    name: "sentencepiece",
    what: "SentencePiece's tokenizer.model, with configurations of several classes",
    shape: Shape::Protobuf,
    seeds: || {
        let dir = root().join("crates/data/src/tests/fixtures/sentencepiece");
        let unpacked = |name: &str| {
            let mut bytes = Vec::new();
            let file = fs::File::open(dir.join(format!("{name}.model.z")));
            let read = file.and_then(|file| ZlibDecoder::new(file).read_to_end(&mut bytes));
            read.is_ok().then_some(bytes)
        };
        ["char", "word", "rules", "bpe", "gemma"]
            .into_iter()
            .filter_map(unpacked)
            .collect()
    },
    open: |dir| {
        let classes = [
            json!({}),
            json!({"tokenizer_class": "LlamaTokenizer", "legacy": false, "add_bos_token": true}),
            json!({"tokenizer_class": "GemmaTokenizer", "add_eos_token": true}),
            json!({"tokenizer_class": "CodeLlamaTokenizer", "added_tokens_decoder": {"5": {"content": "<x>"}}}),
        ];
        let dirs: Vec<_> = (0..classes.len()).map(|n| emptied(&dir.join(n.to_string()))).collect();
        for (dir, class) in dirs.iter().zip(&classes) {
            put(&dir.join("tokenizer_config.json"), class.to_string().as_bytes());
            put(
                &dir.join("config.json"),
                br#"{"model_type": "gemma", "eos_token_id": 2}"#,
            );
        }
        let mut executions = 0usize;
        Box::new(move |input| {
            executions += 1;
            let dir = &dirs[executions % dirs.len()];
            put(&dir.join("tokenizer.model"), input);
            used(dir)
        })
    },
    ..JSON
};
