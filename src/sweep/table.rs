//! The ablation table: every setting's figures over its seeds, compared with the baseline's.

use super::{
    Estimate, SweepError,
    arm::{Arm, Sweep},
    figures::{Figures, figures},
    name::short_keys,
    state::{ArmState, Ran, Train, state, state_in},
};
use crate::eval::passk::wilson95;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// A sweep's result. `cost` and `program` depend on the machine and its load; all else is reproducible.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// The sweep's name.
    pub sweep: String,
    /// The figure that settings are sorted by.
    pub rank_by: String,
    /// Whether larger values of it are better.
    pub higher_is_better: bool,
    /// The varied keys, shortened to distinct suffixes.
    pub keys: Vec<String>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The setting that the others are compared with.
    pub baseline: String,
    /// The names of all figures, in the order of the columns.
    pub metrics: Vec<String>,
    /// Best first; those without the figure last.
    pub settings: Vec<Row>,
    /// Every arm, in the order of the sweep.
    pub arms: Vec<ArmRow>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its rank by `rank_by`, from 1; None without that figure.
    pub rank: Option<usize>,
    /// Its label.
    pub label: String,
    /// Values of the varied keys.
    pub values: serde_json::Map<String, Value>,
    /// Whether it is the baseline.
    pub is_baseline: bool,
    /// Seeds whose arms are finished.
    pub seeds: Vec<u64>,
    /// Figures over those seeds.
    pub metrics: BTreeMap<String, Estimate>,
    /// This setting's figures minus the baseline's, over the seeds that both have.
    pub difference: BTreeMap<String, Estimate>,
    /// Time and memory.
    pub cost: CostRow,
}

/// Means over seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CostRow {
    /// Seconds of training.
    pub train_seconds: Option<Estimate>,
    /// Seconds of evaluation.
    pub eval_seconds: Option<Estimate>,
    /// Tokens per second.
    pub tokens_per_second: Option<Estimate>,
    /// Peak resident set size in bytes.
    pub peak_memory: Option<Estimate>,
}

/// An arm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmRow {
    /// Its name.
    pub name: String,
    /// Its run's name.
    pub run_name: String,
    /// Its setting's label.
    pub label: String,
    /// Its seed.
    pub seed: u64,
    /// Its status.
    pub status: Status,
    /// Why it is not finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Its run directory, if it exists.
    #[serde(skip)]
    pub run_dir: Option<PathBuf>,
    #[serde(skip)]
    pub(super) setting: usize,
}

/// Status of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All its steps are done.
    Finished,
    /// It ended with an error.
    Failed,
    /// Started.
    Unfinished,
    /// Not started.
    Missing,
}

impl Status {
    /// Its word in `sweep.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Unfinished => "unfinished",
            Self::Missing => "missing",
        }
    }
}

impl Table {
    /// From the sweep's own directory, after a run of it.
    ///
    /// # Errors
    /// None for now; an arm whose directory can't be used is shown as failed.
    pub fn of_run(sweep: &Sweep, ran: &Ran) -> Result<Self, SweepError> {
        let arms = sweep.arms.iter().enumerate().map(|(n, arm)| {
            let failure = ran.failure(n).map(str::to_owned);
            arm_row(sweep, arm, state(sweep, arm).map(Some), failure)
        });
        Ok(Self::new(sweep, arms.collect()))
    }

    /// From directories that hold arms run elsewhere.
    pub fn collect(sweep: &Sweep, roots: &[PathBuf]) -> Self {
        let arms = sweep
            .arms
            .iter()
            .map(|arm| arm_row(sweep, arm, state_in(roots, arm), None));
        Self::new(sweep, arms.collect())
    }

