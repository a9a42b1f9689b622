//! Where a completion ends, in addition to the model's own end token.

/// What ends a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopRule<'a> {
    /// The first of these texts.
    Strings(&'a [&'a str]),
    /// The next statement in column 0, for a prompt that leaves off inside a function.
    ///
    /// A line that begins in column 0 ends the completion, unless it is empty, a comment, inside
    /// brackets or a triple-quoted string (so closing brackets and literals over several lines go
    /// on), or the continuation of a line with a backslash at its end. Comments in column 0 right
    /// before that statement go with it. A decorator, another `def` and `else:` are statements like
    /// any other: the function that the prompt began is over.
    ///
    /// The first statement never ends it, since nothing would be left: a model that writes the whole
    /// function anew keeps it, up to the next statement after that. This is what Chen et al. 2021
    /// (arXiv 2107.03374, section 2.2) do with the stop sequences `\nclass`, `\ndef`, `\n#`,
    /// `\nif` and `\nprint`, for every statement, and without cutting strings or at comments.
    ///
    /// Quotes inside the braces of an f-string of the same kind (Python 3.12) are read as its end.
    TopLevel,
}

impl StopRule<'_> {
    /// Where the completion in `text` ends, as a byte offset; None while it has no end. An end that was
    /// found stays the same when text is added.
    pub fn end(&self, text: &str) -> Option<usize> {
        match self {
            Self::Strings(stops) => stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .filter_map(|stop| text.find(stop))
                .min(),
            Self::TopLevel => top_level(text),
        }
    }

    /// The text before the end.
    pub fn cut<'t>(&self, text: &'t str) -> &'t str {
        self.end(text).and_then(|end| text.get(..end)).unwrap_or(text)
    }
}

