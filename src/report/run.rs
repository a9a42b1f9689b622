//! A run directory read back: its content, and a sentence for each file that is missing or unreadable.

use crate::run::{
    EdgesLine, EventLine, HistogramLine, MetricsLine, RunRecord, StepLine, TokensLine, TrainerState, ValidLine, file,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// A report that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No training run.
    #[error("`{}` is not the directory of a training run: {problem}", dir.display())]
    NoRun {
        /// What was given.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A page that can't be rendered.
    #[error("the report of `{}` can't be made: {problem}", dir.display())]
    Page {
        /// The run.
        dir: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// An I/O error.
    #[error("writing `{}` failed: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An evaluation of one of the run's checkpoints.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// File name without its extension.
    pub name: String,
    /// The content of `eval.json`, with `checkpoint`, `step` and the duration.
    pub report: Value,
}

/// The content of a run directory.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// The directory.
    pub dir: PathBuf,
    /// Whether this is an evaluation's directory: it has one evaluation and nothing of a training run.
    pub evaluation: bool,
    /// `run.json`.
    pub record: RunRecord,
    /// Steps in order.
    pub steps: Vec<StepLine>,
    /// Validations in order.
    pub validations: Vec<ValidLine>,
    /// Events in order.
    pub events: Vec<EventLine>,
    /// Edges of the weights' bins.
    pub edges: Vec<f64>,
    /// Histograms of weights in order.
    pub histograms: Vec<HistogramLine>,
    /// Documents token by token.
    pub tokens: Vec<TokensLine>,
    /// Evaluations, oldest first.
    pub evaluations: Vec<Evaluation>,
    /// What the critic's value stage learned.
    pub value_stage: Option<Value>,
    /// `trainer.json` of the newest checkpoint.
    pub trainer: Option<TrainerState>,
    /// `recipe.yaml` by dotted key.
    pub recipe: BTreeMap<String, Value>,
    /// `config.yaml` by dotted key.
    pub config: BTreeMap<String, Value>,
    /// A sentence for every file that is absent or could not be read.
    pub problems: Vec<String>,
}

impl Run {
    /// Reads a run's directory. Only `run.json` is required; [`Run::problems`] names other files that are
    /// missing or damaged.
    ///
    /// # Errors
    /// A directory that is none, or that holds no training run.
    pub fn read(dir: &Path) -> Result<Self, ReportError> {
        let run = Self::read_any(dir)?;
        if run.evaluation {
            return Err(ReportError::NoRun {
                dir: dir.into(),
                problem: "it is an evaluation, whose result is eval.json; give the training run whose checkpoint was \
                          evaluated, or two evaluations to compare"
                    .into(),
            });
        }
        Ok(run)
    }

    /// The same, for an evaluation's directory as well: comparisons take both.
    ///
    /// # Errors
    /// A directory that is none, or that holds neither a training run nor an evaluation that has ended.
    pub fn read_any(dir: &Path) -> Result<Self, ReportError> {
        let none = |problem: String| ReportError::NoRun {
            dir: dir.into(),
            problem,
        };
        let text = fs::read_to_string(dir.join(file::RECORD)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if dir.is_dir() => none("it holds no run.json".into()),
            io::ErrorKind::NotFound => none("there is no such directory".into()),
            _ => none(format!("its run.json can't be read: {error}")),
        })?;
        let record: RunRecord =
            serde_json::from_str(&text).map_err(|e| none(format!("its run.json is not JSON: {e}")))?;
        if record.is_evaluation() {
            return Self::read_evaluation(dir, record).map_err(none);
        }
        let mut run = Self {
            dir: dir.into(),
            record,
            ..Self::default()
        };
        run.read_metrics();
        run.events = run.lines(file::EVENTS, true);
        run.read_weights();
        run.tokens = run.lines(file::TOKENS, run.recorded("train.record.documents"));
        run.recipe = run.yaml(file::RECIPE);
        run.config = run.yaml(file::CONFIG);
        run.value_stage = run.json(file::VALUE_STAGE_REPORT, false);
        run.trainer = run.json(&format!("{}/{}/{}", file::CHECKPOINTS, file::LAST, file::TRAINER), true);
        run.read_evaluations();
        Ok(run)
    }

    /// An evaluation's own directory.
    fn read_evaluation(dir: &Path, mut record: RunRecord) -> Result<Self, String> {
        let text = fs::read_to_string(dir.join(file::EVAL)).map_err(|e| {
            format!("it is an evaluation, and its eval.json can't be read ({e}): resume it with `wmtp eval … --resume`")
        })?;
        let report: Value = serde_json::from_str(&text)
            .map_err(|e| format!("it is an evaluation, and its eval.json is not JSON: {e}"))?;
        let origin = |key: &str| report["origin"][key].as_str().map(str::to_owned);
        record.model = origin("model");
        record.model_sha256 = origin("model_hash");
        record.data = origin("predictions");
        record.seed = report["seed"].as_u64();
        let mut run = Self {
            dir: dir.into(),
            evaluation: true,
            record,
            ..Self::default()
        };
        let name = run.name();
        run.evaluations.push(Evaluation { name, report });
        run.recipe = run.yaml(file::RECIPE);
        run.config = run.yaml(file::CONFIG);
        Ok(run)
    }

    /// The run's name.
    pub fn name(&self) -> String {
        let directory = || self.dir.file_name().map(|name| name.to_string_lossy().into_owned());
        let named = self.record.name.clone();
        visible(&named.or_else(directory).unwrap_or_default())
    }

    /// A text of `run.json`.
    pub fn text(&self, key: &str) -> Option<String> {
        let record = serde_json::to_value(&self.record).unwrap_or_default();
        match &record[key] {
            Value::Null => None,
            Value::String(text) => Some(visible(text)),
            other => Some(other.to_string()),
        }
    }

    /// Number of heads in the metrics.
    pub fn heads(&self) -> usize {
        let of_steps = self
            .steps
            .last()
            .map_or(0, |line| (1..).take_while(|&k| line.ce(k).is_some()).count());
        let of_validations = self.validations.iter().map(|line| line.valid_ce_heads.len()).max();
        of_steps.max(of_validations.unwrap_or(0))
    }

    /// Whether training is finished.
    pub fn finished(&self) -> bool {
        self.trainer.as_ref().is_some_and(|state| state.finished)
    }

    /// Events of one kind.
    pub fn events_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a EventLine> {
        self.events.iter().filter(move |event| event.event == kind)
    }

    /// Seconds spent in optimizer steps.
    pub fn step_seconds(&self) -> f64 {
        let mut before = 0;
        let mut seconds = 0.0;
        for line in &self.steps {
            let tokens = line.tokens.saturating_sub(before);
            before = line.tokens;
            if line.tok_s > 0.0 {
                seconds += tokens as f64 / line.tok_s;
            }
        }
        seconds
    }

    /// Whether a setting that enables a recording is not 0; absent (older runs) counts as enabled.
    fn recorded(&self, key: &str) -> bool {
        self.recipe.get(key).and_then(Value::as_u64).is_some_and(|n| n > 0)
    }

    fn read_metrics(&mut self) {
        for line in self.lines::<Value>(file::METRICS, true) {
            match MetricsLine::parse(line) {
                Ok(MetricsLine::Step(line)) => self.steps.push(*line),
                Ok(MetricsLine::Valid(line)) => self.validations.push(line),
                Err(error) => self.problems.push(format!(
                    "`{}` has a line that is no step and no validation: {error}",
                    file::METRICS
                )),
            }
        }
    }

    fn read_weights(&mut self) {
        for line in self.lines::<Value>(file::WEIGHTS, self.recorded("train.record.weights_every")) {
            if line.get("edges").is_some() {
                self.edges = serde_json::from_value::<EdgesLine>(line).unwrap_or_default().edges;
            } else if let Ok(line) = serde_json::from_value(line) {
                self.histograms.push(line);
            }
        }
        let bins = self.edges.len().saturating_sub(1);
        if self.histograms.iter().any(|line| line.counts.len() != bins) {
            self.problems.push(format!(
                "`{}` has histograms that do not fit the edges of its bins",
                file::WEIGHTS
            ));
            self.histograms.clear();
        }
    }

    fn read_evaluations(&mut self) {
        let entries = fs::read_dir(self.dir.join(file::EVALUATIONS))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".json"))
            .collect();
        // Their names end with the time.
        names.sort();
        for file in names {
            let path = format!("{}/{file}", file::EVALUATIONS);
            if let Some(report) = self.json(&path, true) {
                let name = file.trim_end_matches(".json").to_owned();
                self.evaluations.push(Evaluation { name, report });
            }
        }
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str, wanted: bool) -> Option<T> {
        let text = self.file(name, wanted)?;
        let parsed = serde_json::from_str(&text);
        if let Err(error) = &parsed {
            self.problems.push(format!("`{name}` is not JSON: {error}"));
        }
        parsed.ok()
    }

    fn yaml(&mut self, name: &str) -> BTreeMap<String, Value> {
        let Some(text) = self.file(name, true) else {
            return BTreeMap::new();
        };
        match crate::settings::yaml_to_json(&text) {
            Ok(json) => flattened(&json),
            Err(problem) => {
                self.problems.push(format!("`{name}` is not YAML: {problem}"));
                BTreeMap::new()
            }
        }
    }

    /// The lines of a file. A kill may have truncated the last one; any other unreadable one is counted.
    fn lines<T: DeserializeOwned>(&mut self, name: &str, wanted: bool) -> Vec<T> {
        let Some(text) = self.file(name, wanted) else {
            return Vec::new();
        };
        let mut bad: Option<(usize, String)> = None;
        let mut count = 0;
        let mut read = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(line) => read.push(line),
                Err(error) => {
                    count += 1;
                    bad.get_or_insert((number + 1, error.to_string()));
                }
            }
        }
        if let Some((number, error)) = bad {
            self.problems.push(format!(
                "`{name}`: {count} line(s) can't be read, the first is line {number}: {error}"
            ));
        }
        read
    }

    fn file(&mut self, name: &str, wanted: bool) -> Option<String> {
        match fs::read(self.dir.join(name)) {
            // Invalid UTF-8 makes invalid lines, which are counted.
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if wanted {
                    self.problems.push(format!("`{name}` is not there"));
                }
                None
            }
            Err(error) => {
                self.problems.push(format!("`{name}` can't be read: {error}"));
                None
            }
        }
    }
}

/// A tree of settings by dotted key. Lists are values.
pub fn flattened(json: &Value) -> BTreeMap<String, Value> {
    fn walk(json: &Value, at: &str, into: &mut BTreeMap<String, Value>) {
        match json {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let at = if at.is_empty() {
                        key.clone()
                    } else {
                        format!("{at}.{key}")
                    };
                    walk(value, &at, into);
                }
            }
            other => {
                into.insert(at.to_owned(), other.clone());
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(json, "", &mut all);
    all
}

/// A text with control characters replaced by their Unicode symbols.
pub fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => c,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        // Controls, and characters that change the direction of the text that follows.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    };
    text.chars().map(picture).collect()
}
