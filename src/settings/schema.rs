//! The known keys: read off the JSON Schema that schemars derives, never kept by hand.
//!
//! Walks a tree of settings along a schema and names the first key that is unknown and the first
//! value that is not of the schema's type. It understands the part of JSON Schema that schemars
//! writes for this crate's structs and enums; ranges of values are checked by `validate`.

use super::{
    error::SettingsError,
    tree::{Node, Value},
};
use crate::text::{closest, suggestion, synonym};
use serde_json::Value as Json;

/// A schema document with its definitions.
pub(super) struct Schema {
    root: Json,
}

/// Where a layer's values come from, asked by key path and line for the words of an error.
pub(super) type Place<'a> = &'a dyn Fn(&str, usize) -> String;

/// What the checker finds in addition to errors.
#[derive(Default)]
pub(super) struct Findings {
    /// Paths at which this layer chooses another kind than the layers below: what those layers
    /// say there belongs to the old kind and must go.
    pub rechosen: Vec<Vec<String>>,
}

impl Schema {
    pub fn new(root: Json) -> Self {
        Self { root }
    }

    /// Names of the sections and keys of the first level.
    pub fn top_level(&self) -> impl Iterator<Item = &str> {
        self.root["properties"]
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys().map(String::as_str))
    }

    /// Checks one layer. `lower` gives the kind (of a tagged section at a path) that the layers
    /// below have chosen.
    pub fn check(
        &self,
        node: &Node,
        lower: &dyn Fn(&[String]) -> Option<String>,
        place: Place<'_>,
    ) -> Result<Findings, SettingsError> {
        let mut walk = Walk {
            schema: self,
            lower,
            place,
            findings: Findings::default(),
            path: Vec::new(),
        };
        walk.node(node, &self.root)?;
        Ok(walk.findings)
    }

    /// Writes values as the current version spells them: whole numbers without their point (`2.0` and `1e3`,
    /// as many YAML writers print them) where only an integer is allowed, and renamed words (`x-aliases` in
    /// the schema) by their new name.
    pub fn normalise(&self, node: &mut Node) {
        self.normalise_as(node, &self.root);
    }

    fn normalise_as(&self, node: &mut Node, schema: &Json) {
        let schema = self.resolve(schema);
        let variants = ["anyOf", "oneOf"]
            .into_iter()
            .flat_map(|key| schema[key].as_array().into_iter().flatten());
        for variant in variants {
            self.normalise_as(node, variant);
        }
        match &mut node.value {
            Value::Float(f) if types(schema).contains(&"integer") && f.fract() == 0.0 && f.abs() < 2f64.powi(53) => {
                node.value = Value::Int(*f as i64);
            }
            Value::Text(word) => {
                let aliases = schema["x-aliases"].as_array().into_iter().flatten();
                if let (true, Some(name)) = (
                    aliases.into_iter().any(|alias| alias == word.as_str()),
                    schema["const"].as_str(),
                ) {
                    *word = name.to_owned();
                }
            }
            Value::Map(entries) => {
                for (key, node) in entries {
                    let property = &schema["properties"][key.as_str()];
                    let of_any_key = &schema["additionalProperties"];
                    self.normalise_as(node, if property.is_null() { of_any_key } else { property });
                }
            }
            Value::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    let prefix = &schema["prefixItems"][i];
                    self.normalise_as(item, if prefix.is_null() { &schema["items"] } else { prefix });
                }
            }
            _ => {}
        }
    }

    /// A section that neither this schema nor `other` has.
    pub fn unknown_section(&self, other: &Self, key: &str, place: String) -> SettingsError {
        let near = closest(key, self.top_level().chain(other.top_level()))
            .map(str::to_owned)
            .or_else(|| {
                let mut all = self.all_paths();
                all.extend(other.all_paths());
                only_with_last_word(&all, key)
            });
        SettingsError::UnknownKey {
            key: key.to_owned(),
            place,
            hint: near.map_or_else(
                || {
                    format!(
                        "; the sections are {}",
                        listed(self.top_level().chain(other.top_level()))
                    )
                },
                |name| format!(", did you mean `{name}`?"),
            ),
        }
    }

    /// Follows `$ref`s inside this document.
    fn resolve<'a>(&'a self, mut schema: &'a Json) -> &'a Json {
        while let Some(target) = schema["$ref"].as_str().and_then(|r| r.strip_prefix('#')) {
            match self.root.pointer(target) {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }

    /// Every key path of the document, for suggestions across sections. Optional sections and all
    /// kinds of tagged sections included, one level of nesting into themselves.
    pub fn all_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(&self.root, &mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, schema: &Json, path: &mut Vec<String>, out: &mut Vec<String>) {
        let schema = self.resolve(schema);
        if path.len() > 4 {
            return;
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            path.push(name.clone());
            out.push(path.join("."));
            self.collect(property, path, out);
            path.pop();
        }
        for key in ["oneOf", "anyOf"] {
            for variant in schema[key].as_array().into_iter().flatten() {
                self.collect(variant, path, out);
            }
        }
    }
}

struct Walk<'a> {
    schema: &'a Schema,
    lower: &'a dyn Fn(&[String]) -> Option<String>,
    place: Place<'a>,
    findings: Findings,
    path: Vec<String>,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, schema: &Json) -> Result<(), SettingsError> {
        let schema = self.schema.resolve(schema);
        if let Some(variants) = schema["anyOf"].as_array() {
            let is_null = |s: &Json| self.schema.resolve(s)["type"] == "null";
            if node.value == Value::Null && variants.iter().any(is_null) {
                return Ok(());
            }
            // One of several forms: what is said is what the first of them misses.
            let mut first = None;
            for variant in variants.iter().filter(|v| !is_null(v)) {
                match self.node(node, variant) {
                    Ok(()) => return Ok(()),
                    Err(error) => first = first.or(Some(error)),
                }
            }
            return Err(first.unwrap_or_else(|| self.wrong(node, "left out", String::new())));
        }
        if let Some(words) = words(schema) {
            return self.word(node, &words);
        }
        if let Some(variants) = schema["oneOf"].as_array() {
            return self.tagged(node, variants);
        }
        let types = types(schema);
        if types.contains(&"null") && node.value == Value::Null {
            return Ok(());
        }
        let expected = types.iter().copied().find(|t| *t != "null");
        match (expected, &node.value) {
            (Some("object"), Value::Map(entries)) => self.object(entries, schema, &[]),
            (Some("array"), Value::List(items)) => self.list(node, items, schema),
            (Some("boolean"), Value::Bool(_)) | (Some("string"), Value::Text(_)) => Ok(()),
            (Some("integer"), Value::Int(i)) => self.integer(node, *i, schema),
            (Some("number"), Value::Int(_)) => Ok(()),
            (Some("number"), Value::Float(f)) if f.is_finite() => Ok(()),
            (None, _) => Ok(()),
            (Some(expected), _) => Err(self.wrong(node, name_of(expected, schema), String::new())),
        }
    }

    fn object(&mut self, entries: &[(String, Node)], schema: &Json, skip: &[&str]) -> Result<(), SettingsError> {
        let empty = serde_json::Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        for (key, node) in entries {
            if skip.contains(&key.as_str()) {
                continue;
            }
            // A map with keys of the user's own.
            let of_any_key = Some(&schema["additionalProperties"]).filter(|s| s.is_object() || **s == true);
            let Some(property) = properties.get(key).or(of_any_key) else {
                return Err(self.unknown(
                    key,
                    node.line,
                    &properties.keys().map(String::as_str).collect::<Vec<_>>(),
                ));
            };
            self.path.push(key.clone());
            self.node(node, property)?;
            self.path.pop();
        }
        Ok(())
    }

    fn list(&mut self, node: &Node, items: &[Node], schema: &Json) -> Result<(), SettingsError> {
        if let Some(prefix) = schema["prefixItems"].as_array() {
            if prefix.len() != items.len() {
                let expected = format!("a list of {}, like [601, 974]", prefix.len());
                return Err(self.wrong(node, &expected, String::new()));
            }
            return items
                .iter()
                .zip(prefix)
                .try_for_each(|(item, schema)| self.item(item, node, schema));
        }
        items
            .iter()
            .try_for_each(|item| self.item(item, node, &schema["items"]))
    }

    fn item(&mut self, item: &Node, list: &Node, schema: &Json) -> Result<(), SettingsError> {
        let line = if item.line == 0 { list.line } else { item.line };
        self.node(
            &Node {
                line,
                value: item.value.clone(),
            },
            schema,
        )
    }

    fn integer(&self, node: &Node, i: i64, schema: &Json) -> Result<(), SettingsError> {
        let max = match schema["format"].as_str() {
            Some("uint32") => i64::from(u32::MAX),
            Some("uint16") => i64::from(u16::MAX),
            Some("uint8") => i64::from(u8::MAX),
            _ => i64::MAX,
        };
        let min = schema["minimum"].as_i64().unwrap_or(i64::MIN);
        if i < min {
            return Err(self.wrong(node, &format!("a whole number, {min} or more"), String::new()));
        }
        if i > max {
            return Err(self.wrong(node, &format!("a whole number, {max} or less"), String::new()));
        }
        Ok(())
    }

    /// One of several words.
    fn word(&self, node: &Node, words: &[String]) -> Result<(), SettingsError> {
        let expected = one_of(words);
        match &node.value {
            Value::Text(text) if words.contains(text) => Ok(()),
            Value::Text(text) => Err(self.wrong(node, &expected, suggestion(text, words.iter().map(String::as_str)))),
            _ => Err(self.wrong(node, &expected, String::new())),
        }
    }

    /// A section whose `kind` decides which keys it has.
    fn tagged(&mut self, node: &Node, variants: &[Json]) -> Result<(), SettingsError> {
        const TAG: &str = "kind";
        let Value::Map(entries) = &node.value else {
            let hint = match &node.value {
                Value::Text(text) => format!(", write {{kind: {text}}}"),
                _ => String::new(),
            };
            return Err(self.wrong(node, "a map with `kind`", hint));
        };
        let below = (self.lower)(&self.path);
        let written = entries.iter().find(|(key, _)| key == TAG).map(|(_, node)| node);
        let kind = match written {
            Some(tag) => {
                let names: Vec<String> = variants
                    .iter()
                    .filter_map(|v| v["properties"][TAG]["const"].as_str().map(str::to_owned))
                    .collect();
                self.path.push(TAG.into());
                self.word(tag, &names)?;
                self.path.pop();
                match &tag.value {
                    Value::Text(text) => text.clone(),
                    _ => return Ok(()),
                }
            }
            None => match &below {
                Some(kind) => kind.clone(),
                None => return Err(self.wrong(node, "a map with `kind`", String::new())),
            },
        };
        if below.is_some_and(|below| below != kind) {
            self.findings.rechosen.push(self.path.clone());
        }
        let Some(variant) = variants.iter().find(|v| v["properties"][TAG]["const"] == kind.as_str()) else {
            return Ok(());
        };
        self.object(entries, variant, &[TAG]).map_err(|error| match error {
            SettingsError::UnknownKey { key, place, hint } if !hint.ends_with('?') => SettingsError::UnknownKey {
                hint: format!(", kind `{kind}` has no such setting{hint}"),
                key,
                place,
            },
            other => other,
        })
    }

    fn unknown(&self, key: &str, line: usize, siblings: &[&str]) -> SettingsError {
        let mut path = self.path.clone();
        path.push(key.to_owned());
        let full = path.join(".");
        let prefix = if self.path.is_empty() {
            String::new()
        } else {
            format!("{}.", self.path.join("."))
        };
        let near = closest(key, siblings.iter().copied()).map(|name| format!("{prefix}{name}"));
        let near = near.or_else(|| only_with_last_word(&self.schema.all_paths(), key));
        let section = self.path.join(".");
        SettingsError::UnknownKey {
            hint: match near {
                Some(name) => format!(", did you mean `{name}`?"),
                None if section.is_empty() || siblings.is_empty() => String::new(),
                None => format!("; `{section}` has {}", listed(siblings.iter().copied())),
            },
            place: (self.place)(&full, line),
            key: full,
        }
    }

    fn wrong(&self, node: &Node, expected: &str, hint: String) -> SettingsError {
        let key = if self.path.is_empty() {
            "the settings".to_owned()
        } else {
            self.path.join(".")
        };
        SettingsError::WrongType {
            place: (self.place)(&key, node.line),
            key,
            expected: expected.to_owned(),
            found: node.value.describe(),
            hint,
        }
    }
}

