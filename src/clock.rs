//! The time of day. Nothing else here asks jiff for it: its `now` panics where the system's clock is beyond the years
//! that it knows, and a wrong clock must not end a run.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use std::time::{SystemTime, UNIX_EPOCH};

/// Now. A clock beyond the years -9999 to 9999 gives the nearest time within them.
pub fn now() -> Timestamp {
    nearest(SystemTime::now())
}

/// The same in this machine's time zone.
pub fn local() -> Zoned {
    now().to_zoned(TimeZone::system())
}

fn nearest(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(match time < UNIX_EPOCH {
        true => Timestamp::MIN,
        false => Timestamp::MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_of_any_year_gives_a_time() {
        let years = |years: u64| Duration::from_secs(years * 31_556_952);
        let at = |time: SystemTime| nearest(time).to_zoned(TimeZone::UTC).year();
        assert_eq!(at(UNIX_EPOCH + Duration::from_secs(1_785_000_000)), 2026);
        assert_eq!(at(UNIX_EPOCH + years(20_000)), 9999);
        assert_eq!(at(UNIX_EPOCH - years(20_000)), -9999);
        // In every time zone, too.
        let east = TimeZone::fixed(jiff::tz::offset(14));
        assert_eq!(nearest(UNIX_EPOCH + years(20_000)).to_zoned(east).year(), 9999);
    }
}
