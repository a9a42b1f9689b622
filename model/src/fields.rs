//! Typed access to a JSON object that collects every complaint instead of stopping at the first.

use serde_json::{Map, Value};

/// A JSON object being read, and what was found wrong with it so far.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    prefix: &'static str,
    /// One sentence for each thing that is wrong.
    pub(crate) problems: Vec<String>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self {
            map,
            prefix: "",
            problems: Vec::new(),
        }
    }

    /// The fields of an inner object; `prefix` (with its dot) stands before names in messages.
    pub(crate) fn within(map: &'a Map<String, Value>, prefix: &'static str) -> Self {
        Self {
            map,
            prefix,
            problems: Vec::new(),
        }
    }

    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// The value, unless it is absent or null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Whether it is there and null.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// A non-negative integer; 0 with a problem noted where it is missing without a default or wrong.
    pub(crate) fn size(&mut self, name: &str, default: Option<usize>) -> usize {
        self.typed(name, default, "a whole number", |value| {
            value.as_u64().and_then(|size| usize::try_from(size).ok())
        })
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &str, default: Option<f64>) -> f64 {
        self.typed(name, default, "a number", Value::as_f64)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str, default: bool) -> bool {
        self.typed(name, Some(default), "true or false", Value::as_bool)
    }

    /// One token id or a list of them. Absent means `default`, null means none.
    pub(crate) fn tokens(&mut self, name: &str, default: &[u32]) -> Vec<u32> {
        if self.is_null(name) {
            return Vec::new();
        }
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        self.typed(
            name,
            Some(default.to_vec()),
            "a token id or a list of them",
            |value| match value {
                Value::Array(ids) => ids.iter().map(id).collect(),
                single => id(single).map(|id| vec![id]),
            },
        )
    }

    /// An inner object, unless absent or null.
    pub(crate) fn object(&mut self, name: &str) -> Option<&'a Map<String, Value>> {
        match self.get(name)? {
            Value::Object(map) => Some(map),
            other => {
                self.wrong(name, "an object", other);
                None
            }
        }
    }

    fn typed<T: Default>(
        &mut self,
        name: &str,
        default: Option<T>,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> T {
        match (self.get(name), default) {
            (Some(value), _) => read(value).unwrap_or_else(|| {
                self.wrong(name, kind, value);
                T::default()
            }),
            (None, Some(default)) => default,
            (None, None) => {
                self.problem(format!("`{}{name}` is missing, it must be {kind}", self.prefix));
                T::default()
            }
        }
    }

    fn wrong(&mut self, name: &str, kind: &str, value: &Value) {
        self.problem(format!("`{}{name}` is {value}, it must be {kind}", self.prefix));
    }
}
