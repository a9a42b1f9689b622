//! Token ids of nine kinds of tokenizer against transformers' (`fixtures/kinds/make_kinds.py`), and the
//! text of continuations.

use crate::{Choice, Detokenizer, SpecialInText, SpecialTokens, Tokenizer};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

const KINDS: [&str; 9] = [
    "llama2",
    "llama2-nonlegacy",
    "metaspace-file",
    "codellama",
    "llama3",
    "gpt2",
    "smollm2",
    "deepseek-coder",
    "qwen2",
];

static ALL: LazyLock<BTreeMap<&str, Tokenizer>> = LazyLock::new(|| {
    KINDS
        .iter()
        .map(|kind| (*kind, Tokenizer::load(&dir(kind)).unwrap()))
        .collect()
});

static STRINGS: LazyLock<Vec<String>> = LazyLock::new(|| read_json(&dir("strings.json")));

fn dir(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tests/fixtures/kinds")
        .join(kind)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// For each string, its ids: every number as unsigned LEB128, the count first.
fn expected_ids(kind: &str) -> Vec<Vec<u32>> {
    let bytes = fs::read(dir(kind).join("ids.bin")).unwrap();
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

/// A tokenizer of this kind with other files.
fn changed(kind: &str, edit: impl Fn(&mut serde_json::Value, &mut serde_json::Value)) -> Result<Tokenizer, String> {
    let to = tempfile::tempdir().unwrap();
    let mut tokenizer = read_json(&dir(kind).join("tokenizer.json"));
    let mut config = read_json(&dir(kind).join("tokenizer_config.json"));
    edit(&mut tokenizer, &mut config);
    fs::write(to.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(to.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    Tokenizer::load(to.path()).map_err(|e| e.to_string())
}

fn chosen(kind: &str, special_tokens: SpecialTokens, special_in_text: SpecialInText) -> Tokenizer {
    let choice = Choice {
        special_tokens,
        special_in_text,
    };
    ALL[kind].clone().with_choice(choice).unwrap()
}

#[test]
fn ids_are_those_of_transformers_for_1000_strings_of_9_kinds() {
    assert_eq!(STRINGS.len(), 1000);
    for kind in KINDS {
        let tokenizer = &ALL[kind];
        let expected = expected_ids(kind);
        assert_eq!(expected.len(), STRINGS.len());
        for (text, expected) in STRINGS.iter().zip(&expected) {
            assert_eq!(&tokenizer.document(text).unwrap(), expected, "{kind}: {text:?}");
        }
        let plain: Vec<Vec<u32>> = read_json(&dir(kind).join("plain.json"));
        assert_eq!(plain.len(), 40);
        let never = chosen(kind, SpecialTokens::Never, SpecialInText::Auto);
        for (text, expected) in STRINGS.iter().zip(&plain) {
            assert_eq!(&never.document(text).unwrap(), expected, "{kind}: {text:?}");
            assert_eq!(
                &tokenizer.clone().for_chat().document(text).unwrap(),
                expected,
                "{kind}: {text:?}"
            );
        }
    }
}

/// What transformers 5.24 gives for these files: the post-processor decides, `add_bos_token` does not,
/// and CodeLlama's class adds BOS in any case.
#[test]
fn the_post_processor_decides_which_special_tokens_are_added() {
    for (kind, post, begin) in [
        ("llama2", true, &[1][..]),
        ("llama2", false, &[]),
        ("codellama", true, &[1]),
        ("codellama", false, &[1]),
        ("llama3", true, &[700]),
        ("llama3", false, &[]),
        ("deepseek-coder", true, &[700]),
        ("deepseek-coder", false, &[]),
        ("gpt2", true, &[]),
    ] {
        for add in [None, Some(true), Some(false)] {
            let tokenizer = changed(kind, |tokenizer, config| {
                if !post {
                    tokenizer["post_processor"] = serde_json::Value::Null;
                }
                config.as_object_mut().unwrap().remove("add_bos_token");
                if let Some(add) = add {
                    config["add_bos_token"] = add.into();
                }
            })
            .unwrap();
            assert_eq!(tokenizer.begin_ids(), begin, "{kind} {post} {add:?}");
            assert!(tokenizer.end_ids().is_empty());
            let contradicts = add.is_some_and(|add| add == begin.is_empty());
            assert_eq!(tokenizer.notice().is_some(), contradicts, "{kind} {post} {add:?}");
        }
    }
}

#[test]
fn parts_on_which_the_library_panics_are_an_error() {
    let undescribed = changed("deepseek-coder", |tokenizer, _| {
        let end = serde_json::json!({"SpecialToken": {"id": "<none>", "type_id": 0}});
        let single = serde_json::json!([{"Sequence": {"id": "A", "type_id": 0}}, end]);
        tokenizer["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing", "single": single, "pair": single,
            "special_tokens": {"other": {"id": "<none>", "ids": [1], "tokens": ["<none>"]}},
        });
    });
    let short_merges = changed("deepseek-coder", |tokenizer, _| {
        tokenizer["model"]["continuing_subword_prefix"] = "longer than what is merged".into();
    });
    for tokenizer in [undescribed, short_merges] {
        let message = tokenizer.unwrap_err().to_string();
        assert!(message.contains("its parts do not fit together"), "{message}");
    }
}

#[test]
fn an_end_token_of_the_post_processor_ends_a_document_and_no_prompt() {
    let ended = changed("llama2", |tokenizer, _| {
        let post = &mut tokenizer["post_processor"];
        let end = serde_json::json!({"SpecialToken": {"id": "</s>", "type_id": 0}});
        post["single"].as_array_mut().unwrap().push(end);
        post["special_tokens"]["</s>"] = serde_json::json!({"id": "</s>", "ids": [2], "tokens": ["</s>"]});
    })
    .unwrap();
    assert_eq!((ended.begin_ids(), ended.end_ids()), (&[1][..], &[2][..]));
    let x = ended.encode("x").unwrap();
    assert_eq!(ended.document("x").unwrap(), [&[1], &x[..], &[2]].concat());
    assert_eq!(ended.prompt_ids("x").unwrap(), [&[1], &x[..]].concat());
    // One EOS, not two.
    let (ids, _) = ended.trained("x", "").unwrap();
    assert_eq!(ids, [&[1], &x[..], &[2]].concat());
}

#[test]
fn bos_is_added_never_or_always_where_the_settings_say_so() {
    let begin = |kind: &str, choice| chosen(kind, choice, SpecialInText::Auto).begin_ids().to_vec();
    assert!(begin("llama2", SpecialTokens::Never).is_empty());
    assert_eq!(begin("llama2", SpecialTokens::Always), [1]);
    // gpt2's bos_token is its end token.
    assert_eq!(begin("gpt2", SpecialTokens::Always), [700]);
    let no_bos = ALL["qwen2"].clone().with_choice(Choice {
        special_tokens: SpecialTokens::Always,
        ..Choice::default()
    });
    let message = no_bos.unwrap_err().to_string();
    assert!(message.contains("names no `bos_token`"), "{message}");
    // A template that wrote it out gets no second one; one that did not gets one.
    let chat = chosen("llama2", SpecialTokens::Always, SpecialInText::Auto).for_chat();
    let written = chat.prompt_ids("<s>[INST] hi [/INST]").unwrap();
    assert_eq!(written[..2].iter().filter(|id| **id == 1).count(), 1);
    assert_eq!(chat.prompt_ids("[INST] hi").unwrap()[0], 1);
}

#[test]
fn the_choice_of_training_is_saved_and_is_the_choice_of_evaluation() {
    let saved = tempfile::tempdir().unwrap();
    let unchanged = tempfile::tempdir().unwrap();
    ALL["llama2"].save(unchanged.path()).unwrap();
    let config = |dir: &Path| fs::read_to_string(dir.join("tokenizer_config.json")).unwrap();
    assert_eq!(config(unchanged.path()), config(&dir("llama2")));

    chosen("llama2", SpecialTokens::Never, SpecialInText::Plain)
        .save(saved.path())
        .unwrap();
    let loaded = Tokenizer::load(saved.path()).unwrap();
    assert_eq!(loaded.choice().special_tokens, SpecialTokens::Never);
    assert!(loaded.begin_ids().is_empty());
    assert!(!loaded.encode("a</s>").unwrap().contains(&2));
    // An explicit choice overrides the record, and is recorded in its place.
    let always = Choice {
        special_tokens: SpecialTokens::Always,
        special_in_text: SpecialInText::Parse,
    };
    let again = loaded.with_choice(always).unwrap();
    assert_eq!(again.begin_ids(), [1]);
    assert!(again.encode("a</s>").unwrap().contains(&2));
    again.save(saved.path()).unwrap();
    assert_eq!(Tokenizer::load(saved.path()).unwrap().choice(), always);
}

#[test]
fn special_tokens_in_a_text_are_parsed_or_left_plain() {
    for (kind, token, id) in [("gpt2", "<|endoftext|>", 700), ("llama2", "</s>", 2)] {
        let text = format!("print('{token}')");
        let parsed = ALL[kind].encode(&text).unwrap();
        assert_eq!(parsed.iter().filter(|i| **i == id).count(), 1, "{kind}");
        let plain = chosen(kind, SpecialTokens::Auto, SpecialInText::Plain);
        let ids = plain.document(&text).unwrap();
        assert!(!ids.contains(&id), "{kind}");
        assert_eq!(
            plain
                .decode_after(plain.begin_ids(), &ids[plain.begin_ids().len()..])
                .unwrap()
                .trim_start(),
            text
        );
        // The template's own are parsed in any case.
        assert!(plain.for_chat().encode(&text).unwrap().contains(&id), "{kind}");
    }
}

#[test]
fn tokens_that_the_configuration_names_are_added_as_transformers_adds_them() {
    let named = |key: &str, value: serde_json::Value| {
        changed("metaspace-file", |_, config| config[key] = value.clone()).unwrap()
    };
    let ids = named("pad_token", "[PAD]".into()).document("x[PAD]y").unwrap();
    assert_eq!(ids, [1, 461, 683, 573]);
    let ids = named("additional_special_tokens", serde_json::json!(["[INST]"]));
    assert_eq!(ids.document("x[INST] y").unwrap(), [1, 461, 683, 347, 573]);
    let added = serde_json::json!({
        "0": {"content": "<unk>", "special": true},
        "700": {"content": "[ADD]", "special": false, "normalized": false},
    });
    assert_eq!(
        named("added_tokens_decoder", added).document("x[ADD] y<s>z").unwrap(),
        [1, 461, 683, 347, 573, 1, 347, 343]
    );
    // A token takes the spaces around it if its flags say so, also one that the file has without them.
    let flags = serde_json::json!({"1": {"content": "<s>", "special": true, "lstrip": true, "rstrip": true}});
    let stripping = named("added_tokens_decoder", flags);
    assert_eq!(stripping.document("x  <s>  z").unwrap(), [1, 461, 1, 347, 343]);
    let fill = changed("codellama", |_, config| config["fill_token"] = "<FILL_ME>".into()).unwrap();
    assert_eq!(fill.vocab_size(), 688);
}

#[test]
fn ids_beyond_the_embedding_are_refused_where_a_text_has_them() {
    let tokenizer = changed("gpt2", |_, config| config["pad_token"] = "[PAD]".into())
        .unwrap()
        .for_model(701)
        .unwrap();
    assert_eq!(tokenizer.vocab_size(), 702);
    assert!(tokenizer.document("x = 1").is_ok());
    for message in [
        tokenizer.document("x [PAD]").unwrap_err().to_string(),
        tokenizer.prompt_ids("x [PAD]").unwrap_err().to_string(),
        tokenizer.trained("x", "[PAD]").unwrap_err().to_string(),
    ] {
        assert!(
            message.contains("the token `[PAD]` (id 701)") && message.contains("701 embeddings"),
            "{message}"
        );
    }
    assert!(
        ALL["gpt2"]
            .clone()
            .for_model(3000)
            .unwrap_err()
            .to_string()
            .contains("3000")
    );
}

#[test]
fn a_continuation_keeps_its_spaces() {
    for kind in KINDS {
        let tokenizer = &ALL[kind];
        for (prompt, response) in [
            ("def add(x, y):\n", "    return x + y\n"),
            ("def add(x, y):\n    \"\"\"sum\"\"\"\n", "    return x + y\n"),
            ("x =", " 1"),
            ("x = ", "1"),
            ("[BEGIN]\n", "def f():\n\treturn '\u{1f600}'"),
            ("print('", "\u{4f60}\u{597d}')"),
        ] {
            let (ids, prompt_len) = tokenizer.trained(prompt, response).unwrap();
            let whole = tokenizer.document(&format!("{prompt}{response}")).unwrap();
            assert_eq!(ids[..ids.len() - 1], whole, "{kind}: {prompt:?} {response:?}");
            assert_eq!(ids.last(), Some(&tokenizer.eos_id()));
            let (before, after) = ids[..ids.len() - 1].split_at(prompt_len);
            let text = tokenizer.decode_after(before, after).unwrap();
            // All of the response, and of the prompt only what shares a token with it.
            assert!(text.ends_with(response), "{kind}: {text:?}");
            assert!(format!("{prompt}{response}").ends_with(&text), "{kind}: {text:?}");
            // And from the prompt's own ids, as in generation.
            let own = tokenizer.prompt_ids(prompt).unwrap();
            if own[..] == ids[..own.len()] {
                let text = tokenizer.decode_after(&own, &ids[own.len()..ids.len() - 1]).unwrap();
                assert_eq!(text, response, "{kind}: {prompt:?}");
            }
        }
    }
}

#[test]
fn the_prompt_ends_at_the_last_border_before_a_seam_inside_a_token() {
    // "return" is one token: its second half is trained with the first.
    for kind in KINDS {
        let tokenizer = &ALL[kind];
        let (ids, prompt_len) = tokenizer.trained("    ret", "urn x").unwrap();
        let text = tokenizer
            .decode_after(&ids[..prompt_len], &ids[prompt_len..ids.len() - 1])
            .unwrap();
        assert!(text.ends_with("return x"), "{kind}: {text:?}");
    }
}

#[test]
fn a_character_of_several_tokens_is_held_back_until_it_is_complete() {
    for kind in KINDS {
        let tokenizer = &ALL[kind];
        let prompt = tokenizer.prompt_ids("# ").unwrap();
        let whole = tokenizer.prompt_ids("# \u{1f600}\u{e9}").unwrap();
        let mut decoder = Detokenizer::after(tokenizer, &prompt);
        let mut pieces = Vec::new();
        for &id in &whole[prompt.len().min(whole.len() - 2)..] {
            let piece = decoder.push(id).unwrap();
            assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{kind}: {piece:?}");
            pieces.push(piece);
        }
        assert!(pieces.iter().any(String::is_empty), "{kind}: {pieces:?}");
        assert!(pieces.concat().ends_with('\u{e9}'), "{kind}: {pieces:?}");
        // Cut inside a character: it comes out at the end, and what stood before it is kept.
        let mut cut = Detokenizer::after(tokenizer, &prompt);
        let emoji = tokenizer.encode("\n\u{1f600}").unwrap();
        let mut text: String = emoji[..emoji.len() - 1]
            .iter()
            .map(|&id| cut.push(id).unwrap())
            .collect();
        assert!(!text.contains(char::REPLACEMENT_CHARACTER), "{kind}: {text:?}");
        text += &cut.finish().unwrap();
        assert!(
            text.contains('\n') && text.ends_with(char::REPLACEMENT_CHARACTER),
            "{kind}: {text:?}"
        );
        assert_eq!(cut.finish().unwrap(), "");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The definition: the text of all ids less the text of the prompt's.
    #[test]
    fn pieces_are_the_text_of_all_ids_less_that_of_the_prompt(
        kind in proptest::sample::select(&KINDS[..]),
        first in 0..1000usize,
        second in 0..1000usize,
    ) {
        let tokenizer = &ALL[kind];
        let prompt = tokenizer.prompt_ids(&format!("#{}", STRINGS[first])).unwrap();
        let new = tokenizer.encode(&STRINGS[second]).unwrap();
        let all = tokenizer.decode(&[&prompt[..], &new].concat()).unwrap();
        let before = tokenizer.decode(&prompt).unwrap();
        let text = tokenizer.decode_after(&prompt, &new).unwrap();
        prop_assert_eq!(format!("{before}{text}"), all);
        prop_assert_eq!(tokenizer.pieces_after(&prompt, &new).unwrap().len(), new.len());
    }

    /// No token of the prompt reaches over the seam, and the first trained one does.
    #[test]
    fn a_response_is_the_continuation_of_its_prompt(
        kind in proptest::sample::select(&["gpt2", "smollm2", "llama3", "deepseek-coder"][..]),
        first in 0..1000usize,
        second in 0..1000usize,
    ) {
        let tokenizer = &ALL[kind];
        let (prompt, response) = (format!("#{}", STRINGS[first]), &STRINGS[second]);
        let (ids, prompt_len) = tokenizer.trained(&prompt, response).unwrap();
        prop_assert_eq!(&ids[..ids.len() - 1], tokenizer.document(&format!("{prompt}{response}")).unwrap());
        let begin = tokenizer.begin_ids().len();
        let bytes = |ids: &[u32]| tokenizer.decode(ids).unwrap();
        // Byte-level tokenizers lose nothing, so lengths of complete texts are exact.
        let before = bytes(&ids[begin..prompt_len]);
        prop_assert!(before.ends_with(char::REPLACEMENT_CHARACTER) || prompt.starts_with(&before), "{before:?}");
        if prompt_len < ids.len() - 1 {
            let next = bytes(&ids[begin..=prompt_len]);
            prop_assert!(next.ends_with(char::REPLACEMENT_CHARACTER) || next.len() > prompt.len(), "{next:?}");
        }
    }
}
