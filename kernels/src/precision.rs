//! What products are computed in.

/// How the factors of a product are rounded before they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// To bf16; sums stay f32.
    Bf16,
}

/// How exact [`crate::weighted_ce`] is on flex and ndarray; elsewhere the tensors' types decide, and
/// nothing is filtered. The default computes everything in the tensors' type.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Accuracy {
    /// The factors of the products.
    pub factors: Precision,
    /// The unembedding's gradient, after it has been summed in f32. On ndarray it stays f32.
    pub gradient: Precision,
    /// Relative error that the gradient may have because small probabilities are summed up instead of
    /// multiplied one by one (see [`crate::weighted_ce`]); 0 computes them all, as does f64.
    pub filter: f64,
}
