//! Model files that are refused, by name: never a panic, never more memory than the file has.

use super::*;
use proptest::prelude::*;

fn refused(model: &[u8]) -> String {
    load(&directory(model, &[])).unwrap_err()
}

#[test]
fn files_of_other_formats_are_refused_by_name() {
    // As Meta's Llama 3 has it, and the newer models of Mistral.
    let tiktoken = "IQ== 0\nIg== 1\nIw== 2\nJA== 3\n";
    for (content, says) in [
        (
            tiktoken.as_bytes(),
            "a tiktoken file, as Llama 3 has, and no SentencePiece model; take `tokenizer.json`",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499723\n",
            "`git lfs pull`",
        ),
        (
            b"{\"config\": {\"pattern\": \"x\"}}",
            "not a SentencePiece model; take `tokenizer.json`",
        ),
        (b"\x80\x02ccopy_reg", "not a SentencePiece model"),
        (b"\n", "damaged or cut off"),
        (b"", "it is empty"),
        (&model("word"), "model type `WORD`; only `BPE` and `UNIGRAM`"),
        (&model("char"), "model type `CHAR`; only `BPE` and `UNIGRAM`"),
    ] {
        let message = refused(content);
        assert!(
            message.contains("`tokenizer.model`") && message.contains(says),
            "{message}"
        );
        assert!(message.split_whitespace().count() <= 33, "{message}");
    }
    let none = Tokenizer::load(tempfile::tempdir().unwrap().path())
        .unwrap_err()
        .to_string();
    assert!(none.contains("tokenizer.json"), "{none}");
}

#[test]
fn a_file_that_no_memory_should_hold_is_refused_unread() {
    let dir = directory(b"", &[]);
    let file = fs::File::create(dir.path().join("tokenizer.model")).unwrap();
    // Sparse.
    file.set_len(1 << 40).unwrap();
    let message = load(&dir).unwrap_err();
    assert!(message.contains("larger than 32 MiB"), "{message}");
}

#[test]
fn a_class_with_rules_of_its_own_is_refused_by_name() {
    for class in ["T5Tokenizer", "XLNetTokenizerFast", "InternLM2Tokenizer"] {
        let files = [("tokenizer_config.json", json!({"tokenizer_class": class}))];
        let message = load(&directory(&model("unigram"), &files)).unwrap_err();
        let named = class.trim_end_matches("Fast");
        assert!(
            message.contains(&format!("`tokenizer_class` `{named}` has rules")),
            "{message}"
        );
    }
}

#[test]
fn added_tokens_of_thousands_of_bytes_are_refused() {
    let files = [("added_tokens.json", json!({"x".repeat(4097): 700}))];
    let message = load(&directory(&model("bpe"), &files)).unwrap_err();
    assert!(message.contains("a special token has 4097 bytes"), "{message}");
}

#[test]
fn a_begin_token_outside_the_vocabulary_is_refused() {
    let files = [(
        "tokenizer_config.json",
        json!({"bos_token": "<begin>", "add_bos_token": true}),
    )];
    let message = load(&directory(&model("bpe"), &files)).unwrap_err();
    assert!(
        message.contains("its bos_token `<begin>` is not in its vocabulary"),
        "{message}"
    );
}

#[test]
fn what_sentencepiece_does_not_load_is_refused() {
    let a = piece("a", -1.0, 1);
    for (pieces, says) in [
        (vec![a.clone(), a.clone()], "a piece occurs twice"),
        (vec![piece("", -1.0, 1)], "a piece is empty"),
        (vec![piece(&"a".repeat(1025), -1.0, 1)], "over 1024 bytes"),
        (vec![piece("a", f32::NAN, 1)], "score is no number"),
        (vec![piece("a", -1.0, 9)], "a field is incomplete"),
        // A length that the file does not have.
        (
            vec![vec![1 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]],
            "a field is incomplete",
        ),
        (vec![bytes(1, &bytes(1, b"\xff\xfe"))], "a field is incomplete"),
        (
            vec![bytes(2, &[35 << 3 & 0x7f | 0x80, 35 >> 4, 1])],
            "256 pieces for bytes",
        ),
        (
            vec![bytes(3, &bytes(2, &[255, 255, 255, 255, 1]))],
            "table of replacements",
        ),
        // A trie without a unit, and one whose root leads out of it.
        (
            vec![bytes(3, &bytes(2, &[0, 0, 0, 0, b'x', 0]))],
            "table of replacements",
        ),
        (
            vec![bytes(3, &bytes(2, &[4, 0, 0, 0, 0, 4, 0, 0, b'x', 0]))],
            "table of replacements",
        ),
    ] {
        let message = refused(&file(&pieces));
        assert!(message.contains(says), "{says}: {message}");
    }
    let no_unknown = [a, bytes(2, &[3 << 3, 2]), bytes(3, &[])].concat();
    assert!(refused(&no_unknown).contains("no unknown token"));
}

/// Runs of one character, of all lengths: every split of one is a merge.
#[test]
fn a_vocabulary_with_more_merges_than_memory_is_refused() {
    let runs = |letter: &str| -> Vec<u8> {
        let runs = (1..=1000).map(|length| piece(&letter.repeat(length), -1.0, 1));
        runs.collect::<Vec<_>>().concat()
    };
    let all: Vec<Vec<u8>> = ["a", "b", "c", "d", "e"].iter().map(|letter| runs(letter)).collect();
    assert!(refused(&file(&all)).contains("over two million merges"));
}

/// The cut is seen wherever it is, unless everything that decides ids comes before it.
#[test]
fn a_file_cut_at_any_length_is_refused_or_complete() {
    for (name, step) in [("bpe", 1), ("rules", 1), ("unigram", 997)] {
        let whole = model(name);
        let hash = load(&directory(&whole, &[])).unwrap().hash().to_owned();
        let dir = directory(&[], &[]);
        let mut complete = Vec::new();
        for length in (0..whole.len()).step_by(step) {
            fs::write(dir.path().join("tokenizer.model"), &whole[..length]).unwrap();
            match load(&dir) {
                Ok(tokenizer) => {
                    assert_eq!(tokenizer.hash(), hash, "{name}, {length} bytes");
                    complete.push(length);
                }
                Err(message) => assert!(message.contains("damaged or cut off"), "{name}, {length}: {message}"),
            }
        }
        assert!(complete.len() <= 2, "{name}: {complete:?} of {}", whole.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is still read encodes and decodes any text.
    #[test]
    fn a_file_with_changed_bytes_is_refused_or_usable(
        name in proptest::sample::select(&["bpe", "symbols", "rules"][..]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        text in 0..1000usize,
    ) {
        static STRINGS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(strings);
        let mut changed = model(name);
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        if let Ok(tokenizer) = load(&directory(&changed, &[]))
            && let Ok(ids) = tokenizer.document(&STRINGS[text])
        {
            tokenizer.decode(&ids).unwrap();
        }
    }

    /// The table of replacements is the one part that is not searched by code of this project.
    #[test]
    fn a_changed_table_of_replacements_is_refused_or_usable(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut changed = model("rules");
        // It comes after the pieces, in the last 1,090 bytes; characters of all lengths are looked up.
        let at = changed.len() - 1090 + at.index(1090);
        changed[at] = byte;
        if let Ok(tokenizer) = load(&directory(&changed, &[])) {
            let text: String = (1..0x3000).chain(0x1_f600..0x1_f700).filter_map(char::from_u32).collect();
            let ids = tokenizer.document(&text).unwrap();
            tokenizer.decode(&ids).unwrap();
        }
    }
}
