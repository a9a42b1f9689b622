//! Steps as burn-train's data loader, able to start anywhere.

use super::StepBatch;
use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderIterator, Progress},
        dataset::DatasetError,
    },
    tensor::Device,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use wmtp_data::DataError;

/// A step, or why its documents could not be read.
pub type StepResult = Result<StepBatch, DataError>;

/// Where steps come from: a pure function of (epoch, index), so that training resumes anywhere.
pub trait StepSource: Send + Sync {
    /// Steps of an epoch.
    fn len(&self, epoch: usize) -> usize;

    /// True if the epoch has no step.
    fn is_empty(&self, epoch: usize) -> bool {
        self.len(epoch) == 0
    }

    /// The steps of an epoch from the `start`th on.
    fn steps<'a>(&'a self, epoch: usize, start: usize) -> Box<dyn Iterator<Item = StepResult> + 'a>;
}

/// A [`StepSource`] seen as a burn data loader. Clones share their position.
#[derive(Clone)]
pub struct StepLoader {
    source: Arc<dyn StepSource>,
    epoch: Arc<AtomicUsize>,
    start: Arc<AtomicUsize>,
    range: Option<(usize, usize)>,
}

impl StepLoader {
    /// A loader that starts at the first step of epoch 0.
    pub fn new(source: Arc<dyn StepSource>) -> Self {
        Self {
            source,
            epoch: Arc::default(),
            start: Arc::default(),
            range: None,
        }
    }

    /// The next [`DataLoader::iter`] starts there.
    pub fn seek(&self, epoch: usize, step_in_epoch: usize) {
        self.epoch.store(epoch, Ordering::Relaxed);
        self.start.store(step_in_epoch, Ordering::Relaxed);
    }

    /// Steps of an epoch.
    pub fn steps(&self, epoch: usize) -> usize {
        self.source.len(epoch)
    }
}

struct Steps<'a> {
    steps: Box<dyn Iterator<Item = StepResult> + 'a>,
    done: usize,
    end: usize,
}

impl Iterator for Steps<'_> {
    type Item = Result<StepBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done >= self.end {
            return None;
        }
        self.done += 1;
        self.steps.next().map(|step| step.map_err(DatasetError::new))
    }
}

impl DataLoaderIterator<StepBatch> for Steps<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.end, Some("steps".into()))
    }
}

impl DataLoader<StepBatch> for StepLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<StepBatch> + 'a> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let len = self.source.len(epoch);
        let (first, end) = self.range.unwrap_or((0, len));
        let done = first + self.start.load(Ordering::Relaxed);
        Box::new(Steps {
            steps: self.source.steps(epoch, done),
            done,
            end: end.min(len),
        })
    }

    fn num_items(&self) -> usize {
        let len = self.source.len(self.epoch.load(Ordering::Relaxed));
        self.range
            .map_or(len, |(start, end)| end.min(len).saturating_sub(start))
    }

    /// Batches are host data until the module packs them, so there is nothing to move.
    fn to_device(&self, _device: &Device) -> Arc<dyn DataLoader<StepBatch>> {
        Arc::new(self.clone())
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<StepBatch>> {
        Arc::new(Self {
            range: Some((start, end)),
            ..self.clone()
        })
    }
}
