//! The attention on CubeCL: which block fits the device, and the launches.
//!
//! Bytes moved are q, k, v and out once and k and v once more for each query block; per pair of a
//! query and a key that it sees, forward 4 W operations, dq 6 W and dk with dv 8 W, in f32 outside of
//! the matrix units. So operations bound it, at W = 64 and S = 2048: per head and sequence 2.1 M pairs
//! are 2.4 G operations forward and backward, 0.12 ms at an A100's 19.5 TFLOP/s and 0.04 ms at an
//! H100's 67.

use super::cube_kernels::{self, PER_UNIT};
use super::{Attended, AttentionBackend, Inputs, plain};
use crate::cube::{Inner, contiguous, element, empty, is_supported};
use burn::backend::{Cube, TensorMetadata, ops::IntTensorOps, tensor::FloatTensor};
use burn::tensor::{DType, IntDType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::client::Client;
use cubecl::prelude::{CubeCount, CubeDim};

/// Rows of a cube, largest first: a larger block reads keys and values less often.
const BLOCKS: [usize; 4] = [64, 32, 16, 8];

/// Bytes of shared memory of the kernel that needs most, dq's, for heads `width` wide.
fn shared_bytes(width: usize, block: usize) -> usize {
    let tiles = 3 * block * (width + 1);
    let shares = block * (block + 1);
    let scratch = block * (block / PER_UNIT);
    (tiles + shares + scratch) * size_of::<f32>()
}

/// The largest block whose tiles fit the device, if any does.
fn block_for(client: &Client, width: usize) -> Option<usize> {
    let hardware = &client.properties().hardware;
    let fits = |block: &usize| {
        let units = (block / PER_UNIT).pow(2);
        shared_bytes(width, *block) <= hardware.max_shared_memory_size && units <= hardware.max_units_per_cube as usize
    };
    BLOCKS.into_iter().find(fits)
}

/// The parameters that all launches share.
struct Plan {
    block: usize,
    width: usize,
    planes: bool,
    cube: CubeDim,
    batch: usize,
    blocks: usize,
}

impl Plan {
    /// None where the plain form computes it: an unsupported type, empty tensors, or a width whose tiles
    /// do not fit into shared memory.
    fn new(inputs: &Inputs<Cube>) -> Option<Self> {
        let [batch, _, seq, width] = inputs.q.shape().dims();
        if !is_supported(inputs.q.dtype) || inputs.q.shape().num_elements() == 0 {
            return None;
        }
        let client = &inputs.q.client;
        let block = block_for(client, width)?;
        let units = (block / PER_UNIT).pow(2) as u32;
        Some(Self {
            block,
            width,
            // The units of a row have to lie in one plane: sides are 16 at most, planes at least.
            planes: Inner::of(client, units).planes() && client.properties().hardware.plane_size_min >= 16,
            cube: CubeDim::new_1d(units),
            batch,
            blocks: seq.div_ceil(block),
        })
    }

    fn cubes(&self, heads: usize) -> CubeCount {
        CubeCount::Static(self.blocks as u32, heads as u32, self.batch as u32)
    }
}

/// The inputs with contiguous tensors and i32 starts.
fn tidy(inputs: Inputs<Cube>) -> Inputs<Cube> {
    let starts = match inputs.starts.dtype {
        DType::I32 => inputs.starts,
        _ => Cube::int_cast(inputs.starts, IntDType::I32),
    };
    Inputs {
        q: contiguous(inputs.q),
        k: contiguous(inputs.k),
        v: contiguous(inputs.v),
        starts: contiguous(starts),
        scale: inputs.scale,
    }
}

impl AttentionBackend for Cube {
    fn forward(inputs: Inputs<Self>) -> Attended<Self> {
        let Some(plan) = Plan::new(&inputs) else {
            return plain::forward(inputs);
        };
        let Inputs { q, k, v, starts, scale } = tidy(inputs);
        let [batch, heads, seq, _] = q.shape().dims();
        let out = empty(&q, q.shape(), q.dtype);
        let statistics = empty(&q, [batch, heads, seq, 2], DType::F32);
        cube_kernels::attention_forward::launch(
            &out.client,
            plan.cubes(heads),
            plan.cube,
            q.into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            starts.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            statistics.clone().into_tensor_arg(),
            scale as f32,
            plan.width,
            plan.block,
            plan.planes,
            element(out.dtype),
        );
        Attended { out, statistics }
    }

    fn backward(inputs: Inputs<Self>, attended: Attended<Self>, upstream: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        let Some(plan) = Plan::new(&inputs) else {
            return plain::backward(inputs, attended, upstream);
        };
        let Inputs { q, k, v, starts, scale } = tidy(inputs);
        let upstream = contiguous(upstream);
        let [batch, heads, seq, _] = q.shape().dims();
        let like = |tensor: &CubeTensor| empty(tensor, tensor.shape(), tensor.dtype);
        let [dq, dk, dv] = [like(&q), like(&k), like(&v)];
        let deltas = empty(&q, [batch, heads, seq], DType::F32);
        cube_kernels::attention_backward_q::launch(
            &dq.client,
            plan.cubes(heads),
            plan.cube,
            q.clone().into_tensor_arg(),
            k.clone().into_tensor_arg(),
            v.clone().into_tensor_arg(),
            starts.clone().into_tensor_arg(),
            contiguous(attended.out).into_tensor_arg(),
            upstream.clone().into_tensor_arg(),
            attended.statistics.clone().into_tensor_arg(),
            dq.clone().into_tensor_arg(),
            deltas.clone().into_tensor_arg(),
            scale as f32,
            plan.width,
            plan.block,
            plan.planes,
            element(dq.dtype),
        );
        let groups = k.shape()[1];
        cube_kernels::attention_backward_kv::launch(
            &dq.client,
            plan.cubes(groups),
            plan.cube,
            q.into_tensor_arg(),
            k.into_tensor_arg(),
            v.into_tensor_arg(),
            starts.into_tensor_arg(),
            upstream.into_tensor_arg(),
            attended.statistics.into_tensor_arg(),
            deltas.into_tensor_arg(),
            dk.clone().into_tensor_arg(),
            dv.clone().into_tensor_arg(),
            scale as f32,
            plan.width,
            plan.block,
            element(dq.dtype),
        );
        [dq, dk, dv]
    }
}
