//! The multi-token Llama's training step as one would first write it in burn: nn modules, repeated
//! key and value heads, S x S scores, all heads' logits, log-softmax and gather, burn's AdamW with
//! nothing around it. It is the peer that `train_step` is measured against; nothing else uses it.

use burn::{
    module::{Module, Param},
    nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig},
    tensor::{Bool, Device, Distribution, Int, Tensor, activation},
};

/// Sizes of the model.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub vocab: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub mtp_heads: usize,
}

/// SmolLM2-135M with four prediction heads.
pub const SMOLLM2: Shape = Shape {
    vocab: 49152,
    hidden: 576,
    intermediate: 1536,
    layers: 30,
    heads: 9,
    kv_heads: 3,
    mtp_heads: 4,
};

#[derive(Module, Debug)]
struct Layer {
    norm1: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    norm2: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A plain multi-token Llama with tied embeddings.
#[derive(Module, Debug)]
pub struct Plain {
    embedding: Embedding,
    trunk: Vec<Layer>,
    heads: Vec<Layer>,
    norm: RmsNorm,
    n_heads: usize,
    n_kv: usize,
}

impl Shape {
    fn layer(&self, device: &Device) -> Layer {
        let kv = self.hidden / self.heads * self.kv_heads;
        let linear = |i, o| LinearConfig::new(i, o).with_bias(false).init(device);
        let norm = || RmsNormConfig::new(self.hidden).with_epsilon(1e-5).init(device);
        Layer {
            norm1: norm(),
            q: linear(self.hidden, self.hidden),
            k: linear(self.hidden, kv),
            v: linear(self.hidden, kv),
            o: linear(self.hidden, self.hidden),
            norm2: norm(),
            gate: linear(self.hidden, self.intermediate),
            up: linear(self.hidden, self.intermediate),
            down: linear(self.intermediate, self.hidden),
        }
    }

    /// A model with random weights.
    pub fn init(&self, device: &Device) -> Plain {
        let mut embedding = EmbeddingConfig::new(self.vocab, self.hidden).init(device);
        embedding.weight = Param::from_tensor(Tensor::random(
            [self.vocab, self.hidden],
            Distribution::Normal(0.0, 0.02),
            device,
        ));
        Plain {
            embedding,
            trunk: (1..self.layers).map(|_| self.layer(device)).collect(),
            heads: (0..self.mtp_heads).map(|_| self.layer(device)).collect(),
            norm: RmsNormConfig::new(self.hidden).with_epsilon(1e-5).init(device),
            n_heads: self.heads,
            n_kv: self.kv_heads,
        }
    }
}

fn rope(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [_, _, _, d] = x.dims();
    let first = x.clone().narrow(3, 0, d / 2);
    let second = x.clone().narrow(3, d / 2, d / 2);
    x * cos + Tensor::cat(vec![second.neg(), first], 3) * sin
}

impl Layer {
    fn forward(
        &self,
        x: Tensor<3>,
        tables: &(Tensor<4>, Tensor<4>),
        mask: &Tensor<4, Bool>,
        heads: usize,
        kv: usize,
    ) -> Tensor<3> {
        let [b, s, d] = x.dims();
        let size = d / heads;
        let split = |t: Tensor<3>, n: usize| t.reshape([b, s, n, size]).swap_dims(1, 2);
        let repeat = |t: Tensor<4>| {
            t.reshape([b, kv, 1, s, size])
                .expand([b, kv, heads / kv, s, size])
                .reshape([b, heads, s, size])
        };
        let h = self.norm1.forward(x.clone());
        let q = rope(
            split(self.q.forward(h.clone()), heads),
            tables.0.clone(),
            tables.1.clone(),
        );
        let k = rope(split(self.k.forward(h.clone()), kv), tables.0.clone(), tables.1.clone());
        let v = split(self.v.forward(h), kv);
        let scores = q.matmul(repeat(k).swap_dims(2, 3)).div_scalar((size as f64).sqrt());
        let scores = scores.mask_fill(mask.clone().expand([b, heads, s, s]), f32::NEG_INFINITY);
        let mixed = activation::softmax(scores, 3).matmul(repeat(v));
        let x = x + self.o.forward(mixed.swap_dims(1, 2).reshape([b, s, d]));
        let h = self.norm2.forward(x.clone());
        let gated = activation::silu(self.gate.forward(h.clone())) * self.up.forward(h);
        x + self.down.forward(gated)
    }
}

impl Plain {
    /// Mean over heads of the mean cross-entropy over all positions with a target; every token
    /// weighs 1. `tokens` is `[B, S]`.
    pub fn loss(&self, tokens: Tensor<2, Int>) -> Tensor<1> {
        let device = tokens.device();
        let [b, s] = tokens.dims();
        let [vocab, d] = self.embedding.weight.dims();
        let size = d / self.n_heads;
        let tables = tables(s, size, &device);
        let mask = Tensor::<2, Bool>::tril_mask([s, s], 0, &device).reshape([1, 1, s, s]);
        let mut x = self.embedding.forward(tokens.clone());
        for layer in &self.trunk {
            x = layer.forward(x, &tables, &mask, self.n_heads, self.n_kv);
        }
        let unembedding = self.embedding.weight.val().swap_dims(0, 1);
        let mut total = Tensor::<1>::zeros([1], &device);
        for (k, head) in self.heads.iter().enumerate() {
            let n = s - k - 1;
            let hidden = self
                .norm
                .forward(head.forward(x.clone(), &tables, &mask, self.n_heads, self.n_kv));
            let logits = hidden.narrow(1, 0, n).reshape([b * n, d]).matmul(unembedding.clone());
            let targets = tokens.clone().narrow(1, k + 1, n).reshape([b * n, 1]);
            let ce = activation::log_softmax(logits.reshape([b * n, vocab]), 1)
                .gather(1, targets)
                .neg();
            // The denominator is head 1's number of targets, for every head.
            total = total + ce.sum().div_scalar((b * (s - 1)) as f64);
        }
        total.div_scalar(self.heads.len() as f64)
    }
}

fn tables(s: usize, size: usize, device: &Device) -> (Tensor<4>, Tensor<4>) {
    let positions = Tensor::<1, Int>::arange(0..s as i64, device).float().reshape([s, 1]);
    let exponents = Tensor::<1, Int>::arange(0..(size / 2) as i64, device)
        .float()
        .div_scalar(size as f64 / 2.0);
    let frequencies = (exponents.mul_scalar(-(10_000f64).ln())).exp().reshape([1, size / 2]);
    let angles = positions.matmul(frequencies);
    let angles = Tensor::cat(vec![angles.clone(), angles], 1).reshape([1, 1, s, size]);
    (angles.clone().cos(), angles.sin())
}
