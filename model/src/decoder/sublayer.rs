//! The mathematics of a decoder layer's two sublayers for training: forward, and backward from what
//! forward saved.
//!
//! ```text
//! attention sublayer   y = x + o(attention(rotary(q, k, v of norm(x))))
//!                      rotary(head norm of q, head norm of k) where the layer has norms of heads
//! MLP sublayer         y = x + down(silu(gate) * up of norm(x))
//! ```
//!
//! q, k, v, o, gate, up and down are linear maps, with a bias where the layer's
//! [`LayerSpec`](super::LayerSpec) has one.
//!
//! It is written once, over [`SublayerOps`]: slices in host memory ([`super::slices`]) or a backend's
//! own operations ([`super::operations`]). The backward pass is written out, so that there is no graph
//! inside a sublayer and only what it needs is saved. What was not saved is computed again.

use std::fmt::Debug;

/// The operations of which a sublayer consists. `N` rows; matrices are `[out, in]`.
pub trait SublayerOps: Sized {
    /// The residual stream `[N, D]` or its gradient, borrowed from the caller.
    type Stream: ?Sized;
    /// Activations `[N, width]`.
    type Rows;
    /// Activations as a factor of a product.
    type View<'a>: Clone
    where
        Self: 'a;
    /// A norm's weight or a bias.
    type Vector: ?Sized;
    /// A matrix.
    type Matrix<'a>: Copy
    where
        Self: 'a;
    /// Rotated queries and keys, and values, as they are saved for backward.
    type Qkv: Clone + Debug + Send + 'static;
    /// Gradients of queries, keys and values before rotation.
    type QkvGrad;
    /// The output of attention, as it is saved for backward.
    type Attended: Clone + Debug + Send + 'static;
    /// Gate and up, as they are saved for backward.
    type GateUp: Clone + Debug + Send + 'static;
    /// The gradient of a vector.
    type VectorGrad;
    /// The gradient of a matrix.
    type MatrixGrad;

    /// The stream as a factor.
    fn stream<'a>(&'a self, x: &'a Self::Stream) -> Self::View<'a>;
    /// Activations as a factor.
    fn view<'a>(&'a self, rows: &'a Self::Rows) -> Self::View<'a>;

    /// The norm of `x`.
    fn normed(&self, x: &Self::Stream, norm: &Self::Vector) -> Self::Rows;
    /// The gradient of `x`, through the norm (`d_h`) and past the sublayer (`upstream`), and that of the
    /// norm's weight.
    fn normed_backward(
        &self,
        x: &Self::Stream,
        norm: &Self::Vector,
        d_h: Self::Rows,
        upstream: &Self::Stream,
    ) -> (Self::Rows, Self::VectorGrad);

