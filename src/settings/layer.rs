//! One source of settings: the defaults, a built-in recipe, a file, a variable, `--set` or a flag.

use super::{
    error::SettingsError,
    schema::Schema,
    tree::{Node, Value},
};
use figment::{
    Error, Metadata, Profile, Provider,
    value::{Dict, Map},
};
use std::path::{Path, PathBuf};

/// Names starting with `WMTP_` that are no settings: the log filter, the commit and the target that the
/// build script names (cargo hands them to `cargo run` and `cargo test`, too), who to end with, and what a
/// test asks for.
pub const RESERVED_VARIABLES: &[&str] = &[
    "WMTP_LOG",
    "WMTP_COMMIT",
    "WMTP_TARGET",
    "WMTP_GEMM",
    crate::stop::STOP_AT_EOF,
    "WMTP_SMOLLM2_DIR",
    "WMTP_SMOLLM2_REFERENCE",
    "WMTP_TEST_ADAPTER",
    "WMTP_TEST_S3_ENDPOINT",
    "WMTP_TEST_MLFLOW_URI",
    "WMTP_TEST_PYTHON",
];

/// The models that are made with random weights; every other one is loaded.
const RANDOM: [&str; 2] = ["builtin:micro", WORLD];
/// The small world: a model with random weights, and data.
const WORLD: &str = "builtin:world";

/// The settings, as `--recipe` would read them.
const RANDOM_RECIPE: &str = include_str!("../../configs/recipe.random-weights.yaml");

/// Whether `model.base` names a model with random weights.
pub fn has_random_weights(base: &str) -> bool {
    RANDOM.contains(&base.trim())
}

/// Where values come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    Defaults,
    Builtin(String),
    File(PathBuf),
    Variable(String),
    Set(String),
    Flag(String),
}

impl Origin {
    /// For people: `configs/x.yaml line 12`, `--set optim.lr=-1`.
    pub fn place(&self, line: usize) -> String {
        match self {
            Self::Defaults => "the defaults".into(),
            Self::Builtin(name) => format!("the built-in recipe {name}"),
            Self::File(path) if line > 0 => format!("{} line {line}", path.display()),
            Self::File(path) => path.display().to_string(),
            Self::Variable(name) => format!("the environment variable {name}"),
            Self::Set(text) => format!("--set {}", crate::redact::redact(text)),
            Self::Flag(name) => name.clone(),
        }
    }
}

/// A source and its values.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub origin: Origin,
    pub root: Node,
}

impl Layer {
    /// The defaults for random weights, if that is what the last of `layers` that names a model names.
    pub fn of_random_weights(layers: &[Self]) -> Result<Option<Self>, SettingsError> {
        let base = layers
            .iter()
            .rev()
            .find_map(|layer| match &layer.root.get(&["model", "base"])?.value {
                Value::Text(base) => Some(base.as_str()),
                _ => None,
            });
        if base.is_some_and(has_random_weights) {
            Self::text(Origin::Builtin("random-weights".into()), RANDOM_RECIPE).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether `layers` leave the choice of model and data, or choose the small world themselves.
    pub fn leave_the_world(layers: &[Self]) -> bool {
        let is_other = |keys: &[&str]| {
            let last = layers.iter().rev().find_map(|layer| layer.root.get(keys));
            last.is_some_and(|node| !matches!(&node.value, Value::Text(name) if name.trim() == WORLD))
        };
        !is_other(&["model", "base"]) && !is_other(&["data", "source"])
    }

    pub fn file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|e| SettingsError::Unreadable {
            path: path.to_owned(),
            reason: reason(&e),
        })?;
        Self::text(Origin::File(path.to_owned()), &text)
    }

    pub fn text(origin: Origin, text: &str) -> Result<Self, SettingsError> {
        let root = Node::parse_document(text).map_err(|bad| SettingsError::Syntax {
            place: origin.place(bad.line),
            problem: bad.problem,
        })?;
        Ok(Self { origin, root })
    }

    /// `key.path=value`.
    pub fn set(text: &str) -> Result<Self, SettingsError> {
        let bad = || SettingsError::BadSet { text: text.to_owned() };
        let (path, value) = text.split_once('=').ok_or_else(bad)?;
        let keys: Vec<&str> = path.trim().split('.').collect();
        if keys
            .iter()
            .any(|key| key.is_empty() || key.chars().any(char::is_whitespace))
        {
            return Err(bad());
        }
        Self::value(Origin::Set(text.to_owned()), &keys, value)
    }

    /// `WMTP_OPTIM__LR=1e-5`; None for a name that is no setting.
    pub fn variable(name: &str, value: &str) -> Result<Option<Self>, SettingsError> {
        let Some(path) = name
            .strip_prefix("WMTP_")
            .filter(|_| !RESERVED_VARIABLES.contains(&name))
        else {
            return Ok(None);
        };
        let path = path.to_ascii_lowercase();
        let keys: Vec<&str> = path.split("__").collect();
        Self::value(Origin::Variable(name.to_owned()), &keys, value).map(Some)
    }

    /// A flag of the command line that stands for a key; `value` is taken as it is.
    pub fn flag(flag: &str, path: &str, value: Value) -> Self {
        let keys: Vec<&str> = path.split('.').collect();
        Self {
            origin: Origin::Flag(flag.to_owned()),
            root: Node::nested(&keys, Node::plain(value)),
        }
    }

    fn value(origin: Origin, keys: &[&str], value: &str) -> Result<Self, SettingsError> {
        let node = Node::parse_value(value).map_err(|bad| SettingsError::Syntax {
            place: origin.place(0),
            problem: bad.problem,
        })?;
        Ok(Self {
            root: Node::nested(keys, node),
            origin,
        })
    }

    /// The sections that `schema` knows, as a layer of their own.
    pub fn part(&self, schema: &Schema) -> Self {
        let known: Vec<&str> = schema.top_level().collect();
        let value = match &self.root.value {
            Value::Map(entries) => Value::Map(
                entries
                    .iter()
                    .filter(|(key, _)| known.contains(&key.as_str()))
                    .cloned()
                    .collect(),
            ),
            other => other.clone(),
        };
        Self {
            origin: self.origin.clone(),
            root: Node {
                line: self.root.line,
                value,
            },
        }
    }

    /// Where this layer sets `path`, or the nearest thing above it.
    pub fn place_of(&self, path: &[&str]) -> Option<String> {
        self.root.get(path).map(|node| self.origin.place(node.line))
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.place(0))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Map::from([(Profile::Default, self.root.to_dict())]))
    }
}

/// The operating system's words without its error number.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        std::io::ErrorKind::IsADirectory => "it is a directory".into(),
        _ => error.to_string(),
    }
}
