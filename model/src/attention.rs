//! Grouped-query attention that never crosses a document.
//!
//! What all layers share (mask, rotary tables) is computed once per batch in [`AttentionContext`].
//! Whole rows go through [`crate::blocks`] or [`crate::halves`]; what is here beside the context is
//! decoding with a cache. Keys and values are not repeated for the query heads that share them:
//! queries of a group are laid under each other, so that one product serves the whole group.

use std::{ops::Range, sync::Arc};

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::blocks::Plan;
use crate::config::LlamaConfig;
use crate::halves;
use crate::layers::Linear;
use crate::ops;
use crate::rope::RopeTables;
use wmtp_kernels::Precision;

/// A batch of token rows that may hold several documents each; all `[B, S]`.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Token ids.
    pub tokens: Tensor<2, Int>,
    /// Position of each token in its document, from 0.
    pub positions: Tensor<2, Int>,
    /// Number of the document that each token belongs to; negative for padding.
    pub docs: Tensor<2, Int>,
}

impl Packed {
    /// One document a row, from its start, padded on the right to the longest.
    pub fn from_documents(documents: &[Vec<u32>], device: &Device) -> Self {
        let seq = documents.iter().map(Vec::len).max().unwrap_or(0);
        let (mut tokens, mut positions, mut docs) = (Vec::new(), Vec::new(), Vec::new());
        for document in documents {
            let padding = seq - document.len();
            tokens.extend(
                document
                    .iter()
                    .map(|id| i64::from(*id))
                    .chain(std::iter::repeat_n(0, padding)),
            );
            positions.extend((0..document.len() as i64).chain(std::iter::repeat_n(0, padding)));
            docs.extend(document.iter().map(|_| 0).chain(std::iter::repeat_n(-1, padding)));
        }
        let tensor = |values: Vec<i64>| Tensor::from_data(TensorData::new(values, [documents.len(), seq]), device);
        Self {
            tokens: tensor(tokens),
            positions: tensor(positions),
            docs: tensor(docs),
        }
    }
}

/// How layers are computed where the backend leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compute {
    /// What the factors of matrix products are rounded to; sums and everything else stay f32.
    pub precision: Precision,
    /// The type of the matrices' gradients, summed in f32 in any case.
    pub gradients: Precision,
    /// Keep the inputs of each layer's halves only, and compute the rest again in the backward pass.
    pub recompute: bool,
}

/// Whether a device, with or without autodiff, is flex.
pub(crate) fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return device.clone().inner() == Device::flex();
    #[cfg(not(feature = "flex"))]
    return {
        let _ = device;
        false
    };
}

/// Whether whole rows are computed on slices in host memory.
pub(crate) fn on_host(dtype: DType, device: &Device) -> bool {
    matches!(dtype, DType::F32 | DType::BF16) && is_flex(device)
}

/// Mask and rotary tables of one batch, shared by all layers and heads.
#[derive(Debug, Clone)]
pub struct AttentionContext {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) way: Way,
}

/// How the layers are computed, with what that needs of a batch.
#[derive(Debug, Clone)]
pub(crate) enum Way {
    /// Whole rows, on slices in host memory: f32 and bf16 on flex.
    Host(Arc<Plan>),
    /// Whole rows, in the backend's own operations.
    Device(Box<halves::Batch>),
}

impl AttentionContext {
    /// For whole rows: token `i` sees token `j` where `j <= i` and both are of one document.
    /// Padding sees only itself.
    pub(crate) fn packed(
        config: &LlamaConfig,
        input: &Packed,
        compute: Compute,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let [batch, seq] = input.tokens.dims();
        let docs = host(&input.docs);
        let positions = host(&input.positions);
        let way = if on_host(dtype, device) {
            let compute = match dtype {
                DType::BF16 => Compute {
                    precision: Precision::Bf16,
                    gradients: Precision::Bf16,
                    ..compute
                },
                _ => compute,
            };
            Way::Host(Arc::new(Plan::new(config, &positions, &docs, seq, compute)))
        } else {
            let of_tokens = [&positions[..], &docs[..]];
            Way::Device(Box::new(halves::Batch::new(
                config,
                of_tokens,
                [batch, seq],
                compute,
                dtype,
                device,
            )))
        };
        Self { batch, seq, way }
    }
}

