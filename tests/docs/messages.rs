//! `docs/troubleshooting.md` against the sources: every message that it quotes is one of the program's, and
//! every error and warning of the sources is on the page.

use super::{read, root};
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/troubleshooting.md";
/// Where the program's sources are.
const SOURCES: &[&str] = &["src", "crates", "model/src", "kernels/src", "sandbox/src"];
/// What a message that a user meets is handed to.
const MESSAGES: &[&str] = &[
    "#[error(",
    "Failure::usage(",
    "Failure::failed(",
    "Failure::Found(",
    ".warning(",
    "warn!(",
    "Request(",
    "Setting(",
    "Other(",
    "SetupError(",
    "CardError(",
    "Away(",
    "Refused(",
    "refuse(",
    "Generate(",
    "PatternError(",
];
/// Messages with fewer words have to be on the page as they are; of longer ones a part is enough.
const SHORT: usize = 3;

/// A string literal, with `…` for each of its parameters, and the code before it without white space.
struct Literal {
    before: String,
    text: String,
}

/// The string literals of Rust source, without comments.
fn literals(source: &str) -> Vec<Literal> {
    let mut found = Vec::new();
    let mut code = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let raw_end = raw_string(rest, &code);
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |at| &rest[at..]);
        } else if let Some((start, length, all)) = raw_end {
            found.push(literal(&code, &rest[start..start + length]));
            code += "\"\"";
            rest = &rest[all..];
        } else if let Some(length) = character(rest) {
            code += "' '";
            rest = &rest[length..];
        } else if c == '"' {
            let length = string_length(&rest[1..]);
            found.push(literal(&code, &unescaped(&rest[1..1 + length])));
            code += "\"\"";
            rest = rest.get(length + 2..).unwrap_or_default();
        } else {
            code.extend((!c.is_whitespace()).then_some(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    found
}

fn literal(code: &str, text: &str) -> Literal {
    let mut before = code;
    while let Some(shorter) = before.strip_suffix("format!(").or_else(|| before.strip_suffix('&')) {
        before = shorter;
    }
    let from = before.char_indices().rev().nth(40).map_or(0, |(at, _)| at);
    Literal {
        before: before[from..].to_owned(),
        text: without_parameters(text),
    }
}

/// Start and length of the text of a raw string that begins here, and the length of the whole.
fn raw_string(rest: &str, code: &str) -> Option<(usize, usize, usize)> {
    let in_name = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let hashes = rest.strip_prefix('r').filter(|_| !in_name)?;
    let text = hashes.trim_start_matches('#');
    let count = hashes.len() - text.len();
    let text = text.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let length = text.find(&end)?;
    let start = 2 + count;
    Some((start, length, start + length + end.len()))
}

/// The length of a character literal; lifetimes are none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let after = match inside.strip_prefix('\\') {
        Some(escaped) => escaped.get(escaped.chars().next()?.len_utf8()..)?,
        None => inside.get(inside.chars().next()?.len_utf8()..)?,
    };
    let end = after.find('\'')?;
    let longest = if inside.starts_with('\\') { 8 } else { 0 };
    (end <= longest).then(|| rest.len() - after.len() + end + 1)
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

fn unescaped(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('\\') {
        out += before;
        rest = match escaped.strip_prefix('\n') {
            Some(next) => next.trim_start(),
            None => {
                let c = escaped.chars().next().unwrap_or('\\');
                out.push(if c == 'n' { '\n' } else { c });
                escaped.get(c.len_utf8()..).unwrap_or_default()
            }
        };
    }
    out + rest
}

fn without_parameters(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out += &rest[..at];
        let (brace, after) = (&rest[at..=at], &rest[at + 1..]);
        rest = match (after.strip_prefix(brace), after.split_once('}')) {
            (Some(after), _) => {
                out += brace;
                after
            }
            (None, Some((_, after))) if brace == "{" => {
                out.push('…');
                after
            }
            _ => {
                out += brace;
                after
            }
        };
    }
    out + rest
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .flatten()
    {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !["tests", "examples", "fixtures", "target"].contains(&name.as_ref()) {
                sources(&path, out);
            }
        } else if name.ends_with(".rs") && !name.starts_with("test") {
            out.push(path);
        }
    }
}

