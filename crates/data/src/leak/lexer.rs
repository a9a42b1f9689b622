//! Python's tokens (The Python Language Reference, chapter 2), as far as names and layout need them.
//!
//! Any text has tokens: a string that does not close ends with its line (or with the text, if it began with
//! three quotes). An f-string is one string, whatever is inside its braces.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name that is no keyword.
    Name,
    /// One of the 35 keywords; `match`, `case`, `type` and `_` are names.
    Keyword,
    /// A number.
    Number,
    /// A string with its prefix and quotes.
    Text,
    /// From `#` to the end of the line.
    Comment,
    /// An operator of arithmetic, comparison or assignment.
    Operator,
    /// A comma.
    Comma,
    /// Brackets, dots, colons, semicolons, and characters that Python does not know.
    Other,
}

/// A token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub text: &'a str,
    /// Its first byte in the program.
    pub start: usize,
}

const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del",
    "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal",
    "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// Operators, longer ones first.
const OPERATORS: [&str; 36] = [
    "**=", "//=", ">>=", "<<=", "**", "//", ">>", "<<", "<=", ">=", "==", "!=", "->", "+=", "-=", "*=", "/=", "%=",
    "&=", "|=", "^=", "@=", ":=", "+", "-", "*", "/", "%", "@", "&", "|", "^", "~", "<", ">", "=",
];

/// Letters that may be before a string's first quote, one or two of them.
const PREFIX: &str = "rRbBuUfF";

/// The tokens of a program, in order, without white space and the backslashes that join lines.
pub fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = code[start..].chars().next() {
        if first.is_whitespace() || first == '\\' {
            start += first.len_utf8();
            continue;
        }
        let (kind, length) = next(&code[start..], first);
        tokens.push(Token {
            kind,
            text: &code[start..start + length],
            start,
        });
        start += length;
    }
    tokens
}

/// Kind and length in bytes, above 0, of the token that `rest` begins with.
fn next(rest: &str, first: char) -> (Kind, usize) {
    if first == '#' {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if let Some(length) = string(rest) {
        return (Kind::Text, length);
    }
    if first.is_alphabetic() || first == '_' {
        let length = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let keyword = KEYWORDS.contains(&&rest[..length]);
        return (if keyword { Kind::Keyword } else { Kind::Name }, length);
    }
    let second = rest.chars().nth(1);
    if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit()) {
        return (Kind::Number, number(rest));
    }
    if let Some(operator) = OPERATORS.iter().find(|operator| rest.starts_with(**operator)) {
        return (Kind::Operator, operator.len());
    }
    let kind = if first == ',' { Kind::Comma } else { Kind::Other };
    (kind, first.len_utf8())
}

/// Length of the string that `rest` begins with, if it begins with one.
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.chars().take_while(|c| PREFIX.contains(*c)).count();
    let body = rest.get(prefix..)?;
    let quote = body.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    if prefix > 2 {
        return None;
    }
    let long = body.get(..3).is_some_and(|begin| begin.chars().all(|c| c == quote));
    let opening = if long { 3 } else { 1 };
    let close = &body[..opening];
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(opening) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' if !long => return Some(prefix + at),
            _ if body[at..].starts_with(close) => return Some(prefix + at + opening),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Length of the number that `rest` begins with. Letters after digits belong to it (`0x1f`, `2j`, and `1if`,
/// which Python reads as two tokens: the second is a keyword then).
fn number(rest: &str) -> usize {
    let (mut dots, mut decimal, mut exponent) = (0, true, false);
    for (at, c) in rest.char_indices() {
        match c {
            '0'..='9' | '_' => {}
            '.' if dots == 0 && decimal => dots = 1,
            '+' | '-' if exponent => {}
            _ if c.is_alphanumeric() => {}
            _ => return at,
        }
        exponent = decimal && matches!(c, 'e' | 'E');
        decimal &= matches!(c, '0'..='9' | '_' | '.');
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(code: &str, kind: Kind) -> Vec<&str> {
        tokens(code)
            .into_iter()
            .filter(|token| token.kind == kind)
            .map(|token| token.text)
            .collect()
    }

    #[test]
    fn strings_end_where_python_ends_them() {
        let code = "a = 'it\\'s' + \"\"\"x\n\"y\" 'z'\"\"\" + Rb'' + u\"q\"; b";
        assert_eq!(
            texts(code, Kind::Text),
            ["'it\\'s'", "\"\"\"x\n\"y\" 'z'\"\"\"", "Rb''", "u\"q\""]
        );
        assert_eq!(texts(code, Kind::Name), ["a", "b"]);
        // One that does not close ends with its line or with the text.
        assert_eq!(texts("'abc\nd", Kind::Name), ["d"]);
        assert_eq!(texts("'''abc\nd", Kind::Text), ["'''abc\nd"]);
        assert_eq!(texts("'é", Kind::Text), ["'é"]);
    }

    #[test]
    fn numbers_keep_their_letters_and_signs() {
        let code = "1e-5+0xE-1 .5j*1_0.x 1if a else-2 3.0.hex()";
        assert_eq!(
            texts(code, Kind::Number),
            ["1e-5", "0xE", "1", ".5j", "1_0.x", "1if", "2", "3.0"]
        );
        assert_eq!(texts(code, Kind::Operator), ["+", "-", "*", "-"]);
        assert_eq!(texts(code, Kind::Name), ["a", "hex"]);
    }

    #[test]
    fn operators_are_read_whole() {
        assert_eq!(
            texts("a**=b//c->d:=e!=f<<=-g", Kind::Operator),
            ["**=", "//", "->", ":=", "!=", "<<=", "-"]
        );
        assert_eq!(texts("f(a, b)[1:2], # c, d", Kind::Comma), [",", ","]);
        assert_eq!(texts("if match: pass", Kind::Keyword), ["if", "pass"]);
        assert_eq!(texts("größe = λ1 + 数", Kind::Name), ["größe", "λ1", "数"]);
    }
}
