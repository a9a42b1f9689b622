//! The program in an assistant's answer.
//!
//! An answer mixes prose with code blocks, and not every block is the answer. The rule, in order:
//!
//! 1. What stands in `<think>…</think>` at the beginning is no part of the answer.
//! 2. Blocks are found by lines, as CommonMark does: a fence is a line that begins, after indentation
//!    or a list marker, with three or more backticks or tildes. The closing fence is of the same
//!    kind, at least as long, holds nothing else and is indented by at most three columns more. A
//!    block without a closing fence reaches to the end. The indentation of the fence is taken off the
//!    block's lines. `[PYTHON]…[/PYTHON]` is a block, too.
//! 3. Where a block cut at its first closing fence is no Python and cut at a later one it is, the
//!    fences between belong to the program (a docstring with an example).
//! 4. Code before the first fence, or in an answer without one, reaches from the first `def`, `class`,
//!    `import` or decorator in column 0 to the first line in column 0 that is no Python.
//! 5. Of these the first one that defines a function asked for is the answer; else the first that is
//!    tagged as Python; else the first without a tag; else any. Within each, those that read as
//!    Python come before those that do not, and what holds nothing but comments comes last.
//!
//! Whether a text reads as Python is decided by its lexical structure (strings and brackets close,
//! every line in column 0 begins as a statement does); nothing is run. Work is linear in the answer
//! for each block, and at most [`MOST_BLOCKS`] blocks are looked at.

use super::stop::string_end;

/// Blocks of an answer that are looked at.
const MOST_BLOCKS: usize = 64;
/// Closing fences that are tried for a block.
const MOST_CLOSERS: usize = 8;

/// What a fence says about its block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Python,
    None,
    Other,
}

struct Candidate {
    tag: Tag,
    code: String,
}

/// The program in an answer that should define one of the functions or classes `wanted` (none: any
/// program). All of the answer where nothing in it looks like a program.
pub(super) fn program(answer: &str, wanted: &[&str]) -> String {
    let text = without_thoughts(answer);
    let mut found = Vec::new();
    if let Some(inner) = python_tags(text) {
        let code = if fence(inner.lines().next().unwrap_or_default()).is_some() {
            best(inner, Vec::new(), wanted)
        } else {
            inner.to_owned()
        };
        found.push(Candidate { tag: Tag::Python, code });
    }
    best(text, found, wanted)
}

/// Whether a text is no Python as it stands, but has a code block.
pub(super) fn is_wrapped(text: &str) -> bool {
    let has_block = python_tags(text).is_some() || text.lines().any(|line| fence(line).is_some());
    has_block && !reads_as_python(text)
}

/// The best of the candidates `found` and those in `text`; all of it if there is none.
fn best(text: &str, mut found: Vec<Candidate>, wanted: &[&str]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first_fence = lines.iter().position(|line| fence(line).is_some());
    let before = lines.get(..first_fence.unwrap_or(lines.len())).unwrap_or_default();
    if let Some(code) = in_prose(&joined(before)) {
        found.push(Candidate { tag: Tag::None, code });
    }
    blocks(&lines, &mut found);
    let best = found
        .into_iter()
        .min_by_key(|candidate| rank(candidate, wanted))
        .map(|candidate| candidate.code);
    best.unwrap_or_else(|| text.to_owned())
}

/// Lower is better; of equals the first is taken.
fn rank(candidate: &Candidate, wanted: &[&str]) -> u8 {
    let Candidate { tag, code } = candidate;
    let parses = reads_as_python(code);
    let defines = wanted.iter().any(|name| defines(code, name));
    let tagged = match tag {
        Tag::Python => 2,
        Tag::None => 4,
        Tag::Other => 6,
    };
    match (defines, has_statements(code)) {
        (true, _) => u8::from(!parses),
        (false, true) => tagged + u8::from(!parses),
        (false, false) => 8,
    }
}

/// What follows the thoughts. Thoughts that do not end leave nothing.
fn without_thoughts(answer: &str) -> &str {
    let opened = answer.trim_start().starts_with("<think>");
    match answer.rfind("</think>") {
        // Without an opening tag it may stand in the prompt; inside code it is a text.
        Some(at) if opened || !answer.get(..at).is_some_and(|before| before.contains("<think>")) => {
            answer.get(at + "</think>".len()..).unwrap_or_default()
        }
        None if opened => "",
        _ => answer,
    }
}

/// The text between `[PYTHON]` and `[/PYTHON]`, or to the end.
fn python_tags(text: &str) -> Option<&str> {
    let at = text.match_indices("[PYTHON]").map(|(at, _)| at).find(|&at| {
        text.get(..at)
            .is_some_and(|before| before.is_empty() || before.ends_with('\n'))
    })?;
    let inner = text.get(at + "[PYTHON]".len()..)?;
    let inner = inner.split_once("[/PYTHON]").map_or(inner, |(inner, _)| inner);
    Some(inner.trim_start_matches(['\r', '\n']))
}