    pub(super) fn new(sweep: &Sweep, arms: Vec<ArmRow>) -> Self {
        let keys: Vec<&str> = sweep
            .settings
            .first()
            .into_iter()
            .flat_map(|setting| setting.values.iter().map(|(key, _)| key.as_str()))
            .collect();
        let mut metrics = sweep.metrics();
        let found: BTreeSet<&String> = arms.iter().flat_map(|arm| arm.figures.results.keys()).collect();
        metrics.extend(
            found
                .into_iter()
                .filter(|name| !sweep.metrics().contains(name))
                .cloned(),
        );
        let rank_by = sweep.config.rank_by.clone();
        let higher_is_better = rank_by.contains("pass_at_");
        let mut rows: Vec<Row> = (0..sweep.settings.len()).map(|n| row(sweep, &arms, n)).collect();
        rows.sort_by(|a, b| {
            let of = |row: &Row| row.metrics.get(&rank_by).map(|estimate| estimate.mean);
            match (of(a), of(b)) {
                (Some(a), Some(b)) if higher_is_better => b.total_cmp(&a),
                (Some(a), Some(b)) => a.total_cmp(&b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            }
        });
        for (n, row) in rows.iter_mut().enumerate() {
            row.rank = row.metrics.contains_key(&rank_by).then_some(n + 1);
        }
        Self {
            sweep: sweep.name.clone(),
            rank_by,
            higher_is_better,
            keys: short_keys(&keys),
            seeds: sweep.config.seeds.clone(),
            baseline: sweep
                .settings
                .get(sweep.baseline)
                .map(|s| s.label())
                .unwrap_or_default(),
            metrics,
            settings: rows,
            arms,
        }
    }

    /// The figures that fit next to each other: the ranking one, validation losses of all heads and of
    /// head 1, and benchmarks. JSON and CSV have all.
    pub fn shown_metrics(&self) -> Vec<&String> {
        let shown = |m: &&String| {
            **m == self.rank_by || *m == "valid_loss" || *m == "valid_ce_head_1" || m.contains("pass_at_")
        };
        self.metrics.iter().filter(shown).collect()
    }

    /// Arms with this status.
    pub fn count(&self, status: Status) -> usize {
        self.arms.iter().filter(|arm| arm.status == status).count()
    }

    /// Versions and commits of the programs that trained the arms.
    pub fn programs(&self) -> BTreeSet<&str> {
        let trained = self.arms.iter().filter(|arm| arm.status != Status::Missing);
        trained.map(|arm| arm.figures.program.as_str()).collect()
    }
}

fn arm_row(sweep: &Sweep, arm: &Arm, found: Result<Option<ArmState>, SweepError>, failure: Option<String>) -> ArmRow {
    let run_dir = found.as_ref().ok().and_then(|state| Some(state.as_ref()?.run.clone()));
    let (status, reason, figures) = match found {
        Err(error) => (Status::Failed, Some(error.to_string()), Figures::default()),
        Ok(None) => (Status::Missing, failure, Figures::default()),
        Ok(Some(found)) => {
            let figures = figures(arm, &found);
            if found.is_finished() {
                (Status::Finished, None, figures)
            } else if let Some(reason) = failure {
                (Status::Failed, Some(reason), figures)
            } else if found.train == Train::Missing {
                (Status::Missing, None, Figures::default())
            } else {
                // Started by another process: the last error of its log, if that is here.
                let last = super::child::last_error(&sweep.log_file(arm));
                let stands = found.describe(arm);
                let reason = last.map_or(stands.clone(), |error| format!("{stands}: {error}"));
                (Status::Unfinished, Some(reason), figures)
            }
        }
    };
    let label = sweep.settings.get(arm.setting).map(|s| s.label()).unwrap_or_default();
    ArmRow {
        name: arm.name.clone(),
        run_name: arm.run_name.clone(),
        label,
        seed: arm.seed,
        status,
        reason,
        figures,
        run_dir,
        setting: arm.setting,
    }
}

fn row(sweep: &Sweep, arms: &[ArmRow], index: usize) -> Row {
    let finished = |setting: usize| {
        arms.iter()
            .filter(move |a| a.setting == setting && a.status == Status::Finished)
    };
    let names: BTreeSet<&String> = finished(index).flat_map(|arm| arm.figures.results.keys()).collect();
    let mut metrics = BTreeMap::new();
    let mut difference = BTreeMap::new();
    for name in names {
        let of = |arm: &ArmRow| arm.figures.results.get(name).copied();
        let values: Vec<f64> = finished(index).filter_map(of).collect();
        let problems = name
            .split_once(".pass_at_")
            .and_then(|(benchmark, _)| finished(index).find_map(|arm| arm.figures.problems.get(benchmark).copied()));
        metrics.extend(Estimate::of(&values).map(|mut estimate| {
            // Equal for all seeds: then the problems decide how precisely the score is known.
            if let (None, Some(problems), true) = (estimate.ci95, problems, estimate.n > 1) {
                estimate.ci95 = Some(wilson95(estimate.mean, problems));
            }
            (name.clone(), estimate)
        }));
        let pairs: Vec<(f64, f64)> = finished(index)
            .filter_map(|arm| {
                let other = finished(sweep.baseline).find(|other| other.seed == arm.seed)?;
                Some((of(arm)?, of(other)?))
            })
            .collect();
        if index != sweep.baseline {
            difference.extend(Estimate::of_pairs(&pairs).map(|estimate| (name.clone(), estimate)));
        }
    }
    let cost = |of: fn(&Figures) -> Option<f64>| {
        let values: Vec<f64> = finished(index).filter_map(|arm| of(&arm.figures)).collect();
        Estimate::of(&values)
    };
    let setting = sweep.settings.get(index);
    Row {
        rank: None,
        label: setting.map(|s| s.label()).unwrap_or_default(),
        values: setting.into_iter().flat_map(|s| s.values.iter().cloned()).collect(),
        is_baseline: index == sweep.baseline,
        seeds: finished(index).map(|arm| arm.seed).collect(),
        metrics,
        difference,
        cost: CostRow {
            train_seconds: cost(|f| f.cost.train_seconds),
            eval_seconds: cost(|f| f.cost.eval_seconds),
            tokens_per_second: cost(|f| f.cost.tokens_per_second),
            peak_memory: cost(|f| f.cost.peak_memory),
        },
    }
}
