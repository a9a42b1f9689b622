//! The operations of a decoder layer on slices in host memory, forward and backward.
//!
//! Activations are f32 rows; what a backward pass needs later can be stored in bf16 ([`Store`]).
//! Loops are compiled for the widest vectors of the machine at run time (`pulp`). No result depends
//! on the number of threads: rows are computed independently, and sums over rows are taken over
//! blocks of a fixed size, added up in order.

pub mod accumulate;
pub mod adamw;
pub mod attention;
pub mod cached;
pub(crate) mod exp;
pub mod rms_norm;
pub mod rotary;
pub mod row_sums;
pub mod square_sums;
mod store;
pub mod swiglu;
#[cfg(test)]
mod tests;

pub use adamw::FloatSliceMut;
pub(crate) use store::widen;
pub use store::{Store, rounded, rounded_away};

/// Rows that are computed, and summed over, at a time.
pub(crate) const ROWS_PER_BLOCK: usize = 16;

/// Runs `loops`, compiled for the widest vectors that the machine has.
#[inline(always)]
pub(crate) fn vectorized<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}
