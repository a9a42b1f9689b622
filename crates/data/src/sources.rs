//! `data.source`: one source, or several that are mixed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Where training data come from: a name, or a list of sources with weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Sources {
    /// `builtin:NAME`, a file, a directory, a pattern, a URI, or `none`.
    One(String),
    /// Several, mixed.
    Mixed(Vec<Part>),
}

/// One source of a mix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// As a single `data.source`, but neither `none` nor MBPP's own files.
    pub source: String,
    /// How much of it each epoch holds, relative to all of it: 0.5 a half, drawn anew each epoch; 2 everything
    /// twice.
    #[serde(default = "one")]
    pub weight: f64,
    /// The split that is trained on; `data.split` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Names of its columns; `data.columns` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<BTreeMap<String, String>>,
}

fn one() -> f64 {
    1.0
}

impl Sources {
    /// The sources' names, in order.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::One(name) => vec![name],
            Self::Mixed(parts) => parts.iter().map(|part| part.source.as_str()).collect(),
        }
    }

    /// The name, if it is one source.
    pub fn one(&self) -> Option<&str> {
        match self {
            Self::One(name) => Some(name),
            Self::Mixed(_) => None,
        }
    }

    /// The same with each name replaced.
    ///
    /// # Errors
    /// The first that `replace` gives.
    pub fn try_map<E>(&self, mut replace: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        Ok(match self {
            Self::One(name) => Self::One(replace(name)?),
            Self::Mixed(parts) => Self::Mixed(
                parts
                    .iter()
                    .map(|part| {
                        Ok(Part {
                            source: replace(&part.source)?,
                            ..part.clone()
                        })
                    })
                    .collect::<Result<_, E>>()?,
            ),
        })
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self::One(String::new())
    }
}

impl From<&str> for Sources {
    fn from(name: &str) -> Self {
        Self::One(name.to_owned())
    }
}

impl PartialEq<str> for Sources {
    fn eq(&self, name: &str) -> bool {
        self.one() == Some(name)
    }
}

/// The names, separated by `+`.
impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join("+"))
    }
}
