//! What a person sees while training: burn-train's dashboard on a terminal, plain lines elsewhere.

use super::StepOutput;
use burn::{
    tensor::TensorReadError,
    train::{
        LearnerSummary,
        logger::{EvaluationProgressLogger, TrainingProgressLogger},
        metric::{
            Adaptor, Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
            NumericAttributes, NumericEntry, SerializedEntry,
            state::{FormatOptions, NumericMetricState},
        },
        renderer::{EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining},
    },
};
use std::sync::Arc;

/// One figure of a step, for the dashboard.
#[derive(Clone)]
pub struct StepMetric {
    name: MetricName,
    read: fn(&StepOutput) -> Option<f64>,
    state: NumericMetricState,
}

impl StepMetric {
    /// A metric that reads one figure.
    pub fn new(name: &str, read: fn(&StepOutput) -> Option<f64>) -> Self {
        Self {
            name: Arc::new(name.into()),
            read,
            state: NumericMetricState::default(),
        }
    }

    /// The dashboard's metrics of a training step.
    pub fn all() -> Vec<Self> {
        vec![
            Self::new("Loss", |o| Some(o.loss)),
            Self::new("CE head 1", |o| o.ce_heads.first().copied()),
            Self::new("CE last head", |o| o.ce_heads.last().copied()),
            Self::new("Weight entropy", |o| o.weights.map(|w| w.entropy)),
            Self::new("Largest weight", |o| o.weights.map(|w| w.max)),
        ]
    }
}

impl Adaptor<StepOutput> for StepOutput {
    fn adapt(&self) -> StepOutput {
        self.clone()
    }
}

impl Metric for StepMetric {
    type Input = StepOutput;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: false,
        }
        .into()
    }

    fn update(&mut self, item: &StepOutput, _metadata: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        if let Some(value) = (self.read)(item) {
            self.state.update(value, item.response_tokens.max(1));
        }
        Ok(self.state.compute_update(FormatOptions::new(self.name()).precision(4)))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.state.compute_final(FormatOptions::new(self.name()).precision(4)))
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for StepMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(self.state.current_value())
    }

    fn running_value(&self) -> Option<NumericEntry> {
        Some(self.state.running_value())
    }

    fn final_value(&self) -> NumericEntry {
        self.state.final_value()
    }
}

/// Draws nothing: off a terminal the strategy's own lines are what one sees.
pub struct Quiet;

impl MetricsRendererTraining for Quiet {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, _state: MetricState) {}

    fn on_train_end(&mut self, _summary: Option<LearnerSummary>) -> Result<(), Box<dyn core::error::Error>> {
        Ok(())
    }
}

impl MetricsRendererEvaluation for Quiet {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl TrainingProgressLogger for Quiet {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _label: Option<&str>) {}

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, _split: &str, _total_items: usize) {}

    fn update_split(&mut self, _items_processed: usize) {}

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for Quiet {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Quiet {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}
