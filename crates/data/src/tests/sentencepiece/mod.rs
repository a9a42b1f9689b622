//! Ids and texts of SentencePiece model files against transformers' (`fixtures/sentencepiece`), and files that
//! are refused.

mod refused;

use crate::{Choice, SpecialTokens, Tokenizer};
use flate2::read::ZlibDecoder;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Kinds and their model files, as in the script.
const KINDS: [(&str, &str); 11] = [
    ("llama2-legacy", "bpe"),
    ("llama2", "bpe"),
    ("llama-symbols", "symbols"),
    ("llama-listed", "symbols"),
    ("codellama", "code"),
    ("mistral", "bpe"),
    ("mistral-renamed", "symbols"),
    ("bare", "symbols"),
    ("gemma", "gemma"),
    ("unigram", "unigram"),
    ("rules", "rules"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/fixtures")
}

fn unpacked(name: &str) -> Vec<u8> {
    let file = fs::File::open(fixtures().join("sentencepiece").join(name)).unwrap();
    let mut bytes = Vec::new();
    ZlibDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

fn model(name: &str) -> Vec<u8> {
    unpacked(&format!("{name}.model.z"))
}

fn strings() -> Vec<String> {
    let read = |bytes: Vec<u8>| -> Vec<String> { serde_json::from_slice(&bytes).unwrap() };
    let mut strings = read(fs::read(fixtures().join("kinds/strings.json")).unwrap());
    strings.extend(read(unpacked("more.json.z")));
    strings
}

/// A directory with these files and this model file.
fn directory(model: &[u8], files: &[(&str, Value)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.model"), model).unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content.to_string()).unwrap();
    }
    dir
}

/// A kind's directory, with its model file.
fn kind(name: &str) -> TempDir {
    let (_, file) = KINDS.iter().find(|(kind, _)| *kind == name).unwrap();
    let dir = directory(&model(file), &[]);
    for entry in fs::read_dir(fixtures().join("sentencepiece").join(name)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json") {
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

fn load(dir: &TempDir) -> Result<Tokenizer, String> {
    Tokenizer::load(dir.path()).map_err(|e| e.to_string())
}

/// For each string, its ids: every number as unsigned LEB128, the count first.
fn expected_ids(kind: &str) -> Vec<Vec<u32>> {
    let bytes = unpacked(&format!("{kind}/ids.bin.z"));
    let mut rest = bytes.iter().copied();
    let mut number = || {
        let (mut value, mut shift) = (0u32, 0);
        loop {
            let byte = rest.next()?;
            value |= u32::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                return Some(value);
            }
        }
    };
    let mut rows = Vec::new();
    while let Some(count) = number() {
        rows.push((0..count).map(|_| number().unwrap()).collect());
    }
    rows
}

#[test]
fn ids_and_texts_are_those_of_transformers_for_1034_strings_of_11_kinds() {
    let strings = strings();
    assert_eq!(strings.len(), 1034);
    for (name, _) in KINDS {
        let tokenizer = load(&kind(name)).unwrap();
        let expected = expected_ids(name);
        assert_eq!(expected.len(), strings.len());
        let decoded: HashMap<usize, String> =
            serde_json::from_slice(&unpacked(&format!("{name}/decoded.json.z"))).unwrap();
        for (at, (text, expected)) in strings.iter().zip(&expected).enumerate() {
            assert_eq!(&tokenizer.document(text).unwrap(), expected, "{name}: {text:?}");
            let ids = tokenizer.encode(text).unwrap();
            let wanted = decoded.get(&at).unwrap_or(text);
            assert_eq!(&tokenizer.decode(&ids).unwrap(), wanted, "{name}: {text:?}");
        }
    }
}

#[test]
fn tokenizer_json_is_read_where_both_files_are_there() {
    let dir = kind("llama2");
    let json = fixtures().join("kinds/llama2-nonlegacy/tokenizer.json");
    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    // 683 tokens of one, 702 of the other.
    assert_eq!(load(&dir).unwrap().vocab_size(), 683);
    fs::write(dir.path().join("tokenizer.model"), "no model").unwrap();
    assert_eq!(load(&dir).unwrap().vocab_size(), 683);
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert!(load(&dir).is_err());
}

#[test]
fn a_saved_tokenizer_has_its_files_and_its_ids() {
    let dir = kind("llama2");
    let tokenizer = load(&dir).unwrap();
    let saved = tempfile::tempdir().unwrap();
    let never = Choice {
        special_tokens: SpecialTokens::Never,
        ..Choice::default()
    };
    tokenizer
        .clone()
        .with_choice(never)
        .unwrap()
        .save(saved.path())
        .unwrap();
    for name in ["tokenizer.model", "added_tokens.json", "special_tokens_map.json"] {
        let read = |dir: &Path| fs::read(dir.join(name)).unwrap();
        assert_eq!(read(saved.path()), read(dir.path()), "{name}");
    }
    assert!(!saved.path().join("tokenizer.json").exists());
    let again = load(&saved).unwrap();
    assert_eq!((again.hash(), again.choice()), (tokenizer.hash(), never));
    assert_eq!(again.begin_ids(), &[] as &[u32]);
    assert!(tokenizer.check_same(&load(&kind("llama2-legacy")).unwrap()).is_err());
}

/// transformers 5 makes a BPE of them, whose ids no model was trained with.
#[test]
fn unigram_files_of_a_llama_class_are_read_as_unigram() {
    let llama = json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true});
    let dir = directory(&model("unigram"), &[("tokenizer_config.json", llama)]);
    let tokenizer = load(&dir).unwrap();
    for (text, expected) in strings().iter().zip(expected_ids("unigram")) {
        assert_eq!(tokenizer.document(text).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn special_tokens_that_nothing_names_are_those_of_the_model_file() {
    let bare = load(&directory(&model("bpe"), &[])).unwrap();
    assert_eq!((bare.eos_id(), bare.begin_ids()), (2, &[] as &[u32]));
    let notice = bare.notice().unwrap();
    assert!(
        notice.contains("no `add_bos_token`") && notice.contains("data.special_tokens"),
        "{notice}"
    );
    let always = Choice {
        special_tokens: SpecialTokens::Always,
        ..Choice::default()
    };
    let always = bare.with_choice(always).unwrap();
    assert_eq!((always.begin_ids(), always.notice()), (&[1][..], None));

    let gemma = load(&directory(&model("gemma"), &[])).unwrap();
    assert_eq!(gemma.eos_ids(), [1]);
    // What the configuration denies stays denied.
    let denied = [(
        "tokenizer_config.json",
        json!({"bos_token": null, "add_bos_token": false}),
    )];
    let denied = load(&directory(&model("bpe"), &denied)).unwrap();
    assert_eq!(denied.notice(), None);
    assert!(
        denied
            .with_choice(Choice {
                special_tokens: SpecialTokens::Always,
                ..Choice::default()
            })
            .is_err()
    );
}

#[test]
fn an_end_token_of_added_tokens_json_is_known() {
    let files = [
        (
            "tokenizer_config.json",
            json!({"tokenizer_class": "LlamaTokenizer", "eos_token": "<|im_end|>"}),
        ),
        ("added_tokens.json", json!({"<|im_start|>": 700, "<|im_end|>": 701})),
    ];
    let tokenizer = load(&directory(&model("bpe"), &files)).unwrap();
    assert_eq!(tokenizer.eos_ids(), [701]);
    assert_eq!(tokenizer.encode("<|im_start|>").unwrap(), [700]);
    let problem = load(&directory(&model("bpe"), &files[..1])).unwrap_err();
    assert!(
        problem.contains("its eos_token `<|im_end|>` is not in its vocabulary"),
        "{problem}"
    );
}

/// A field of bytes.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = content.len();
    while length > 127 {
        field.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(content);
    field
}

/// A piece with text, score and type.
fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let message = [
        &bytes(1, text.as_bytes())[..],
        &[2 << 3 | 5],
        &score.to_le_bytes(),
        &[3 << 3, kind],
    ]
    .concat();
    bytes(1, &message)
}

/// A BPE of these pieces after `<unk>`, `<s>`, `</s>`, without normalisation.
fn file(pieces: &[Vec<u8>]) -> Vec<u8> {
    let special = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)].concat();
    let trainer = bytes(2, &[3 << 3, 2]);
    let normalizer = bytes(3, &[3 << 3, 0, 4 << 3, 0, 5 << 3, 0]);
    [special, pieces.concat(), trainer, normalizer].concat()
}

#[test]
fn merges_have_the_order_of_scores_or_for_a_class_of_ids() {
    let letters = ["a", "b", "c", "d"].map(|letter| piece(letter, -9.0, 1));
    let pieces = [
        letters.to_vec(),
        vec![piece("ab", -2.0, 1), piece("bc", -1.0, 1), piece("abc", -3.0, 1)],
    ]
    .concat();
    let (a, c, ab, bc, abc) = (3, 5, 7, 8, 9);
    let own = load(&directory(&file(&pieces), &[])).unwrap();
    // "bc" has the higher score; "a" and "bc" make "abc".
    assert_eq!(own.encode("abc").unwrap(), [abc]);
    assert_eq!(own.encode("abbc").unwrap(), [ab, bc]);
    let without = load(&directory(&file(&pieces[..6]), &[])).unwrap();
    assert_eq!(without.encode("abc").unwrap(), [a, bc]);
    let class = json!({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false});
    let class = [("tokenizer_config.json", class)];
    let class = load(&directory(&file(&pieces[..6]), &class)).unwrap();
    assert_eq!(class.encode("abc").unwrap(), [ab, c]);
}

#[test]
fn a_user_defined_piece_is_one_token_and_takes_no_part_in_merges() {
    let letters = ["a", "b", "."].map(|letter| piece(letter, -9.0, 1));
    let pieces = [letters.to_vec(), vec![piece("aa", -1.0, 1), piece("a.", 0.0, 4)]].concat();
    let tokenizer = load(&directory(&file(&pieces), &[])).unwrap();
    let (a, b, dot, aa, user) = (3, 4, 5, 6, 7);
    assert_eq!(tokenizer.encode("aaa.b").unwrap(), [aa, user, b]);
    // Its characters are no pattern: `.` is a dot.
    assert_eq!(tokenizer.encode("ab.").unwrap(), [a, b, dot]);
}