    /// `rows [N, in]` times the transpose of the map's matrix, plus its bias.
    fn linear(&self, rows: Self::View<'_>, map: &LinearMap<'_, Self>) -> Self::Rows;
    /// `x + ` [`SublayerOps::linear`].
    fn add_linear(&self, x: &Self::Stream, rows: Self::View<'_>, map: &LinearMap<'_, Self>) -> Self::Rows;
    /// The gradient of the rows that went into a linear map: `upstream [N, out]` times `matrix`.
    fn input_grad(&self, upstream: Self::View<'_>, matrix: Self::Matrix<'_>) -> Self::Rows;
    /// `to + ` [`SublayerOps::input_grad`].
    fn add_input_grad(&self, to: Self::Rows, upstream: Self::View<'_>, matrix: Self::Matrix<'_>) -> Self::Rows;
    /// The gradient of a matrix: `upstream [N, out]` transposed times `rows [N, in]`.
    fn matrix_grad(&self, upstream: Self::View<'_>, rows: Self::View<'_>) -> Self::MatrixGrad;
    /// The gradient of a bias: the sum of the rows of `upstream [N, out]`.
    fn bias_grad(&self, upstream: Self::View<'_>) -> Self::VectorGrad;

    /// Queries, keys and values of normed rows; queries and keys in their head norms, where there are any, and
    /// rotated.
    fn qkv(
        &self,
        h: Self::View<'_>,
        maps: [&LinearMap<'_, Self>; 3],
        head_norms: Option<[&Self::Vector; 2]>,
    ) -> Self::Qkv;
    /// Causal attention within documents.
    fn attend(&self, qkv: &Self::Qkv) -> Self::Attended;
    /// Its output `[N, heads * W]` as a factor.
    fn attended<'a>(&'a self, attended: &'a Self::Attended) -> Self::View<'a>;
    /// The gradients of queries, keys and values for that of the output, rotated back.
    fn attend_backward(&self, qkv: Self::Qkv, attended: Self::Attended, d_attended: Self::Rows) -> Self::QkvGrad;
    /// The gradients of queries and keys through their head norms, for those behind the norms (in `d_qkv`),
    /// and the gradients of the norms' weights. `projected`: queries and keys before the norms.
    fn head_norms_backward(
        &self,
        d_qkv: Self::QkvGrad,
        projected: [Self::Rows; 2],
        head_norms: [&Self::Vector; 2],
    ) -> (Self::QkvGrad, [Self::VectorGrad; 2]);
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

/// A linear map's parameters.
pub struct LinearMap<'a, O: SublayerOps + 'a> {
    /// `[out, in]`.
    pub matrix: O::Matrix<'a>,
    /// `[out]`.
    pub bias: Option<&'a O::Vector>,
}

/// A sublayer's parameters, with its L linear maps.
pub struct Parameters<'a, O: SublayerOps + 'a, const L: usize> {
    /// Weight of the norm before it.
    pub norm: &'a O::Vector,
    /// Weights `[W]` of the norms of each query's and each key's head, in the attention sublayer of models
    /// that have them.
    pub head_norms: Option<[&'a O::Vector; 2]>,
    /// In the order of the sublayer's inputs.
    pub maps: [LinearMap<'a, O>; L],
}

/// Which gradients of a linear map's parameters are needed; none of a bias that the map does not have.
#[derive(Debug, Clone, Copy)]
pub struct Requested {
    /// Of its matrix.
    pub matrix: bool,
    /// Of its bias.
    pub bias: bool,
}

/// Gradients of the input and the parameters.
pub struct Gradients<O: SublayerOps, const L: usize> {
    /// `[N, D]`.
    pub x: O::Rows,
    /// `[D]`.
    pub norm: O::VectorGrad,
    /// `[W]` each.
    pub head_norms: Option<[O::VectorGrad; 2]>,
    /// Of the linear maps.
    pub maps: [MapGradients<O>; L],
}

/// The requested gradients of a linear map's parameters.
pub struct MapGradients<O: SublayerOps> {
    /// `[out, in]`.
    pub matrix: Option<O::MatrixGrad>,
    /// `[out]`.
    pub bias: Option<O::VectorGrad>,
}

impl<O: SublayerOps, const L: usize> Gradients<O, L> {
    /// As values of one type, in the order of [`Inputs::in_order`](super::node::Inputs::in_order).
    pub fn in_order<T>(
        self,
        rows: impl Fn(O::Rows) -> T,
        vector: impl Fn(O::VectorGrad) -> T,
        matrix: impl Fn(O::MatrixGrad) -> T,
    ) -> Vec<Option<T>> {
        let (mut biases, mut matrices) = (Vec::with_capacity(2 * L + 4), Vec::with_capacity(L));
        for map in self.maps {
            biases.push(map.bias.map(&vector));
            matrices.push(map.matrix.map(&matrix));
        }
        match self.head_norms {
            Some(norms) => biases.extend(norms.map(|norm| Some(vector(norm)))),
            None => biases.extend([None, None]),
        }
        biases.extend([Some(rows(self.x)), Some(vector(self.norm))]);
        biases.append(&mut matrices);
        biases
    }
}

/// The requested gradients of a linear map of `rows` for the gradient `upstream` of its result.
fn map_gradients<'r, O: SublayerOps + 'r>(
    ops: &O,
    requested: Requested,
    upstream: &O::View<'_>,
    rows: impl FnOnce() -> O::View<'r>,
) -> MapGradients<O> {
    MapGradients {
        matrix: requested.matrix.then(|| ops.matrix_grad(upstream.clone(), rows())),
        bias: requested.bias.then(|| ops.bias_grad(upstream.clone())),
    }
}

/// A sublayer with L linear maps.
pub trait Sublayer<const L: usize>: Clone + Debug + Send + 'static {
    /// What it saves for its backward pass in addition to its inputs.
    type Saved<O: SublayerOps>: Clone + Debug + Send + 'static;

    /// The sublayer on `x`, and what it saves if `save`.
    fn forward<O: SublayerOps>(
        ops: &O,
        x: &O::Stream,
        parameters: &Parameters<'_, O, L>,
        save: bool,
    ) -> (O::Rows, Option<Self::Saved<O>>);

    /// Gradients for the gradient `upstream` of its result.
    fn backward<O: SublayerOps>(
        ops: &O,
        x: &O::Stream,
        parameters: &Parameters<'_, O, L>,
        saved: Option<Self::Saved<O>>,
        upstream: &O::Stream,
        requested: [Requested; L],
    ) -> Gradients<O, L>;
}

/// The attention sublayer; its maps are those of queries, keys, values and output.
#[derive(Debug, Clone)]
pub struct Attention;

fn attended<O: SublayerOps>(ops: &O, x: &O::Stream, parameters: &Parameters<'_, O, 4>) -> (O::Qkv, O::Attended) {
    let [q, k, v, _] = &parameters.maps;
    let h = ops.normed(x, parameters.norm);
    let qkv = ops.qkv(ops.view(&h), [q, k, v], parameters.head_norms);
    drop(h);
    let attended = ops.attend(&qkv);
    (qkv, attended)
}

impl Sublayer<4> for Attention {
    type Saved<O: SublayerOps> = (O::Qkv, O::Attended);

    fn forward<O: SublayerOps>(
        ops: &O,
        x: &O::Stream,
        parameters: &Parameters<'_, O, 4>,
        save: bool,
    ) -> (O::Rows, Option<Self::Saved<O>>) {
        let saved = attended(ops, x, parameters);
        let y = ops.add_linear(x, ops.attended(&saved.1), &parameters.maps[3]);
        (y, save.then_some(saved))
    }

    fn backward<O: SublayerOps>(
        ops: &O,
        x: &O::Stream,
        parameters: &Parameters<'_, O, 4>,
        saved: Option<Self::Saved<O>>,
        upstream: &O::Stream,
        requested: [Requested; 4],
    ) -> Gradients<O, 4> {
        let (qkv, attended) = saved.unwrap_or_else(|| attended(ops, x, parameters));
        let [q, k, v, o] = parameters.maps.each_ref().map(|map| map.matrix);
        let above = ops.stream(upstream);
        let of_o = map_gradients(ops, requested[3], &above, || ops.attended(&attended));
        let d_attended = ops.input_grad(above, o);
        let d_qkv = ops.attend_backward(qkv, attended, d_attended);

        let h = ops.normed(x, parameters.norm);
        let (d_qkv, head_norms) = match parameters.head_norms {
            Some(norms) => {
                // Not saved, so that a layer with head norms keeps no more than one without.
                let [q, k, ..] = &parameters.maps;
                let projected = [q, k].map(|map| ops.linear(ops.view(&h), map));
                let (d_qkv, head_norms) = ops.head_norms_backward(d_qkv, projected, norms);
                (d_qkv, Some(head_norms))
            }
            None => (d_qkv, None),
        };
        let [d_q, d_k, d_v] = ops.qkv_grads(&d_qkv);
        let of = |i: usize, above: &O::View<'_>| map_gradients(ops, requested[i], above, || ops.view(&h));
        let maps = [of(0, &d_q), of(1, &d_k), of(2, &d_v), of_o];
        drop(h);
        let d_h = ops.input_grad(d_q, q);
        let d_h = ops.add_input_grad(d_h, d_k, k);
        let d_h = ops.add_input_grad(d_h, d_v, v);
        let (x, norm) = ops.normed_backward(x, parameters.norm, d_h, upstream);
        Gradients {
            x,
            norm,
            head_norms,
            maps,
        }
    }
}

/// The MLP sublayer; its maps are those of gate, up and down.
#[derive(Debug, Clone)]
pub struct Mlp;

fn gate_up<O: SublayerOps>(ops: &O, x: &O::Stream, parameters: &Parameters<'_, O, 3>) -> [O::Rows; 2] {
    let [gate, up, _] = &parameters.maps;
    let h = ops.normed(x, parameters.norm);
    [gate, up].map(|map| ops.linear(ops.view(&h), map))
}

impl Sublayer<3> for Mlp {
    type Saved<O: SublayerOps> = O::GateUp;

    fn forward<O: SublayerOps>(
        ops: &O,
        x: &O::Stream,
        parameters: &Parameters<'_, O, 3>,
        save: bool,
    ) -> (O::Rows, Option<O::GateUp>) {
        let (product, saved) = ops.swiglu(gate_up(ops, x, parameters), save);
        (ops.add_linear(x, ops.view(&product), &parameters.maps[2]), saved)
    }

    fn backward<O: SublayerOps>(
        ops: &O,
        x: &O::Stream,
        parameters: &Parameters<'_, O, 3>,
        saved: Option<O::GateUp>,
        upstream: &O::Stream,
        requested: [Requested; 3],
    ) -> Gradients<O, 3> {
        let gate_up = match saved {
            Some(saved) => ops.restored(saved),
            None => gate_up(ops, x, parameters),
        };
        let [gate, up, down] = parameters.maps.each_ref().map(|map| map.matrix);
        let above = ops.stream(upstream);
        let d_product = ops.input_grad(above.clone(), down);
        let of_down = |product: &O::Rows| map_gradients(ops, requested[2], &above, || ops.view(product));
        let needed = requested[2].matrix || requested[2].bias;
        let ([d_gate, d_up], of_down) = ops.swiglu_backward(gate_up, d_product, needed.then_some(of_down));
        let of_down = of_down.unwrap_or(MapGradients {
            matrix: None,
            bias: None,
        });

        let h = ops.normed(x, parameters.norm);
        let of = |i: usize, above: &O::Rows| map_gradients(ops, requested[i], &ops.view(above), || ops.view(&h));
        let maps = [of(0, &d_gate), of(1, &d_up), of_down];
        drop(h);
        let d_h = ops.input_grad(ops.view(&d_gate), gate);
        let d_h = ops.add_input_grad(d_h, ops.view(&d_up), up);
        let (x, norm) = ops.normed_backward(x, parameters.norm, d_h, upstream);
        Gradients {
            x,
            norm,
            head_norms: None,
            maps,
        }
    }
}
