//! Rows out of columns: lists, structs and maps by definition and repetition levels.
//!
//! The record assembly of Dremel (Melnik et al. 2010). A definition level says how many of the optional and
//! repeated parts of a column's path are there, a repetition level at which list an entry continues. Lists
//! are recognised as the Parquet format's rules for older writers demand.

use super::leaf::Leaf;
use parquet::{
    basic::{ConvertedType, LogicalType, Repetition},
    schema::types::Type,
};
use serde_json::{Map, Value};
use std::ops::Range;

/// Deepest nesting that is read.
const DEEPEST: i16 = 64;

/// How the values of a column are put together.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// A primitive column.
    Leaf(usize),
    /// A struct.
    Group {
        leaves: Range<usize>,
        /// Definition level from which it is there.
        present: i16,
        fields: Vec<(String, Node)>,
    },
    /// A list.
    List {
        leaves: Range<usize>,
        /// Definition level from which the list is there.
        present: i16,
        /// Definition level from which it has an element.
        filled: i16,
        /// Repetition level of its elements after the first.
        repetition: i16,
        element: Box<Node>,
    },
    /// A list of structs of `key` and `value`, which becomes an object.
    Map(Box<Node>),
}

/// Primitive columns below a type.
pub(super) fn width(kind: &Type) -> usize {
    match kind.is_primitive() {
        true => 1,
        false => kind.get_fields().iter().map(|field| width(field)).sum(),
    }
}

/// How often a field is there; the root of a schema has none.
fn repetition(kind: &Type) -> Option<Repetition> {
    let info = kind.get_basic_info();
    info.has_repetition().then(|| info.repetition())
}

/// Position in the schema: levels, and the next primitive column.
#[derive(Clone, Copy)]
struct Level {
    definition: i16,
    repetition: i16,
    leaf: usize,
}

impl Node {
    /// The column of this type, whose first primitive column is `leaf`.
    ///
    /// # Errors
    /// A struct without fields, or nesting that is too deep.
    pub fn of(kind: &Type, leaf: usize) -> Result<Self, String> {
        let level = Level {
            definition: 0,
            repetition: 0,
            leaf,
        };
        Self::field(kind, level)
    }

    /// A field with its repetition.
    fn field(kind: &Type, mut level: Level) -> Result<Self, String> {
        if level.definition > DEEPEST {
            return Err("is nested too deeply; flatten it".into());
        }
        match repetition(kind) {
            Some(Repetition::OPTIONAL) => level.definition += 1,
            // A list of its own, without an annotation.
            Some(Repetition::REPEATED) => return Self::list(kind, level, Self::value),
            Some(Repetition::REQUIRED) | None => {}
        }
        Self::value(kind, level)
    }

    /// A list whose elements are the repeated field `kind`, read by `element` one level deeper.
    fn list(kind: &Type, level: Level, element: fn(&Type, Level) -> Result<Self, String>) -> Result<Self, String> {
        let inner = Level {
            definition: level.definition + 1,
            repetition: level.repetition + 1,
            leaf: level.leaf,
        };
        Ok(Self::List {
            leaves: level.leaf..level.leaf + width(kind),
            present: level.definition,
            filled: inner.definition,
            repetition: inner.repetition,
            element: Box::new(element(kind, inner)?),
        })
    }

