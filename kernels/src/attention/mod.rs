//! Causal attention with grouped queries that never crosses a document.
//!
//! With queries `q` `[B, H, S, W]`, keys and values `k`, `v` `[B, K, S, W]`, H a multiple of K, and
//! `starts` `[B, S]`, the first position that each position may see, query `i` sees key `j` where
//! `starts_i <= j <= i`. For the key head that a query head shares with H / K - 1 others,
//!
//! ```text
//! s_ij = scale q_i . k_j        m_i = max_j s_ij        l_i = sum_j exp(s_ij - m_i)
//! p_ij = exp(s_ij - m_i) / l_i
//! out_i = sum_j p_ij v_j
//! ds_ij = p_ij (dout_i . v_j - dout_i . out_i)
//! dq_i = scale sum_j ds_ij k_j      dk_j = scale sum_i ds_ij q_i      dv_j = sum_i p_ij dout_i
//! ```
//!
//! On CubeCL no S x S tensor exists: scores exist a tile at a time in a cube's shared memory, and tiles that
//! no query sees are skipped. Saved for the backward pass are `out` with `m` and `l` `[B, H, S, 2]`; these
//! two are separate because `m + log l` at scores of 1e4 is off by 5e-4 in f32. On the other backends the
//! plain form holds all scores; it is the reference.
//!
//! [`flex`] has training attention on slices, for the decoder layers on the CPU, and [`kv_cache`] attention
//! of new queries over a KV cache, for decoding.
//!
//! Sources: Dao et al. 2022, FlashAttention, arXiv 2205.14135, and Dao 2023, arXiv 2307.08691, for the tiles,
//! the running maximum and the backward pass from the rows' statistics; Ainslie et al. 2023, arXiv
//! 2305.13245, for grouped queries.

#[cfg(feature = "cube")]
pub mod cube;
#[cfg(feature = "cube")]
pub mod cube_kernels;
#[cfg(feature = "cube")]
mod cube_steps;
pub mod flex;
pub mod kv_cache;
mod plain;
#[cfg(test)]
mod tests;

use crate::backends::register_gradients;
use crate::{dispatched, implement_everywhere, implement_except_cube};
use burn::backend::{
    Autodiff, Backend, Dispatch, ExtensionType,
    autodiff::{
        NodeId,
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::{FloatTensor, IntTensor},
};
use burn::tensor::{Int, Tensor};

/// The attention of `q` `[B, H, S, W]` over `k` and `v` `[B, K, S, W]`; see the [module](self).
/// Differentiable in all three.
///
/// * `starts`: `[B, S]`, in every row not decreasing and at most the position itself; see
///   [`document_starts`]. Other values give wrong results, not a panic.
/// * `scale`: usually `1 / sqrt(W)`
///
/// # Panics
/// If the shapes or float types don't fit together.
pub fn causal_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, starts: Tensor<2, Int>, scale: f64) -> Tensor<4> {
    let ([b, h, s, w], [_, groups, ..]) = (q.dims(), k.dims());
    let expected = [b, groups, s, w];
    assert!(
        k.dims() == expected && v.dims() == expected && groups > 0 && h.is_multiple_of(groups),
        "causal_attention: q is [{b}, {h}, {s}, {w}], k {:?} and v {:?}",
        k.dims(),
        v.dims()
    );
    assert!(
        starts.dims() == [b, s],
        "causal_attention: starts are {:?}, not [{b}, {s}]",
        starts.dims()
    );
    assert!(
        q.dtype() == k.dtype() && q.dtype() == v.dtype(),
        "causal_attention: q is {:?}, k {:?} and v {:?}",
        q.dtype(),
        k.dtype(),
        v.dtype()
    );
    let inputs = Inputs {
        q: q.into_dispatch(),
        k: k.into_dispatch(),
        v: v.into_dispatch(),
        starts: starts.into_dispatch(),
        scale,
    };
    Tensor::from_dispatch(Dispatch::causal_attention(inputs))
}

