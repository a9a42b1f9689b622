//! From a template's text to tokens, with Jinja's rules for white space: `trim_blocks` and
//! `lstrip_blocks`, `-` and `+` inside the delimiters, no newline at the template's end.

use super::{JinjaError, text::is_space};
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Data(Rc<str>),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(Rc<str>),
    Str(Rc<str>),
    Int(i64),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longest first.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// All tokens, each with its line, from 1.
pub fn tokens(template: &str) -> Result<Vec<(usize, Token)>, JinjaError> {
    let source = template.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer {
        source,
        at: 0,
        counted: (0, 1),
        found: Vec::new(),
    };
    lexer.run()?;
    let last = lexer.line();
    lexer.found.push((last, Token::End));
    Ok(lexer.found)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    /// An offset before `at`, and its line.
    counted: (usize, usize),
    found: Vec<(usize, Token)>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn line(&mut self) -> usize {
        let (from, line) = self.counted;
        let newer = self.source.get(from..self.at).unwrap_or_default();
        self.counted = (self.at, line + newer.matches('\n').count());
        self.counted.1
    }

    fn fail<T>(&mut self, problem: impl Into<String>) -> Result<T, JinjaError> {
        Err(JinjaError {
            line: self.line(),
            problem: problem.into(),
        })
    }

    fn push(&mut self, token: Token) {
        let line = self.line();
        self.found.push((line, token));
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    fn run(&mut self) -> Result<(), JinjaError> {
        // Whether what came before ended with a newline.
        let mut line_starting = true;
        loop {
            let rest = self.rest();
            let Some(open) = ["{%", "{{", "{#"].iter().filter_map(|open| rest.find(open)).min() else {
                if !rest.is_empty() {
                    self.push(Token::Data(rest.into()));
                }
                self.at = self.source.len();
                return Ok(());
            };
            let (text, tag) = rest.split_at(open);
            let raw = raw_begin(tag);
            let kind = tag.get(..2).unwrap_or_default();
            let sign = tag
                .get(2..)
                .and_then(|tag| tag.chars().next())
                .filter(|c| matches!(c, '-' | '+'));
            let strips = sign.is_none() && (kind != "{{" || raw.is_some());
            self.data(text, sign, strips, line_starting);
            self.at += open;
            if let Some(length) = raw {
                let ended_line = tag.get(..length).is_some_and(|tag| tag.ends_with('\n'));
                self.skip(length);
                line_starting = self.raw(ended_line)?;
                continue;
            }
            self.skip(2 + usize::from(sign.is_some()));
            match kind {
                "{#" => self.comment()?,
                "{{" => self.tag(Token::VariableBegin)?,
                _ => self.tag(Token::BlockBegin)?,
            }
            line_starting = self.source.get(..self.at).is_some_and(|before| before.ends_with('\n'));
        }
    }

    /// Text before a tag: without its white space at the end for `-`, without the indentation of the
    /// tag where that is stripped.
    fn data(&mut self, text: &str, sign: Option<char>, strips: bool, line_starting: bool) {
        let mut kept = text;
        if sign == Some('-') {
            kept = text.trim_end_matches(is_space);
        } else if strips {
            let start = text.rfind('\n').map_or(0, |at| at + 1);
            let (head, indentation) = text.split_at(start);
            if (start > 0 || line_starting) && indentation.chars().all(is_space) {
                kept = head;
            }
        }
        if !kept.is_empty() {
            self.push(Token::Data(kept.into()));
        }
    }

    /// After `{% raw %}`. Returns whether the end tag took a newline with it.
    fn raw(&mut self, line_starting: bool) -> Result<bool, JinjaError> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(open) = rest.get(from..).and_then(|rest| rest.find("{%")).map(|at| at + from) {
            let tag = rest.get(open..).unwrap_or_default();
            if let Some(length) = raw_end(tag) {
                let sign = tag
                    .get(2..)
                    .and_then(|tag| tag.chars().next())
                    .filter(|c| matches!(c, '-' | '+'));
                let text = rest.get(..open).unwrap_or_default();
                self.data(text, sign, sign.is_none(), line_starting);
                self.skip(open + length);
                return Ok(tag.get(..length).is_some_and(|tag| tag.ends_with('\n')));
            }
            from = open + 2;
        }
        self.fail("`raw` has no `endraw`")
    }

    fn comment(&mut self) -> Result<(), JinjaError> {
        let Some(end) = self.rest().find("#}") else {
            return self.fail("a comment has no end: `#}` is missing");
        };
        let before = self.rest().get(..end).unwrap_or_default();
        let sign = before.chars().next_back();
        self.skip(end + 2);
        match sign {
            Some('-') => self.skip_space(),
            Some('+') => {}
            _ => self.skip(usize::from(self.rest().starts_with('\n'))),
        }
        Ok(())
    }

    /// The inside of `{{ }}` or `{% %}`, to its end.
    fn tag(&mut self, begin: Token) -> Result<(), JinjaError> {
        let block = begin == Token::BlockBegin;
        let close = if block { "%}" } else { "}}" };
        self.push(begin);
        let mut brackets: Vec<&str> = Vec::new();
        loop {
            self.skip_space();
            let rest = self.rest();
            if brackets.is_empty() {
                let sign = rest.chars().next().filter(|&c| c == '-' || (block && c == '+'));
                let after = rest.get(usize::from(sign.is_some())..).unwrap_or_default();
                if after.starts_with(close) {
                    let end = if block { Token::BlockEnd } else { Token::VariableEnd };
                    self.push(end);
                    self.skip(2 + usize::from(sign.is_some()));
                    match sign {
                        Some('-') => self.skip_space(),
                        None if block => self.skip(usize::from(self.rest().starts_with('\n'))),
                        _ => {}
                    }
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else {
                return self.fail("the template ends inside a tag");
            };
            if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphabetic() || first == '_' {
                let end = rest
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len());
                self.push(Token::Name(rest.get(..end).unwrap_or_default().into()));
                self.skip(end);
            } else if first == '"' || first == '\'' {
                self.string(first)?;
            } else {
                let Some(operator) = OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) else {
                    return self.fail(format!("unexpected `{first}`"));
                };
                match operator {
                    "{" => brackets.push("}"),
                    "(" => brackets.push(")"),
                    "[" => brackets.push("]"),
                    "}" | ")" | "]" if brackets.pop() != Some(operator) => {
                        return self.fail(format!("unexpected `{operator}`"));
                    }
                    _ => {}
                }
                self.push(Token::Operator(operator));
                self.skip(operator.len());
            }
        }
    }

    fn number(&mut self) -> Result<(), JinjaError> {
        let rest = self.rest();
        let lower = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
        let radix = match lower.as_str() {
            "0x" => 16,
            "0o" => 8,
            "0b" => 2,
            _ => 10,
        };
        let after_point = self.source.get(..self.at).is_some_and(|before| before.ends_with('.'));
        let digits = |text: &str, radix: u32| {
            let end = text
                .find(|c: char| !(c.is_digit(radix) || c == '_'))
                .unwrap_or(text.len());
            text.get(..end).unwrap_or_default().trim_end_matches('_').len()
        };
        if radix != 10 {
            let length = digits(rest.get(2..).unwrap_or_default(), radix);
            if length > 0 {
                let text = rest.get(2..2 + length).unwrap_or_default().replace('_', "");
                let Ok(number) = i64::from_str_radix(&text, radix) else {
                    return self.fail("a number is too large");
                };
                self.push(Token::Int(number));
                self.skip(2 + length);
                return Ok(());
            }
        }
        let whole = digits(rest, 10);
        let mut end = whole;
        let part = |from: usize| digits(rest.get(from..).unwrap_or_default(), 10);
        let starts_digit = |from: usize| {
            rest.get(from..)
                .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
        };
        if !after_point {
            if rest.get(end..).is_some_and(|r| r.starts_with('.')) && starts_digit(end + 1) {
                end += 1 + part(end + 1);
            }
            if rest.get(end..).is_some_and(|r| r.starts_with(['e', 'E'])) {
                let sign = usize::from(rest.get(end + 1..).is_some_and(|r| r.starts_with(['+', '-'])));
                if starts_digit(end + 1 + sign) {
                    end += 1 + sign + part(end + 1 + sign);
                }
            }
        }
        if end > whole {
            let text = rest.get(..end).unwrap_or_default().replace('_', "");
            let Ok(number) = text.parse() else {
                return self.fail(format!("`{text}` is not a number"));
            };
            self.push(Token::Float(number));
        } else {
            // A decimal number other than 0 does not begin with 0: what follows the zeros is another token.
            let text = rest.get(..whole).unwrap_or_default();
            let zeros = text.find(|c| c != '0' && c != '_').unwrap_or(text.len());
            if text.starts_with('0') && zeros < text.len() {
                return self.fail(format!("`{text}` is not a number"));
            }
            let Ok(number) = text.replace('_', "").parse() else {
                return self.fail("a number is too large");
            };
            self.push(Token::Int(number));
        }
        self.skip(end);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), JinjaError> {
        let mut text = String::new();
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.push(Token::Str(text.into()));
                self.skip(at + 1);
                return Ok(());
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            match escaped {
                '\n' => {}
                '\\' | '\'' | '"' => text.push(escaped),
                'a' => text.push('\x07'),
                'b' => text.push('\x08'),
                'f' => text.push('\x0c'),
                'n' => text.push('\n'),
                'r' => text.push('\r'),
                't' => text.push('\t'),
                'v' => text.push('\x0b'),
                '0'..='7' => {
                    let mut code = escaped.to_digit(8).unwrap_or_default();
                    for _ in 0..2 {
                        let mut ahead = chars.clone();
                        let Some(digit) = ahead.next().and_then(|(_, c)| c.to_digit(8)) else {
                            break;
                        };
                        code = code * 8 + digit;
                        chars = ahead;
                    }
                    text.extend(char::from_u32(code));
                }
                'x' | 'u' | 'U' => {
                    let width = match escaped {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let digits: Option<u32> = (0..width).try_fold(0u32, |code, _| {
                        let digit = chars.next().and_then(|(_, c)| c.to_digit(16))?;
                        code.checked_mul(16)?.checked_add(digit)
                    });
                    match digits.and_then(char::from_u32) {
                        Some(c) => text.push(c),
                        None => return self.fail(format!("`\\{escaped}` names no character")),
                    }
                }
                'N' => return self.fail("`\\N{...}` in a text is not supported; write the character itself"),
                other => {
                    text.push('\\');
                    text.push(other);
                }
            }
        }
        self.fail("a text has no closing quote")
    }
}

