//! Decoding on slices in host memory: flex, in f32 with weights in f32, bf16 or quantized.

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::module::Param;
use burn::tensor::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use super::decode::{DecodeOps, LayerWeights, Queries};
use super::segment_cache::{Part, SegmentCaches};
use super::{DecoderLayer, LayerKind};
use crate::config::LlamaConfig;
use crate::flex;
use crate::linear::Linear;
use crate::quantization::{Quantization, Storage};
use crate::rope::{PerRotation, Positions, SliceTables};
use wmtp_gemm::{
    FloatSlice, MatrixView, Precision, QuantizedMatrix, SkinnyOutput, SkinnyWeight, matmul, matmul_skinny,
    matmul_skinny_many,
};
use wmtp_kernels::attention::flex::Heads;
use wmtp_kernels::attention::kv_cache::{KvCache, attend};
use wmtp_kernels::rotary::{self, Rotation};
use wmtp_kernels::{rms_norm, swiglu};

/// Queries of a head that are attended with at a time, over all query heads that share its keys.
const QUERIES: usize = 64;

/// Which products: prompts have many rows, and then every weight is packed; a step has few. The two sum
/// in different orders, so which one a token takes does not depend on the number of rows. Quantized weights take
/// those of few rows for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Products {
    /// For prompts.
    Many,
    /// For steps.
    Few,
}

/// Where the values of a [`Matrix`] are.
enum Values {
    /// f32 or bf16.
    Tensor(FlexTensor),
    /// Those of an f32 tensor whose values are bf16 numbers.
    Bf16(Vec<bf16>),
    Quantized(QuantizedMatrix),
}

/// A matrix `[out, in]` in f32, bf16 or quantized values, with the bias `[out]` of its linear map.
pub(crate) struct Matrix {
    values: Values,
    out: usize,
    inner: usize,
    bias: Option<Vec<f32>>,
}

impl Matrix {
    /// None if it is not in flex's memory in one of the two types.
    pub fn new(tensor: Tensor<2>) -> Option<Self> {
        let [out, inner] = tensor.dims();
        let tensor = tensor.try_into_primitive::<Flex>().ok()?;
        matches!(tensor.dtype(), DType::F32 | DType::BF16).then(|| Self {
            values: Values::Tensor(tensor.to_contiguous()),
            out,
            inner,
            bias: None,
        })
    }

    /// That of a linear map; none as for [`Matrix::new`].
    fn of(map: &Linear) -> Option<Self> {
        let matrix = Self::new(map.weight.val())?;
        let bias = map.bias.as_ref().map(vector);
        Some(Self { bias, ..matrix })
    }

    /// The same, kept as `storage` says.
    pub fn stored(self, storage: Storage) -> Self {
        match storage {
            Storage::Shared => self,
            Storage::Prepared(None) => self.without_zeros(),
            Storage::Prepared(Some(quantization)) => self.quantized(quantization),
        }
    }

    /// In bf16, if it is in f32 and all of its values are bf16 numbers.
    fn without_zeros(self) -> Self {
        let narrow = match self.weight() {
            SkinnyWeight::F32(values) => narrowed(values),
            _ => None,
        };
        match narrow {
            Some(narrow) => Self {
                values: Values::Bf16(narrow),
                ..self
            },
            None => self,
        }
    }

    /// With values rounded to groups of few bits.
    fn quantized(self, quantization: Quantization) -> Self {
        let row = |index: usize| {
            let mut row = Vec::with_capacity(self.inner);
            self.push_row(index, &mut row);
            row
        };
        let matrix = QuantizedMatrix::new(quantization.bits(), row, [self.out, self.inner]);
        Self {
            values: Values::Quantized(matrix),
            ..self
        }
    }

