//! The Llama with several prediction heads.
//!
//! As Gloeckle et al. 2024 (arXiv 2404.19737, "parallel" heads) ship theirs: the trunk is all
//! decoder layers but the last; head 1 is the last layer; heads 2..H are one decoder layer each, fed
//! by the same trunk output; all share the final norm and the unembedding (heads of Fast-LLM have final norms
//! of their own). Seen through head 1 alone it is exactly the model it was loaded from: a Llama, or one of
//! another family whose layers [`crate::LayerSpec`] describes. There is no loss here, and no sampling.

use std::convert::Infallible;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData, module::embedding};

use crate::causal_lm::CausalLm;
use crate::compute::{Compute, Packed, on_slices};
use crate::config::LlamaConfig;
use crate::decoder::{AttentionContext, DecoderLayer, Weight};
use crate::linear::{Linear, RmsNorm, linear};
use crate::names;
use crate::random;

/// A multi-token Llama; see the module's first paragraph.
#[derive(Module, Debug)]
pub struct MtpLlama {
    embed_tokens: Param<Tensor<2>>,
    layers: Vec<DecoderLayer>,
    heads: Vec<DecoderLayer>,
    norm: RmsNorm,
    /// Of heads 2..H, where they do not share `norm`.
    head_norms: Vec<RmsNorm>,
    lm_head: Option<Linear>,
    #[module(skip)]
    config: LlamaConfig,
    #[module(skip)]
    compute: Compute,
}

impl LlamaConfig {
    /// A model with random weights (normal, standard deviation `initializer_range`; norms 1) in f32.
    /// The same seed gives the same weights everywhere.
    pub fn init(&self, seed: u64, device: &Device) -> MtpLlama {
        self.init_dtype(seed, DType::F32, device)
    }

    /// [`LlamaConfig::init`] with another float type.
    pub fn init_dtype(&self, seed: u64, dtype: DType, device: &Device) -> MtpLlama {
        let std = self.initializer_range;
        let built = MtpLlama::build::<Infallible>(self, dtype, device, &mut |name, shape| {
            Ok(random::weight(seed, name, shape, std))
        });
        match built {
            Ok(model) => model,
            Err(never) => match never {},
        }
    }
}

/// Where a model's weights come from: the data of the tensor with this name and shape.
pub(crate) type Source<'a, E> = dyn FnMut(&str, &[usize]) -> Result<TensorData, E> + 'a;

impl MtpLlama {
    /// Builds the model that `config` describes, asking `source` for one tensor after another.
    pub(crate) fn build<E>(
        config: &LlamaConfig,
        dtype: DType,
        device: &Device,
        source: &mut Source<'_, E>,
    ) -> Result<Self, E> {
        let shapes: std::collections::BTreeMap<String, Vec<usize>> = config
            .all_tensors()
            .into_iter()
            .map(|spec| (spec.name, spec.shape))
            .collect();
        let source = std::cell::RefCell::new(source);
        let data = |name: &str| -> Result<TensorData, E> {
            let shape = shapes.get(name).map_or(&[][..], Vec::as_slice);
            (source.borrow_mut())(name, shape)
        };
        let matrix = |name: &str| data(name).map(|data| param::<2>(name, data, dtype, device));
        let vector = |name: &str| data(name).map(|data| param::<1>(name, data, dtype, device));
        let layer = |index: usize, prefix: String| {
            let named = |name: &str| format!("{prefix}{name}");
            DecoderLayer::build(config, index, &|name| matrix(&named(name)), &|name| {
                vector(&named(name))
            })
        };
        let eps = config.layer_spec().norm.eps();
        let norm = |name: String| vector(&name).map(|weight| RmsNorm::new(weight, eps));
        let last = config.num_hidden_layers.saturating_sub(1);
        Ok(Self {
            embed_tokens: matrix(names::EMBEDDING)?,
            layers: (0..last)
                .map(|i| layer(i, names::layer_prefix(i)))
                .collect::<Result<_, E>>()?,
            heads: std::iter::once(names::layer_prefix(last))
                .chain((2..=config.n_heads).map(names::head_prefix))
                .map(|prefix| layer(last, prefix))
                .collect::<Result<_, E>>()?,
            norm: norm(names::NORM.to_owned())?,
            head_norms: (2..=config.n_heads)
                .filter(|_| config.head_norms)
                .map(|k| norm(format!("{}{}", names::head_prefix(k), names::HEAD_NORM)))
                .collect::<Result<_, E>>()?,
            lm_head: if config.tie_word_embeddings {
                None
            } else {
                Some(Linear {
                    weight: matrix(names::UNEMBEDDING)?,
                    bias: None,
                })
            },
            config: config.clone(),
            compute: Compute::default(),
        })
    }

