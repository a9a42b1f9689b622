//! Changes that need no structure.

use super::{NUMBERS, TEXTS};
use crate::Random;

/// Bytes at the ends of ranges, and those that formats are built of.
const BYTES: [u8; 18] = [
    0, 1, 0x7f, 0x80, 0xc3, 0xff, b'"', b'\'', b'\\', b'{', b'}', b'[', b']', b',', b':', b'\n', b'\t', b'-',
];
/// Openings that readers may call themselves for, with what closes them.
const NESTS: [(&str, &str); 14] = [
    ("[", "]"),
    ("{\"a\":", "}"),
    ("[{\"a\":", "}]"),
    ("(", ")"),
    ("- ", ""),
    ("? ", ""),
    ("{a: ", "}"),
    ("{% if 1 %}", "{% endif %}"),
    ("{{ (", ") }}"),
    ("not ", ""),
    ("-", ""),
    ("<a>", "</a>"),
    ("a.", ""),
    ("\\", ""),
];
/// How often something is nested or repeated.
const TIMES: [usize; 8] = [2, 3, 10, 60, 101, 130, 520, 3000];

/// One change.
pub fn changed(mut input: Vec<u8>, other: &[u8], words: &[&str], random: &mut Random) -> Vec<u8> {
    let at = random.below(input.len() + 1);
    match random.below(16) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = random.pick(&BYTES).copied().unwrap_or(0);
            }
        }
        2 => {
            let bytes = random.bits().to_le_bytes();
            let count = random.below(5);
            input.splice(at..at, bytes.into_iter().take(count));
        }
        3 | 4 => {
            let word = word(words, random);
            input.splice(at..at, word.bytes());
        }
        5 => {
            let range = random.range(input.len());
            let word = word(words, random);
            input.splice(range, word.bytes());
        }
        6 | 7 => {
            let range = random.range(input.len());
            input.drain(range);
        }
        8 => {
            let range = random.range(input.len());
            let copy = input.get(range).unwrap_or_default().to_vec();
            input.splice(at..at, copy);
        }
        9 => input.truncate(at),
        10 => {
            // The beginning of one and the end of another.
            input.truncate(at);
            let from = random.below(other.len() + 1);
            input.extend(other.get(from..).unwrap_or_default());
        }
        11 | 12 => number(&mut input, random),
        13 => {
            let range = random.range(input.len());
            let copy = input.get(range).unwrap_or_default().to_vec();
            let times = random.pick(&TIMES).copied().unwrap_or(2);
            let times = times.min((32 << 10) / copy.len().max(1));
            input.splice(at..at, copy.repeat(times));
        }
        14 => fixed(&mut input, random),
        _ => {
            let (open, close) = random.pick(&NESTS).copied().unwrap_or(("[", "]"));
            let most = if random.once_in(30) { 20_000 } else { 1 };
            let times = random.pick(&TIMES).copied().unwrap_or(2).max(most);
            let closed = random.once_in(2);
            let inner = if closed { close.repeat(times) } else { String::new() };
            input.splice(at..at, (open.repeat(times) + &inner).into_bytes());
        }
    }
    input
}

/// A word of the format, or a text or number that is no word of it.
pub fn word(words: &[&str], random: &mut Random) -> String {
    let from: &[&str] = match random.below(8) {
        0 => &TEXTS,
        1 => &NUMBERS,
        _ if words.is_empty() => &TEXTS,
        _ => words,
    };
    random.pick(from).copied().unwrap_or_default().to_owned()
}

/// Another number in the place of one that is written in digits.
pub fn number(input: &mut Vec<u8>, random: &mut Random) {
    let is_part = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let starts: Vec<usize> = (0..input.len())
        .filter(|&at| input[at].is_ascii_digit() && (at == 0 || !is_part(&input[at - 1])))
        .collect();
    let Some(&start) = random.pick(&starts) else { return };
    let length = input.iter().skip(start).take_while(|byte| is_part(byte)).count();
    let new = random.pick(&NUMBERS).copied().unwrap_or("0");
    input.splice(start..start + length, new.bytes());
}

/// Another number in the place of 1, 2, 4 or 8 bytes.
fn fixed(input: &mut [u8], random: &mut Random) {
    let width = [1, 2, 4, 8][random.below(4)];
    let value: u64 = match random.below(6) {
        0 => 0,
        1 => u64::MAX,
        2 => 1 << random.below(64),
        3 => (1u64 << random.below(64)).wrapping_sub(1),
        4 => input.len() as u64,
        _ => random.bits(),
    };
    let at = random.below(input.len().saturating_sub(width) + 1);
    for (byte, new) in input
        .iter_mut()
        .skip(at)
        .zip(value.to_le_bytes().into_iter().take(width))
    {
        *byte = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_replaced_as_a_whole() {
        for seed in 0..200 {
            let mut input = b"a 12.5 b".to_vec();
            number(&mut input, &mut Random::new(seed));
            let text = String::from_utf8(input).unwrap();
            let inner = text.strip_prefix("a ").and_then(|t| t.strip_suffix(" b")).unwrap();
            assert!(NUMBERS.contains(&inner), "{text}");
        }
    }

    #[test]
    fn nothing_is_out_of_bounds() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let short: Vec<u8> = (0..random.below(4) as u8).collect();
            changed(short, b"other", &["word"], &mut random);
        }
    }
}