/// The length of a `{% raw %}` tag at the beginning of `tag`.
fn raw_begin(tag: &str) -> Option<usize> {
    let inner = named(tag, "raw")?;
    let rest = tag.get(inner..)?;
    if let Some(after) = rest.strip_prefix("-%}") {
        return Some(tag.len() - after.trim_start_matches(is_space).len());
    }
    rest.strip_prefix("%}").map(|after| tag.len() - after.len())
}

/// The length of an `{% endraw %}` tag at the beginning of `tag`.
fn raw_end(tag: &str) -> Option<usize> {
    let inner = named(tag, "endraw")?;
    let rest = tag.get(inner..)?;
    let after = if let Some(after) = rest.strip_prefix("-%}") {
        after.trim_start_matches(is_space)
    } else if let Some(after) = rest.strip_prefix("+%}") {
        after
    } else {
        let after = rest.strip_prefix("%}")?;
        after.strip_prefix('\n').unwrap_or(after)
    };
    Some(tag.len() - after.len())
}

/// The offset after `{%`, a sign, white space, the name and white space.
fn named(tag: &str, name: &str) -> Option<usize> {
    let rest = tag.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    let rest = rest.trim_start_matches(is_space).strip_prefix(name)?;
    Some(tag.len() - rest.trim_start_matches(is_space).len())
}
