//! Text for people: durations and shortened values.

/// `3.2 s`, `60 s`, `3 min 20 s`, `2 h 2 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..=119 => format!("{s} s"),
        120..=7199 => format!("{} min {} s", s / 60, s % 60),
        _ => format!("{} h {} min", s / 3600, s % 3600 / 60),
    }
}

/// At most `most` characters of a text; `...` marks what was cut off.
pub fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let shown = [3.21, 59.6, 200.0, 7325.0].map(duration);
        assert_eq!(shown, ["3.2 s", "60 s", "3 min 20 s", "2 h 2 min"]);
    }

    #[test]
    fn only_a_longer_text_is_cut() {
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten("äöüß", 3), "äöü...");
    }
}
