//! The JSON Schema of a settings file as editors and validators understand it best.
//!
//! schemars writes a section with a `kind` as `oneOf` its kinds, for which a validator can only say
//! that none of them fits. Here the same rules stand as `if kind is X, then X's keys`, so that a
//! wrong key is named.

use serde_json::{Map, Value, json};

/// `schema` with an `$id`, and with every tagged section as a chain of `if` and `then`.
///
/// A file may leave `kind` out where another file or the built-in recipe gives it: then the keys of
/// that section are not checked.
pub fn for_editors(schema: Value, name: &str) -> Value {
    let Value::Object(fields) = by_kind(schema) else {
        return Value::Null;
    };
    let mut document = Map::new();
    let id = json!(format!("urn:wmtp:{name}"));
    document.extend(fields.get("$schema").map(|s| ("$schema".to_owned(), s.clone())));
    document.insert("$id".into(), id);
    document.extend(fields.into_iter().filter(|(key, _)| key != "$schema"));
    Value::Object(document)
}

fn by_kind(schema: Value) -> Value {
    match schema {
        Value::Object(fields) => {
            let mut fields: Map<String, Value> = fields.into_iter().map(|(k, v)| (k, by_kind(v))).collect();
            if let Some(kinds) = kinds(&fields) {
                let variants = fields.remove("oneOf").unwrap_or_default();
                let rules = kinds
                    .iter()
                    .zip(variants.as_array().into_iter().flatten())
                    .map(|(kind, variant)| {
                        let chosen = json!({"properties": {"kind": {"const": kind}}, "required": ["kind"]});
                        json!({"if": chosen, "then": variant})
                    });
                let rules: Vec<Value> = rules.collect();
                fields.insert("type".into(), "object".into());
                fields.insert("properties".into(), json!({"kind": {"enum": kinds}}));
                fields.insert("allOf".into(), rules.into());
            }
            Value::Object(fields)
        }
        Value::Array(items) => items.into_iter().map(by_kind).collect(),
        scalar => scalar,
    }
}

/// The kinds of a tagged section, if it is one.
fn kinds(fields: &Map<String, Value>) -> Option<Vec<String>> {
    let variants = fields.get("oneOf")?.as_array()?;
    let kind = |variant: &Value| variant["properties"]["kind"]["const"].as_str().map(str::to_owned);
    variants.iter().map(kind).collect()
}

#[cfg(test)]
mod tests {
    use super::for_editors;
    use serde_json::json;

    #[test]
    fn a_section_with_kinds_is_a_chain_of_rules() {
        let a =
            json!({"properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "additionalProperties": false});
        let b = json!({"properties": {"kind": {"const": "b"}}, "additionalProperties": false});
        let schema = json!({"$schema": "s", "$defs": {"S": {"description": "d", "oneOf": [a, b]}}, "properties": {}});
        let found = for_editors(schema, "recipe");
        let rule = |kind: &str, variant: &serde_json::Value| json!({"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": variant});
        let section = json!({
            "description": "d",
            "type": "object",
            "properties": {"kind": {"enum": ["a", "b"]}},
            "allOf": [rule("a", &a), rule("b", &b)],
        });
        assert_eq!(
            found,
            json!({"$schema": "s", "$id": "urn:wmtp:recipe", "$defs": {"S": section}, "properties": {}})
        );
    }

    #[test]
    fn words_stay_as_they_are() {
        let words = json!({"oneOf": [{"const": "a"}, {"const": "b"}]});
        assert_eq!(for_editors(words.clone(), "x")["oneOf"], words["oneOf"]);
    }
}
