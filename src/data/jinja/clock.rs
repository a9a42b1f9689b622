//! The date that `strftime_now` gives: one day, so that a training run repeats.

use super::value::Fallible;

/// A day of the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    year: i32,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Clock {
    /// The first of January 1970.
    pub const EPOCH: Self = Self {
        year: 1970,
        month: 1,
        day: 1,
    };

    /// Today in this machine's time zone.
    pub fn today() -> Self {
        let now = jiff::Zoned::now();
        Self::new(i32::from(now.year()), now.month() as u32, now.day() as u32).unwrap_or(Self::EPOCH)
    }

    /// A day, if it is one: year 1 to 9999.
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let valid = (1..=9999).contains(&year) && (1..=12).contains(&month);
        (valid && (1..=length(year, month)).contains(&day)).then_some(Self { year, month, day })
    }

    /// Reads `2026-07-26`.
    pub fn parse(text: &str) -> Option<Self> {
        let well = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let mut parts = text.split('-').filter(|_| well);
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || year.len() != 4 || month.len() != 2 {
            return None;
        }
        Self::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
    }

    /// Days before this one in its year.
    fn day_of_year(&self) -> u32 {
        (1..self.month).map(|month| length(self.year, month)).sum::<u32>() + self.day - 1
    }

    /// 0 is Sunday.
    fn weekday(&self) -> u32 {
        let before = self.year - 1;
        let days = before * 365 + before / 4 - before / 100 + before / 400;
        // The first of January of year 1 was a Monday.
        (days as u32 + self.day_of_year() + 1) % 7
    }

    /// `strftime` in the C locale. What depends on the time of day or the time zone is refused.
    pub fn format(&self, format: &str) -> Fallible<String> {
        let mut out = String::new();
        let mut chars = format.chars();
        let pick = |names: &[&str], at: u32| names.get(at as usize).copied().unwrap_or_default().to_owned();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let bare = directive == Some('-');
            if bare {
                directive = chars.next();
            }
            let padded = |number: u32, width: usize| {
                if bare {
                    number.to_string()
                } else {
                    format!("{number:0width$}")
                }
            };
            let short = |name: String| name.chars().take(3).collect::<String>();
            let year = self.year;
            out.push_str(&match directive {
                Some('Y') => year.to_string(),
                Some('y') => padded((year % 100) as u32, 2),
                Some('m') => padded(self.month, 2),
                Some('d') => padded(self.day, 2),
                Some('e') if bare => self.day.to_string(),
                Some('e') => format!("{:2}", self.day),
                Some('j') => padded(self.day_of_year() + 1, 3),
                Some('B') => pick(&MONTHS, self.month - 1),
                Some('b' | 'h') => short(pick(&MONTHS, self.month - 1)),
                Some('A') => pick(&DAYS, self.weekday()),
                Some('a') => short(pick(&DAYS, self.weekday())),
                Some('w') => self.weekday().to_string(),
                Some('u') => (if self.weekday() == 0 { 7 } else { self.weekday() }).to_string(),
                Some('F') => self.to_string(),
                Some('D' | 'x') => format!("{:02}/{:02}/{:02}", self.month, self.day, year % 100),
                Some('%') => "%".into(),
                other => {
                    let directive = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "`strftime_now` with `%{directive}` is not supported: only the date is known, not the time"
                    ));
                }
            });
        }
        Ok(out)
    }
}

impl std::fmt::Display for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

fn length(year: i32, month: u32) -> u32 {
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