    /// All parameters with their names in the model directory.
    pub(crate) fn weights(&self) -> Vec<(String, Weight<'_>)> {
        let last = self.layers.len();
        let trunk = self
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| (names::layer_prefix(i), layer));
        let heads = self.heads.iter().enumerate().map(|(i, head)| {
            (
                if i == 0 {
                    names::layer_prefix(last)
                } else {
                    names::head_prefix(i + 1)
                },
                head,
            )
        });
        let mut weights = vec![(names::EMBEDDING.to_owned(), Weight::Matrix(&self.embed_tokens))];
        for (prefix, layer) in trunk.chain(heads) {
            let own = layer.weights().into_iter();
            weights.extend(own.map(|(name, weight)| (format!("{prefix}{name}"), weight)));
        }
        weights.push((names::NORM.to_owned(), Weight::Vector(&self.norm.weight)));
        let norms = (2..).zip(&self.head_norms);
        weights.extend(norms.map(|(k, norm)| {
            let name = format!("{}{}", names::head_prefix(k), names::HEAD_NORM);
            (name, Weight::Vector(&norm.weight))
        }));
        if let Some(head) = &self.lm_head {
            weights.push((names::UNEMBEDDING.to_owned(), Weight::Matrix(&head.weight)));
        }
        weights
    }

    /// Names of the weights that hold NaN or infinite values, in the order of the model. Reads every
    /// weight: meant for explaining a result that is not finite.
    pub fn not_finite(&self) -> Vec<String> {
        let weights = self.weights().into_iter();
        weights
            .filter(|(_, weight)| weight.values().iter().any(|value| !value.is_finite()))
            .map(|(name, _)| name)
            .collect()
    }

    /// Head warm-up: freezes everything but heads 2..H, so that new heads train before their gradients reach
    /// the trunk. What was frozen stays frozen.
    pub fn only_extra_heads_learn(mut self) -> Self {
        let mut heads = self.heads.into_iter();
        self.heads = heads.next().map(Module::no_grad).into_iter().chain(heads).collect();
        self.embed_tokens = self.embed_tokens.set_require_grad(false);
        self.layers = self.layers.no_grad();
        self.norm = self.norm.no_grad();
        self.lm_head = self.lm_head.no_grad();
        self
    }

    /// The same model for inference with its weights in `dtype`, rounded to the nearest.
    pub fn in_dtype(self, dtype: DType) -> Self {
        if self.dtype() == dtype {
            return self;
        }
        self.valid().map(&mut InDtype(dtype))
    }

    /// The same model, computed as `compute` says.
    pub fn with_compute(mut self, compute: Compute) -> Self {
        self.compute = compute;
        self
    }

    /// The float type of activations while decoding: that of the weights, but f32 on flex with
    /// weights in bf16, which are widened as they are read.
    pub(crate) fn decoded_dtype(&self) -> DType {
        #[cfg(feature = "flex")]
        if self.dtype() == DType::BF16 && self.device() == Device::flex() {
            return DType::F32;
        }
        self.dtype()
    }

    /// Head `k`'s hidden states after the final norm, `[R, D]`: at some flat positions, or at all.
    fn hidden(
        &self,
        k: usize,
        trunk: Tensor<3>,
        ctx: &AttentionContext,
        positions: Option<Tensor<1, Int>>,
    ) -> Tensor<2> {
        assert!(
            (1..=self.heads.len()).contains(&k),
            "head {k} of a model with {}",
            self.heads.len()
        );
        let x = self.heads[k - 1].forward(trunk.flatten(0, 1), ctx, positions);
        let x = self.norm_of(k).forward(x);
        match self.compute.rounded_activations {
            true => rounded_activations(x),
            false => x,
        }
    }

    /// The final norm of head `k`.
    pub(crate) fn norm_of(&self, k: usize) -> &RmsNorm {
        let own = k.checked_sub(2).and_then(|index| self.head_norms.get(index));
        own.unwrap_or(&self.norm)
    }

    /// The parts that decoding with a KV cache needs.
    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            embedding: self.embed_tokens.val(),
            trunk: &self.layers,
            heads: &self.heads,
            unembedding: self.lm_head.as_ref().map(|head| head.weight.val()),
        }
    }
}

