//! What an optimizer step is computed from, and what it found.

use burn::{
    optim::GradientsParams,
    tensor::ExecutionError,
    train::{ItemLazy, TrainOutput},
};
use std::{collections::BTreeMap, sync::Arc};
use wmtp_data::{Batch, DataError, Dataset};
use wmtp_run::StepNames;
use wmtp_scorer::{ScorerError, WeightStats, critic::Observations};

/// Everything that one optimizer step is computed from.
///
/// How micro-batches lie in memory is decided once, where steps are made: ragged ([`Batch::ragged`]) where
/// the model attends document by document, else padded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepBatch {
    /// The micro-batches, in order.
    pub micro_batches: Vec<Batch>,
    /// Micro-batches of labelled solutions, right and wrong ones, for the value loss; empty where no
    /// value head learns.
    pub labelled: Vec<Batch>,
    /// Optimizer step, from 0. The training loop sets it.
    pub step: usize,
    /// Only heads 2..H learn from it (`train.head_warmup`). The training loop sets it.
    pub heads_only: bool,
}

impl StepBatch {
    /// The loss's denominator: response tokens of all micro-batches.
    pub fn response_tokens(&self) -> usize {
        self.micro_batches.iter().map(Batch::response_tokens).sum()
    }

    /// Tokens that the model reads, prompts included, padding not.
    pub fn tokens(&self) -> usize {
        self.micro_batches
            .iter()
            .flat_map(|b| &b.documents)
            .map(|d| d.len)
            .sum()
    }
}

/// What a step computed, all on the host.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    /// The weighted loss; of a validation step the unweighted one.
    pub loss: f64,
    /// Unweighted mean cross-entropy in nats of each head, over its targets with a weight above 0.
    pub ce_heads: Vec<f64>,
    /// Response tokens (the denominator).
    pub response_tokens: usize,
    /// Tokens read.
    pub tokens: usize,
    /// Statistics of the response tokens' weights. None in validation.
    pub weights: Option<WeightStats>,
    /// How many weights lie in each bin of [`super::histogram::edges`]. Empty in validation.
    pub weight_counts: Vec<u32>,
    /// Groups whose scores were not finite.
    pub fallbacks: usize,
    /// Groups that were weighted.
    pub groups: usize,
    /// Where the first fallback happened: "document mbpp/601/reference, token 17".
    pub first_fallback: Option<String>,
    /// The value head's loss, where it is trained along.
    pub value_loss: Option<f64>,
    /// The step has nothing to compare (no pair of a right and a wrong solution of one problem): it does
    /// not count.
    pub nothing_to_compare: bool,
    /// Values on held-out solutions, of a validation step of the value stage.
    pub observations: Option<Observations>,
    /// An error that ended the step early; everything else is then meaningless.
    pub failure: Option<Arc<ScorerError>>,
}

impl StepOutput {
    /// A step that could not be computed.
    pub(super) fn failed(error: ScorerError) -> Self {
        Self {
            failure: Some(Arc::new(error)),
            ..Self::default()
        }
    }
}

/// What burn-train takes from a training step, with no gradients where the step could not be computed.
pub(super) fn train_output(step: Result<(GradientsParams, StepOutput), ScorerError>) -> TrainOutput<StepOutput> {
    let (grads, item) = step.unwrap_or_else(|error| (GradientsParams::new(), StepOutput::failed(error)));
    TrainOutput { grads, item }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

/// The document names of a training set and, where a value head is trained along, of its labelled solutions.
/// Documents on disk are named step by step instead (`names_of`): there may be millions.
///
/// # Errors
/// None: documents in memory can be read.
pub fn step_names(train: &Dataset, labelled: Option<&Dataset>) -> Result<StepNames, DataError> {
    let names = |data: &Dataset| -> Result<_, DataError> {
        let documents = data.documents().take_while(|_| !data.on_disk());
        documents
            .map(|document| document.map(|d| (d.sample, d.name.clone())))
            .collect()
    };
    Ok(StepNames {
        documents: names(train)?,
        labelled: labelled.map(names).transpose()?.unwrap_or_default(),
    })
}

/// The names of a step's documents that `known` does not have.
pub(super) fn names_of(step: &StepBatch, known: &StepNames) -> StepNames {
    let names = |micro: &[Batch], known: &BTreeMap<usize, String>| {
        let documents = micro.iter().flat_map(|batch| &batch.documents);
        documents
            .filter(|document| !known.contains_key(&document.sample))
            .map(|document| (document.sample, document.name.clone()))
            .collect()
    };
    StepNames {
        documents: names(&step.micro_batches, &known.documents),
        labelled: names(&step.labelled, &known.labelled),
    }
}

/// The sample numbers of each micro-batch.
pub(super) fn sample_numbers(micro: &[Batch]) -> Vec<Vec<usize>> {
    let of = |batch: &Batch| batch.documents.iter().map(|d| d.sample).collect();
    micro.iter().map(of).collect()
}