    fn weight(&self) -> SkinnyWeight<'_> {
        match &self.values {
            Values::Tensor(tensor) => flex::weight(tensor).into(),
            Values::Bf16(values) => SkinnyWeight::Bf16(values),
            Values::Quantized(matrix) => matrix.into(),
        }
    }

    /// Appends row `index` in f32.
    pub fn push_row(&self, index: usize, to: &mut Vec<f32>) {
        let range = index * self.inner..(index + 1) * self.inner;
        let from = to.len();
        to.resize(from + self.inner, 0.0);
        let to = &mut to[from..];
        match self.weight() {
            SkinnyWeight::F32(values) => to.copy_from_slice(&values[range]),
            SkinnyWeight::Bf16(values) => to.iter_mut().zip(&values[range]).for_each(|(to, x)| *to = x.to_f32()),
            SkinnyWeight::Quantized(matrix) => matrix.copy_row(index, to),
        }
    }

    /// All of it as a view; none if it is quantized.
    fn view(&self) -> Option<MatrixView<'_>> {
        let values = match self.weight() {
            SkinnyWeight::F32(values) => FloatSlice::F32(values),
            SkinnyWeight::Bf16(values) => FloatSlice::Bf16(values),
            SkinnyWeight::Quantized(_) => return None,
        };
        Some(MatrixView::strided(values, [self.out, self.inner], [self.inner, 1]))
    }

    /// `x` `[N, in]` times the transpose, plus the bias, `[N, out]`, for a step.
    pub fn times(&self, x: &[f32]) -> Vec<f32> {
        let [to] = times([self], x, Products::Few);
        to
    }
}

impl Matrix {
    /// [`Matrix::times`] with the first `out` rows alone, without a bias.
    pub fn times_first(&self, x: &[f32], out: usize) -> Vec<f32> {
        let n = x.len() / self.inner;
        let mut to = vec![0.0; n * out];
        let weight = match self.weight() {
            SkinnyWeight::F32(values) => SkinnyWeight::F32(&values[..out * self.inner]),
            SkinnyWeight::Bf16(values) => SkinnyWeight::Bf16(&values[..out * self.inner]),
            matrix @ SkinnyWeight::Quantized(_) => matrix,
        };
        matmul_skinny(&mut to, x, weight, [n, out, self.inner]);
        to
    }
}

/// The same numbers in bf16; none if one of them is not a bf16 number.
fn narrowed(values: &[f32]) -> Option<Vec<bf16>> {
    /// Values of a task.
    const TASK: usize = 1 << 16;
    let exact = |values: &[f32]| values.iter().fold(0, |bits, value| bits | value.to_bits()) & 0xffff == 0;
    values.par_chunks(TASK).all(exact).then(|| {
        let narrow = values.par_iter().with_min_len(TASK);
        narrow
            .map(|value| bf16::from_bits((value.to_bits() >> 16) as u16))
            .collect()
    })
}

/// `x` `[N, in]` times the transpose of each matrix, plus its bias.
fn times<const M: usize>(matrices: [&Matrix; M], x: &[f32], products: Products) -> [Vec<f32>; M] {
    let mut all = matrices.map(|matrix| vec![0.0; x.len() / matrix.inner * matrix.out]);
    let of_first = std::mem::discriminant(&matrices[0].weight());
    let of_one_type = matrices
        .iter()
        .all(|matrix| std::mem::discriminant(&matrix.weight()) == of_first);
    let inner = matrices[0].inner;
    let n = x.len() / inner;
    // Quantized ones have one kind of product.
    let few = products == Products::Few || matrices.iter().all(|matrix| matrix.view().is_none());
    if few && of_one_type {
        let outputs = matrices.iter().zip(&mut all).map(|(matrix, to)| SkinnyOutput {
            to,
            weight: matrix.weight(),
            n: matrix.out,
        });
        matmul_skinny_many(&mut outputs.collect::<Vec<_>>(), x, [n, inner]);
    }
    for (matrix, to) in matrices.iter().zip(&mut all) {
        match matrix.view() {
            _ if few && of_one_type => {} // Computed above, with the others.
            Some(view) if !few => {
                let left = MatrixView::row_major(x, [n, inner]);
                matmul(to, matrix.out, false, left, view.transposed(), Precision::F32);
            }
            _ => matmul_skinny(to, x, matrix.weight(), [n, matrix.out, inner]),
        }
        if let Some(bias) = &matrix.bias {
            let rows = to.chunks_exact_mut(matrix.out);
            rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias));
        }
    }
    all
}

