//! Values of the right type that make no sense together or alone.
//!
//! Each finding names the key that is to blame, so that the caller can add where it was set.

use super::{Config, Recipe, TaskChoice};
use crate::{
    data::{Clock, DataConfig, PromptStyle, SpecialInText},
    scorer::{CriticConfig, CriticLoss, Reward, Rho1Config, Rho1Mode, Rho1Score, ScorerConfig},
    train::BatchingConfig,
};

/// MBPP's test split: never trained or validated on.
const TEST_TASKS: (u32, u32) = (11, 510);

/// A value that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Problem {
    /// The key to blame.
    pub key: String,
    /// One sentence that names the key and says what to do.
    pub problem: String,
}

impl Problem {
    /// An address with a user name or password in it.
    pub(super) fn credentials(key: String) -> Self {
        Self {
            problem: format!(
                "`{key}` has an address with a user name or password in it, and settings are saved: take them out, secrets come from the environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, HF_TOKEN)"
            ),
            key,
        }
    }
}

impl Config {
    /// Everything wrong with the values, in the order of the sections; empty if usable.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.when(
            i64::try_from(self.seed).is_err(),
            "seed",
            "must be at most 9223372036854775807",
        );
        check.when(self.project.trim().is_empty(), "project", "must not be empty");
        let paths = &self.paths;
        for (key, path) in [
            ("paths.models", &paths.models),
            ("paths.datasets", &paths.datasets),
            ("paths.cache", &paths.cache),
            ("paths.runs", &paths.runs),
        ] {
            check.when(
                path.as_os_str().is_empty(),
                key,
                "must not be empty: write a directory, `.` for this one",
            );
        }
        check.when(
            paths.base.as_ref().is_some_and(|base| base.trim().is_empty()),
            "paths.base",
            "must not be empty: leave it out, or name a model's directory",
        );
        check.when(
            self.storage.timeout_seconds == 0,
            "storage.timeout_seconds",
            "must be 1 or more",
        );
        check.when(self.storage.retries > 20, "storage.retries", "must be 20 or less");
        check.when(
            !(1..=64).contains(&self.storage.parallel),
            "storage.parallel",
            "must be 1 to 64",
        );
        if let Some(url) = &self.storage.s3.endpoint {
            let is_url = url.starts_with("http://") || url.starts_with("https://");
            check.when(!is_url, "storage.s3.endpoint", "must start with http:// or https://");
            check.when(
                url.contains('@'),
                "storage.s3.endpoint",
                "must hold no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
            );
        }
        if let Some(Err(e)) = self.storage.runs.as_deref().map(crate::storage::S3Url::parse) {
            check.say("storage.runs", format!("`storage.runs`: {e}"));
        }
        if let Err(e) = self.devices.backend.parse::<crate::device::Choice>() {
            check.say("devices.backend", format!("`devices.backend`: {e}"));
        }
        self.check_tracking(&mut check);
        check.problems
    }

    fn check_tracking(&self, check: &mut Check) {
        let tracking = &self.tracking;
        let seconds = |seconds: f64| seconds.is_finite() && (0.0..=86_400.0).contains(&seconds);
        for (key, value) in [
            ("tracking.interval_seconds", tracking.interval_seconds),
            ("tracking.wait_seconds", tracking.wait_seconds),
        ] {
            check.when(!seconds(value), key, "must be between 0 and 86400");
        }
        check.when(
            tracking.tags.iter().any(|tag| is_nameless(tag)),
            "tracking.tags",
            NAMELESS,
        );
        let mlflow = &tracking.mlflow;
        check.when(
            !seconds(mlflow.timeout_seconds) || mlflow.timeout_seconds <= 0.0,
            "tracking.mlflow.timeout_seconds",
            "must be above 0, and 86400 or less",
        );
        check.when(
            !(1..=1000).contains(&mlflow.batch),
            "tracking.mlflow.batch",
            "must be between 1 and 1000, which is the most that a server takes",
        );
        check.when(
            tracking
                .experiment
                .as_ref()
                .is_some_and(|e| e.trim().is_empty() || e.len() > 500),
            "tracking.experiment",
            "must have 1 to 500 characters; leave it out for mtp/{algorithm}/{data set}",
        );
        check.when(
            tracking.parent_run.as_ref().is_some_and(|p| p.trim().is_empty()),
            "tracking.parent_run",
            "must not be empty: write a run's name, directory or id, or leave it out",
        );
    }
}

