//! The date that `strftime_now` gives: one day, so that a training run repeats.

use super::value::Fallible;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use std::time::SystemTime;

/// A day of the Gregorian calendar, of the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock(Date);

impl Clock {
    /// The first of January 1970.
    pub const EPOCH: Self = Self(jiff::civil::date(1970, 1, 1));

    /// Today in this machine's time zone; 9999-12-31 at the latest, whatever the system's clock says.
    pub fn today() -> Self {
        // jiff's own `now` panics beyond the years that it knows.
        let now = Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX);
        Self(now.to_zoned(TimeZone::system()).date())
    }

    /// Reads `2026-07-26`.
    pub fn parse(text: &str) -> Option<Self> {
        let date: Date = text.parse().ok()?;
        let clock = Self(date);
        (date.year() > 0 && clock.to_string() == text).then_some(clock)
    }

    /// `strftime` in the C locale. What depends on the time of day or the time zone is refused.
    pub fn format(&self, format: &str) -> Fallible<String> {
        let mut translated = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            translated.push(c);
            if c != '%' {
                continue;
            }
            let mut directive = chars.next();
            if directive == Some('-') {
                translated.push('-');
                directive = chars.next().filter(|c| "ymdej".contains(*c));
            }
            match directive {
                // C does not fill the year.
                Some('Y') => translated.push_str("-Y"),
                Some('x') => translated.push('D'),
                Some(c) if "ymdejBbhAawuFD%".contains(c) => translated.push(c),
                other => {
                    let directive = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "`strftime_now` with `%{directive}` is not supported: only the date is known, not the time"
                    ));
                }
            }
        }
        jiff::fmt::strtime::format(&translated, self.0).map_err(|error| error.to_string())
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), self.0.month(), self.0.day())
    }
}