/// What all layers share about the next tokens of several texts, laid one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Cached {
    rope: RopeTables,
    texts: Vec<NewTokens>,
}

/// The new tokens of one text.
#[derive(Debug, Clone)]
struct NewTokens {
    /// Among all new tokens.
    rows: Range<usize>,
    /// Added to the scores `[1, 1, 1, S, T]`: 0 where a token may look, [`forbidden`] elsewhere; none
    /// for a single one, which sees all.
    bias: Option<Tensor<5>>,
}

/// For which new tokens attention is computed, and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// For all.
    All,
    /// For the last of each text.
    LastOfEach,
}

impl Cached {
    /// `positions` of each text's new tokens; it has read all before them.
    pub(crate) fn new(config: &LlamaConfig, positions: Vec<Range<usize>>, dtype: DType, device: &Device) -> Self {
        let all: Vec<i64> = positions.iter().cloned().flatten().map(|p| p as i64).collect();
        let mut from = 0;
        let texts = positions
            .into_iter()
            .map(|positions| {
                let rows = from..from + positions.len();
                from = rows.end;
                let bias = (rows.len() > 1).then(|| {
                    let low = forbidden(dtype);
                    let row = |p: usize| (0..positions.end).map(move |t| if t <= p { 0.0 } else { low });
                    let values = positions.clone().flat_map(row).collect();
                    bias_tensor(values, [1, 1, 1, rows.len(), positions.end], dtype, device)
                });
                NewTokens { rows, bias }
            })
            .collect();
        Self {
            rope: RopeTables::new(config, &all, [1, all.len()], dtype, device),
            texts,
        }
    }

    /// The last of each text's new tokens among the rows of `x` `[N, D]`.
    pub(crate) fn last_of_each(&self, x: Tensor<2>) -> Tensor<2> {
        let rows: Vec<i64> = self.texts.iter().map(|text| text.rows.end as i64 - 1).collect();
        let count = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &x.device());
        x.select(0, rows)
    }
}

/// What is added to a score that must not count: its exponential is exactly 0 after the maximum
/// (a visible score) is taken off, and it is finite in the given type.
fn forbidden(dtype: DType) -> f32 {
    if dtype == DType::F16 { -3e4 } else { -1e30 }
}

fn bias_tensor(values: Vec<f32>, shape: [usize; 5], dtype: DType, device: &Device) -> Tensor<5> {
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (device, dtype))
}

/// The values of an integer tensor, row by row.
pub(crate) fn host(tensor: &Tensor<2, Int>) -> Vec<i64> {
    tensor.to_data().iter::<i64>().collect()
}

/// Columns that a cache has room for at first.
const SPARE_COLUMNS: usize = 64;

/// Keys and values of one layer for a text so far, each `[1, kv heads, capacity, head_dim]`. A copy
/// shares them until one of the two grows.
#[derive(Debug, Clone)]
pub(crate) struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
    filled: usize,
}

impl LayerCache {
    pub(crate) fn new(config: &LlamaConfig, dtype: DType, device: &Device) -> Self {
        let shape = [1, config.num_key_value_heads, SPARE_COLUMNS, config.head_dim];
        Self {
            keys: Tensor::zeros(shape, (device, dtype)),
            values: Tensor::zeros(shape, (device, dtype)),
            filled: 0,
        }
    }

