//! Weights that are made once for many calls of [`crate::generate`].

use std::sync::Arc;

use crate::causal_lm::CausalLm;
use crate::error::ModelError;
use crate::llama::MtpLlama;
use crate::quantization::Quantization;
use burn::module::Module;

#[cfg(feature = "flex")]
use super::weights::Weights;
#[cfg(feature = "flex")]
use crate::quantization::Storage;

/// A model's weights in the form in which steps read the fewest bytes: quantized if asked for; otherwise with
/// the same values, an f32 matrix of bf16 numbers in bf16, which halves what a step reads. What only drafts depend
/// on is rounded to 8 bits; no text depends on it. It takes memory in addition to the model's
/// own.
///
/// Made once and shared by all calls of [`crate::generate`] that name it. Products of f32 matrices that are kept in
/// bf16 are summed in another order than those of the model's own; both are f32.
#[derive(Clone)]
pub struct PreparedWeights {
    quantization: Option<Quantization>,
    #[cfg(feature = "flex")]
    pub(crate) weights: Arc<Weights>,
    #[cfg(not(feature = "flex"))]
    never: Arc<std::convert::Infallible>,
}

impl PreparedWeights {
    /// Those of `model`; with `drafts` also those of heads 2..H, which speculative decoding needs. None on other
    /// devices than flex and for other types than f32 and bf16, where a model's own are all there are.
    ///
    /// # Errors
    /// Quantized ones are asked for where there are none.
    pub fn new(model: &MtpLlama, drafts: bool, quantization: Option<Quantization>) -> Result<Option<Self>, ModelError> {
        #[cfg(feature = "flex")]
        if let Some(weights) = Weights::new(&model.valid(), drafts, Storage::Prepared(quantization)) {
            return Ok(Some(Self {
                quantization,
                weights: Arc::new(weights),
            }));
        }
        match quantization {
            None => Ok(None),
            Some(_) => Err(ModelError::Request(format!(
                "quantized weights generate on flex only, and this model is on {:?}",
                model.device()
            ))),
        }
    }

    /// How they are rounded; those of head 1 and what is before it.
    pub fn quantization(&self) -> Option<Quantization> {
        self.quantization
    }
}

impl std::fmt::Debug for PreparedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PreparedWeights").field(&self.quantization).finish()
    }
}

impl PartialEq for PreparedWeights {
    /// Whether they are the same ones.
    fn eq(&self, other: &Self) -> bool {
        #[cfg(feature = "flex")]
        return Arc::ptr_eq(&self.weights, &other.weights);
        #[cfg(not(feature = "flex"))]
        return Arc::ptr_eq(&self.never, &other.never);
    }
}

impl Eq for PreparedWeights {}
