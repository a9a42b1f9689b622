//! Settings as they were written: a tree of values that remember their line.
//!
//! YAML becomes a [`Node`] here and a [`Node`] becomes a figment value; nothing in this file knows
//! which keys exist.

use super::surrogates::join_surrogates;
use crate::text::shorten;
use figment::value::{Dict, Empty, Num, Tag, Value as FigmentValue};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use wmtp_base::yaml::too_deep;

/// A value and the line it stands on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Line in the file, counted from 1; 0 where there is no file.
    pub line: usize,
    pub value: Value,
}

/// What YAML's core schema knows.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys in the order written.
    Map(Vec<(String, Node)>),
}

/// A text that isn't YAML: what is wrong, and on which line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BadYaml {
    pub line: usize,
    pub problem: String,
}

impl Node {
    /// A node that stands in no file.
    pub fn plain(value: Value) -> Self {
        Self { line: 0, value }
    }

    /// The values as JSON, without their lines, keys in their order.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::Float(f) => Json::from(*f),
            Value::Text(s) => Json::from(s.as_str()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => Json::Object(entries.iter().map(|(k, v)| (k.clone(), v.to_json())).collect()),
        }
    }

    /// Parses one YAML document; an empty text is an empty map.
    pub fn parse_document(text: &str) -> Result<Self, BadYaml> {
        let mut documents = load(text)?;
        match documents.len() {
            0 => Ok(Self {
                line: 1,
                value: Value::Map(Vec::new()),
            }),
            1 => {
                let node = documents.remove(0);
                match node.value {
                    Value::Null => Ok(Self {
                        line: 1,
                        value: Value::Map(Vec::new()),
                    }),
                    Value::Map(_) => Ok(node),
                    other => Err(BadYaml {
                        line: node.line,
                        problem: format!("the file must hold `key: value` lines, found {}", other.describe()),
                    }),
                }
            }
            n => Err(BadYaml {
                line: 1,
                problem: format!("one document is read, found {n}"),
            }),
        }
    }

    /// Parses the right side of `key=value`: a YAML scalar, or a list or map in flow style.
    pub fn parse_value(text: &str) -> Result<Self, BadYaml> {
        let mut documents = load(text)?;
        match documents.len() {
            0 => Ok(Self::plain(Value::Null)),
            1 => Ok(documents.remove(0).without_lines()),
            n => Err(BadYaml {
                line: 1,
                problem: format!("one value is read, found {n} documents"),
            }),
        }
    }

    /// The tree of a serialised settings struct.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        Self::plain(match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => n
                .as_i64()
                .map_or_else(|| Value::Float(n.as_f64().unwrap_or(f64::NAN)), Value::Int),
            Json::String(s) => Value::Text(s.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(map) => Value::Map(map.iter().map(|(k, v)| (k.clone(), Self::from_json(v))).collect()),
        })
    }

    /// `a.b = value` as a tree.
    pub fn nested(path: &[&str], value: Self) -> Self {
        path.iter().rev().fold(value, |inner, key| Self {
            line: inner.line,
            value: Value::Map(vec![((*key).to_owned(), inner)]),
        })
    }

    /// The value under `path`, if it is there.
    pub fn get(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| match &node.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        })
    }

    /// Takes away what lies under `path`.
    pub fn remove(&mut self, path: &[&str]) {
        let Value::Map(entries) = &mut self.value else {
            return;
        };
        match path {
            [] => {}
            [last] => entries.retain(|(k, _)| k != last),
            [first, rest @ ..] => {
                if let Some((_, inner)) = entries.iter_mut().find(|(k, _)| k == first) {
                    inner.remove(rest);
                }
            }
        }
    }

    fn without_lines(mut self) -> Self {
        self.line = 0;
        self.value = match self.value {
            Value::List(items) => Value::List(items.into_iter().map(Self::without_lines).collect()),
            Value::Map(entries) => Value::Map(entries.into_iter().map(|(k, v)| (k, v.without_lines())).collect()),
            other => other,
        };
        self
    }

    /// The same value for figment.
    pub fn to_figment(&self) -> FigmentValue {
        let tag = Tag::Default;
        match &self.value {
            Value::Null => FigmentValue::Empty(tag, Empty::None),
            Value::Bool(b) => FigmentValue::Bool(tag, *b),
            Value::Int(i) => FigmentValue::Num(tag, Num::I64(*i)),
            Value::Float(f) => FigmentValue::Num(tag, Num::F64(*f)),
            Value::Text(s) => FigmentValue::String(tag, s.clone()),
            Value::List(items) => FigmentValue::Array(tag, items.iter().map(Self::to_figment).collect()),
            Value::Map(_) => FigmentValue::Dict(tag, self.to_dict()),
        }
    }

    /// The entries of a map for figment; empty for anything else.
    pub fn to_dict(&self) -> Dict {
        match &self.value {
            Value::Map(entries) => entries.iter().map(|(k, v)| (k.clone(), v.to_figment())).collect(),
            _ => Dict::new(),
        }
    }
}

