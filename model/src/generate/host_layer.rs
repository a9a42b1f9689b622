//! A decoder layer on slices in host memory, with keys and values that are kept.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use rayon::prelude::*;

use crate::blocks::flex;
use crate::config::LlamaConfig;
use crate::layers::DecoderLayer;
use crate::rope::angles;
use wmtp_gemm::{FloatSlice, MatrixView, Precision, SkinnyOutput, matmul, matmul_skinny, matmul_skinny_many};
use wmtp_kernels::attention::flex::Heads;
use wmtp_kernels::attention::kv_cache::{KvCache, attend};
use wmtp_kernels::rotary::{self, Rotation};
use wmtp_kernels::{rms_norm, swiglu};

/// Queries of a head that are attended with at a time, over all query heads that share its keys.
const QUERIES: usize = 64;

/// Which products: prompts have many rows, and then every weight is packed; a step has few. The two
/// add up in different orders, so which one a token takes does not depend on how many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    Many,
    Few,
}

/// A matrix `[out, in]` in f32 or bf16.
pub struct Matrix {
    tensor: FlexTensor,
    out: usize,
    inner: usize,
}

impl Matrix {
    /// None if it does not lie in flex's memory in one of the two types.
    pub fn new(tensor: Tensor<2>) -> Option<Self> {
        let [out, inner] = tensor.dims();
        let tensor = tensor.try_into_primitive::<Flex>().ok()?;
        matches!(tensor.dtype(), DType::F32 | DType::BF16).then(|| Self {
            tensor: tensor.to_contiguous(),
            out,
            inner,
        })
    }

    fn values(&self) -> FloatSlice<'_> {
        flex::weight(&self.tensor)
    }

    /// Row `index` in f32, at the end of `to`.
    pub fn push_row(&self, index: usize, to: &mut Vec<f32>) {
        let range = index * self.inner..(index + 1) * self.inner;
        match self.values() {
            FloatSlice::F32(values) => to.extend_from_slice(&values[range]),
            FloatSlice::Bf16(values) => to.extend(values[range].iter().map(|x| x.to_f32())),
        }
    }

    /// `x` `[N, in]` times the transpose, `[N, out]`.
    pub fn times(&self, x: &[f32], rows: Rows) -> Vec<f32> {
        let [to] = times([self], x, rows);
        to
    }
}

/// `x` `[N, in]` times the transpose of each matrix.
fn times<const M: usize>(matrices: [&Matrix; M], x: &[f32], rows: Rows) -> [Vec<f32>; M] {
    let mut all = matrices.map(|matrix| vec![0.0; x.len() / matrix.inner * matrix.out]);
    let of_one_type = matrices.iter().all(|m| m.tensor.dtype() == matrices[0].tensor.dtype());
    let inner = matrices[0].inner;
    let n = x.len() / inner;
    if rows == Rows::Few && of_one_type {
        let outputs = matrices.iter().zip(&mut all).map(|(matrix, to)| SkinnyOutput {
            to,
            weight: matrix.values(),
            n: matrix.out,
        });
        matmul_skinny_many(&mut outputs.collect::<Vec<_>>(), x, [n, inner]);
        return all;
    }
    for (matrix, to) in matrices.iter().zip(&mut all) {
        if rows == Rows::Few {
            matmul_skinny(to, x, matrix.values(), [n, matrix.out, inner]);
        } else {
            let right = MatrixView::strided(matrix.values(), [matrix.out, inner], [inner, 1]).transposed();
            matmul(
                to,
                matrix.out,
                false,
                MatrixView::row_major(x, [n, inner]),
                right,
                Precision::F32,
            );
        }
    }
    all
}

/// The values of a norm's weight.
pub fn vector(weight: &Param<Tensor<1>>) -> Vec<f32> {
    weight.val().into_data().iter::<f32>().collect()
}

/// Sizes and frequencies that all layers share.
pub struct Shape {
    pub heads: Heads,
    pub eps: f32,
    pub config: LlamaConfig,
}

/// Cosines and sines `[N, W / 2]` of some positions: for keys, and times `1 / sqrt(W)` for queries.
pub struct Rope {
    keys: [Vec<f32>; 2],
    queries: [Vec<f32>; 2],
}

impl Rope {
    pub fn new(config: &LlamaConfig, positions: &[i64]) -> Self {
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let angles = angles(config, positions);
        let table = |f: fn(f64) -> f64, scale: f64| angles.iter().map(|a| (f(*a) * scale) as f32).collect();
        Self {
            keys: [table(f64::cos, 1.0), table(f64::sin, 1.0)],
            queries: [table(f64::cos, scale), table(f64::sin, scale)],
        }
    }

    fn rotate_keys(&self, keys: &mut [f32], Heads { kv_heads, width, .. }: Heads) {
        rotate(keys, kv_heads, width, &self.keys);
    }

    fn rotate_queries(&self, queries: &mut [f32], Heads { heads, width, .. }: Heads) {
        rotate(queries, heads, width, &self.queries);
    }
}

/// Turns rows of so many heads.
fn rotate(rows: &mut [f32], heads: usize, width: usize, [cos, sin]: &[Vec<f32>; 2]) {
    let half = width / 2;
    rotary::flex::rotate(rows, heads * width, 0..heads, half, [cos, sin], Rotation::Forward);
}

