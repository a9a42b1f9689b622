//! Text for people: "did you mean", durations and shortened values.

/// Names that other trainers use, with ours.
const SYNONYMS: &[(&str, &str)] = &[
    ("learning_rate", "lr"),
    ("max_length", "seq_len"),
    ("max_seq_length", "seq_len"),
    ("cutoff_len", "seq_len"),
    ("sequence_len", "seq_len"),
    ("num_train_epochs", "epochs"),
    ("num_epochs", "epochs"),
    ("max_steps", "steps"),
    ("per_device_train_batch_size", "micro_batch"),
    ("micro_batch_size", "micro_batch"),
    ("batch_size", "micro_batch"),
    ("gradient_accumulation_steps", "accumulate"),
    ("max_grad_norm", "clip_norm"),
    ("warmup_ratio", "warmup"),
    ("adam_beta1", "beta1"),
    ("adam_beta2", "beta2"),
    ("adam_epsilon", "eps"),
    ("lora_rank", "rank"),
    ("lora_r", "rank"),
    ("r", "rank"),
    ("lora_alpha", "alpha"),
    ("n_future_tokens", "n_heads"),
];

/// Our name of a setting that another trainer calls `name`.
pub fn synonym(name: &str) -> Option<&'static str> {
    let found = SYNONYMS.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, own)| *own)
}

/// `, did you mean `x`?`, or nothing.
pub fn suggestion<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> String {
    closest(typed, known).map_or_else(String::new, |name| format!(", did you mean `{name}`?"))
}

/// The most similar name, if it is similar enough to be worth offering.
pub fn closest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = synonym(typed).map_or_else(|| typed.to_lowercase(), str::to_owned);
    let mut best: Option<(f64, &str)> = None;
    for name in known {
        let likeness = strsim::jaro_winkler(&typed, name);
        if best.is_none_or(|(value, _)| likeness > value) {
            best = Some((likeness, name));
        }
    }
    best.filter(|(likeness, _)| *likeness >= 0.75).map(|(_, name)| name)
}

/// Bytes in MiB.
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Bytes in GiB.
pub fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

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