/// An opening or closing fence.
struct Fence<'a> {
    /// Columns before it, a list marker included.
    indentation: usize,
    kind: char,
    length: usize,
    /// What follows it on its line.
    info: &'a str,
    /// Whether a list marker stands before it.
    in_item: bool,
}

fn fence(line: &str) -> Option<Fence<'_>> {
    let spaces = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
    let mut indentation = spaces(line);
    let mut rest = line.get(indentation..)?;
    let mut in_item = false;
    if let Some(marker) = list_marker(rest) {
        let gap = spaces(rest.get(marker..)?);
        if gap > 0 {
            in_item = true;
            indentation += marker + gap;
            rest = rest.get(marker + gap..)?;
        }
    }
    let kind = rest.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let info = rest.trim_start_matches(kind);
    let length = rest.len() - info.len();
    // Backticks after it make it code inside a line.
    let is_fence = length >= 3 && !(kind == '`' && info.contains('`'));
    is_fence.then_some(Fence {
        indentation,
        kind,
        length,
        info: info.trim(),
        in_item,
    })
}

/// The length of `-`, `*`, `+`, `1.` or `1)` at the beginning.
fn list_marker(text: &str) -> Option<usize> {
    if text.starts_with(['-', '*', '+']) {
        return Some(1);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let ends = text.get(digits..)?.starts_with(['.', ')']);
    (ends && (1..=9).contains(&digits)).then_some(digits + 1)
}

fn tag(info: &str) -> Tag {
    let word = info.split([' ', ',', '\t', '}']).next().unwrap_or_default();
    let word = word.trim_start_matches(['{', '.']).to_ascii_lowercase();
    match word.as_str() {
        "" => Tag::None,
        "py" | "py3" | "python" | "python3" | "ipython" => Tag::Python,
        _ if word
            .strip_prefix("python")
            .is_some_and(|version| version.starts_with(['2', '3'])) =>
        {
            Tag::Python
        }
        _ => Tag::Other,
    }
}

/// All fenced blocks, in order.
fn blocks(lines: &[&str], found: &mut Vec<Candidate>) {
    let mut at = 0;
    let mut count = 0;
    while let Some(line) = lines.get(at) {
        let Some(open) = fence(line) else {
            at += 1;
            continue;
        };
        count += 1;
        if count > MOST_BLOCKS {
            return;
        }
        let body = lines.get(at + 1..).unwrap_or_default();
        let closes = |line: &&str| {
            fence(line).is_some_and(|close| {
                close.kind == open.kind
                    && close.length >= open.length
                    && close.info.is_empty()
                    && !close.in_item
                    && close.indentation <= open.indentation + 3
            })
        };
        let closers: Vec<usize> = (0..body.len())
            .filter(|&i| body.get(i).is_some_and(closes))
            .take(MOST_CLOSERS)
            .collect();
        let code = |end: usize| dedented(body.get(..end).unwrap_or_default(), open.indentation);
        let first = closers.first().copied().unwrap_or(body.len());
        let mut end = first;
        if !reads_as_python(&code(first)) {
            // A block that another opening fence interrupts is over.
            let opens_again = |from: usize, to: usize| {
                body.get(from..to).is_some_and(|between| {
                    between
                        .iter()
                        .filter_map(|line| fence(line))
                        .any(|f| !f.info.is_empty())
                })
            };
            end = closers
                .iter()
                .copied()
                .skip(1)
                .take_while(|&later| !opens_again(first, later))
                .find(|&later| reads_as_python(&code(later)))
                .unwrap_or(first);
        }
        found.push(Candidate {
            tag: tag(open.info),
            code: code(end),
        });
        at += end + 2;
    }
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

/// Lines without their first `indentation` columns of white space.
fn dedented(lines: &[&str], indentation: usize) -> String {
    let mut out = String::new();
    for line in lines {
        let white = line.len() - line.trim_start_matches([' ', '\t']).len();
        out.push_str(line.get(white.min(indentation)..).unwrap_or_default());
        out.push('\n');
    }
    out
}

/// Code in a text without fences; None if there is none.
fn in_prose(text: &str) -> Option<String> {
    let mut start = None;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if begins_definition(line) {
            start = Some(offset);
            break;
        }
        offset += line.len();
    }
    // Comments and assignments before the first definition belong to it if all of that is code.
    let start = start?;
    let head = text.get(..start)?;
    let start = if has_statements(head) && reads_as_python(head) {
        0
    } else {
        start
    };
    let code = text.get(start..)?;
    let mut end = 0;
    let mut last = 0;
    while let Some(next) = logical_line(code, end) {
        let line = code.get(end..next)?;
        let blank = line.trim().is_empty();
        if !blank && !line.starts_with([' ', '\t']) && !begins_statement(line) {
            break;
        }
        end = next;
        if !blank {
            last = end;
        }
        if end >= code.len() {
            break;
        }
    }
    code.get(..last).filter(|code| !code.is_empty()).map(str::to_owned)
}

/// A line in column 0 that nothing but a program begins with.
fn begins_definition(line: &str) -> bool {
    let named = |rest: &str| rest.trim_start().starts_with(|c: char| c.is_alphabetic() || c == '_');
    if let Some(rest) = ["def ", "class ", "async def "]
        .iter()
        .find_map(|word| line.strip_prefix(word))
    {
        return named(rest) && rest.contains([':', '(']);
    }
    if let Some(rest) = line.strip_prefix("from ") {
        return rest.split_whitespace().nth(1) == Some("import");
    }
    if let Some(rest) = line.strip_prefix("import ") {
        // `import a.b as c, d`, and not `import the module`.
        return rest.trim().split(',').all(|part| {
            let words: Vec<&str> = part.split_whitespace().collect();
            matches!(words.as_slice(), [_] | [_, "as", _]) && words.iter().all(|word| dotted(word))
        });
    }
    line.strip_prefix('@').is_some_and(named)
}

fn dotted(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.')
}

/// Whether a logical line in column 0 begins as a statement of Python does.
fn begins_statement(line: &str) -> bool {
    let line = line.trim_end();
    if line.starts_with(['#', ')', ']', '}', '"', '\'', '(', '[', '{', '-', '@']) || begins_definition(line) {
        return true;
    }
    let end = line
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let rest_trimmed = rest.trim_start();
    match word {
        "" => false,
        "if" | "elif" | "else" | "for" | "while" | "try" | "except" | "finally" | "with" | "match" | "case"
        | "async" => rest.contains(':'),
        "pass" | "break" | "continue" | "return" => rest.is_empty() || word == "return",
        "assert" | "raise" | "del" | "global" | "nonlocal" | "await" | "yield" | "not" | "lambda" => true,
        // A name: called, subscripted, an attribute, or assigned to.
        _ => {
            let assigns = |text: &str| {
                text.match_indices('=').any(|(at, _)| {
                    let after = text.get(at + 1..).unwrap_or_default();
                    let before = text.get(..at).unwrap_or_default();
                    !after.starts_with('=') && !before.ends_with(['=', '!', '<', '>'])
                })
            };
            rest.starts_with(['(', '['])
                || (rest.starts_with('.')
                    && rest
                        .get(1..)
                        .is_some_and(|r| r.starts_with(|c: char| c.is_alphabetic() || c == '_')))
                || (rest.starts_with('"') || rest.starts_with('\'')) && word.len() <= 2
                || rest_trimmed.starts_with(['=', '+', '-', '*', '/', '%', '&', '|', '^', '<', '>'])
                || ((rest_trimmed.starts_with(',') || rest_trimmed.starts_with(':')) && assigns(rest_trimmed))
        }
    }
}

/// Whether strings and brackets close and every line in column 0 begins as a statement does.
fn reads_as_python(code: &str) -> bool {
    let mut at = 0;
    while at < code.len() {
        let Some(next) = logical_line(code, at) else {
            return false;
        };
        let line = code.get(at..next).unwrap_or_default();
        if !line.trim().is_empty() && !line.starts_with([' ', '\t', '\x0c']) && !begins_statement(line) {
            return false;
        }
        at = next;
    }
    has_statements(code)
}

/// Whether there is more than comments and blank lines.
fn has_statements(code: &str) -> bool {
    code.lines()
        .map(str::trim_start)
        .any(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Whether a program defines this name in column 0.
fn defines(code: &str, name: &str) -> bool {
    let mut at = 0;
    let mut lexes = true;
    while at < code.len() {
        // After a lexical error by lines, which keeps the work linear.
        let logical = if lexes { logical_line(code, at) } else { None };
        lexes = logical.is_some();
        let next = logical.unwrap_or_else(|| {
            let rest = code.get(at..).unwrap_or_default();
            at + rest.find('\n').map_or(rest.len(), |end| end + 1)
        });
        let line = code.get(at..next).unwrap_or_default();
        let defined = ["def ", "async def ", "class "]
            .iter()
            .find_map(|word| line.strip_prefix(word))
            .or_else(|| {
                line.split_once('=')
                    .map(|(target, _)| target)
                    .filter(|target| target.trim() == name)
            });
        let after = defined.and_then(|rest| rest.trim_start().strip_prefix(name));
        if after.is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric() || c == '_')) {
            return true;
        }
        at = next;
    }
    false
}

/// The offset after the logical line that begins at `start`; None where a string or bracket in it
/// does not close.
fn logical_line(code: &str, start: usize) -> Option<usize> {
    let bytes = code.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    let mut index = start;
    let mut open: Vec<u8> = Vec::new();
    while let Some(byte) = at(index) {
        match byte {
            b'#' => {
                while at(index).is_some_and(|byte| byte != b'\n') {
                    index += 1;
                }
                continue;
            }
            b'"' | b'\'' => {
                index = string_end(bytes, index).ok()?;
                continue;
            }
            b'(' => open.push(b')'),
            b'[' => open.push(b']'),
            b'{' => open.push(b'}'),
            b')' | b']' | b'}' if open.pop() != Some(byte) => return None,
            b'\\' => index += 1,
            b'\n' if open.is_empty() => return Some(index + 1),
            _ => {}
        }
        index += 1;
    }
    open.is_empty().then_some(bytes.len())
}

#[cfg(test)]
#[path = "extract/tests.rs"]
mod tests;
