//! A Llama with a scalar score instead of an unembedding, as transformers'
//! `LlamaForSequenceClassification` with one label stores it: the score of a text is read at its last
//! token. For inference only.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::causal_lm::CausalLm;
use crate::compute::Packed;
use crate::config::LlamaConfig;
use crate::error::ModelError;
use crate::linear::Linear;
use crate::llama::MtpLlama;
use crate::names::TensorSpec;
use crate::raw;
use crate::store;

/// Name of the score's weight `[1, D]`.
const SCORE: &str = "score.weight";
/// Texts that run through the model at once: bounds the memory of a long list.
const AT_ONCE: usize = 8;

/// A reward model; see the module's first paragraph.
#[derive(Module, Debug)]
pub struct RewardModel {
    model: MtpLlama,
    score: Linear,
}

impl RewardModel {
    /// Loads the model in `dir`, in f32.
    ///
    /// # Errors
    /// A file cannot be read or is damaged, the configuration is not a Llama's, or the tensors do not
    /// fit it: all that is wrong is listed.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let mut config = LlamaConfig::read(dir)?;
        // There is no unembedding, and other heads than the first have no say in a score.
        config.tie_word_embeddings = true;
        config.n_heads = 1;
        let score = TensorSpec {
            name: SCORE.to_owned(),
            shape: vec![1, config.hidden_size],
        };
        let mut problems = Vec::new();
        let files = store::open_standard(dir, &config)?.model;
        store::check_model(&config, std::slice::from_ref(&score), &files, &mut problems);
        store::fail_if_any(problems, dir)?;
        let model = store::build(&config, &files, DType::F32, device, dir)?;
        let values = files.values(SCORE).unwrap_or_default();
        let weight = Tensor::from_data(TensorData::new(values, score.shape), (device, DType::F32));
        Ok(Self {
            model,
            score: Linear {
                weight: Param::from_tensor(weight),
                bias: None,
            },
        })
    }

    /// The configuration of the Llama inside.
    pub fn config(&self) -> &LlamaConfig {
        self.model.config()
    }

    /// The score of each text, read at its last token.
    ///
    /// # Errors
    /// A text is empty or holds an unknown token.
    pub fn score(&self, tokens: &[Vec<u32>]) -> Result<Vec<f32>, ModelError> {
        for (i, text) in tokens.iter().enumerate() {
            if text.is_empty() {
                return Err(ModelError::Request(format!(
                    "text {i} is empty: a score is read at the last token"
                )));
            }
            let known = self.config().vocab_size;
            if let Some(id) = text.iter().find(|id| **id as usize >= known) {
                return Err(ModelError::Request(format!(
                    "text {i} holds token {id}, the reward model knows 0 to {}: was it made with another tokenizer?",
                    known - 1
                )));
            }
        }
        let plain = self.valid();
        Ok(tokens
            .chunks(AT_ONCE)
            .flat_map(|texts| plain.score_batch(texts))
            .collect())
    }

    fn score_batch(&self, texts: &[Vec<u32>]) -> Vec<f32> {
        let input = Packed::from_documents(texts, &self.model.device());
        let ctx = self.model.context(&input);
        let hidden = self.model.head(1, self.model.trunk(&input, &ctx), &ctx);
        let last = texts
            .iter()
            .enumerate()
            .map(|(row, text)| hidden.clone().slice([row..row + 1, text.len() - 1..text.len()]))
            .collect();
        let last: Tensor<3> = Tensor::cat(last, 0);
        let scores = self.score.forward(last.squeeze_dim(1));
        raw::to_f32(scores.into_data())
    }
}
