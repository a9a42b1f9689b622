//! New inputs from old ones: by bytes for every format, and by structure where bytes alone would not get past the
//! first check.

mod binary;
mod bytes;
mod json;
mod parts;
mod pickle;
mod yaml;

pub use parts::{join, named, split};
pub use pickle::{stored, zipped};

use crate::Random;

/// What the inputs of a target are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Any bytes.
    Bytes,
    /// Text of a language with blocks and brackets.
    Text,
    /// One JSON document.
    Json,
    /// A JSON document on every line.
    JsonLines,
    /// YAML.
    Yaml,
    /// A length of 8 bytes, JSON of that length, and bytes.
    Safetensors,
    /// A message of protocol buffers.
    Protobuf,
    /// A pickle of tensors, or a zip archive that holds one.
    Pickle,
    /// Several inputs, each after a line `%% NAME`: files of a directory, or a server's answers.
    Parts,
}

impl Shape {
    /// The shape of the part with this name.
    fn of(name: &str, content: &[u8]) -> Self {
        let ends = |end: &str| name.ends_with(end);
        let begins = |start: u8| content.trim_ascii_start().first() == Some(&start);
        if ends(".jsonl") {
            Self::JsonLines
        } else if ends(".yaml") {
            Self::Yaml
        } else if ends(".safetensors") {
            Self::Safetensors
        } else if ends(".pkl") {
            Self::Pickle
        } else if ends(".json") || begins(b'{') || begins(b'[') {
            Self::Json
        } else if ends(".parquet") || ends(".gz") {
            Self::Bytes
        } else {
            Self::Text
        }
    }
}

/// Where an input may come from and what goes into it.
pub struct Source<'a> {
    /// Its format.
    pub shape: Shape,
    /// Words of the format.
    pub words: &'a [&'a str],
    /// Inputs that are known: those to begin with, then those that were kept.
    pub known: &'a [Vec<u8>],
    /// How many of them are those to begin with: half of all inputs are made of these.
    pub begun: usize,
}

/// Longest input but for those that are nested on purpose.
const LONGEST: usize = 64 << 10;

impl Source<'_> {
    /// A new input.
    pub fn input(&self, random: &mut Random) -> Vec<u8> {
        let from = match random.once_in(2) {
            true => self.known.get(..self.begun).unwrap_or_default(),
            false => self.known,
        };
        let mut input = random.pick(from).cloned().unwrap_or_default();
        let other = random.pick(self.known).cloned().unwrap_or_default();
        for _ in 0..=[0, 0, 1, 2, 5][random.below(5)] {
            input = self.changed(self.shape, input, &other, random);
        }
        if input.len() > LONGEST && !random.once_in(50) {
            input.truncate(LONGEST);
        }
        input
    }

    fn changed(&self, shape: Shape, input: Vec<u8>, other: &[u8], random: &mut Random) -> Vec<u8> {
        let by_structure = !random.once_in(3);
        let changed = match shape {
            Shape::Json if by_structure => json::document(&input, other, self.words, random),
            Shape::JsonLines if by_structure => json::lines(&input, other, self.words, random),
            Shape::Yaml if by_structure => Some(yaml::changed(&input, other, self.words, random)),
            Shape::Safetensors if by_structure => binary::safetensors(&input, other, self.words, random),
            Shape::Protobuf if by_structure => binary::protobuf(&input, self.words, random),
            Shape::Pickle if by_structure => Some(pickle::changed(&input, self.words, random)),
            // Parts always keep their lines of names, or nearly always.
            Shape::Parts if !random.once_in(20) => self.part(&input, other, random),
            _ => None,
        };
        changed.unwrap_or_else(|| bytes::changed(input, other, self.words, random))
    }

    /// With one of the parts changed, left out, repeated or taken from another input.
    fn part(&self, input: &[u8], other: &[u8], random: &mut Random) -> Option<Vec<u8>> {
        let mut parts = split(input);
        let others = split(other);
        if parts.is_empty() {
            return None;
        }
        let at = random.below(parts.len());
        match random.below(12) {
            0 => {
                parts.remove(at);
            }
            1 => parts.extend(random.pick(&others).cloned()),
            2 => {
                let copy = parts.get(at)?.clone();
                parts.insert(at, copy);
            }
            3 => parts.get_mut(at)?.1.clear(),
            _ => {
                let (name, content) = parts.get_mut(at)?;
                let donor = others.iter().find(|(other, _)| other == name);
                let donor = donor.map(|(_, content)| content.clone()).unwrap_or_default();
                let shape = Shape::of(name, content);
                *content = self.changed(shape, std::mem::take(content), &donor, random);
            }
        }
        Some(join(&parts))
    }
}

/// Numbers at and beyond the ends of types.
pub(crate) const NUMBERS: [&str; 30] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "16777216",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0.1",
    "-0.0",
    "1e-400",
    "1e308",
    "1e309",
    "NaN",
    "-Infinity",
];

/// Texts that readers trip over.
pub(crate) const TEXTS: [&str; 14] = [
    "",
    " ",
    "\u{0}",
    "\u{feff}",
    "\u{fffd}",
    "é",
    "\u{1f600}",
    "\u{301}",
    "\u{202e}x",
    "../x",
    "/",
    "\r\n",
    "%s{}",
    "\u{10ffff}",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_repeat_with_their_seed_and_differ_otherwise() {
        let known = vec![br#"{"a": [1, 2, {"b": "text"}], "c": null}"#.to_vec()];
        let source = Source {
            shape: Shape::Json,
            words: &["a", "hidden_size"],
            known: &known,
            begun: 1,
        };
        let draw = |seed| source.input(&mut Random::new(seed));
        let inputs: std::collections::BTreeSet<Vec<u8>> = (0..500).map(draw).collect();
        assert!(inputs.len() > 300, "{}", inputs.len());
        assert_eq!(draw(5), draw(5));
        let valid = inputs
            .iter()
            .filter(|input| serde_json::from_slice::<serde_json::Value>(input).is_ok());
        assert!(valid.count() > 100);
    }

    #[test]
    fn parts_are_changed_one_by_one() {
        let known = vec![b"%% a.json\n{\"x\": 1}\n%% b.txt\nsome text\n".to_vec()];
        let source = Source {
            shape: Shape::Parts,
            words: &[],
            known: &known,
            begun: 1,
        };
        let inputs: Vec<Vec<u8>> = (0..400).map(|seed| source.input(&mut Random::new(seed))).collect();
        let with = |name: &str, content: &[u8]| {
            let has = |input: &&Vec<u8>| split(input).iter().any(|(n, c)| n == name && c == content);
            inputs.iter().filter(has).count()
        };
        assert!(with("a.json", br#"{"x": 1}"#) > 50 && with("b.txt", b"some text") > 50);
        assert!(with("b.txt", b"some text") < 390);
    }
}
