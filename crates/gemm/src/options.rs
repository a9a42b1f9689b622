//! How a product is computed.

/// How the factors of a product are rounded before they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Not at all.
    #[default]
    F32,
    /// To bf16; sums stay f32.
    Bf16,
}

/// The threads that compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// Those of the current rayon pool.
    All,
    /// The calling one alone.
    Calling,
}