/// For one row of document numbers, the first position of each position's document. A negative
/// number is padding, which sees itself alone.
pub fn document_starts(documents: &[i64]) -> Vec<i64> {
    let mut starts: Vec<i64> = Vec::with_capacity(documents.len());
    for (i, document) in documents.iter().enumerate() {
        let before = i.checked_sub(1);
        let start = match before {
            Some(before) if *document >= 0 && documents[before] == *document => starts[before],
            _ => i as i64,
        };
        starts.push(start);
    }
    starts
}

dispatched! { Autodiff:
    /// The operation as burn's dispatch sees it.
    pub trait AttentionOps: Backend {
        /// See [`causal_attention`].
        fn causal_attention(#[extension_type] inputs: Inputs<Self>) -> FloatTensor<Self>;
    }
}

/// What the forward pass saves for the backward pass.
#[derive(Debug, Clone)]
pub struct Attended<B: Backend> {
    /// `[B, H, S, W]`, of the queries' type.
    pub out: FloatTensor<B>,
    /// `[B, H, S, 2]`: m and l of each query, f32 (f64 for f64).
    pub statistics: FloatTensor<B>,
}

/// The inputs of one call.
#[derive(Debug, Clone, ExtensionType)]
pub struct Inputs<B: Backend> {
    /// `[B, H, S, W]`
    pub q: FloatTensor<B>,
    /// `[B, K, S, W]`
    pub k: FloatTensor<B>,
    /// `[B, K, S, W]`
    pub v: FloatTensor<B>,
    /// `[B, S]`
    pub starts: IntTensor<B>,
    /// What the scores are multiplied by.
    pub scale: f64,
}

/// What a backend without autodiff provides; by default in its own operations, with all scores at once.
pub trait AttentionBackend: Backend {
    /// The outputs and what the backward pass needs.
    fn forward(inputs: Inputs<Self>) -> Attended<Self> {
        plain::forward(inputs)
    }

    /// The gradients of q, k and v for `upstream` `[B, H, S, W]`.
    fn backward(inputs: Inputs<Self>, attended: Attended<Self>, upstream: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        plain::backward(inputs, attended, upstream)
    }
}

implement_except_cube!(AttentionBackend, {});
implement_everywhere!(AttentionOps, {
    fn causal_attention(inputs: Inputs<Self>) -> FloatTensor<Self> {
        <Self as AttentionBackend>::forward(inputs).out
    }
});

#[derive(Debug, Clone)]
struct Saved<B: Backend> {
    qkv: [NodeId; 3],
    starts: IntTensor<B>,
    attended: Attended<B>,
    scale: f64,
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: AttentionBackend> Backward<B, 3> for AttentionBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        register_gradients::<B, _, 3>(ops, grads, |saved, upstream, _| {
            let [q, k, v] = saved
                .qkv
                .map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node));
            let (starts, scale) = (saved.starts, saved.scale);
            let inputs = Inputs { q, k, v, starts, scale };
            B::backward(inputs, saved.attended, upstream).map(Some)
        });
    }
}

impl<B: AttentionBackend, C: CheckpointStrategy> AttentionOps for Autodiff<B, C> {
    fn causal_attention(inputs: Inputs<Self>) -> FloatTensor<Self> {
        let Inputs { q, k, v, starts, scale } = inputs;
        let qkv = [q, k, v];
        let nodes = qkv.each_ref().map(|x| x.node());
        let forward = |qkv: [FloatTensor<Self>; 3], starts: IntTensor<B>| {
            let [q, k, v] = qkv.map(|x| x.into_primitive());
            B::forward(Inputs { q, k, v, starts, scale })
        };
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = qkv.each_ref().map(|x| prep.checkpoint(x));
                let attended = forward(qkv, starts.clone());
                let out = attended.out.clone();
                let saved = Saved {
                    qkv: saved,
                    starts,
                    attended,
                    scale,
                };
                prep.finish(saved, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(forward(qkv, starts).out),
        }
    }
}
