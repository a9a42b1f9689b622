//! Data sets as the learner's source of steps.

use super::{
    PipelineError,
    request::{Prepared, Request},
};
use crate::{
    data::{Batch, DataError, Dataset, Epoch, StepShape},
    scorer::CriticConfig,
    train::{StepBatch, StepResult, StepSource},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Micro-batches as the model computes them at the least cost: ragged where attention goes document by
/// document, padded elsewhere.
fn laid_out(batches: Vec<Batch>, ragged: bool) -> Vec<Batch> {
    if ragged {
        batches.iter().map(Batch::ragged).collect()
    } else {
        batches
    }
}

/// Epochs of labelled solutions are numbered from here, so that they are not drawn as the value stage's.
const FIRST_EPOCH: usize = 1 << 31;

/// The labelled solutions of each training step, for a value head that learns along: whole problems in
/// an order that the seed draws, as many as give `scorer.batch` solutions.
pub struct LabelledSteps {
    data: Dataset,
    seed: u64,
    batch: usize,
    micro_batch: usize,
    most: usize,
    passes: Mutex<Passes>,
}

/// The passes over labelled solutions that were needed so far: a step needs the lengths of those before its own,
/// and putting one together takes time with many solutions.
#[derive(Default)]
struct Passes {
    lengths: BTreeMap<usize, usize>,
    last: Option<(usize, Arc<Epoch>)>,
}

impl LabelledSteps {
    /// The solutions to the training tasks.
    ///
    /// # Errors
    /// There are none, or all have the same label: a value head would learn a constant.
    pub fn new(config: &CriticConfig, prepared: &Prepared, request: &Request) -> Result<Self, PipelineError> {
        let data = prepared.solutions(request)?.train;
        let (mut right, mut wrong) = (false, false);
        for document in data.documents() {
            match document?.reward {
                Some(reward) if reward > 0.5 => right = true,
                Some(_) => wrong = true,
                None => {}
            }
            if right && wrong {
                break;
            }
        }
        if !(right && wrong) {
            return Err(PipelineError::Setting(
                "`scorer.value` is `joint`, but the labelled solutions are all right or all wrong; take data with both, or `scorer.value: frozen`".into(),
            ));
        }
        Ok(Self {
            data,
            seed: request.seed(),
            batch: config.batch,
            most: config.max_solutions,
            micro_batch: prepared.shape.micro_batch,
            passes: Mutex::default(),
        })
    }

    /// The solutions.
    pub fn data(&self) -> &Dataset {
        &self.data
    }

    /// Those of step `index` of training epoch `epoch`: a function of these two, so that training
    /// resumes anywhere. Each training epoch begins with an order of its own; where it is longer than
    /// one pass over the solutions, further ones follow.
    fn step(&self, epoch: usize, index: usize) -> Result<Vec<Batch>, DataError> {
        let mut left = index;
        for pass in 0.. {
            let number = FIRST_EPOCH + (epoch << 10) + pass;
            match left.checked_sub(self.steps_of(number)) {
                Some(rest) if rest < left => left = rest,
                _ => return self.pass(number).step(left),
            }
        }
        Ok(Vec::new())
    }

    /// Steps of a pass.
    fn steps_of(&self, number: usize) -> usize {
        let known = self.passes().lengths.get(&number).copied();
        known.unwrap_or_else(|| self.pass(number).len())
    }

    /// A pass, put together unless it is the last one that was needed.
    fn pass(&self, number: usize) -> Arc<Epoch> {
        let mut passes = self.passes();
        if let Some((_, pass)) = passes.last.as_ref().filter(|(last, _)| *last == number) {
            return pass.clone();
        }
        let pass = self
            .data
            .epoch_by_problem(self.seed, number, self.batch, self.micro_batch, self.most);
        let pass = Arc::new(pass);
        passes.lengths.insert(number, pass.len());
        passes.last = Some((number, pass.clone()));
        pass
    }

    fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Training epochs, shuffled and packed anew each.
pub struct TrainSteps {
    /// The documents.
    pub data: Dataset,
    /// Of the value loss, if there is one.
    pub labelled: Option<LabelledSteps>,
    /// Seed of the order.
    pub seed: u64,
    /// Rows in a step.
    pub shape: StepShape,
    /// Whether micro-batches are packed without padding.
    pub ragged: bool,
}

impl StepSource for TrainSteps {
    fn len(&self, epoch: usize) -> usize {
        self.data.epoch(self.seed, epoch, self.shape).len()
    }

    fn steps<'a>(&'a self, epoch: usize, start: usize) -> Box<dyn Iterator<Item = StepResult> + 'a> {
        let steps = self.data.epoch(self.seed, epoch, self.shape);
        Box::new((start..steps.len()).map(move |i| {
            let labelled = self.labelled.as_ref().map(|labelled| labelled.step(epoch, i));
            Ok(StepBatch {
                micro_batches: laid_out(steps.step(i)?, self.ragged),
                labelled: laid_out(labelled.transpose()?.unwrap_or_default(), self.ragged),
                ..StepBatch::default()
            })
        }))
    }
}

