//! Rules for setting values. Each settings type states its own rules, once, and reports every violation.
//!
//! A rule names the key and says what to do; where the value was set (file and line) is added by `settings`.

use std::fmt::Display;

/// A value that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Violation {
    /// The key to blame.
    pub key: String,
    /// One sentence that names the key and says what to do.
    pub problem: String,
}

/// A settings type with rules for its values.
pub trait Validate {
    /// Adds a problem for every value that can't be used, in the order of the fields.
    fn check(&self, check: &mut Check);

    /// Every problem, with keys relative to this type; empty if usable.
    fn validate(&self) -> Vec<Violation> {
        Check::of("", |check| self.check(check))
    }

    /// The first problem of the section `name`, as an error: for constructors that take the section.
    ///
    /// # Errors
    /// [`Violation`] for a value that can't be used.
    fn check_section(&self, name: &str) -> Result<(), Violation> {
        let problems = Check::of(name, |check| self.check(check));
        problems.into_iter().next().map_or(Ok(()), Err)
    }
}

/// Collects the problems of a section and of those inside it.
#[derive(Debug, Default)]
pub struct Check {
    section: String,
    problems: Vec<Violation>,
}

impl Check {
    /// The problems that `rules` finds in the section `name`.
    pub fn of(name: &str, rules: impl FnOnce(&mut Self)) -> Vec<Violation> {
        let mut check = Self {
            section: name.to_owned(),
            problems: Vec::new(),
        };
        rules(&mut check);
        check.problems
    }

    /// Checks a section inside this one.
    pub fn section(&mut self, name: &str, settings: &impl Validate) {
        self.within(name, |check| settings.check(check));
    }

    /// Checks rules of a section inside this one.
    pub fn within(&mut self, name: &str, rules: impl FnOnce(&mut Self)) {
        let inner = Self::of(&self.path(name), rules);
        self.problems.extend(inner);
    }

    /// Where `bad`, a problem of `key`: its name followed by `rule`.
    pub fn when(&mut self, bad: bool, key: &str, rule: impl Display) {
        if bad {
            self.say(key, format!(" {rule}"));
        }
    }

    /// A problem of `key`: its name directly followed by `rest`.
    pub fn say(&mut self, key: &str, rest: impl Display) {
        let key = self.path(key);
        let problem = format!("`{key}`{rest}");
        self.problems.push(Violation { key, problem });
    }

    fn path(&self, key: &str) -> String {
        match self.section.as_str() {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        }
    }
}

/// Above 0 and finite.
pub fn positive(x: f64) -> bool {
    x > 0.0 && x.is_finite()
}

/// 0 or more, and finite.
pub fn non_negative(x: f64) -> bool {
    x >= 0.0 && x.is_finite()
}

/// 0 to 1.
pub fn in_unit(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

/// Above 0, at most 1.
pub fn in_half_open(x: f64) -> bool {
    x > 0.0 && x <= 1.0
}

/// Missing, or nothing but white space.
pub fn blank(text: Option<&str>) -> bool {
    text.is_none_or(|text| text.trim().is_empty())
}

/// The rule for tags.
pub const NAMELESS: &str = "must hold tags with a name: write `NAME` or `NAME=VALUE` (is a shell variable empty?)";

/// Whether one of `tags`, each `NAME=VALUE` or `NAME`, lacks its name.
pub fn has_nameless(tags: &[String]) -> bool {
    tags.iter().any(|tag| blank(tag.split('=').next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Inner(f64);

    impl Validate for Inner {
        fn check(&self, check: &mut Check) {
            check.when(!positive(self.0), "lr", "must be above 0");
        }
    }

    struct Outer(Inner);

    impl Validate for Outer {
        fn check(&self, check: &mut Check) {
            check.section("optim", &self.0);
            check.say("seed", ": not a number");
        }
    }

    #[test]
    fn every_problem_is_listed_under_its_whole_key() {
        let problems = Outer(Inner(-1.0)).validate();
        let texts: Vec<&str> = problems.iter().map(|problem| problem.problem.as_str()).collect();
        assert_eq!(texts, ["`optim.lr` must be above 0", "`seed`: not a number"]);
        assert_eq!(problems[0].key, "optim.lr");
        assert_eq!(Inner(-1.0).check_section("optim"), Err(problems[0].clone()));
        assert_eq!(Inner(1.0).check_section("optim"), Ok(()));
    }

    #[test]
    fn numbers_that_are_none_are_never_in_range() {
        for x in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(
                !positive(x) && !non_negative(x) && !in_unit(x) && !in_half_open(x),
                "{x}"
            );
        }
        assert!(non_negative(0.0) && in_unit(0.0) && !in_half_open(0.0) && !positive(0.0));
    }
}