impl CausalLm for MtpLlama {
    fn compute(&self) -> Compute {
        self.compute
    }

    fn n_heads(&self) -> usize {
        self.heads.len()
    }

    fn config(&self) -> &LlamaConfig {
        &self.config
    }

    fn device(&self) -> Device {
        self.embed_tokens.lazy_device()
    }

    fn dtype(&self) -> DType {
        self.embed_tokens.base().dtype()
    }

    fn context(&self, input: &Packed) -> AttentionContext {
        AttentionContext::packed(&self.config, input, self.compute, self.dtype(), &self.device())
    }

    fn trunk(&self, input: &Packed, ctx: &AttentionContext) -> Tensor<3> {
        let x = embedding(self.embed_tokens.val(), input.tokens.clone());
        self.trunk_of(x.flatten(0, 1), ctx)
    }

    fn embedded(&self, input: &Packed) -> Tensor<2> {
        let rows = embedding(self.embed_tokens.val().detach(), input.tokens.clone());
        rows.flatten(0, 1).detach()
    }

    fn trunk_of(&self, embedded: Tensor<2>, ctx: &AttentionContext) -> Tensor<3> {
        let x = if ctx.on_slices() {
            embedded.cast(DType::F32)
        } else {
            embedded
        };
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, ctx, None));
        x.reshape([ctx.batch, ctx.seq, self.config.hidden_size])
    }

    fn embedding_id(&self) -> ParamId {
        self.embed_tokens.id
    }

    fn head(&self, k: usize, trunk: Tensor<3>, ctx: &AttentionContext) -> Tensor<3> {
        let dims = trunk.dims();
        self.hidden(k, trunk, ctx, None).reshape(dims)
    }

    fn head_at(&self, k: usize, trunk: Tensor<3>, ctx: &AttentionContext, positions: Tensor<1, Int>) -> Tensor<2> {
        self.hidden(k, trunk, ctx, Some(positions))
    }

    fn attends_by_document(&self) -> bool {
        on_slices(self.dtype(), &self.device())
    }

    fn unembedding(&self) -> Tensor<2> {
        self.lm_head
            .as_ref()
            .map_or_else(|| self.embed_tokens.val(), |head| head.weight.val())
    }

    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d] = hidden.dims();
        let rows = hidden.reshape([batch * seq, d]).cast(self.decoded_dtype());
        let logits = linear(rows, self.unembedding());
        logits.reshape([batch, seq, self.config.vocab_size])
    }
}

/// See [`Compute::rounded_activations`].
fn rounded_activations(x: Tensor<2>) -> Tensor<2> {
    let (shape, device, dtype) = (x.shape(), x.device(), x.dtype());
    let mut values: Vec<f32> = x.into_data().iter::<f32>().collect();
    wmtp_gemm::round_rows(&mut values, shape[1]);
    Tensor::from_data(TensorData::new(values, shape), (&device, dtype))
}

/// A model's parts by reference.
pub(crate) struct Parts<'a> {
    /// `[V, D]`.
    pub embedding: Tensor<2>,
    /// All layers but the last.
    pub trunk: &'a [DecoderLayer],
    /// Heads 1..H.
    pub heads: &'a [DecoderLayer],
    /// `[V, D]`; none where it is the embedding.
    pub unembedding: Option<Tensor<2>>,
}

/// Changes the float type of every parameter.
struct InDtype(DType);

impl ModuleMapper for InDtype {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

/// A trainable parameter whose identity follows from its name.
fn param<const D: usize>(name: &str, data: TensorData, dtype: DType, device: &Device) -> Param<Tensor<D>> {
    let tensor = Tensor::from_data(data.convert_dtype(dtype), (device, dtype));
    Param::initialized(random::param_id(name), tensor).set_require_grad(true)
}

#[cfg(test)]
mod tests {
    use crate::{LlamaConfig, LoadOptions, SaveDtype, load, save};
    use burn::tensor::Device;

    #[test]
    fn the_weight_with_nan_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = LlamaConfig::new(8, 4, 2, 1);
        save(&config.init(1, &Device::flex()), dir.path(), SaveDtype::F32).unwrap();
        let read = || load(dir.path(), &LoadOptions::default(), &Device::flex()).unwrap();
        assert!(read().not_finite().is_empty());
        // The last tensor by name is the final norm; its last value lies at the end of the file.
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len() - 4;
        bytes[end..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read().not_finite(), ["model.norm.weight"]);
    }
}
