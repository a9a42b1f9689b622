//! Data sets as the learner's source of steps.

use crate::{
    data::{Batch, Dataset, StepShape},
    train::{StepBatch, StepSource},
};
use std::sync::Arc;

/// Training epochs, shuffled and packed anew each.
pub struct TrainSteps {
    /// The documents.
    pub data: Arc<Dataset>,
    /// Seed of the order.
    pub seed: u64,
    /// Rows in a step.
    pub shape: StepShape,
}

impl StepSource for TrainSteps {
    fn len(&self, epoch: usize) -> usize {
        self.data.epoch(self.seed, epoch, self.shape).len()
    }

    fn steps<'a>(&'a self, epoch: usize, start: usize) -> Box<dyn Iterator<Item = StepBatch> + 'a> {
        let epoch = self.data.epoch(self.seed, epoch, self.shape);
        Box::new((start..epoch.len()).map(move |i| StepBatch {
            micro: epoch.step(i),
            heads_only: false,
        }))
    }
}

/// The held-out documents, once, in order, whatever the epoch: one micro-batch a step.
pub struct ValidSteps(pub Vec<Batch>);

impl StepSource for ValidSteps {
    fn len(&self, _epoch: usize) -> usize {
        self.0.len()
    }

    fn steps<'a>(&'a self, _epoch: usize, start: usize) -> Box<dyn Iterator<Item = StepBatch> + 'a> {
        Box::new(self.0.iter().skip(start).map(|batch| StepBatch {
            heads_only: false,
            micro: vec![batch.clone()],
        }))
    }
}
