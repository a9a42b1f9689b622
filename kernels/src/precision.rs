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
