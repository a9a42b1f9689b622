//! YAML, by lines: keys, values, indentation, anchors.

use super::{NUMBERS, bytes, bytes::word};
use crate::Random;

/// Values of every kind that YAML knows, and some that it does not.
const VALUES: [&str; 22] = [
    "null",
    "~",
    "true",
    "yes",
    "[]",
    "{}",
    "[1, 2]",
    "{a: 1}",
    "\"text\"",
    "'text'",
    "|\n    text",
    ">\n    text",
    ".inf",
    "-.inf",
    ".nan",
    "0x10",
    "0o7",
    "1_000",
    "2026-11-30",
    "!!int text",
    "&a [1]",
    "*a",
];

/// One change.
pub fn changed(input: &[u8], other: &[u8], words: &[&str], random: &mut Random) -> Vec<u8> {
    let lines_of =
        |bytes: &[u8]| -> Vec<String> { String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect() };
    let mut lines = lines_of(input);
    let others = lines_of(other);
    let at = random.below(lines.len());
    let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
    match random.below(12) {
        0 if at < lines.len() => {
            lines.remove(at);
        }
        1 => {
            let copy = lines.get(at).cloned().unwrap_or_default();
            lines.insert(random.below(lines.len() + 1), copy);
        }
        2 => {
            let line = random.pick(&others).cloned().unwrap_or_default();
            lines.insert(at, line);
        }
        3 => {
            if let Some(line) = lines.get_mut(at) {
                match random.once_in(2) {
                    true => line.insert_str(0, ["  ", " ", "\t", "- "][random.below(4)]),
                    false => *line = line.trim_start().to_owned(),
                }
            }
        }
        4..=7 => {
            let new = match random.below(4) {
                0 => random.pick(&NUMBERS).copied().unwrap_or("0").to_owned(),
                1 => word(words, random),
                _ => random.pick(&VALUES).copied().unwrap_or("~").to_owned(),
            };
            if let Some(line) = lines.get_mut(at) {
                match line.split_once(':') {
                    Some((key, _)) => *line = format!("{key}: {new}"),
                    None => *line = format!("{}- {new}", " ".repeat(indent(line))),
                }
            }
        }
        8 => {
            let key = word(words, random);
            if let Some(line) = lines.get_mut(at) {
                let spaces = " ".repeat(indent(line));
                *line = match line.split_once(':') {
                    Some((_, value)) => format!("{spaces}{key}:{value}"),
                    None => format!("{spaces}{key}: 1"),
                };
            }
        }
        9 => {
            let spaces = lines.get(at).map_or(0, |line| indent(line));
            let new = format!("{}{}: {}", " ".repeat(spaces), word(words, random), word(words, random));
            lines.insert(at, new);
        }
        10 if random.once_in(60) => lines.insert(at, grown(words, random)),
        _ => {
            let text = lines.join("\n").into_bytes();
            return bytes::changed(text, other, words, random);
        }
    }
    (lines.join("\n") + "\n").into_bytes()
}

/// Lists that name the list before several times: each level multiplies what a reader that copies them holds.
fn grown(words: &[&str], random: &mut Random) -> String {
    let levels = 2 + random.below(10);
    let each = 2 + random.below(9);
    let mut text = format!("{}: &n0 [x, x, x]\n", word(words, random));
    for level in 1..levels {
        let names = vec![format!("*n{}", level - 1); each].join(", ");
        text.push_str(&format!("k{level}: &n{level} [{names}]\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_can_be_changed() {
        let mut random = Random::new(2);
        let mut text = b"a: 1\nb:\n  c: [1, 2]\n  d: text\n".to_vec();
        for _ in 0..5000 {
            text = changed(&text, b"x: 1\n", &["model", "train"], &mut random);
            text.truncate(2000);
        }
        assert_eq!(
            changed(b"", b"", &[], &mut Random::new(9)),
            changed(b"", b"", &[], &mut Random::new(9))
        );
    }
}
