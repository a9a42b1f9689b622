//! What the dashboard shows: the newest figures and the curves so far.

use crate::train::{TrainStepDone, ValueStep};
use std::time::{Duration, Instant};

/// Points of a curve above which neighbours are merged.
const POINTS: usize = 1024;

/// A curve over steps that stays small: beyond [`POINTS`] points, pairs of neighbours become their mean.
#[derive(Clone, Debug, Default)]
pub struct Curve {
    points: Vec<(f64, f64)>,
    /// Steps in one point; 0 before the first.
    width: usize,
    /// Sum and number of the steps of the point under way.
    open: (f64, f64, usize),
}

impl Curve {
    /// Adds a step's value; one that is not finite is left out.
    pub fn push(&mut self, step: usize, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.width = self.width.max(1);
        let (steps, values, count) = self.open;
        self.open = (steps + step as f64, values + value, count + 1);
        if self.open.2 < self.width {
            return;
        }
        let (steps, values, count) = std::mem::take(&mut self.open);
        self.points.push((steps / count as f64, values / count as f64));
        if self.points.len() >= POINTS {
            let mean = |pair: &[(f64, f64)]| {
                let n = pair.len() as f64;
                let sum = pair.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
                (sum.0 / n, sum.1 / n)
            };
            self.points = self.points.chunks(2).map(mean).collect();
            self.width *= 2;
        }
    }

    /// Step and value of each point, in order.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }
}

/// What the run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was computed yet.
    Starting,
    /// The critic's value head is learned.
    Value,
    /// Optimizer steps.
    Training,
    /// Validation: micro-batches done, and in all.
    Validating(usize, usize),
}

/// How steps of a stage advance, for the time that is left.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Which stage it belongs to: the value stage, or training.
    value: bool,
    /// Steps that were done when the clock was started.
    from: usize,
    started: Instant,
}

/// What a person has asked for at the keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// `q`: the choices are shown.
    Choices,
    /// To stop after the step under way, with a checkpoint.
    Stop,
    /// To stop after the step under way, without one.
    StopWithoutSaving,
}

/// Everything that is drawn.
#[derive(Clone, Debug)]
pub struct Board {
    /// The run's name.
    pub run: String,
    /// Pipeline, model and device.
    pub what: String,
    /// When the dashboard was opened.
    pub opened: Instant,
    /// What is under way.
    pub stage: Stage,
    /// What was asked for.
    pub asked: Asked,
    /// Steps done and in all, of the value stage or of training.
    pub steps: (usize, usize),
    clock: Option<Clock>,
    /// Newest loss: weighted in training.
    pub loss: Option<f64>,
    /// Newest learning rate.
    pub lr: Option<f64>,
    /// Newest gradient norm.
    pub norm: Option<f64>,
    /// Tokens per second, smoothed over about ten steps.
    pub tok_s: Option<f64>,
    /// Peak resident memory in bytes.
    pub memory: Option<u64>,
    /// Least and largest weight of the newest step, and their entropy.
    pub weights: Option<(f64, f64, f64)>,
    /// Newest cross-entropy of each head, from head 1.
    pub heads: Vec<f64>,
    /// Newest validation: step, loss, cross-entropy of each head.
    pub valid: Option<(usize, f64, Vec<f64>)>,
    /// Loss of the value stage by step.
    pub value_loss: Curve,
    /// Training loss by step.
    pub train_loss: Curve,
    /// Cross-entropy of each head by step.
    pub head_curves: Vec<Curve>,
    /// Validation loss by step.
    pub valid_loss: Curve,
    /// The newest messages and events, oldest first.
    pub messages: Vec<String>,
}

impl Board {
    /// Messages that are kept.
    const MESSAGES: usize = 8;

    /// An empty one.
    pub fn new(run: &str, what: &str) -> Self {
        Self {
            run: run.into(),
            what: what.into(),
            opened: Instant::now(),
            stage: Stage::Starting,
            asked: Asked::Nothing,
            steps: (0, 0),
            clock: None,
            loss: None,
            lr: None,
            norm: None,
            tok_s: None,
            memory: None,
            weights: None,
            heads: Vec::new(),
            valid: None,
            value_loss: Curve::default(),
            train_loss: Curve::default(),
            head_curves: Vec::new(),
            valid_loss: Curve::default(),
            messages: Vec::new(),
        }
    }

    /// A step of the value stage.
    pub fn value_step(&mut self, at: &ValueStep, now: Instant) {
        self.advance(Stage::Value, at.step, at.total, now);
        (self.loss, self.lr, self.norm) = (Some(at.loss), Some(at.lr), Some(at.norm));
        self.value_loss.push(at.step, at.loss);
        self.memory = crate::run::peak_memory();
    }

    /// A step of training.
    pub fn step(&mut self, at: &TrainStepDone<'_>, now: Instant) {
        self.advance(Stage::Training, at.step, at.total, now);
        (self.loss, self.lr, self.norm) = (Some(at.item.loss), Some(at.lr), Some(at.norm));
        self.tok_s = Some(self.tok_s.map_or(at.tok_s, |before| 0.9 * before + 0.1 * at.tok_s));
        self.memory = at.memory.or(self.memory);
        self.weights = at.item.weights.map(|w| (w.min, w.max, w.entropy));
        self.heads.clone_from(&at.item.ce_heads);
        self.train_loss.push(at.step, at.item.loss);
        self.head_curves
            .resize_with(self.heads.len().max(self.head_curves.len()), Curve::default);
        for (curve, ce) in self.head_curves.iter_mut().zip(&at.item.ce_heads) {
            curve.push(at.step, *ce);
        }
    }

    /// A validation is under way.
    pub fn validating(&mut self, done: usize, total: usize) {
        self.stage = Stage::Validating(done, total);
    }

    /// A validation was done.
    pub fn validation(&mut self, step: usize, loss: f64, ce: &[f64]) {
        self.valid = Some((step, loss, ce.to_vec()));
        self.valid_loss.push(step, loss);
        self.stage = if step == 0 { Stage::Starting } else { Stage::Training };
    }

    /// A message or an event.
    pub fn message(&mut self, text: &str) {
        self.messages
            .extend(text.lines().filter(|l| !l.trim().is_empty()).map(str::to_owned));
        let over = self.messages.len().saturating_sub(Self::MESSAGES);
        self.messages.drain(..over);
    }

    /// The time left of the stage, from the pace so far (validations included); None before it has one.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        let clock = self.clock?;
        let done = self.steps.0.checked_sub(clock.from).filter(|&done| done > 0)?;
        let pace = now.saturating_duration_since(clock.started).as_secs_f64() / done as f64;
        let left = self.steps.1.saturating_sub(self.steps.0) as f64;
        Duration::try_from_secs_f64(pace * left).ok()
    }

    /// The share of the stage's steps that is done.
    pub fn share(&self) -> f64 {
        match self.steps {
            (_, 0) => 0.0,
            (done, total) => (done as f64 / total as f64).min(1.0),
        }
    }

    fn advance(&mut self, stage: Stage, step: usize, total: usize, now: Instant) {
        let value = stage == Stage::Value;
        if self.clock.is_none_or(|clock| clock.value != value) {
            // The first step of a stage is slower than the rest: its pace is measured from there.
            self.clock = Some(Clock {
                value,
                from: step,
                started: now,
            });
        }
        self.stage = stage;
        self.steps = (step, total);
    }
}