    /// Tokens so far.
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// Forgets all but the first `length` tokens.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.filled = self.filled.min(length);
    }

    /// Writes new columns and returns views of all columns written so far. The cache grows by half
    /// where it is full, so that a step seldom copies it.
    fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, width] = keys.dims();
        let capacity = self.keys.dims()[2];
        if self.filled + new > capacity {
            let more = new.max(capacity / 2);
            let grow = |cache: Tensor<4>| {
                let room = Tensor::zeros([batch, heads, more, width], (&cache.device(), cache.dtype()));
                Tensor::cat(vec![cache, room], 2)
            };
            self.keys.inplace(grow);
            self.values.inplace(grow);
        }
        let range = [0..batch, 0..heads, self.filled..self.filled + new, 0..width];
        self.keys.inplace(|cache| cache.slice_assign(range.clone(), keys));
        self.values.inplace(|cache| cache.slice_assign(range, values));
        self.filled += new;
        (
            self.keys.clone().narrow(2, 0, self.filled),
            self.values.clone().narrow(2, 0, self.filled),
        )
    }
}

/// Grouped-query self-attention with rotary positions.
#[derive(Module, Debug)]
pub struct Attention {
    /// `[heads * head_dim, D]`.
    pub q_proj: Linear,
    /// `[kv heads * head_dim, D]`.
    pub k_proj: Linear,
    /// `[kv heads * head_dim, D]`.
    pub v_proj: Linear,
    /// `[D, heads * head_dim]`.
    pub o_proj: Linear,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

impl Attention {
    pub(crate) fn new(config: &LlamaConfig, [q_proj, k_proj, v_proj, o_proj]: [Linear; 4]) -> Self {
        Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            n_heads: config.num_attention_heads,
            n_kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// Attention of the rows of `x` `[N, D]`, the next tokens of texts, each over its cache.
    pub(crate) fn decode(&self, x: Tensor<2>, new: &Cached, caches: &mut [&mut LayerCache], rows: Rows) -> Tensor<2> {
        let (heads, width) = (self.n_heads, self.head_dim);
        let groups = heads / self.n_kv_heads;
        // The scale goes onto the queries, which are smaller than the scores.
        let q = new.rope.rotate(split(self.q_proj.forward(x.clone()), heads));
        let q = q.mul_scalar(1.0 / (width as f64).sqrt());
        let [k, v] = self.keys_values(x, new);
        let mixed = new.texts.iter().zip(caches).map(|(text, cache)| {
            let of = |x: &Tensor<4>| x.clone().narrow(2, text.rows.start, text.rows.len());
            let (k, v) = cache.append(of(&k), of(&v));
            let (from, seq, bias) = match rows {
                Rows::All => (text.rows.start, text.rows.len(), text.bias.clone()),
                Rows::LastOfEach => (text.rows.end - 1, 1, None),
            };
            let q = q.clone().narrow(2, from, seq);
            let q = q.reshape([1, self.n_kv_heads, groups * seq, width]);
            let mixed = ops::attend(q, k, v, bias, seq);
            let mixed = mixed.reshape([1, heads, seq, width]).swap_dims(1, 2);
            mixed.reshape([seq, heads * width])
        });
        self.o_proj.forward(Tensor::cat(mixed.collect(), 0))
    }

    /// Puts the keys and values of `x` into the caches, and nothing else.
    pub(crate) fn keep(&self, x: Tensor<2>, new: &Cached, caches: &mut [&mut LayerCache]) {
        let [k, v] = self.keys_values(x, new);
        for (text, cache) in new.texts.iter().zip(caches) {
            let of = |x: &Tensor<4>| x.clone().narrow(2, text.rows.start, text.rows.len());
            cache.append(of(&k), of(&v));
        }
    }

    /// Rotated keys and values of `x` `[N, D]`, each `[1, kv heads, N, W]`.
    fn keys_values(&self, x: Tensor<2>, new: &Cached) -> [Tensor<4>; 2] {
        let k = new.rope.rotate(split(self.k_proj.forward(x.clone()), self.n_kv_heads));
        [k, split(self.v_proj.forward(x), self.n_kv_heads)]
    }
}

/// Rows `[N, heads * W]` as `[1, heads, N, W]`.
fn split(x: Tensor<2>, heads: usize) -> Tensor<4> {
    let [n, width] = x.dims();
    x.reshape([1, n, heads, width / heads.max(1)]).swap_dims(1, 2)
}
