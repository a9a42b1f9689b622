//! The resume contract: for every setting, whether a resumed run may change it.
//!
//! `docs/training.md` holds the same table, as [`resume_contract_table`] writes it.

/// What a resumed run may do with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnResume {
    /// Change it.
    MayChange,
    /// Change it while an optimizer step keeps its rows.
    SameRows,
    /// Name another place of the same content, which is compared by hash.
    SameContent,
    /// Take another device of the same kind, with a warning.
    SameKind,
    /// Not change it.
    Fixed,
}

impl OnResume {
    /// As it stands in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::MayChange => "may change",
            Self::SameRows => "same rows",
            Self::SameContent => "same content",
            Self::SameKind => "same kind",
            Self::Fixed => "fixed",
        }
    }
}

/// What holds for some settings.
#[derive(Clone, Copy, Debug)]
pub struct ResumeRule {
    /// The settings, with everything below them that no other rule names.
    pub keys: &'static [&'static str],
    /// What a resumed run may do.
    pub on_resume: OnResume,
    /// The same in words.
    pub note: &'static str,
}

/// The rules. Of several that fit a setting, the one with the longest key holds.
pub const RESUME_CONTRACT: &[ResumeRule] = &[
    ResumeRule {
        keys: &["train.steps", "train.epochs"],
        on_resume: OnResume::MayChange,
        note: "may grow, also of a finished run, or shrink to no less than the steps done; the optimizer's state is kept",
    },
    ResumeRule {
        keys: &["train.early_stopping"],
        on_resume: OnResume::MayChange,
        note: "a run that was stopped early continues",
    },
    ResumeRule {
        keys: &["train.recompute", "train.heads"],
        on_resume: OnResume::MayChange,
        note: "the same step up to the order of sums, with other memory",
    },
    ResumeRule {
        keys: &["train.checkpoint", "train.validate_every", "train.record"],
        on_resume: OnResume::MayChange,
        note: "what is kept and written down, and at which intervals",
    },
    ResumeRule {
        keys: &["fallback", "weights.max_fallback_share"],
        on_resume: OnResume::MayChange,
        note: "when failed steps end a run",
    },
    ResumeRule {
        keys: &["eval", "run.tags", "project", "tracking"],
        on_resume: OnResume::MayChange,
        note: "no part of training",
    },
    ResumeRule {
        keys: &["paths", "storage"],
        on_resume: OnResume::MayChange,
        note: "where files are, and how they are fetched",
    },
    ResumeRule {
        keys: &["batching"],
        on_resume: OnResume::SameRows,
        note: "while `micro_batch` x `accumulate` stays: the same documents, losses up to the order of sums",
    },
    ResumeRule {
        keys: &["devices"],
        on_resume: OnResume::SameKind,
        note: "`cuda:1` after `cuda:0`, with a warning, as sums may be rounded differently; another kind is refused",
    },
    ResumeRule {
        keys: &[
            "model.base",
            "model.reference",
            "model.reward",
            "scorer.value_head",
            "data.source",
            "data.text",
        ],
        on_resume: OnResume::SameContent,
        note: "another path to the same content",
    },
    ResumeRule {
        keys: &["seed"],
        on_resume: OnResume::Fixed,
        note: "a seed in a config file is ignored with a message; `--set seed=` with another value is refused",
    },
    ResumeRule {
        keys: &["run", "model", "data", "scorer", "weights", "loss", "optim", "train"],
        on_resume: OnResume::Fixed,
        note: "all that no other row names: refused with the key and both values",
    },
];

/// What a resumed run may do with the setting `key`; one that no rule names is fixed.
pub fn on_resume(key: &str) -> OnResume {
    let rules = RESUME_CONTRACT
        .iter()
        .flat_map(|rule| rule.keys.iter().map(move |name| (*name, rule)));
    let fitting = rules.filter(|(name, _)| is_below(key, name));
    let longest = fitting.max_by_key(|(name, _)| name.len());
    longest.map_or(OnResume::Fixed, |(_, rule)| rule.on_resume)
}