impl Value {
    /// How an error names this value: `the text "fast"`, `the number 0.5`, `nothing`.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "nothing (null)".into(),
            Self::Bool(b) => format!("`{b}`"),
            Self::Int(i) => format!("the number {i}"),
            // With its point: `2.0` is what was written, and why it is no whole number.
            Self::Float(f) => format!("the number {f:?}"),
            Self::Text(s) => format!("the text {:?}", shorten(&crate::redact::redact(s), 60)),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Map(_) => "a map".into(),
        }
    }
}

/// The documents of a text.
fn load(text: &str) -> Result<Vec<Node>, BadYaml> {
    let text = join_surrogates(text);
    if let Some(line) = too_deep(&text) {
        return Err(BadYaml {
            line,
            problem: "it is nested more than 100 levels deep".into(),
        });
    }
    MarkedYaml::load_from_str(&text)
        .map_err(|e| BadYaml {
            line: e.marker().line(),
            problem: e.info().to_owned(),
        })?
        .iter()
        .map(convert)
        .collect()
}

fn convert(yaml: &MarkedYaml<'_>) -> Result<Node, BadYaml> {
    let line = yaml.span.start.line();
    let bad = |problem: &str| BadYaml {
        line,
        problem: problem.to_owned(),
    };
    let value = match &yaml.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(b) => Value::Bool(*b),
            Scalar::Integer(i) => Value::Int(*i),
            Scalar::FloatingPoint(f) => Value::Float(f.into_inner()),
            Scalar::String(s) => Value::Text(s.to_string()),
        },
        YamlData::Sequence(items) => Value::List(items.iter().map(convert).collect::<Result<_, _>>()?),
        YamlData::Mapping(map) => {
            let mut entries = Vec::with_capacity(map.len());
            let mut merged = Vec::new();
            for (key, value) in map {
                let YamlData::Value(Scalar::String(name)) = &key.data else {
                    return Err(BadYaml {
                        line: key.span.start.line(),
                        problem: "a key must be a plain name".into(),
                    });
                };
                let mut node = convert(value)?;
                if name == MERGE {
                    merged.extend(merge_sources(node)?);
                    continue;
                }
                node.line = key.span.start.line();
                entries.push((name.to_string(), node));
            }
            // What stands in the map itself wins, then the first map that is merged.
            for (name, node) in merged {
                if !entries.iter().any(|(known, _)| *known == name) {
                    entries.push((name, node));
                }
            }
            Value::Map(entries)
        }
        YamlData::Tagged(..) => return Err(bad("YAML tags (`!name`) are not used in settings")),
        YamlData::Alias(_) | YamlData::BadValue | YamlData::Representation(..) => {
            return Err(bad("this value is not understood"));
        }
    };
    Ok(Node { line, value })
}