/// The value stage's labelled solutions: whole problems, in an order drawn anew for each epoch.
pub struct ValueSteps {
    /// The solutions.
    pub data: Dataset,
    /// Seed of the order.
    pub seed: u64,
    /// Solutions in a step, at least.
    pub batch: usize,
    /// Rows of a micro-batch.
    pub micro_batch: usize,
    /// Solutions of an epoch at most, whole problems; 0: all.
    pub most: usize,
    /// Whether micro-batches are packed without padding.
    pub ragged: bool,
}

impl ValueSteps {
    /// The micro-batches of the first epoch's steps before `step`.
    ///
    /// # Errors
    /// Documents that can't be read.
    pub fn first_epoch(&self, step: usize) -> impl Iterator<Item = Result<Vec<Batch>, DataError>> {
        let steps = self.epoch(0);
        (0..step.min(steps.len())).map(move |i| Ok(laid_out(steps.step(i)?, self.ragged)))
    }

    fn epoch(&self, epoch: usize) -> Epoch {
        self.data
            .epoch_by_problem(self.seed, epoch, self.batch, self.micro_batch, self.most)
    }
}

impl StepSource for ValueSteps {
    fn len(&self, epoch: usize) -> usize {
        self.epoch(epoch).len()
    }

    fn steps<'a>(&'a self, epoch: usize, start: usize) -> Box<dyn Iterator<Item = StepResult> + 'a> {
        let steps = self.epoch(epoch);
        Box::new((start..steps.len()).map(move |i| only(steps.step(i)?, self.ragged)))
    }
}

/// A step without labelled solutions.
fn only(micro_batches: Vec<Batch>, ragged: bool) -> StepResult {
    Ok(StepBatch {
        micro_batches: laid_out(micro_batches, ragged),
        ..StepBatch::default()
    })
}

/// The held-out documents, once, in order, whatever the epoch: one micro-batch a step.
pub struct ValidSteps {
    steps: Epoch,
    ragged: bool,
}

impl ValidSteps {
    /// About `most` documents of `data` (0: all) in micro-batches of at most `micro_batch` rows.
    pub fn new(data: &Dataset, most: usize, micro_batch: usize, ragged: bool) -> Self {
        Self {
            steps: data.for_validation(micro_batch, most),
            ragged,
        }
    }
}

impl StepSource for ValidSteps {
    fn len(&self, _epoch: usize) -> usize {
        self.steps.len()
    }

    fn steps<'a>(&'a self, _epoch: usize, start: usize) -> Box<dyn Iterator<Item = StepResult> + 'a> {
        Box::new((start..self.steps.len()).map(|step| only(self.steps.step(step)?, self.ragged)))
    }
}
