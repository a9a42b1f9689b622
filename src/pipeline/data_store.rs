//! Where tokenised data are kept, and what people see while data are tokenised.

use crate::{
    data::{CacheEvent, TokenCache},
    stop::Stop,
    train::Progress,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Time between two lines about progress.
const EVERY: Duration = Duration::from_secs(5);

/// The cache directory, and where messages go.
#[derive(Clone)]
pub struct DataStore {
    cache: PathBuf,
    progress: Arc<dyn Progress>,
    stop: Stop,
}

impl DataStore {
    /// Below `cache` (`paths.cache`). Who asks `stop` ends tokenising.
    pub fn new(cache: PathBuf, progress: Arc<dyn Progress>, stop: Stop) -> Self {
        Self { cache, progress, stop }
    }

    /// Hands the token cache to `read`, and shows what happens.
    pub fn with<T>(&self, read: impl FnOnce(&TokenCache<'_>) -> T) -> T {
        let started = Instant::now();
        let shown = Mutex::new(started);
        let report = |event: CacheEvent<'_>| {
            let is_due = {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let is_due = !matches!(event, CacheEvent::Tokenized { .. }) || shown.elapsed() >= EVERY;
                if is_due {
                    *shown = Instant::now();
                }
                is_due
            };
            if is_due {
                self.show(event, started.elapsed());
            }
        };
        read(&TokenCache::below(&self.cache, &report).with_stop(&|| self.stop.is_asked()))
    }

    fn show(&self, event: CacheEvent<'_>, elapsed: Duration) {
        match event {
            CacheEvent::Damaged { .. } => self.progress.warning(&sentence(event, elapsed)),
            _ => self.progress.message(&sentence(event, elapsed)),
        }
    }
}

/// What happened, for people.
fn sentence(event: CacheEvent<'_>, elapsed: Duration) -> String {
    match event {
        CacheEvent::Tokenized { rows, of, tokens } => {
            let of = of.map_or(String::new(), |of| {
                let share = rows as f64 / of.max(1) as f64;
                format!(" of {of} ({:.0}%)", 100.0 * share)
            });
            format!(
                "tokenising: {rows}{of} rows, {:.1} million tokens, {:.2} million a second",
                tokens as f64 / 1e6,
                tokens as f64 / 1e6 / elapsed.as_secs_f64().max(1e-9)
            )
        }
        CacheEvent::Begun(dir) => format!(
            "the tokens are more than {} MiB: they are written to `{}`",
            TokenCache::MEMORY >> 20,
            dir.display()
        ),
        CacheEvent::Waiting(dir) => format!("another process writes the token cache `{}`; waiting", dir.display()),
        CacheEvent::Damaged { dir, problem } => {
            format!("the token cache `{}` {problem}; it is made anew", dir.display())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn progress_has_rows_share_and_speed() {
        let of = |of| CacheEvent::Tokenized {
            rows: 500,
            of,
            tokens: 3_000_000,
        };
        let after = Duration::from_secs(2);
        assert_eq!(
            sentence(of(Some(2000)), after),
            "tokenising: 500 of 2000 (25%) rows, 3.0 million tokens, 1.50 million a second"
        );
        assert_eq!(
            sentence(of(None), after),
            "tokenising: 500 rows, 3.0 million tokens, 1.50 million a second"
        );
        assert_eq!(
            sentence(CacheEvent::Begun(Path::new("/c/tokens/k")), after),
            "the tokens are more than 64 MiB: they are written to `/c/tokens/k`"
        );
    }
}