/// The values of a norm's weight or of a bias.
pub(crate) fn vector(weight: &Param<Tensor<1>>) -> Vec<f32> {
    weight.val().into_data().iter::<f32>().collect()
}

/// A layer's weights on slices.
pub(crate) type SliceWeights = LayerWeights<Vec<f32>, Matrix>;

/// The weights of `layer`, kept as `storage` says. None if a matrix is not in flex's memory in f32 or bf16.
pub(crate) fn slice_weights(layer: &DecoderLayer, storage: Storage) -> Option<SliceWeights> {
    let weights = layer.by_role();
    let matrix = |map: &Linear| Some(Matrix::of(map)?.stored(storage));
    Some(LayerWeights {
        input_norm: vector(&weights.input_norm.weight),
        q: matrix(weights.q)?,
        k: matrix(weights.k)?,
        v: matrix(weights.v)?,
        o: matrix(weights.o)?,
        q_norm: weights.q_norm.map(|norm| vector(&norm.weight)),
        k_norm: weights.k_norm.map(|norm| vector(&norm.weight)),
        post_attention_norm: vector(&weights.post_attention_norm.weight),
        gate: matrix(weights.gate)?,
        up: matrix(weights.up)?,
        down: matrix(weights.down)?,
    })
}

/// The norm of the rows of `x` `[N, D]`.
pub(crate) fn normed(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut to = vec![0.0; x.len()];
    rms_norm::flex::forward(x, weight, eps, &mut to);
    to
}

/// Rotates all heads of `rows` `[N, heads * width]`.
fn rotate(rows: &mut [f32], heads: usize, width: usize, [cos, sin]: &[Vec<f32>; 2]) {
    let half = width / 2;
    rotary::flex::rotate(rows, heads * width, 0..heads, half, [cos, sin], Rotation::Forward);
}

/// Rotary tables of new tokens, by kind of layer.
pub(crate) fn tables(config: &LlamaConfig, positions: &[i64]) -> PerRotation<SliceTables> {
    PerRotation::new(config, Positions::within_limit(positions), SliceTables::new)
}

/// The last new token of each text: its row among all new ones, itself as a part, and its rotary tables.
pub(crate) struct Last {
    pub rows: Vec<usize>,
    pub parts: Vec<Part>,
    pub rope: PerRotation<SliceTables>,
}

impl Last {
    /// Of the new tokens `parts`.
    pub fn of(parts: &[Part], config: &LlamaConfig) -> Self {
        let rows = parts.iter().map(|part| part.rows.end - 1).collect();
        let of = |(i, part): (usize, &Part)| Part {
            segment: part.segment,
            rows: i..i + 1,
            before: part.before + part.rows.len() - 1,
        };
        let parts: Vec<Part> = parts.iter().enumerate().map(of).collect();
        let positions: Vec<i64> = parts.iter().map(|part| part.before as i64).collect();
        let rope = tables(config, &positions);
        Self { rows, parts, rope }
    }
}

/// Decoding of new tokens through one layer.
pub(crate) struct SliceDecode<'a> {
    pub caches: &'a mut SegmentCaches,
    /// Index of the layer in the caches.
    pub layer: usize,
    pub heads: Heads,
    pub eps: f32,
    pub products: Products,
    pub parts: &'a [Part],
    pub kind: LayerKind,
    pub rope: &'a PerRotation<SliceTables>,
    /// Needed where only the last tokens are queried for.
    pub last: Option<&'a Last>,
}

