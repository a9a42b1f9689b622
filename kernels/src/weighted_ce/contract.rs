//! What every implementation takes and returns.

use burn::backend::{Backend, tensor::FloatTensor};

/// Which gradients are to be computed along with the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedGradients {
    /// dX `[N, D]`.
    pub hidden: bool,
    /// dW `[V, D]`.
    pub unembedding: bool,
}

impl RequestedGradients {
    /// The loss alone.
    pub const NONE: Self = Self {
        hidden: false,
        unembedding: false,
    };
}

/// The loss and the requested gradients, for an upstream gradient of one. All f32 (f64 if the hidden states are
/// f64); on flex dW may be bf16 ([`Accuracy::gradient`](super::Accuracy)).
#[derive(Debug)]
pub struct LossAndGradients<B: Backend> {
    /// `[1]`
    pub loss: FloatTensor<B>,
    /// `[N]`
    pub ce: FloatTensor<B>,
    /// dX `[N, D]`, if requested.
    pub d_hidden: Option<FloatTensor<B>>,
    /// dW `[V, D]`, if requested.
    pub d_unembedding: Option<FloatTensor<B>>,
}