/// A reader of Python's lexical structure, as far as the beginnings of logical lines need it.
fn top_level(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    let (mut index, mut depth) = (0, 0usize);
    let mut statements = 0;
    // Where comments in column 0 began, if nothing but such and empty lines came since.
    let mut comments = None;
    let mut line_starts = true;
    while let Some(byte) = at(index) {
        if std::mem::take(&mut line_starts) {
            match byte {
                b'\n' | b'\r' => {}
                b'#' => comments = comments.or(Some(index)),
                b' ' | b'\t' | b'\x0c' => {
                    // Blank lines belong to nobody.
                    let rest = bytes.get(index..).unwrap_or_default();
                    let first = rest.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\x0c'));
                    if !matches!(first, None | Some(b'\n' | b'\r')) {
                        statements += 1;
                        comments = None;
                    }
                }
                _ if statements > 0 => return Some(comments.unwrap_or(index)),
                _ => {
                    statements += 1;
                    comments = None;
                }
            }
        }
        match byte {
            b'#' => {
                while at(index).is_some_and(|byte| byte != b'\n') {
                    index += 1;
                }
                continue;
            }
            b'"' | b'\'' => {
                index = string_end(bytes, index).unwrap_or_else(|end| end);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            // A backslash takes the line's end with it.
            b'\\' => index += 1 + usize::from(at(index + 1) == Some(b'\r') && at(index + 2) == Some(b'\n')),
            b'\n' => line_starts = depth == 0,
            _ => {}
        }
        index += 1;
    }
    None
}

/// The byte after the Python string literal that begins at `start`. An error for one that does not close,
/// with the byte that it reaches to: its line's end, of a triple-quoted one the text's.
pub(super) fn string_end(bytes: &[u8], start: usize) -> Result<usize, usize> {
    let at = |index: usize| bytes.get(index).copied();
    let quote = at(start);
    let long = at(start + 1) == quote && at(start + 2) == quote;
    let width = if long { 3 } else { 1 };
    let mut index = start + width;
    while let Some(byte) = at(index) {
        match byte {
            b'\\' => index += 1,
            b'\n' if !long => return Err(index),
            _ if Some(byte) == quote && (!long || (at(index + 1) == quote && at(index + 2) == quote)) => {
                return Ok(index + width);
            }
            _ => {}
        }
        index += 1;
    }
    Err(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_ends_at_its_first_stop_string() {
        let cut = |text: &'static str, stops: &[&str]| StopRule::Strings(stops).cut(text);
        assert_eq!(cut("x = 1\n[DONE]\n\nYou are [DONE]", &["[DONE]"]), "x = 1\n");
        assert_eq!(cut("abc STOP def END", &["END", "STOP"]), "abc ");
        assert_eq!(cut("x = 1", &["[DONE]"]), "x = 1");
        assert_eq!(cut("x = 1", &[""]), "x = 1");
        assert_eq!(cut("é[DONE]", &["[DONE]"]), "é");
    }

    fn body(text: &str) -> &str {
        StopRule::TopLevel.cut(text)
    }

    #[test]
    fn a_body_ends_before_the_next_statement_in_column_0() {
        for after in [
            "def g():\n    pass",
            "class A: pass",
            "print(f(1))",
            "@cache\ndef g(): pass",
            "if x:\n    y",
            "else:",
            "x",
            "\"text\"",
            ")",
        ] {
            let text = format!("    y = 1\n    return y\n\n{after}");
            assert_eq!(body(&text), "    y = 1\n    return y\n\n", "{after}");
        }
    }

    #[test]
    fn blank_lines_comments_literals_and_continuations_go_on() {
        for text in [
            "    return 1\n\n\n",
            "    y = 1\n# half way\n    return y\n",
            "    y = 1\n\n# a comment at the end\n",
            "    y = [\n1,\n2,\n]\n    return y\n",
            "    y = '''\ndef g():\n'''\n    return y\n",
            "    y = \"\"\"\nx \\\"\"\" y\n\"\"\"\n    return y\n",
            "    y = 1 + \\\n2\n    return y\n",
            "    y = 'it\\'s' # don't\n    return y\n",
            "    y = f(\n# why\n)\n",
            "\treturn 1\n",
            "    y = '('\n    return y\n",
            "",
            "\n\n",
        ] {
            assert_eq!(StopRule::TopLevel.end(text), None, "{text}");
            assert_eq!(body(text), text);
        }
        assert_eq!(body("    y = '('\n    return y\nx"), "    y = '('\n    return y\n");
        assert_eq!(body("    y = 'open\n    return y\nx"), "    y = 'open\n    return y\n");
    }

    #[test]
    fn comments_before_the_next_statement_go_with_it() {
        assert_eq!(body("    return 1\n\n# Test\n\n# it\nprint(f())"), "    return 1\n\n");
        assert_eq!(body("# first\n    return 1\n"), "# first\n    return 1\n");
    }

    #[test]
    fn a_function_written_anew_is_kept_up_to_what_follows_it() {
        assert_eq!(
            body("def f(x):\n    return x\n\nprint(f(1))"),
            "def f(x):\n    return x\n\n"
        );
        assert_eq!(body("import re\ndef f(x):\n    return x\n"), "import re\n");
        assert_eq!(
            body("\n\n# so\ndef f(x):\n    return x\n"),
            "\n\n# so\ndef f(x):\n    return x\n"
        );
    }

    /// So that generation may stop as soon as an end is found.
    #[test]
    fn an_end_once_found_does_not_move() {
        for text in [
            "    y = 1\n    return y\n\n# Test\ndef g():\n    '''\nx\n'''\nclass A:\n    pass\n",
            "def f(x):\n    y = [\n1]\n    return x\nprint('é')\nf(2)\n",
            "    s = \"\"\"a\nb\"\"\"\n    t = '''c\nd'''\nend\n",
            "    y = 1\r\n\r\n    return y\r\nprint(1)\r\n",
        ] {
            let last = StopRule::TopLevel.end(text);
            assert!(last.is_some(), "{text}");
            for (length, _) in text.char_indices() {
                let end = StopRule::TopLevel.end(&text[..length]);
                assert!(end.is_none() || end == last, "{length} bytes of {text}");
            }
        }
    }
}