impl SliceDecode<'_> {
    /// The rows of the last new token of each text, `width` values each.
    fn last_rows(&self, x: &[f32], width: usize) -> Vec<f32> {
        let rows = self.last.iter().flat_map(|last| &last.rows);
        rows.flat_map(|i| &x[i * width..(i + 1) * width]).copied().collect()
    }

    /// Rows of heads in their norm, where there is one.
    fn in_head_norm(&self, rows: Vec<f32>, norm: Option<&Vec<f32>>) -> Vec<f32> {
        match norm {
            Some(norm) => normed(&rows, norm, self.eps),
            None => rows,
        }
    }

    /// Projected keys, normed and rotated.
    fn keys(&self, projected: Vec<f32>, norm: Option<&Vec<f32>>) -> Vec<f32> {
        let mut keys = self.in_head_norm(projected, norm);
        let Heads { kv_heads, width, .. } = self.heads;
        rotate(&mut keys, kv_heads, width, &self.rope.of(self.kind).keys);
        keys
    }
}

impl DecodeOps for SliceDecode<'_> {
    type Rows = Vec<f32>;
    type Norm = Vec<f32>;
    type Matrix = Matrix;
    type Queries = Vec<f32>;
    type KeysValues = [Vec<f32>; 2];

    fn normed(&self, x: &Vec<f32>, norm: &Vec<f32>) -> Vec<f32> {
        normed(x, norm, self.eps)
    }

    fn linear<const M: usize>(&self, x: &Vec<f32>, matrices: [&Matrix; M]) -> [Vec<f32>; M] {
        times(matrices, x, self.products)
    }

    fn qkv(
        &self,
        h: Vec<f32>,
        [q, k, v]: [&Matrix; 3],
        [of_q, of_k]: [Option<&Vec<f32>>; 2],
        queries: Queries,
    ) -> (Vec<f32>, [Vec<f32>; 2]) {
        let Heads { heads, width, .. } = self.heads;
        let in_place = |queries: Vec<f32>, rope: &PerRotation<SliceTables>| {
            let mut queries = self.in_head_norm(queries, of_q);
            rotate(&mut queries, heads, width, &rope.of(self.kind).queries);
            queries
        };
        if let (Queries::LastOfEach, Some(last)) = (queries, self.last) {
            let [queries] = times([q], &self.last_rows(&h, q.inner), self.products);
            return (in_place(queries, &last.rope), self.keys_values(h, [k, v], of_k));
        }
        let [queries, keys, values] = times([q, k, v], &h, self.products);
        (in_place(queries, self.rope), [self.keys(keys, of_k), values])
    }

    fn keys_values(&self, h: Vec<f32>, weights: [&Matrix; 2], head_norm: Option<&Vec<f32>>) -> [Vec<f32>; 2] {
        let [keys, values] = times(weights, &h, self.products);
        [self.keys(keys, head_norm), values]
    }

    fn append(&mut self, keys_values: [Vec<f32>; 2]) {
        self.caches.append(self.parts, self.layer, &keys_values);
    }

    fn attend(&self, q: Vec<f32>, queries: Queries) -> Vec<f32> {
        let parts = match (queries, self.last) {
            (Queries::LastOfEach, Some(last)) => &last.parts,
            _ => self.parts,
        };
        attended(&q, parts, self.heads, self.kind.window, |segment, kv| {
            self.caches.text(segment, self.layer, kv)
        })
    }

    fn last_of_each(&self, x: &Vec<f32>) -> Vec<f32> {
        let tokens = self.parts.last().map_or(1, |part| part.rows.end);
        self.last_rows(x, x.len() / tokens)
    }

    fn swiglu(&self, mut gate: Vec<f32>, up: Vec<f32>) -> Vec<f32> {
        swiglu::flex::forward(&mut gate, &up);
        gate
    }

    fn add(&self, mut x: Vec<f32>, y: Vec<f32>) -> Vec<f32> {
        x.iter_mut().zip(&y).for_each(|(x, y)| *x += y);
        x
    }
}

