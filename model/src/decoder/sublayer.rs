//! The mathematics of a decoder layer's two sublayers for training: forward, and backward from what
//! forward saved.
//!
//! ```text
//! attention sublayer   y = x + o(attention(rotary(q, k, v of norm(x))))
//! MLP sublayer         y = x + down(silu(gate) * up of norm(x))
//! ```
//!
//! It is written once, over [`SublayerOps`]: slices in host memory ([`super::slices`]) or a backend's
//! own operations ([`super::operations`]). The backward pass is written out, so that there is no graph
//! inside a sublayer and only what it needs is saved. What was not saved is computed again.

/// The operations of which a sublayer consists. `N` rows; matrices are `[out, in]`.
pub trait SublayerOps {
    /// The residual stream `[N, D]` or its gradient, borrowed from the caller.
    type Stream: ?Sized;
    /// Activations `[N, width]`.
    type Rows;
    /// Activations as a factor of a product.
    type View<'a>: Clone
    where
        Self: 'a;
    /// A norm's weight `[D]`.
    type Norm: ?Sized;
    /// A matrix.
    type Weight: Clone;
    /// Rotated queries and keys, and values, as they are saved for backward.
    type Qkv;
    /// Gradients of queries, keys and values before rotation.
    type QkvGrad;
    /// The output of attention, as it is saved for backward.
    type Attended;
    /// Gate and up, as they are saved for backward.
    type GateUp;
    /// The gradient of a norm's weight.
    type NormGrad;
    /// The gradient of a matrix.
    type WeightGrad;

    /// The stream as a factor.
    fn stream<'a>(&'a self, x: &'a Self::Stream) -> Self::View<'a>;
    /// Activations as a factor.
    fn view<'a>(&'a self, rows: &'a Self::Rows) -> Self::View<'a>;

    /// The norm of `x`.
    fn normed(&self, x: &Self::Stream, norm: &Self::Norm) -> Self::Rows;
    /// The gradient of `x`, through the norm (`d_h`) and past the sublayer (`upstream`), and that of the
    /// norm's weight.
    fn normed_backward(
        &self,
        x: &Self::Stream,
        norm: &Self::Norm,
        d_h: Self::Rows,
        upstream: &Self::Stream,
    ) -> (Self::Rows, Self::NormGrad);

