use std::path::PathBuf;

/// Settings that can't be used: one sentence that says what, where and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A settings file could not be read.
    #[error("cannot read the settings file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, in the operating system's words.
        reason: String,
    },
    /// A text is not YAML.
    #[error("{place} is not valid YAML: {problem}")]
    Syntax {
        /// File and line, variable or flag.
        place: String,
        /// What the parser says.
        problem: String,
    },
    /// A variable of the environment that holds no text.
    #[error("the environment variable {name} is not UTF-8, and settings are text: set it again")]
    NotText {
        /// Its name.
        name: String,
    },
    /// `--set` without a key or an equals sign.
    #[error(
        "`--set {}` is not of the form key.path=value, for example --set optim.lr=1e-5",
        crate::redact::redact(text)
    )]
    BadSet {
        /// What was typed.
        text: String,
    },
    /// A key that nothing reads.
    #[error("unknown key `{key}` in {place}{hint}")]
    UnknownKey {
        /// The whole path.
        key: String,
        /// File and line, variable or flag.
        place: String,
        /// `, did you mean ...?`
        hint: String,
    },
    /// A value of the wrong type, or none of the allowed words.
    #[error("`{key}` in {place} must be {expected}, found {found}{hint}")]
    WrongType {
        /// The whole path.
        key: String,
        /// File and line, variable or flag.
        place: String,
        /// What is allowed.
        expected: String,
        /// What was there.
        found: String,
        /// `, did you mean ...?`
        hint: String,
    },
    /// A key that belongs into the other kind of file.
    #[error("`{key}` in {place} belongs into a {other} file: pass it with --{other}")]
    WrongFile {
        /// The section.
        key: String,
        /// File and line.
        place: String,
        /// `config` or `recipe`.
        other: &'static str,
    },
    /// A value of the right type that makes no sense.
    #[error("{problem}{place}")]
    Invalid {
        /// The key that is to blame.
        key: String,
        /// One sentence naming the key and what to do.
        problem: String,
        /// ` (set in ...)`; empty where nobody set it.
        place: String,
    },
    /// What figment reports beyond all of the above.
    #[error("`{key}` in {place}: {problem}")]
    Extract {
        /// The whole path.
        key: String,
        /// Where its value came from.
        place: String,
        /// The message.
        problem: String,
    },
}