/// Attention of `queries` `[N, heads * W]`: those of each part over the keys that `cached` has of its text
/// for a key head, segment by segment. With a `window` each sees the last this many keys. Returns
/// `[N, heads * W]`.
fn attended<'a>(
    queries: &[f32],
    parts: &[Part],
    heads: Heads,
    window: Option<usize>,
    cached: impl Fn(usize, usize) -> Vec<&'a KvCache> + Sync,
) -> Vec<f32> {
    let (groups, width) = (heads.heads / heads.kv_heads, heads.width);
    let (row, at_a_time) = (heads.heads * width, (QUERIES / groups).max(1));
    // One key head of all texts after another: what texts share stays in the processor's cache.
    let mut tasks = Vec::new();
    for kv in 0..heads.kv_heads {
        for (index, part) in parts.iter().enumerate() {
            tasks.extend(part.rows.clone().step_by(at_a_time).map(|first| (kv, index, first)));
        }
    }
    let outputs: Vec<Vec<f32>> = tasks
        .par_iter()
        .map_init(Vec::new, |scratch, (kv, index, first)| {
            let part = &parts[*index];
            let rows = *first..(first + at_a_time).min(part.rows.end);
            let mut own = Vec::with_capacity(rows.len() * groups * width);
            for i in rows.clone() {
                own.extend_from_slice(&queries[i * row + kv * groups * width..][..groups * width]);
            }
            let seen = |i: usize| {
                let end = part.before + i - part.rows.start + 1;
                window.map_or(0, |window| end.saturating_sub(window))..end
            };
            let seen: Vec<Range<usize>> = rows.flat_map(|i| std::iter::repeat_n(seen(i), groups)).collect();
            let mut to = vec![0.0; own.len()];
            attend(&own, &seen, &cached(part.segment, *kv), scratch, &mut to);
            to
        })
        .collect();
    let mut to = vec![0.0; queries.len()];
    for ((kv, _, first), output) in tasks.iter().zip(&outputs) {
        for (i, output) in output.chunks_exact(groups * width).enumerate() {
            to[(first + i) * row + kv * groups * width..][..groups * width].copy_from_slice(output);
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn stored(values: Vec<f32>, storage: Storage) -> Matrix {
        let tensor = Tensor::<2>::from_data(TensorData::new(values, [2, 3]), (&Device::flex(), DType::F32));
        Matrix::new(tensor).expect("it is on flex").stored(storage)
    }

    #[test]
    fn bf16_numbers_are_kept_in_bf16() {
        let numbers = [1.0_f32, -0.5, 3.015625, -0.0, 1e-40, f32::INFINITY];
        let exact: Vec<f32> = numbers.iter().map(|x| bf16::from_f32(*x).to_f32()).collect();
        let matrix = stored(exact.clone(), Storage::Prepared(None));
        let SkinnyWeight::Bf16(values) = matrix.weight() else {
            panic!("it is kept as {}", matrix.weight());
        };
        let bits = |x: &f32| x.to_bits();
        let found: Vec<u32> = values.iter().map(|x| x.to_f32().to_bits()).collect();
        assert_eq!(found, exact.iter().map(bits).collect::<Vec<_>>());
        let shared = stored(exact, Storage::Shared);
        assert!(matches!(shared.weight(), SkinnyWeight::F32(_)));
    }

    #[test]
    fn one_other_number_keeps_a_matrix_in_f32() {
        let values = vec![1.0, -0.5, 0.1, 0.25, 2.0, 3.0];
        let matrix = stored(values.clone(), Storage::Prepared(None));
        let SkinnyWeight::F32(found) = matrix.weight() else {
            panic!("it is kept as {}", matrix.weight());
        };
        assert_eq!(found, values);
    }
}
