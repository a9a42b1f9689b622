//! Decoding in burn's tensors, on any backend: the KV cache of one layer, and the operations over it.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use wmtp_kernels::{attention::flex::Heads, swiglu::swiglu};

use super::decode::{DecodeOps, Queries};
use super::spec::LayerKind;
use crate::config::LlamaConfig;
use crate::linear::{Linear, RmsNorm};
use crate::rope::{PerRotation, Positions, RopeTables};

/// What all layers share about the next tokens of several texts, one text after the other.
#[derive(Debug, Clone)]
pub(crate) struct NewTexts {
    rope: PerRotation<RopeTables>,
    texts: Vec<NewTokens>,
}

/// The new tokens of one text.
#[derive(Debug, Clone)]
struct NewTokens {
    /// Among all new tokens.
    rows: Range<usize>,
    /// For each sliding window that layers have: the mask, added to the scores `[1, 1, 1, S, T]`, 0 where a
    /// token may attend, [`forbidden`] elsewhere. None where all tokens attend to all, as a single one
    /// without a window.
    biases: Vec<(Option<usize>, Option<Tensor<5>>)>,
}

impl NewTokens {
    /// The mask of a layer with this window, for some queries.
    fn bias(&self, window: Option<usize>, queries: Queries) -> Option<Tensor<5>> {
        let (_, bias) = self.biases.iter().find(|(of, _)| *of == window)?;
        let bias = bias.clone()?;
        Some(match queries {
            Queries::All => bias,
            Queries::LastOfEach => bias.narrow(3, self.rows.len() - 1, 1),
        })
    }
}

impl NewTexts {
    /// `positions` of each text's new tokens; its cache holds all before them.
    pub(crate) fn new(config: &LlamaConfig, positions: Vec<Range<usize>>, dtype: DType, device: &Device) -> Self {
        let all: Vec<i64> = positions.iter().cloned().flatten().map(|p| p as i64).collect();
        let mut windows: Vec<Option<usize>> = Vec::new();
        for kind in config.layer_spec().kinds {
            if !windows.contains(&kind.window) {
                windows.push(kind.window);
            }
        }
        let mut from = 0;
        let texts = positions
            .into_iter()
            .map(|positions| {
                let rows = from..from + positions.len();
                from = rows.end;
                let bias = |window: Option<usize>| {
                    let first = move |p: usize| window.map_or(0, |window| (p + 1).saturating_sub(window));
                    let hides = rows.len() > 1 || first(positions.start) > 0;
                    hides.then(|| {
                        let low = forbidden(dtype);
                        let sees = move |p: usize, t: usize| first(p) <= t && t <= p;
                        let row = |p: usize| (0..positions.end).map(move |t| if sees(p, t) { 0.0 } else { low });
                        let values = positions.clone().flat_map(row).collect();
                        bias_tensor(values, [1, 1, 1, rows.len(), positions.end], dtype, device)
                    })
                };
                let biases = windows.iter().map(|window| (*window, bias(*window))).collect();
                NewTokens { rows, biases }
            })
            .collect();
        Self {
            rope: PerRotation::new(config, Positions::within_limit(&all), |config, positions| {
                RopeTables::new(config, positions, [1, positions.of.len()], dtype, device)
            }),
            texts,
        }
    }
}

/// What is added to a masked score: its exponential is exactly 0 after the row's maximum is subtracted,
/// and it is finite in the given type.
fn forbidden(dtype: DType) -> f32 {
    if dtype == DType::F16 { -3e4 } else { -1e30 }
}

fn bias_tensor(values: Vec<f32>, shape: [usize; 5], dtype: DType, device: &Device) -> Tensor<5> {
    Tensor::from_data(TensorData::new(values, shape).convert_dtype(dtype), (device, dtype))
}

/// Initial capacity, in tokens.
const INITIAL_CAPACITY: usize = 64;

/// Keys and values of one layer for a text so far, each `[1, kv heads, capacity, head_dim]`. A clone
/// shares them until one of the two grows.
#[derive(Debug, Clone)]
pub(crate) struct TensorKvCache {
    keys: Tensor<4>,
    values: Tensor<4>,
    filled: usize,
}

impl TensorKvCache {
    pub(crate) fn new(config: &LlamaConfig, dtype: DType, device: &Device) -> Self {
        let shape = [1, config.num_key_value_heads, INITIAL_CAPACITY, config.head_dim];
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

    /// Drops all but the first `length` tokens.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.filled = self.filled.min(length);
    }

    /// Writes the keys and values of new tokens. A full cache grows by half, so that a step seldom copies it.
    fn append(&mut self, keys: Tensor<4>, values: Tensor<4>) {
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
    }

    /// Views of all keys and values written so far.
    fn filled(&self) -> [Tensor<4>; 2] {
        [&self.keys, &self.values].map(|cache| cache.clone().narrow(2, 0, self.filled))
    }
}

/// Decoding of new tokens through one layer, over the caches of their texts.
pub(crate) struct TensorDecode<'a, 'c> {
    pub new: &'a NewTexts,
    pub caches: &'a mut [&'c mut TensorKvCache],
    pub heads: Heads,
    pub kind: LayerKind,
}

