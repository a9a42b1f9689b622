//! Lists of tensors in error messages: a count first, then the first few names on a line each.

use std::collections::BTreeSet;

use crate::names::TensorSpec;

/// Names of one kind that an error shows, so that it fits a screen; the others are counted.
const SHOWN: usize = 8;

/// What is wrong with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It should be there.
    Missing,
    /// Nothing uses it.
    Surplus,
    /// It has other dimensions than the configuration says.
    Shape,
    /// It is not stored as F32, F16 or BF16.
    Type,
}

impl Finding {
    fn of(self, count: usize) -> &'static str {
        match (self, count) {
            (Self::Missing, 1) => "is missing",
            (Self::Missing, _) => "are missing",
            (Self::Surplus, 1) => "is surplus",
            (Self::Surplus, _) => "are surplus",
            (Self::Shape, 1) => "has another shape",
            (Self::Shape, _) => "have another shape",
            (Self::Type, 1) => "has another type",
            (Self::Type, _) => "have another type",
        }
    }
}

/// One entry for an error's list: a sentence for one tensor, else their number and the first names.
/// `why` is what a reader has to know of all of them, or empty. None for no tensors.
pub(crate) fn listed(finding: Finding, why: &str, tensors: &[String]) -> Option<String> {
    let said = finding.of(tensors.len());
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    match tensors {
        [] => None,
        [one] => Some(format!("{one} {said}{why}")),
        many => {
            let mut text = format!("{} tensors {said}{why}", many.len());
            for tensor in many.iter().take(SHOWN) {
                text += &format!("\n      {tensor}");
            }
            if many.len() > SHOWN {
                text += &format!("\n      and {} more", many.len() - SHOWN);
            }
            Some(text)
        }
    }
}

/// The surplus names among `stored`; those that `passes` accepts are left out.
pub(crate) fn surplus<'a>(
    stored: impl Iterator<Item = &'a str>,
    expected: &[TensorSpec],
    passes: impl Fn(&str) -> bool,
) -> Vec<String> {
    let known: BTreeSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
    stored
        .filter(|name| !known.contains(name) && !passes(name))
        .map(|name| format!("`{name}`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tensor_is_a_sentence_and_many_are_counted_and_cut() {
        let names = |n: usize| (0..n).map(|i| format!("`{i}`")).collect::<Vec<_>>();
        assert_eq!(listed(Finding::Missing, "", &[]), None);
        assert_eq!(listed(Finding::Missing, "", &names(1)).unwrap(), "`0` is missing");
        let two = listed(Finding::Surplus, "no part uses them", &names(2)).unwrap();
        assert_eq!(two, "2 tensors are surplus: no part uses them\n      `0`\n      `1`");
        let many = listed(Finding::Shape, "", &names(272)).unwrap();
        assert_eq!(many.lines().count(), 10);
        assert!(many.starts_with("272 tensors have another shape\n") && many.ends_with("and 264 more"));
    }
}