/// Rows of a batch that belong to one text, and how many tokens of it come before them.
pub struct Part {
    pub rows: std::ops::Range<usize>,
    pub before: usize,
}

/// One decoder layer's weights.
pub struct HostLayer {
    before: Vec<f32>,
    between: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    o: Matrix,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

impl HostLayer {
    pub fn new(layer: &DecoderLayer) -> Option<Self> {
        let matrix = |linear: &crate::layers::Linear| Matrix::new(linear.weight.val());
        Some(Self {
            before: vector(&layer.input_layernorm.weight),
            between: vector(&layer.post_attention_layernorm.weight),
            q: matrix(&layer.self_attn.q_proj)?,
            k: matrix(&layer.self_attn.k_proj)?,
            v: matrix(&layer.self_attn.v_proj)?,
            o: matrix(&layer.self_attn.o_proj)?,
            gate: matrix(&layer.mlp.gate_proj)?,
            up: matrix(&layer.mlp.up_proj)?,
            down: matrix(&layer.mlp.down_proj)?,
        })
    }

    /// The norm before attention of the rows of `x` `[N, D]`.
    pub fn normal(&self, x: &[f32], shape: &Shape) -> Vec<f32> {
        normal(x, &self.before, shape)
    }

    /// Rotated and scaled queries `[N, heads * W]`, rotated keys and values `[N, kv heads * W]` of
    /// normalised rows `h`.
    pub fn queries_keys_values(&self, h: &[f32], rope: &Rope, shape: &Shape, rows: Rows) -> [Vec<f32>; 3] {
        let [mut q, mut k, v] = times([&self.q, &self.k, &self.v], h, rows);
        rope.rotate_queries(&mut q, shape.heads);
        rope.rotate_keys(&mut k, shape.heads);
        [q, k, v]
    }

    /// The keys and values alone.
    pub fn keys_values(&self, h: &[f32], rope: &Rope, shape: &Shape, rows: Rows) -> [Vec<f32>; 2] {
        let [mut k, v] = times([&self.k, &self.v], h, rows);
        rope.rotate_keys(&mut k, shape.heads);
        [k, v]
    }

    /// The queries alone.
    pub fn queries(&self, h: &[f32], rope: &Rope, shape: &Shape, rows: Rows) -> Vec<f32> {
        let mut q = self.q.times(h, rows);
        rope.rotate_queries(&mut q, shape.heads);
        q
    }

    /// Everything behind the attention: adds to `x` `[N, D]` what comes of the mixed values
    /// `[N, heads * W]`.
    pub fn after_attention(&self, x: &mut [f32], mixed: &[f32], shape: &Shape, rows: Rows) {
        add(x, &self.o.times(mixed, rows));
        let h = normal(x, &self.between, shape);
        let [mut gate, up] = times([&self.gate, &self.up], &h, rows);
        swiglu::flex::forward(&mut gate, &up);
        add(x, &self.down.times(&gate, rows));
    }
}

/// The rows of `x` `[N, D]`, normalised.
pub fn normal(x: &[f32], weight: &[f32], shape: &Shape) -> Vec<f32> {
    let mut to = vec![0.0; x.len()];
    rms_norm::flex::forward(x, weight, shape.eps, &mut to);
    to
}

fn add(x: &mut [f32], more: &[f32]) {
    x.iter_mut().zip(more).for_each(|(x, more)| *x += more);
}

/// Attention of `queries` `[N, heads * W]`: those of each part over the keys that `kept` has of its
/// text for a key head, one piece after the other. Returns `[N, heads * W]`.
pub fn mixed<'a>(
    queries: &[f32],
    parts: &[Part],
    heads: Heads,
    kept: impl Fn(usize, usize) -> Vec<&'a KvCache> + Sync,
) -> Vec<f32> {
    let (groups, width) = (heads.heads / heads.kv_heads, heads.width);
    let (row, at_a_time) = (heads.heads * width, (QUERIES / groups).max(1));
    // One key head of all texts after another: what texts share stays in the cache.
    let mut tasks = Vec::new();
    for kv in 0..heads.kv_heads {
        for (index, part) in parts.iter().enumerate() {
            tasks.extend(part.rows.clone().step_by(at_a_time).map(|first| (kv, index, first)));
        }
    }
    let found: Vec<Vec<f32>> = tasks
        .par_iter()
        .map_init(Vec::new, |scratch, (kv, index, first)| {
            let part = &parts[*index];
            let rows = *first..(first + at_a_time).min(part.rows.end);
            let mut own = Vec::with_capacity(rows.len() * groups * width);
            for i in rows.clone() {
                own.extend_from_slice(&queries[i * row + kv * groups * width..][..groups * width]);
            }
            let seen: Vec<usize> = rows
                .flat_map(|i| std::iter::repeat_n(part.before + i - part.rows.start + 1, groups))
                .collect();
            let mut to = vec![0.0; own.len()];
            attend(&own, &seen, &kept(*index, *kv), scratch, &mut to);
            to
        })
        .collect();
    let mut to = vec![0.0; queries.len()];
    for ((kv, _, first), found) in tasks.iter().zip(&found) {
        for (i, found) in found.chunks_exact(groups * width).enumerate() {
            to[(first + i) * row + kv * groups * width..][..groups * width].copy_from_slice(found);
        }
    }
    to
}
