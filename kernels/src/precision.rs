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

/// Where flex and ndarray round to bf16 in [`crate::weighted_ce`]; elsewhere the tensors' types decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rounding {
    /// The factors of the products.
    pub factors: Precision,
    /// The unembedding's gradient, after it has been summed in f32. On ndarray it stays f32.
    pub gradient: Precision,
}
