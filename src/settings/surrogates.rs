//! JSON escapes of characters beyond U+FFFF, as Python's `json.dumps` writes them.
//!
//! JSON is YAML but for one thing: JSON escapes an emoji as a pair of surrogates (`\ud83d\ude00`,
//! RFC 8259, section 7), which YAML's `\u` refuses. Pairs inside double quotes are replaced by the
//! character; lines keep their numbers.

use std::borrow::Cow;

/// `text` with every surrogate pair inside double quotes as one character.
pub(super) fn join_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\u") {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    // Where a value may begin, a quotation mark opens a quoted scalar; elsewhere it is a letter.
    let mut may_open = true;
    while let Some(c) = rest.chars().next() {
        if quoted && c == '\\' {
            if let Some((joined, after)) = pair(rest) {
                out.push(joined);
                rest = after;
                continue;
            }
            // An escape is two characters at least: `\"` does not close the scalar.
            let end = rest.char_indices().nth(2).map_or(rest.len(), |(at, _)| at);
            out.push_str(rest.get(..end).unwrap_or_default());
            rest = rest.get(end..).unwrap_or_default();
            continue;
        }
        if c == '"' && (quoted || may_open) {
            quoted = !quoted;
        }
        may_open = match c {
            ' ' | '\t' => may_open,
            _ => matches!(c, '\n' | ':' | ',' | '[' | '{' | '-' | '?' | '\u{feff}'),
        };
        out.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    Cow::Owned(out)
}

/// The character of a surrogate pair at the beginning of `text`, and what follows it.
fn pair(text: &str) -> Option<(char, &str)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let units = [unit(0)?, unit(6)?];
    let joined = char::decode_utf16(units).next()?.ok()?;
    (joined.len_utf16() == 2).then_some((joined, text.get(12..)?))
}

#[cfg(test)]
mod tests {
    use super::join_surrogates;

    #[test]
    fn pairs_in_double_quotes_become_characters() {
        assert_eq!(join_surrogates(r#"{"a": "x\ud83d\ude00y"}"#), r#"{"a": "x😀y"}"#);
        assert_eq!(join_surrogates("a: \"\\uD83D\\uDE00\"\n"), "a: \"😀\"\n");
    }

    #[test]
    fn everything_else_stays() {
        for text in [
            r#"a: '\ud83d\ude00'"#,
            r#"a: \ud83d\ude00"#,
            r#"a: "\\ud83d\ude00""#,
            r#"a: "\ud83d""#,
            r#"a: "\ud83d\u0041""#,
            r#"a: "\u00e9\u00e8""#,
            r#"a: it"s \ud83d\ude00"#,
            "a: \"\\u",
        ] {
            assert_eq!(join_surrogates(text), text, "{text}");
        }
    }
}
