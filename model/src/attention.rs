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
    /// The next columns of a cache.
    Cached {
        rope: Box<RopeTables>,
        /// Added to the scores: 0 where a query may look, [`forbidden`] elsewhere.
        /// `[B or 1, 1, 1, S, T]`; none where every query sees every key.
        bias: Option<Box<Tensor<5>>>,
    },
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

    /// For the next `columns` of a cache whose rows are padded on the left: row `b` starts at column
    /// `first[b]`, so column `c` holds its position `c - first[b]`. Padding sees only itself.
    pub(crate) fn cached(
        config: &LlamaConfig,
        first: &[usize],
        columns: Range<usize>,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let (batch, seq) = (first.len(), columns.len());
        let positions: Vec<i64> = first
            .iter()
            .flat_map(|first| columns.clone().map(move |c| c.saturating_sub(*first) as i64))
            .collect();
        let padded = first.iter().any(|first| *first > 0);
        // Without padding all rows have the same mask, and a single new column sees everything.
        let bias = (padded || seq > 1).then(|| {
            let rows = if padded { first } else { &[0] };
            let low = forbidden(dtype);
            let mut values = Vec::with_capacity(rows.len() * seq * columns.end);
            for first in rows {
                for c in columns.clone() {
                    values.extend((0..columns.end).map(|t| {
                        let seen = t == c || (t < c && t >= *first);
                        if seen { 0.0 } else { low }
                    }));
                }
            }
            bias_tensor(values, [rows.len(), 1, 1, seq, columns.end], dtype, device)
        });
        Self {
            batch,
            seq,
            way: Way::Cached {
                rope: Box::new(RopeTables::new(config, &positions, [batch, seq], dtype, device)),
                bias: bias.map(Box::new),
            },
        }
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

/// Keys and values of one layer for all tokens so far, each `[B, kv heads, capacity, head_dim]`.
#[derive(Debug)]
pub(crate) struct LayerCache {
    keys: Tensor<4>,
    values: Tensor<4>,
    filled: usize,
}

impl LayerCache {
    pub(crate) fn new(config: &LlamaConfig, batch: usize, capacity: usize, dtype: DType, device: &Device) -> Self {
        let shape = [batch, config.num_key_value_heads, capacity, config.head_dim];
        Self {
            keys: Tensor::zeros(shape, (device, dtype)),
            values: Tensor::zeros(shape, (device, dtype)),
            filled: 0,
        }
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

    /// Keeps only the given rows of the batch, in that order, without their first `skip` columns.
    pub(crate) fn keep(&mut self, rows: &Tensor<1, Int>, skip: usize) {
        let capacity = self.keys.dims()[2];
        let keep = |cache: Tensor<4>| cache.narrow(2, skip, capacity - skip).select(0, rows.clone());
        self.keys.inplace(keep);
        self.values.inplace(keep);
        self.filled -= skip;
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

    /// Attention of the rows of `x` `[B * S, D]`, the next columns of `cache`, over all its columns.
    pub(crate) fn decode(
        &self,
        x: Tensor<2>,
        [batch, seq]: [usize; 2],
        rope: &RopeTables,
        bias: Option<Tensor<5>>,
        cache: &mut LayerCache,
    ) -> Tensor<2> {
        let width = self.head_dim;
        let groups = self.n_heads / self.n_kv_heads;
        let split = |x: Tensor<2>, heads: usize| x.reshape([batch, seq, heads, width]).swap_dims(1, 2);

        // The scale goes onto the queries, which are smaller than the scores.
        let q = rope.rotate(split(self.q_proj.forward(x.clone()), self.n_heads));
        let q = q.mul_scalar(1.0 / (width as f64).sqrt());
        let q = q.reshape([batch, self.n_kv_heads, groups * seq, width]);
        let k = rope.rotate(split(self.k_proj.forward(x.clone()), self.n_kv_heads));
        let v = split(self.v_proj.forward(x), self.n_kv_heads);
        let (k, v) = cache.append(k, v);
        let mixed = ops::attend(q, k, v, bias, seq);
        let mixed = mixed
            .reshape([batch, self.n_heads, seq, width])
            .swap_dims(1, 2)
            .reshape([batch * seq, self.n_heads * width]);
        self.o_proj.forward(mixed)
    }
}
