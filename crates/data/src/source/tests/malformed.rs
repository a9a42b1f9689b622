//! Malformed files: each gives one sentence that says what is wrong, where, and what to do.

use super::{SourceOptions, error, fixture};
use std::collections::BTreeMap;

/// The sentences, written by hand before they were seen.
fn expected() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(fixture("malformed/expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_malformed_file_has_its_sentence() {
    let expected = expected();
    assert!(expected.len() >= 30, "{} files", expected.len());
    let path = |name: &str| fixture("malformed").join(name);
    let found: BTreeMap<String, String> = expected
        .keys()
        .map(|name| (name.clone(), error(&path(name), &SourceOptions::default())))
        .collect();
    for (name, sentence) in &expected {
        assert_eq!(&found[name], sentence, "{name}");
    }
}

#[test]
fn sentences_are_short_and_name_the_file_and_the_row() {
    for (name, sentence) in expected() {
        assert!(sentence.split_whitespace().count() <= 30, "{name}: {sentence}");
        assert!(
            sentence.contains("FILE") && !sentence.contains('\n'),
            "{name}: {sentence}"
        );
        // A file that is not read at all has no row to name.
        let whole = sentence.starts_with("`FILE`");
        assert!(whole || sentence.starts_with("FILE, row "), "{name}: {sentence}");
    }
}

#[test]
fn every_file_of_the_folder_has_an_entry() {
    let expected = expected();
    for entry in std::fs::read_dir(fixture("malformed")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "expected.json" || expected.contains_key(&name), "{name}");
    }
}
