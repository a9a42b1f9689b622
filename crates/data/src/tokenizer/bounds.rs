//! What a tokenizer's files may ask of the library, which trusts them: how far ids go, and how long tokens are.

use serde_json::Value;

/// Most bytes of an added token. The library prepares to find them in texts, in a time that grows with the square of
/// their length.
const LONGEST: usize = 4096;
/// Ids that a vocabulary may leave out, in addition to as many as it has tokens.
const MOST_HOLES: u64 = 1 << 16;

/// The library walks through all numbers up to the largest id, and keeps those that no token has.
fn check_ids(vocabulary: &Value) -> Result<(), String> {
    let Some(vocabulary) = vocabulary.as_object() else {
        return Ok(());
    };
    let most = 2 * vocabulary.len() as u64 + MOST_HOLES;
    let far = |id: &Value| id.as_u64().is_some_and(|id| id > most);
    match vocabulary.iter().find(|(_, id)| far(id)) {
        None => Ok(()),
        Some((token, id)) => Err(format!(
            "`tokenizer.json` gives the token `{}` the id {id}, far beyond its {} tokens; take the file that came with the model",
            token.chars().take(40).collect::<String>(),
            vocabulary.len()
        )),
    }
}

/// That an added token of this many bytes is none too long.
pub(super) fn check_length(bytes: usize) -> Result<(), String> {
    match bytes > LONGEST {
        false => Ok(()),
        true => Err(format!(
            "a special token has {bytes} bytes, and none is longer than {LONGEST}; take the tokenizer that came with the model"
        )),
    }
}

/// Both of a `tokenizer.json`.
pub(super) fn check(tree: &Value) -> Result<(), String> {
    check_ids(&tree["model"]["vocab"])?;
    let added = tree["added_tokens"].as_array().into_iter().flatten();
    added
        .filter_map(|token| token["content"].as_str())
        .try_for_each(|content| check_length(content.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_far_beyond_the_vocabulary_is_refused() {
        let of = |id: u64| check(&json!({"model": {"vocab": {"a": 0, "far": id}}}));
        for id in [65_541, 1 << 31, u64::from(u32::MAX)] {
            let error = of(id).unwrap_err();
            assert!(error.contains(&format!("the token `far` the id {id}")), "{error}");
        }
        for id in [1, 1000, 65_540] {
            of(id).unwrap();
        }
        // Of Unigram, whose ids are places.
        check(&json!({"model": {"vocab": [["a", 0.5]]}})).unwrap();
    }

    #[test]
    fn an_added_token_of_thousands_of_bytes_is_refused() {
        let of = |bytes: usize| check(&json!({"added_tokens": [{"id": 0, "content": "x".repeat(bytes)}]}));
        assert!(of(4097).unwrap_err().starts_with("a special token has 4097 bytes"));
        of(4096).unwrap();
    }
}