    /// `rows [N, in]` times the transpose of `weight`.
    fn linear(&self, rows: Self::View<'_>, weight: &Self::Weight) -> Self::Rows;
    /// `x + ` [`SublayerOps::linear`].
    fn add_linear(&self, x: &Self::Stream, rows: Self::View<'_>, weight: &Self::Weight) -> Self::Rows;
    /// The gradient of the rows that went into a linear map: `upstream [N, out]` times `weight`.
    fn input_grad(&self, upstream: Self::View<'_>, weight: &Self::Weight) -> Self::Rows;
    /// `to + ` [`SublayerOps::input_grad`].
    fn add_input_grad(&self, to: Self::Rows, upstream: Self::View<'_>, weight: &Self::Weight) -> Self::Rows;
    /// The gradient of a matrix: `upstream [N, out]` transposed times `rows [N, in]`.
    fn weight_grad(&self, upstream: Self::View<'_>, rows: Self::View<'_>) -> Self::WeightGrad;

    /// Queries, keys and values of normed rows, rotated.
    fn qkv(&self, h: Self::View<'_>, weights: [&Self::Weight; 3]) -> Self::Qkv;
    /// Causal attention within documents.
    fn attend(&self, qkv: &Self::Qkv) -> Self::Attended;
    /// Its output `[N, heads * W]` as a factor.
    fn attended<'a>(&'a self, attended: &'a Self::Attended) -> Self::View<'a>;
    /// The gradients of queries, keys and values for that of the output, rotated back.
    fn attend_backward(&self, qkv: Self::Qkv, attended: Self::Attended, d_attended: Self::Rows) -> Self::QkvGrad;
    /// The gradients of queries, keys and values as factors.
    fn qkv_grads<'a>(&'a self, d_qkv: &'a Self::QkvGrad) -> [Self::View<'a>; 3];

    /// `silu(gate) * up`, and gate and up if they are to be saved.
    fn swiglu(&self, gate_up: [Self::Rows; 2], save: bool) -> (Self::Rows, Option<Self::GateUp>);
    /// Saved gate and up.
    fn restored(&self, saved: Self::GateUp) -> [Self::Rows; 2];
    /// The gradients of gate and up for that of their product. `of_product` gets the product itself.
    fn swiglu_backward<R>(
        &self,
        gate_up: [Self::Rows; 2],
        d_product: Self::Rows,
        of_product: Option<impl FnOnce(&Self::Rows) -> R>,
    ) -> ([Self::Rows; 2], Option<R>);
}

/// What the attention sublayer saves for its backward pass in addition to its input.
pub type SavedAttention<O> = (<O as SublayerOps>::Qkv, <O as SublayerOps>::Attended);

/// Gradients of the input, the norm's weight and the matrices, in the order of the inputs. A matrix
/// whose gradient was not requested has none.
pub struct Gradients<O: SublayerOps, const N: usize> {
    /// `[N, D]`.
    pub x: O::Rows,
    /// `[D]`.
    pub norm: O::NormGrad,
    /// `[out, in]` each.
    pub weights: [Option<O::WeightGrad>; N],
}

fn attended<O: SublayerOps>(
    ops: &O,
    x: &O::Stream,
    norm: &O::Norm,
    [q, k, v, _]: &[O::Weight; 4],
) -> SavedAttention<O> {
    let h = ops.normed(x, norm);
    let qkv = ops.qkv(ops.view(&h), [q, k, v]);
    drop(h);
    let attended = ops.attend(&qkv);
    (qkv, attended)
}

/// The attention sublayer on `x`; `weights` are those of queries, keys, values and output.
pub fn attention<O: SublayerOps>(
    ops: &O,
    x: &O::Stream,
    norm: &O::Norm,
    weights: &[O::Weight; 4],
) -> (O::Rows, SavedAttention<O>) {
    let saved = attended(ops, x, norm, weights);
    let y = ops.add_linear(x, ops.attended(&saved.1), &weights[3]);
    (y, saved)
}

/// Gradients of the attention sublayer for the gradient `upstream` of its result.
pub fn attention_backward<O: SublayerOps>(
    ops: &O,
    x: &O::Stream,
    norm: &O::Norm,
    weights: &[O::Weight; 4],
    saved: Option<SavedAttention<O>>,
    upstream: &O::Stream,
    requested: [bool; 4],
) -> Gradients<O, 4> {
    let (qkv, attended) = saved.unwrap_or_else(|| attended(ops, x, norm, weights));
    let [q, k, v, o] = weights;
    let above = ops.stream(upstream);
    let d_o = requested[3].then(|| ops.weight_grad(above.clone(), ops.attended(&attended)));
    let d_attended = ops.input_grad(above, o);
    let d_qkv = ops.attend_backward(qkv, attended, d_attended);
    let [d_q, d_k, d_v] = ops.qkv_grads(&d_qkv);

    let h = ops.normed(x, norm);
    let of = |i: usize, above: &O::View<'_>| requested[i].then(|| ops.weight_grad(above.clone(), ops.view(&h)));
    let weights = [of(0, &d_q), of(1, &d_k), of(2, &d_v), d_o];
    drop(h);
    let d_h = ops.input_grad(d_q, q);
    let d_h = ops.add_input_grad(d_h, d_k, k);
    let d_h = ops.add_input_grad(d_h, d_v, v);
    let (x, norm) = ops.normed_backward(x, norm, d_h, upstream);
    Gradients { x, norm, weights }
}

fn gate_up<O: SublayerOps>(ops: &O, x: &O::Stream, norm: &O::Norm, [gate, up, _]: &[O::Weight; 3]) -> [O::Rows; 2] {
    let h = ops.normed(x, norm);
    [gate, up].map(|weight| ops.linear(ops.view(&h), weight))
}

/// The MLP sublayer on `x`; `weights` are those of gate, up and down.
pub fn mlp<O: SublayerOps>(
    ops: &O,
    x: &O::Stream,
    norm: &O::Norm,
    weights: &[O::Weight; 3],
    save: bool,
) -> (O::Rows, Option<O::GateUp>) {
    let (product, saved) = ops.swiglu(gate_up(ops, x, norm, weights), save);
    (ops.add_linear(x, ops.view(&product), &weights[2]), saved)
}

/// Gradients of the MLP sublayer for the gradient `upstream` of its result.
pub fn mlp_backward<O: SublayerOps>(
    ops: &O,
    x: &O::Stream,
    norm: &O::Norm,
    weights: &[O::Weight; 3],
    saved: Option<O::GateUp>,
    upstream: &O::Stream,
    requested: [bool; 3],
) -> Gradients<O, 3> {
    let gate_up = match saved {
        Some(saved) => ops.restored(saved),
        None => gate_up(ops, x, norm, weights),
    };
    let [gate, up, down] = weights;
    let above = ops.stream(upstream);
    let d_product = ops.input_grad(above.clone(), down);
    let of_product = requested[2].then_some(|product: &O::Rows| ops.weight_grad(above, ops.view(product)));
    let ([d_gate, d_up], d_down) = ops.swiglu_backward(gate_up, d_product, of_product);

    let h = ops.normed(x, norm);
    let of = |i: usize, above: &O::Rows| requested[i].then(|| ops.weight_grad(ops.view(above), ops.view(&h)));
    let weights = [of(0, &d_gate), of(1, &d_up), d_down];
    drop(h);
    let d_h = ops.input_grad(ops.view(&d_gate), gate);
    let d_h = ops.add_input_grad(d_h, ops.view(&d_up), up);
    let (x, norm) = ops.normed_backward(x, norm, d_h, upstream);
    Gradients { x, norm, weights }
}