/// YAML 1.1's merge key (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// The entries of the map, or of the list of maps, that a merge key names.
fn merge_sources(node: Node) -> Result<Vec<(String, Node)>, BadYaml> {
    let bad = |line: usize, value: &Value| BadYaml {
        line,
        problem: format!("`<<` merges a map or a list of maps, found {}", value.describe()),
    };
    match node.value {
        Value::Map(entries) => Ok(entries),
        Value::List(items) => {
            let maps = items.into_iter().map(|item| match item.value {
                Value::Map(entries) => Ok(entries),
                other => Err(bad(item.line, &other)),
            });
            Ok(maps.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        }
        other => Err(bad(node.line, &other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_remember_the_line_of_their_key() {
        let node = Node::parse_document("# note\noptim:\n  lr: 1e-5\n  beta1: 0.5\n").unwrap();
        let lr = node.get(&["optim", "lr"]).unwrap();
        assert_eq!((lr.line, &lr.value), (3, &Value::Float(1e-5)));
        assert_eq!(node.get(&["optim", "beta1"]).unwrap().line, 4);
        assert!(node.get(&["optim", "lr", "x"]).is_none());
    }

    #[test]
    fn an_empty_file_is_an_empty_map_and_a_list_is_refused() {
        for text in ["", "# only a comment\n", "---\n"] {
            assert_eq!(
                Node::parse_document(text).unwrap().value,
                Value::Map(Vec::new()),
                "{text:?}"
            );
        }
        assert!(
            Node::parse_document("- a\n- b\n")
                .unwrap_err()
                .problem
                .contains("found a list of 2")
        );
    }

    #[test]
    fn bad_yaml_says_its_line() {
        assert_eq!(Node::parse_document("a: 1\nb: [1, 2\nc: 3\n").unwrap_err().line, 3);
        let twice = Node::parse_document("a: 1\na: 2\n").unwrap_err();
        assert!(twice.problem.contains("duplicate"), "{twice:?}");
        assert!(Node::parse_document("a: !x 1\n").unwrap_err().problem.contains("tags"));
    }

    #[test]
    fn a_value_may_be_a_list_or_a_map_in_flow_style() {
        let list = Node::parse_value("[601, 974]").unwrap();
        assert_eq!(
            list.value,
            Value::List(vec![Node::plain(Value::Int(601)), Node::plain(Value::Int(974))])
        );
        assert!(matches!(Node::parse_value("{rank: 8}").unwrap().value, Value::Map(_)));
        assert_eq!(Node::parse_value("").unwrap().value, Value::Null);
        assert_eq!(Node::parse_value("'1'").unwrap().value, Value::Text("1".into()));
    }

    #[test]
    fn merge_keys_fill_in_what_the_map_does_not_say() {
        let text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc:\n  <<: [*a, *b]\n  x: 5\nd: {<<: *b}\n";
        let node = Node::parse_document(text).unwrap();
        let value = |path: &[&str]| node.get(path).map(|node| node.value.clone());
        assert_eq!(value(&["c", "x"]), Some(Value::Int(5)), "the map itself wins");
        assert_eq!(value(&["c", "y"]), Some(Value::Int(2)), "the first of the list wins");
        assert_eq!(value(&["c", "z"]), Some(Value::Int(4)));
        assert_eq!(value(&["d", "z"]), Some(Value::Int(4)));
        assert_eq!(value(&["c", "<<"]), None);
        let bad = Node::parse_document("a:\n  <<: 3\n").unwrap_err();
        assert!(bad.line == 2 && bad.problem.contains("found the number 3"), "{bad:?}");
    }

    #[test]
    fn removing_a_path_leaves_its_neighbours() {
        let mut node = Node::parse_document("a: {b: 1, c: 2}\n").unwrap();
        node.remove(&["a", "b"]);
        assert!(node.get(&["a", "b"]).is_none());
        assert!(node.get(&["a", "c"]).is_some());
    }
}
