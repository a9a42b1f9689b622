//! A template's text, made ready for minijinja's parser and checked for what that reads unlike jinja2.

use super::{TemplateError, text::is_space};
use minijinja::{
    Error,
    machinery::{
        self, Span, Token, WhitespaceConfig,
        ast::{self, Spanned},
    },
    syntax::SyntaxConfig,
};
use std::{borrow::Cow, ops::Range};

/// How transformers sets up jinja2.
const WHITESPACE: WhitespaceConfig = WhitespaceConfig {
    keep_trailing_newline: false,
    lstrip_blocks: true,
    trim_blocks: true,
};
/// Most tokens of a tag, `elif`s of a template, and `not`s or minuses in a row. The parser bounds the nesting
/// of brackets and blocks, but recurses without bounds on these.
const MOST_TOKENS: usize = 2000;
/// Largest template; the longest published ones have some 20 kB.
const MOST_BYTES: usize = 1 << 20;
const MOST_ELIFS: usize = 250;
const MOST_SIGNS: usize = 50;

/// Tags that the parser lacks: `generation` becomes a filter block with this filter, `print` becomes
/// `do print(…)`.
pub const GENERATION: &str = "generation";
pub const PRINT: &str = "print";

pub struct Source {
    text: String,
    /// Offsets of the names that make a macro take more than its parameters.
    special: Vec<(usize, &'static str)>,
    /// Whether it has `{% generation %}` blocks.
    generation: bool,
}

impl Source {
    /// # Errors
    /// What no tokens can be made of, and what minijinja and jinja2 take for different tokens.
    pub fn read(template: &str) -> Result<Self, TemplateError> {
        if template.len() > MOST_BYTES {
            return Err(TemplateError {
                line: 1,
                problem: format!("the template has more than {} MiB", MOST_BYTES >> 20),
            });
        }
        let text = template.replace("\r\n", "\n").replace('\r', "\n");
        raw_blocks(&text)?;
        let mut read = Self {
            text: String::with_capacity(text.len() + 16),
            special: Vec::new(),
            generation: false,
        };
        let (mut copied, mut previous, mut printing) = (0, None, false);
        let mut read_generation = false;
        let (mut tokens, mut elifs, mut signs) = (0, 0, 0);
        for token in machinery::tokenize(&text, false, SyntaxConfig, WHITESPACE) {
            let (token, span) = token.map_err(|error| syntax(&error))?;
            let fail = |problem: String| {
                Err(TemplateError {
                    line: span.start_line.into(),
                    problem,
                })
            };
            let written = text.get(offsets(span)).unwrap_or_default();
            let in_tag = !matches!(token, Token::TemplateData(_) | Token::VariableStart | Token::BlockStart);
            tokens = if in_tag { tokens + 1 } else { 0 };
            signs = match token {
                Token::Minus | Token::Ident("not") => signs + 1,
                _ => 0,
            };
            let mut replace = |range: Range<usize>, new: &str| {
                read.text.push_str(text.get(copied..range.start).unwrap_or_default());
                read.text.push_str(new);
                copied = range.end;
            };
            match token {
                Token::Ident(tag) if matches!(previous, Some(Token::BlockStart)) => {
                    elifs += usize::from(tag == "elif");
                    printing = tag == PRINT;
                    match tag {
                        "generation" => {
                            read_generation = true;
                            replace(offsets(span), "filter generation");
                        }
                        "endgeneration" => replace(offsets(span), "endfilter"),
                        PRINT => replace(offsets(span), "do print("),
                        "do" => return fail("unknown tag `do`".into()),
                        _ => {}
                    }
                }
                Token::BlockEnd if printing => {
                    replace(offsets(span).start..offsets(span).start, ")");
                    printing = false;
                }
                Token::Ident(name) if !matches!(previous, Some(Token::Dot)) => {
                    let at = read.text.len() + offsets(span).start - copied;
                    let special = ["varargs", "kwargs", "caller"]
                        .into_iter()
                        .find(|special| *special == name);
                    read.special.extend(special.map(|special| (at, special)));
                }
                Token::VariableEnd if written.starts_with('+') => return fail("unexpected `+`".into()),
                Token::Int(_) | Token::Int128(_) | Token::Float(_) if !is_number(written) => {
                    return fail(format!("`{written}` is not a number"));
                }
                _ => {}
            }
            if tokens > MOST_TOKENS || elifs > MOST_ELIFS || signs > MOST_SIGNS {
                return fail(format!(
                    "more than {MOST_TOKENS} tokens in a tag, {MOST_ELIFS} `elif` or {MOST_SIGNS} signs in a row"
                ));
            }
            previous = Some(token);
        }
        read.text.push_str(text.get(copied..).unwrap_or_default());
        read.generation = read_generation;
        Ok(read)
    }

    /// Whether the template marks what the assistant wrote with `{% generation %}` blocks.
    pub fn has_generation(&self) -> bool {
        self.generation
    }

    /// # Errors
    /// The template's syntax.
    pub fn parse(&self) -> Result<ast::Stmt<'_>, TemplateError> {
        machinery::parse(&self.text, "template", SyntaxConfig, WHITESPACE).map_err(|error| syntax(&error))
    }

    /// Whether a macro's body has this name.
    pub fn mentions(&self, body: Span, name: &str) -> bool {
        let body = offsets(body);
        self.special
            .iter()
            .any(|(at, special)| *special == name && body.contains(at))
    }

