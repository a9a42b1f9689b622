//! Files of problems that are built in, and whether a file elsewhere has the same rows: a score on other rows
//! is another score.

use std::{collections::BTreeMap, path::Path};
use wmtp_data::DataError;

/// A file of a benchmark, as shipped.
#[derive(Clone, Copy)]
pub(super) struct Shipped {
    /// The benchmark's name.
    pub benchmark: &'static str,
    /// The file's name, in a directory too.
    pub file: &'static str,
    pub text: &'static str,
}

impl Shipped {
    /// Name and text of the file in `source`: `builtin:` and the benchmark's name, or a directory.
    ///
    /// # Errors
    /// Another built-in name; a file that cannot be read.
    pub fn read(&self, source: &str) -> Result<(String, String), DataError> {
        match source.strip_prefix("builtin:") {
            Some(name) if name == self.benchmark => Ok((format!("{source}/{}", self.file), self.text.to_owned())),
            Some(other) => Err(DataError::UnknownBuiltin {
                name: other.to_owned(),
                known: self.benchmark.to_owned(),
            }),
            None => {
                let path = Path::new(source).join(self.file);
                match std::fs::read_to_string(&path) {
                    Ok(text) => Ok((path.display().to_string(), text)),
                    Err(source) => Err(DataError::Read { path, source }),
                }
            }
        }
    }

    /// The rows of the file in `source`, which have to be the shipped ones unless `altered` ones are allowed.
    ///
    /// # Errors
    /// As [`Shipped::read`] and `parse`; [`DataError::Altered`].
    pub fn load<T: PartialEq>(
        &self,
        source: &str,
        altered: bool,
        parse: impl Fn(&str, &str) -> Result<Vec<T>, DataError>,
        name: impl Fn(&T) -> String,
    ) -> Result<Vec<T>, DataError> {
        let (file, text) = self.read(source)?;
        let rows = parse(&file, &text)?;
        if !altered && !source.starts_with("builtin:") {
            check(&file, &rows, &parse(self.benchmark, self.text)?, name)?;
        }
        Ok(rows)
    }
}

/// Compares rows by name with the shipped ones.
///
/// # Errors
/// [`DataError::Altered`], which names the rows that are missing, altered or too many.
pub(super) fn check<T: PartialEq>(
    file: &str,
    rows: &[T],
    known: &[T],
    name: impl Fn(&T) -> String,
) -> Result<(), DataError> {
    let mut left: BTreeMap<String, &T> = known.iter().map(|row| (name(row), row)).collect();
    let (mut altered, mut surplus) = (Vec::new(), Vec::new());
    for row in rows {
        match left.remove(&name(row)) {
            Some(same) if same == row => {}
            Some(_) => altered.push(name(row)),
            None => surplus.push(name(row)),
        }
    }
    let missing: Vec<String> = known.iter().map(&name).filter(|row| left.contains_key(row)).collect();
    let findings: Vec<String> = [
        ("lacks", missing),
        ("has an altered", altered),
        ("has an unknown", surplus),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what} {}", shortened(&names)))
    .collect();
    if findings.is_empty() {
        return Ok(());
    }
    Err(DataError::Altered {
        file: file.to_owned(),
        findings: findings.join(", "),
    })
}

/// The first names, and how many more.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let first: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(rows: &[(u32, &str)], known: &[(u32, &str)]) -> Result<(), String> {
        check("f.jsonl", rows, known, |(id, _)| format!("Task/{id}")).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_in_another_order_are_the_same_set() {
        assert_eq!(compare(&[(2, "b"), (1, "a")], &[(1, "a"), (2, "b")]), Ok(()));
    }

    #[test]
    fn what_is_missing_altered_or_too_many_is_named() {
        let error = compare(&[(1, "a"), (2, "x"), (4, "d")], &[(1, "a"), (2, "b"), (3, "c")]).unwrap_err();
        for part in ["f.jsonl", "lacks Task/3", "an altered Task/2", "an unknown Task/4"] {
            assert!(error.contains(part), "{error}");
        }
        let known: Vec<(u32, &str)> = (0..20).map(|id| (id, "")).collect();
        let error = compare(&[], &known).unwrap_err();
        assert!(error.contains("Task/7 and 12 more"), "{error}");
    }
}