    /// What a field that is there holds.
    fn value(kind: &Type, level: Level) -> Result<Self, String> {
        if kind.is_primitive() {
            return Ok(Self::Leaf(level.leaf));
        }
        let info = kind.get_basic_info();
        let (converted, logical) = (info.converted_type(), info.logical_type_ref());
        let repeated = match kind.get_fields() {
            [only] if repetition(only) == Some(Repetition::REPEATED) => Some(only),
            _ => None,
        };
        let is_list = converted == ConvertedType::LIST || matches!(logical, Some(LogicalType::List));
        let is_map = matches!(converted, ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
            || matches!(logical, Some(LogicalType::Map));
        match repeated {
            Some(repeated) if is_list => Self::list(repeated, level, Self::element),
            Some(repeated) if is_map && repeated.is_group() && repeated.get_fields().len() == 2 => {
                Ok(Self::Map(Box::new(Self::list(repeated, level, Self::group)?)))
            }
            _ => Self::group(kind, level),
        }
    }

    /// The element of an annotated list: the repeated field itself where an older writer made it, or its only
    /// field.
    fn element(repeated: &Type, level: Level) -> Result<Self, String> {
        let [only] = (if repeated.is_primitive() {
            &[]
        } else {
            repeated.get_fields()
        }) else {
            return Self::value(repeated, level);
        };
        let nested = repetition(only) == Some(Repetition::REPEATED);
        let named = repeated.name() == "array" || repeated.name().ends_with("_tuple");
        match named && !nested {
            true => Self::value(repeated, level),
            false => Self::field(only, level),
        }
    }

    /// A struct.
    fn group(kind: &Type, level: Level) -> Result<Self, String> {
        let mut leaf = level.leaf;
        let mut fields = Vec::new();
        for field in kind.get_fields() {
            fields.push((field.name().to_owned(), Self::field(field, Level { leaf, ..level })?));
            leaf += width(field);
        }
        if leaf == level.leaf {
            return Err("has a struct without fields, which is not read; drop it".into());
        }
        Ok(Self::Group {
            leaves: level.leaf..leaf,
            present: level.definition,
            fields,
        })
    }

    /// The value of the next row, taken from the columns.
    ///
    /// # Errors
    /// Columns that do not agree with each other.
    pub fn assemble(&self, leaves: &mut [Leaf]) -> Result<Value, String> {
        match self {
            Self::Leaf(leaf) => leaves.get_mut(*leaf).ok_or("a column is absent")?.take(),
            Self::Group {
                leaves: own,
                present,
                fields,
            } => {
                if definition(leaves, own)? < *present {
                    return skip(leaves, own).map(|()| Value::Null);
                }
                let mut object = Map::new();
                for (name, node) in fields {
                    object.insert(name.clone(), node.assemble(leaves)?);
                }
                Ok(Value::Object(object))
            }
            Self::List {
                leaves: own,
                present,
                filled,
                repetition,
                element,
            } => {
                let level = definition(leaves, own)?;
                if level < *filled {
                    skip(leaves, own)?;
                    return Ok(match level < *present {
                        true => Value::Null,
                        false => Value::Array(Vec::new()),
                    });
                }
                let mut items = vec![element.assemble(leaves)?];
                while leaves.get(own.start).and_then(Leaf::repetition) == Some(*repetition) {
                    items.push(element.assemble(leaves)?);
                }
                Ok(Value::Array(items))
            }
            Self::Map(list) => Ok(match list.assemble(leaves)? {
                Value::Array(pairs) => Value::Object(pairs.into_iter().filter_map(pair).collect()),
                other => other,
            }),
        }
    }
}

/// Definition level of the next entry of the first of these columns.
fn definition(leaves: &[Leaf], own: &Range<usize>) -> Result<i16, String> {
    let level = leaves.get(own.start).and_then(Leaf::definition);
    level.ok_or_else(|| "a column has too few values".to_owned())
}

/// Passes over an entry of every column of a part that is not there.
fn skip(leaves: &mut [Leaf], own: &Range<usize>) -> Result<(), String> {
    let own = leaves.get_mut(own.clone()).unwrap_or_default();
    own.iter_mut().try_for_each(|leaf| leaf.take().map(drop))
}

/// Key and value of a map's entry.
fn pair(entry: Value) -> Option<(String, Value)> {
    let Value::Object(fields) = entry else { return None };
    let mut fields = fields.into_iter().map(|(_, value)| value);
    let key = match fields.next()? {
        Value::String(key) => key,
        other => other.to_string(),
    };
    Some((key, fields.next().unwrap_or(Value::Null)))
}