    /// Tuples are lists to the parser: in brackets of another kind, or in none.
    pub fn is_tuple(&self, list: &Spanned<ast::List<'_>>) -> bool {
        let at = offsets(list.span()).start;
        let bare = list.items.first().is_some_and(|first| offsets(first.span()).start < at);
        bare || !self.text.get(at..).is_some_and(|text| text.starts_with('['))
    }

    /// Whether a `-` stands before `operand.name`, `operand[0]` or `operand()` without parentheses: it
    /// applies to the whole in jinja2, to the operand in minijinja.
    pub fn is_negated(operand: &ast::Expr<'_>, whole: Span) -> bool {
        let ast::Expr::UnaryOp(operation) = operand else {
            return false;
        };
        matches!(operation.op, ast::UnaryOpKind::Neg) && operation.span().start_offset == whole.start_offset
    }

    /// A literal text with Python's escapes, which the parser reads as JavaScript's.
    pub fn literal<'v>(&self, span: Span, parsed: &'v str) -> Result<Cow<'v, str>, String> {
        let written = self.text.get(offsets(span)).unwrap_or_default();
        if !written.contains('\\') {
            return Ok(parsed.into());
        }
        let mut text = String::new();
        let mut chars = written.chars().peekable();
        let mut quote = None;
        while let Some(c) = chars.next() {
            match (c, quote) {
                ('\'' | '"', None) => quote = Some(c),
                // White space between two texts.
                (_, None) => {}
                (_, Some(open)) if c == open => quote = None,
                ('\\', _) => escape(&mut chars, &mut text)?,
                _ => text.push(c),
            }
        }
        Ok(text.into())
    }
}

fn escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, text: &mut String) -> Result<(), String> {
    let escaped = chars.next().unwrap_or('\\');
    let mut code = |radix: u32, most: usize| {
        let digits = std::iter::from_fn(|| chars.next_if(|c| c.is_digit(radix)));
        digits.take(most).collect::<String>()
    };
    let (digits, radix, width) = match escaped {
        '\n' => return Ok(()),
        'a' => ("7".into(), 8, 1),
        'b' => ("10".into(), 8, 2),
        'f' => ("14".into(), 8, 2),
        'n' => ("12".into(), 8, 2),
        'r' => ("15".into(), 8, 2),
        't' => ("11".into(), 8, 2),
        'v' => ("13".into(), 8, 2),
        '0'..='7' => (format!("{escaped}{}", code(8, 2)), 8, 1),
        'x' => (code(16, 2), 16, 2),
        'u' => (code(16, 4), 16, 4),
        'U' => (code(16, 8), 16, 8),
        'N' => return Err("`\\N{...}` in a text is not supported; write the character itself".into()),
        '\\' | '\'' | '"' => {
            text.push(escaped);
            return Ok(());
        }
        other => {
            text.extend(['\\', other]);
            return Ok(());
        }
    };
    let character = u32::from_str_radix(&digits, radix).ok().and_then(char::from_u32);
    text.push(
        character
            .filter(|_| digits.len() >= width)
            .ok_or_else(|| format!("`\\{escaped}` names no character"))?,
    );
    Ok(())
}

fn offsets(span: Span) -> Range<usize> {
    span.start_offset as usize..span.end_offset as usize
}

fn syntax(error: &Error) -> TemplateError {
    TemplateError {
        line: error.line().unwrap_or(1),
        problem: error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    }
}

/// Refuses texts and raw blocks whose white space minijinja would strip and jinja2 would not, or the reverse.
fn raw_blocks(text: &str) -> Result<(), TemplateError> {
    let fail = |at: usize, problem: &str| {
        Err(TemplateError {
            line: 1 + text.get(..at).unwrap_or_default().matches('\n').count(),
            problem: problem.into(),
        })
    };
    if let Some(at) = text.find(|c| ('\x1c'..='\x1f').contains(&c)) {
        return fail(at, "separators (U+001C to U+001F) in a template are not supported");
    }
    for (at, _) in text.match_indices("{%") {
        let inner = text.get(at + 2..).unwrap_or_default().trim_start_matches(['-', '+']);
        if let Some(rest) = inner.trim_start_matches(is_space).strip_prefix("raw")
            && let rest = rest.trim_start_matches(is_space)
            && (rest.starts_with("+%}") || rest.strip_prefix("%}").is_some_and(|rest| rest.starts_with(is_space)))
        {
            return fail(
                at,
                "white space after `{% raw %}` is not supported; write `{% raw -%}` to strip it",
            );
        }
    }
    Ok(())
}

/// Whether a number is one to Python: no zeros in front, `_` between two digits only, digits after the point.
fn is_number(written: &str) -> bool {
    let lower = written.to_ascii_lowercase();
    if lower.starts_with(['0']) && lower.contains(['x', 'o', 'b']) {
        return !lower.contains("__");
    }
    let digits = |text: &str| {
        text.split('_')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    };
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let is_float = lower.contains(['.', 'e']);
    let zeros = whole.len() > 1 && whole.starts_with('0') && whole.bytes().any(|b| !matches!(b, b'0' | b'_'));
    digits(whole) && digits(fraction) && digits(exponent.trim_start_matches(['+', '-'])) && (is_float || !zeros)
}