impl Recipe {
    /// Everything wrong with the values, in the order of the sections; empty if usable.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        self.check_names(&mut check);
        self.check_data(&mut check);
        self.check_scorer(&self.scorer, "scorer", &mut check);
        self.check_weights(&mut check);
        self.check_optim(&mut check);
        self.check_batching(&mut check);
        self.check_train(&mut check);
        check.when(
            self.train.record.documents > 100,
            "train.record.documents",
            "must be 100 or less: each is written down token by token, again and again",
        );
        self.check_eval(&mut check);
        check.problems
    }

    fn check_names(&self, check: &mut Check) {
        if let Some(name) = &self.run.name {
            let usable = !name.is_empty()
                && !name.starts_with('.')
                && name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            check.when(
                !usable,
                "run.name",
                "names a directory: use letters, digits, `-`, `_` and `.` only",
            );
        }
        check.when(self.run.tags.iter().any(|tag| is_nameless(tag)), "run.tags", NAMELESS);
        check.when(
            self.model.base.trim().is_empty(),
            "model.base",
            "must not be empty: write `builtin:micro`, a directory or a URI",
        );
        check.when(self.model.mtp.n_heads == 0, "model.mtp.n_heads", "must be 1 or more");
        check.when(self.model.mtp.n_heads > 64, "model.mtp.n_heads", "must be 64 or less");
    }

    fn check_data(&self, check: &mut Check) {
        let data = &self.data;
        check.when(
            data.source.trim().is_empty(),
            "data.source",
            "must not be empty: write `builtin:mbpp`, a directory, a URI, or `none` for data.text alone",
        );
        check.when(
            data.source == DataConfig::NO_PROBLEMS && data.text.is_empty(),
            "data.text",
            "must name files or folders where `data.source` is none",
        );
        check.when(data.seq_len < 8, "data.seq_len", "must be 8 or more");
        check.when(
            data.prompt == PromptStyle::Chat && data.special_in_text == SpecialInText::Plain,
            "data.special_in_text",
            "must not be `plain` with `data.prompt: chat`: the chat template spells special tokens; take `parse`",
        );
        check.when(
            data.chat_date
                .as_deref()
                .is_some_and(|date| Clock::parse(date).is_none()),
            "data.chat_date",
            "must be a day such as 2026-07-26",
        );
        for (key, (first, last)) in [
            ("data.train_tasks", data.train_tasks),
            ("data.valid_tasks", data.valid_tasks),
        ] {
            check.when(first > last, key, "must have its first id at or below its last");
            let overlaps = first <= TEST_TASKS.1 && last >= TEST_TASKS.0;
            if first <= last && overlaps && !data.i_know_this_trains_on_evaluation_data {
                check.say(key, format!(
                    "`{key}` {first}..{last} overlaps MBPP's test ids 11..510, which evaluation uses: take ids above 510, or set data.i_know_this_trains_on_evaluation_data"
                ));
            }
        }
        let (train, valid) = (data.train_tasks, data.valid_tasks);
        check.when(
            train.0 <= valid.1 && valid.0 <= train.1 && train.0 <= train.1 && valid.0 <= valid.1,
            "data.valid_tasks",
            "must not overlap data.train_tasks: what is held out can't be trained on",
        );
    }

    fn check_scorer(&self, scorer: &ScorerConfig, at: &str, check: &mut Check) {
        match scorer {
            ScorerConfig::Uniform(_) | ScorerConfig::Random(_) | ScorerConfig::Position(_) => {}
            ScorerConfig::Shuffled(shuffled) => {
                let inner = format!("{at}.of");
                check.when(
                    matches!(*shuffled.of, ScorerConfig::Shuffled(_)),
                    &inner,
                    "must be a scorer that is not `shuffled` itself",
                );
                if !matches!(*shuffled.of, ScorerConfig::Shuffled(_)) {
                    self.check_scorer(&shuffled.of, &inner, check);
                }
            }
            ScorerConfig::Rho1(rho1) => self.check_rho1(rho1, at, check),
            ScorerConfig::Critic(critic) => self.check_critic(critic, at, check),
        }
    }

    fn check_rho1(&self, rho1: &Rho1Config, at: &str, check: &mut Check) {
        check.when(
            !in_half_open(rho1.top_p),
            &format!("{at}.top_p"),
            "must be above 0 and at most 1",
        );
        check.when(
            !(rho1.emphasis > 1.0 && rho1.emphasis.is_finite()),
            &format!("{at}.emphasis"),
            "must be above 1",
        );
        check.when(
            rho1.mode == Rho1Mode::Select && rho1.score == Some(Rho1Score::AbsExcess),
            &format!("{at}.score"),
            "must be `excess` with mode `select`, or left out",
        );
        if blank(self.model.reference.as_deref()) {
            check.say("model.reference", format!(
                "`model.reference` is missing: `{at}.kind: rho1` compares with a reference model, so set it to a directory or URI with the same tokenizer"
            ));
        }
    }

    fn check_critic(&self, critic: &CriticConfig, at: &str, check: &mut Check) {
        let key = |name: &str| format!("{at}.{name}");
        check.when(!in_unit(critic.gamma), &key("gamma"), "must be from 0 to 1");
        check.when(!in_unit(critic.lambda_gae), &key("lambda_gae"), "must be from 0 to 1");
        check.when(!positive(critic.lr), &key("lr"), "must be above 0");
        check.when(critic.batch == 0, &key("batch"), "must be 1 or more");
        check.when(
            critic.loss == CriticLoss::Pairwise && critic.reward != Reward::Verified,
            &key("loss"),
            "is `pairwise`, which compares right with wrong solutions: take `reward: verified`, or another loss",
        );
        check.when(
            critic.epochs == 0 && critic.max_steps == 0 && blank(critic.value_head.as_deref()),
            &key("epochs"),
            "must be 1 or more, or name a finished value head with value_head",
        );
        check.when(
            !(critic.value_weight >= 0.0 && critic.value_weight.is_finite()),
            &key("value_weight"),
            "must be 0 or more",
        );
        if critic.reward == Reward::RewardModel && blank(self.model.reward.as_deref()) {
            check.say("model.reward", format!(
                "`model.reward` is missing: `{at}.reward: reward_model` needs one, so set it to a directory or URI, or use `{at}.reward: verified`"
            ));
        }
    }

    fn check_weights(&self, check: &mut Check) {
        let w = &self.weights;
        check.when(!positive(w.temperature), "weights.temperature", "must be above 0");
        check.when(
            !(w.eps > 0.0 && w.eps < 1.0),
            "weights.eps",
            "must be above 0 and below 1",
        );
        check.when(
            !(w.w_max > 1.0 && w.w_max.is_finite()),
            "weights.w_max",
            "must be above 1",
        );
        check.when(
            !in_unit(w.max_fallback_share),
            "weights.max_fallback_share",
            "must be from 0 to 1",
        );
        check.when(!in_unit(self.loss.lambda), "loss.lambda", "must be from 0 to 1");
        check.when(
            !(0.0..=0.1).contains(&self.loss.filter),
            "loss.filter",
            "must be from 0 (nothing is left out) to 0.1; 0.001 is a good value",
        );
    }

    fn check_optim(&self, check: &mut Check) {
        let o = &self.optim;
        check.when(!positive(o.lr), "optim.lr", "must be above 0");
        check.when(
            !(o.beta1 > 0.0 && o.beta1 < 1.0),
            "optim.beta1",
            "must be above 0 and below 1",
        );
        check.when(
            !(o.beta2 > 0.0 && o.beta2 < 1.0),
            "optim.beta2",
            "must be above 0 and below 1",
        );
        check.when(!positive(o.eps), "optim.eps", "must be above 0");
        check.when(
            !(o.weight_decay >= 0.0 && o.weight_decay.is_finite()),
            "optim.weight_decay",
            "must be 0 or more",
        );
        check.when(
            !(o.clip_norm >= 0.0 && o.clip_norm.is_finite()),
            "optim.clip_norm",
            "must be 0 (no clipping) or more",
        );
        check.when(
            !in_unit(o.warmup),
            "optim.warmup",
            "must be a share of the steps, from 0 to 1",
        );
        check.when(!in_unit(o.min_lr_ratio), "optim.min_lr_ratio", "must be from 0 to 1");
    }

    fn check_batching(&self, check: &mut Check) {
        let BatchingConfig {
            micro_batch,
            accumulate,
            tokens_per_step,
        } = self.batching;
        check.when(micro_batch == 0, "batching.micro_batch", "must be 1 or more");
        check.when(accumulate == Some(0), "batching.accumulate", "must be 1 or more");
        let Some(tokens) = tokens_per_step else {
            return;
        };
        check.when(
            accumulate.is_some(),
            "batching.tokens_per_step",
            "and batching.accumulate say the same thing twice: remove one of the two (null removes it)",
        );
        match micro_batch.checked_mul(self.data.seq_len) {
            Some(row) if row > 0 && (tokens == 0 || tokens % row != 0) => check.say(
                "batching.tokens_per_step",
                format!("`batching.tokens_per_step` is {tokens}, it must be a multiple of batching.micro_batch * data.seq_len = {row}"),
            ),
            Some(_) => {}
            None => check.say("batching.micro_batch", "`batching.micro_batch` * data.seq_len is too large for this machine's numbers".into()),
        }
    }

    fn check_train(&self, check: &mut Check) {
        let t = &self.train;
        check.when(
            t.epochs == 0 && t.steps.is_none(),
            "train.epochs",
            "must be 1 or more, or set train.steps",
        );
        check.when(t.steps == Some(0), "train.steps", "must be 1 or more");
        check.when(
            t.head_warmup.steps > 0 && self.model.mtp.n_heads < 2,
            "train.head_warmup.steps",
            "needs heads beyond the first: raise model.mtp.n_heads, or leave it at 0",
        );
        check.when(!positive(t.head_warmup.lr), "train.head_warmup.lr", "must be above 0");
        if let Some(lora) = &t.lora {
            check.when(lora.rank == 0, "train.lora.rank", "must be 1 or more");
            check.when(!positive(lora.alpha), "train.lora.alpha", "must be above 0");
        }
        let delta = t.early_stopping.min_delta;
        check.when(
            !(delta >= 0.0 && delta.is_finite()),
            "train.early_stopping.min_delta",
            "must be 0 or more",
        );
        check.when(self.fallback.patience == 0, "fallback.patience", "must be 1 or more");
    }

    fn check_eval(&self, check: &mut Check) {
        let e = &self.eval;
        check.when(
            matches!(e.tasks, Some(TaskChoice::Range((first, last))) if first > last),
            "eval.tasks",
            "must have its first number at or below its last",
        );
        check.when(e.samples == 0, "eval.samples", "must be 1 or more");
        check.when(
            e.k.is_empty() || e.k.contains(&0),
            "eval.k",
            "must hold numbers of 1 or more",
        );
        let largest = e.k.iter().copied().max().unwrap_or(0);
        check.when(
            largest > e.samples,
            "eval.k",
            "must not go above eval.samples: pass@k needs at least k samples a problem",
        );
        let temperatures = e.temperature.all();
        check.when(
            temperatures.is_empty() || temperatures.iter().any(|t| !(*t >= 0.0 && t.is_finite())),
            "eval.temperature",
            "must be 0 (greedy) or more, or a list of such numbers",
        );
        check.when(
            temperatures.contains(&0.0) && e.samples > 1,
            "eval.samples",
            "must be 1 with eval.temperature 0, because greedy samples are all the same",
        );
        check.when(!in_half_open(e.top_p), "eval.top_p", "must be above 0 and at most 1");
        check.when(e.max_new_tokens == 0, "eval.max_new_tokens", "must be 1 or more");
        check.when(e.batch == 0, "eval.batch", "must be 1 or more");
        check.when(e.timeout_seconds == 0, "eval.timeout_seconds", "must be 1 or more");
    }
}

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn when(&mut self, bad: bool, key: &str, rule: &str) {
        if bad {
            self.say(key, format!("`{key}` {rule}"));
        }
    }

    fn say(&mut self, key: &str, problem: String) {
        self.problems.push(Problem {
            key: key.to_owned(),
            problem,
        });
    }
}

const NAMELESS: &str = "must hold tags with a name: write `NAME` or `NAME=VALUE` (is a shell variable empty?)";

/// Whether a tag `NAME=VALUE` or `NAME` lacks its name.
fn is_nameless(tag: &str) -> bool {
    tag.split('=').next().is_none_or(|name| name.trim().is_empty())
}

fn positive(x: f64) -> bool {
    x > 0.0 && x.is_finite()
}

fn in_unit(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}

fn in_half_open(x: f64) -> bool {
    x > 0.0 && x <= 1.0
}

fn blank(text: Option<&str>) -> bool {
    text.is_none_or(|t| t.trim().is_empty())
}