impl<'a> TensorDecode<'a, '_> {
    /// Projected queries or keys by head, normed and rotated.
    fn by_head(&self, projected: Tensor<2>, heads: usize, norm: Option<&&'a RmsNorm>) -> Tensor<4> {
        let shape = projected.dims();
        let projected = match norm {
            Some(norm) => {
                let width = shape[1] / heads.max(1);
                norm.forward(projected.reshape([shape[0] * heads, width]))
                    .reshape(shape)
            }
            None => projected,
        };
        self.new.rope.of(self.kind).rotate(split(projected, heads))
    }
}

impl<'a> DecodeOps for TensorDecode<'a, '_> {
    type Rows = Tensor<2>;
    type Norm = &'a RmsNorm;
    type Matrix = &'a Linear;
    type Queries = Tensor<4>;
    type KeysValues = [Tensor<4>; 2];

    fn normed(&self, x: &Tensor<2>, norm: &&'a RmsNorm) -> Tensor<2> {
        norm.forward(x.clone())
    }

    fn linear<const M: usize>(&self, x: &Tensor<2>, matrices: [&&'a Linear; M]) -> [Tensor<2>; M] {
        matrices.map(|matrix| matrix.forward(x.clone()))
    }

    fn qkv(
        &self,
        h: Tensor<2>,
        [q, k, v]: [&&'a Linear; 3],
        [of_q, of_k]: [Option<&&'a RmsNorm>; 2],
        _: Queries,
    ) -> (Tensor<4>, [Tensor<4>; 2]) {
        // The scale is applied to the queries, which are smaller than the scores.
        let scale = 1.0 / (self.heads.width as f64).sqrt();
        let queries = self
            .by_head(q.forward(h.clone()), self.heads.heads, of_q)
            .mul_scalar(scale);
        (queries, self.keys_values(h, [k, v], of_k))
    }

    fn keys_values(&self, h: Tensor<2>, [k, v]: [&&'a Linear; 2], head_norm: Option<&&'a RmsNorm>) -> [Tensor<4>; 2] {
        let kv_heads = self.heads.kv_heads;
        let keys = self.by_head(k.forward(h.clone()), kv_heads, head_norm);
        [keys, split(v.forward(h), kv_heads)]
    }

    fn append(&mut self, [keys, values]: [Tensor<4>; 2]) {
        for (text, cache) in self.new.texts.iter().zip(&mut *self.caches) {
            let of = |x: &Tensor<4>| x.clone().narrow(2, text.rows.start, text.rows.len());
            cache.append(of(&keys), of(&values));
        }
    }

    fn attend(&self, q: Tensor<4>, queries: Queries) -> Tensor<2> {
        let Heads { heads, kv_heads, width } = self.heads;
        let groups = heads / kv_heads;
        let outputs = self.new.texts.iter().zip(&*self.caches).map(|(text, cache)| {
            let [keys, values] = cache.filled();
            let (from, seq) = match queries {
                Queries::All => (text.rows.start, text.rows.len()),
                Queries::LastOfEach => (text.rows.end - 1, 1),
            };
            let bias = match (queries, self.kind.window) {
                // The last token attends to all.
                (Queries::LastOfEach, None) => None,
                (_, window) => text.bias(window, queries),
            };
            let q = q.clone().narrow(2, from, seq);
            let q = q.reshape([1, kv_heads, groups * seq, width]);
            let output = attend(q, keys, values, bias, seq);
            let output = output.reshape([1, heads, seq, width]).swap_dims(1, 2);
            output.reshape([seq, heads * width])
        });
        Tensor::cat(outputs.collect(), 0)
    }

    fn last_of_each(&self, x: &Tensor<2>) -> Tensor<2> {
        let rows: Vec<i64> = self.new.texts.iter().map(|text| text.rows.end as i64 - 1).collect();
        let count = rows.len();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &x.device());
        x.clone().select(0, rows)
    }

    fn swiglu(&self, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
        swiglu(gate, up)
    }

    fn add(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        x + y
    }
}

/// Rows `[N, heads * W]` as `[1, heads, N, W]`.
fn split(x: Tensor<2>, heads: usize) -> Tensor<4> {
    let [n, width] = x.dims();
    x.reshape([1, n, heads, width / heads.max(1)]).swap_dims(1, 2)
}

/// Softmax attention of scaled queries over a KV cache; softmax in at least f32.
///
/// `q` `[1, K, G * S, W]` holds for each of the K key heads the S queries of its G query heads, one
/// head after another; `k`, `v` `[1, K, T, W]`; `bias` `[1, 1, 1, S, T]`. Returns the shape of `q`.
fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Option<Tensor<5>>, seq: usize) -> Tensor<4> {
    let Some(bias) = bias else {
        // A single new token attends to every key.
        return activation::softmax(q.matmul(k.swap_dims(2, 3)), 3).matmul(v);
    };
    let scores = q.matmul(k.swap_dims(2, 3));
    let flat = scores.dims();
    let [batch, heads, rows, columns] = flat;
    let scores = scores.reshape([batch, heads, rows / seq, seq, columns]) + bias;
    let dtype = scores.dtype();
    let shares = if matches!(dtype, DType::F16 | DType::BF16) {
        activation::softmax(scores.cast(DType::F32), 4).cast(dtype)
    } else {
        activation::softmax(scores, 4)
    };
    shares.reshape(flat).matmul(v)
}