/// The literals of the program, without those of its unit tests.
fn program() -> Vec<Literal> {
    let mut paths = Vec::new();
    for part in SOURCES {
        sources(&root().join(part), &mut paths);
    }
    let texts = paths.iter().map(|path| read(path));
    let texts = texts.map(|text| {
        let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
        text[..end].to_owned()
    });
    texts.flat_map(|text| literals(&text)).collect()
}

/// The messages of the page: first cells of tables that are one code span.
fn quoted(page: &str) -> Vec<String> {
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let spans = cells.filter_map(|cell| {
        let fence = &cell[..cell.len() - cell.trim_start_matches('`').len()];
        let inside = cell.strip_prefix(fence)?.strip_suffix(fence)?;
        let one_span = !fence.is_empty() && !inside.split(|c| c != '`').any(|run| run == fence);
        one_span.then(|| inside.trim().to_owned())
    });
    spans.collect()
}

/// Whether the parts of `message` between `…` are in `text`, in this order.
fn occurs(message: &str, text: &str) -> bool {
    let parts = message.split('…').map(str::trim).filter(|part| !part.is_empty());
    let mut rest = text;
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// Words of two or more letters.
fn words(text: &str) -> usize {
    let words = text.split(|c: char| !c.is_ascii_lowercase());
    words.filter(|word| word.len() > 1).count()
}

#[test]
fn literals_are_read_as_the_compiler_reads_them() {
    let source = r##"
        // "a comment"
        fn f<'a>(x: &'a str) { let c = ['"', '\'', '\u{e9}']; }
        Err(Failure::usage(format!("`{}` is \"{x:?}\" {{kept}}, \
            twice")))
        r#"raw "text""#
    "##;
    let found = literals(source);
    let texts: Vec<&str> = found.iter().map(|literal| literal.text.as_str()).collect();
    assert_eq!(texts, ["`…` is \"…\" {kept}, twice", "raw \"text\""]);
    assert!(found[0].before.ends_with("Failure::usage("), "{}", found[0].before);
    assert_eq!(
        quoted("| `a b` | c |\n| ``a `b` `` | c |\n| `a` and `b` | c |"),
        ["a b", "a `b`"]
    );
    assert!(occurs("no … here: …", "there is no `…` here: take"));
    assert!(!occurs("here no", "no, here"));
}

#[test]
fn every_message_of_the_page_is_one_of_the_program() {
    let literals = program();
    let messages = quoted(&read(&root().join(PAGE)));
    assert!(messages.len() > 300, "{} messages", messages.len());
    let unknown = messages
        .iter()
        .filter(|message| !literals.iter().any(|literal| occurs(message, &literal.text)));
    let unknown: Vec<&String> = unknown.collect();
    assert!(unknown.is_empty(), "{PAGE} quotes what no source says: {unknown:#?}");
}

#[test]
fn every_error_and_warning_of_the_program_is_on_the_page() {
    let messages = quoted(&read(&root().join(PAGE)));
    let literals = program();
    let met = literals
        .iter()
        .filter(|literal| MESSAGES.iter().any(|start| literal.before.ends_with(start)) && words(&literal.text) > 1);
    let met: Vec<&str> = met.map(|literal| literal.text.as_str()).collect();
    assert!(met.len() > 200, "{} messages", met.len());
    let explains = |message: &String, text: &str| {
        (words(message) >= SHORT || without_parameters(message) == text) && occurs(message, text)
    };
    let missing = met
        .iter()
        .filter(|text| !messages.iter().any(|message| explains(message, text)));
    let missing: Vec<&&str> = missing.collect();
    assert!(missing.is_empty(), "{PAGE} lacks {missing:#?}");
}
