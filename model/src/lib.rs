//! A Llama that predicts several tokens at once: modules, loading, saving, generating.
//!
//! This crate knows transformers and their files; it knows nothing of data sets, losses or training
//! runs. The mathematics is that of Llama decoders with parallel prediction heads, see [`MtpLlama`].

mod causal_lm;
mod companions;
mod compute;
mod config;
mod convert;
mod decoder;
mod error;
mod export;
mod fast_llm;
mod fields;
mod file_content;
mod findings;
#[cfg(feature = "flex")]
mod flex;
mod foreign;
mod fp8;
mod generate;
mod linear;
mod llama;
mod lora;
mod missing_file;
mod names;
mod peft;
mod prefix;
mod pytorch_file;
mod quantization;
mod random;
mod raw;
mod reward;
mod rope;
mod rope_fields;
mod sampling;
mod store;
mod tensor_file;
mod value_head;

pub use causal_lm::CausalLm;
pub use companions::{COMPANIONS, Companions};
pub use compute::{Compute, Packed};
pub use config::{LlamaConfig, RopeConfig, RopeScaling, Yarn, YarnScale};
pub use convert::{Converted, Direction, convert, hf_to_meta, meta_to_hf};
pub use decoder::{Activation, Attention, AttentionContext, Biases, DecoderLayer, LayerKind, LayerSpec, Mlp, Norm};
pub use error::{ModelError, Problems};
pub use export::{ExportOptions, Exported, Heads, export, export_model, export_weights, is_adapter, stored_dtype};
pub use file_content::other_content;
pub use generate::{Decoding, Effort, Finish, Generation, PreparedWeights, Request, Totals, generate, generate_all};
pub use linear::{Linear, RmsNorm};
pub use llama::MtpLlama;
pub use lora::{apply_lora, continue_adapter, load_adapter, merged, save_adapter};
pub use names::TensorSpec;
pub use quantization::{Quantization, with_rounded_matrices};
pub use raw::SaveDtype;
pub use reward::RewardModel;
pub use sampling::Sampling;
pub use store::{
    HeadInit, LoadOptions, adapted_config, check_weights, from_bytes, load, load_adapted, model_hash, save, to_bytes,
};
pub use value_head::ValueHead;
pub use wmtp_kernels::Precision;
