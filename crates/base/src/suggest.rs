//! "Did you mean": the known name that is most like one that was typed.

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