/// True for `section` and for a key inside it.
pub(super) fn is_below(key: &str, section: &str) -> bool {
    let rest = key.strip_prefix(section);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The contract as a table in Markdown.
pub fn resume_contract_table() -> String {
    let mut lines = vec!["| setting | on resume | |".to_owned(), "|---|---|---|".to_owned()];
    for rule in RESUME_CONTRACT {
        let keys: Vec<String> = rule.keys.iter().map(|key| format!("`{key}`")).collect();
        lines.push(format!(
            "| {} | {} | {} |",
            keys.join(", "),
            rule.on_resume.name(),
            rule.note
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Config, Recipe};
    use serde_json::Value;

    /// Every key of the settings, sections included.
    fn keys() -> Vec<String> {
        fn walk(prefix: &str, value: &Value, out: &mut Vec<String>) {
            for (key, value) in value.as_object().into_iter().flatten() {
                let dot = if prefix.is_empty() { "" } else { "." };
                let key = format!("{prefix}{dot}{key}");
                walk(&key, value, out);
                out.push(key);
            }
        }
        let mut keys = Vec::new();
        walk("", &serde_json::to_value(Recipe::default()).unwrap(), &mut keys);
        walk("", &serde_json::to_value(Config::default()).unwrap(), &mut keys);
        keys
    }

    #[test]
    fn every_setting_is_below_a_rule_and_every_rule_names_settings_once() {
        let keys = keys();
        assert!(keys.len() > 100, "{} keys", keys.len());
        let named: Vec<&str> = RESUME_CONTRACT.iter().flat_map(|rule| rule.keys).copied().collect();
        for key in &keys {
            assert!(named.iter().any(|name| is_below(key, name)), "no rule for `{key}`");
        }
        for name in &named {
            // A value head is a setting of one scorer.
            let is_key = keys.iter().any(|key| key == name) || *name == "scorer.value_head";
            assert!(is_key, "`{name}` is no setting");
            assert_eq!(named.iter().filter(|other| *other == name).count(), 1, "`{name}` twice");
        }
    }

    #[test]
    fn the_longest_key_decides() {
        for (key, expected) in [
            ("train.steps", OnResume::MayChange),
            ("train.steps_of_nothing", OnResume::Fixed),
            ("train.checkpoint.last_every", OnResume::MayChange),
            ("train.lora.rank", OnResume::Fixed),
            ("train.precision", OnResume::Fixed),
            ("train.pretrain.steps", OnResume::Fixed),
            ("train.head_warmup.steps", OnResume::Fixed),
            ("batching.micro_batch", OnResume::SameRows),
            ("model.base", OnResume::SameContent),
            ("model.mtp.n_heads", OnResume::Fixed),
            ("weights.max_fallback_share", OnResume::MayChange),
            ("weights.eps", OnResume::Fixed),
            ("optim.lr", OnResume::Fixed),
            ("loss.lambda", OnResume::Fixed),
            ("data.source", OnResume::SameContent),
            ("data.seq_len", OnResume::Fixed),
            ("scorer.gamma", OnResume::Fixed),
            ("scorer.value_head", OnResume::SameContent),
            ("run.name", OnResume::Fixed),
            ("run.tags", OnResume::MayChange),
            ("seed", OnResume::Fixed),
            ("devices.backend", OnResume::SameKind),
            ("tracking.mlflow.uri", OnResume::MayChange),
            ("unknown", OnResume::Fixed),
        ] {
            assert_eq!(on_resume(key), expected, "{key}");
        }
    }

    /// Of the config, the seed and the device are compared by what `run.json` says of them.
    #[test]
    fn of_the_config_only_seed_and_device_may_not_change_freely() {
        let config = serde_json::to_value(Config::default()).unwrap();
        let sections = config.as_object().unwrap().keys();
        let mut bound: Vec<&String> = sections.filter(|key| on_resume(key) != OnResume::MayChange).collect();
        bound.sort();
        assert_eq!(bound, ["devices", "seed"]);
    }
}