/// `n_heads` for `model.mtp.n_heads`: the key elsewhere, if there is one such place only.
fn only_with_last_word(paths: &[String], key: &str) -> Option<String> {
    let key = synonym(key).unwrap_or(key);
    let mut same = paths.iter().filter(|p| p.rsplit('.').next() == Some(key));
    match (same.next(), same.next()) {
        (Some(only), None) => Some(only.clone()),
        _ => None,
    }
}

/// Names in backticks, in their order, at most 24 of them.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 24;
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    match names.get(..MOST) {
        Some(first) if names.len() > MOST => format!("{} and {} more", first.join(", "), names.len() - MOST),
        _ => names.join(", "),
    }
}

/// The words of an enum without fields.
fn words(schema: &Json) -> Option<Vec<String>> {
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().map(|w| w.as_str().map(str::to_owned)).collect();
    }
    schema["oneOf"]
        .as_array()?
        .iter()
        .map(|v| v["const"].as_str().map(str::to_owned))
        .collect()
}

fn types(schema: &Json) -> Vec<&str> {
    match &schema["type"] {
        Json::String(one) => vec![one.as_str()],
        Json::Array(several) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

fn name_of<'a>(kind: &'a str, schema: &Json) -> &'a str {
    match kind {
        "object" => "a map",
        "array" if schema["prefixItems"].is_array() => "a list like [601, 974]",
        "array" => "a list like [a, b]",
        "boolean" => "true or false",
        "string" => "a text",
        "integer" if schema["minimum"] == 0 => "a whole number, 0 or more",
        "integer" => "a whole number",
        "number" => "a finite number",
        other => other,
    }
}

fn one_of(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "left out".into(),
    }
}
