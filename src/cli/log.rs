//! Log lines on standard error. No secret is in any of them, whatever level of whatever library is asked for.

use std::io::{self, IsTerminal, Write};
use tracing::Metadata;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Libraries whose lines show whole credentials, also those that come from files.
const SHOW_CREDENTIALS: &str = "reqsign";
/// What the name of a variable has in it whose value is a secret.
const SECRET: [&str; 6] = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "ACCESS_KEY"];
/// Shorter values are no secrets, and would blot out other words.
const SHORTEST: usize = 6;

/// `WMTP_LOG` filters them as `RUST_LOG` does elsewhere.
pub(super) fn to_stderr(verbose: bool) {
    let default = if verbose { "warn,wmtp=debug" } else { "error,wmtp=info" };
    let filter = EnvFilter::try_from_env("WMTP_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = fmt::layer()
        .with_writer(Redacting(secrets(std::env::vars_os())))
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time();
    // A second call (in a test) keeps the first one's subscriber.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter).with_filter(filter_fn(is_safe)))
        .try_init();
}

fn is_safe(line: &Metadata<'_>) -> bool {
    !line.target().starts_with(SHOW_CREDENTIALS)
}

/// The values of variables that are secrets, the longest first, so that none hides a part of another.
fn secrets<N: AsRef<std::ffi::OsStr>>(variables: impl Iterator<Item = (N, N)>) -> Vec<String> {
    let mut found: Vec<String> = variables
        .filter(|(name, _)| {
            let name = name.as_ref().to_string_lossy().to_uppercase();
            SECRET.iter().any(|word| name.contains(word))
        })
        .filter_map(|(_, value)| value.as_ref().to_str().map(str::to_owned))
        .filter(|value| value.len() >= SHORTEST)
        .collect();
    found.sort_by_key(|value| std::cmp::Reverse(value.len()));
    found
}

/// Writes to standard error without these texts. Where that is gone, lines are too.
struct Redacting(Vec<String>);

impl<'a> MakeWriter<'a> for Redacting {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// A line, which the layer writes at once.
struct Line<'a>(&'a [String]);

impl Line<'_> {
    fn without_secrets(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.iter().fold(text, |text, secret| text.replace(secret, "***"))
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(self.without_secrets(bytes).as_bytes());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_variables_are_left_out() {
        let variables = [
            ("AWS_SECRET_ACCESS_KEY", "abcdefgh"),
            ("AWS_SESSION_TOKEN", "abcdefghij"),
            ("MLFLOW_TRACKING_PASSWORD", "short"),
            ("HF_TOKEN", "hf_123456"),
            ("HOME", "/home/somebody"),
        ];
        let secrets = secrets(variables.into_iter());
        assert_eq!(secrets, ["abcdefghij", "hf_123456", "abcdefgh"]);
        let line = Line(&secrets).without_secrets(b"abcdefghij abcdefgh: hf_123456 short /home/somebody\n");
        assert_eq!(line, "*** ***: *** short /home/somebody\n");
    }
}
