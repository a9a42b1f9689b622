//! The mathematics of a decoder layer with a KV cache: rows are the next tokens of texts.
//!
//! It is written once, over [`DecodeOps`]: slices in host memory ([`super::decode_slices`]) or burn's
//! tensors on any backend ([`super::kv_cache`]). The formulas are those of [`super::sublayer`].

/// Number of a text segment, reused once the segment was removed.
pub(crate) type SegmentId = usize;

/// Text segments by their numbers.
#[derive(Debug)]
pub(crate) struct Segments<T>(Vec<Option<T>>);

impl<T> Segments<T> {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a segment.
    pub fn add(&mut self, segment: T) -> SegmentId {
        let id = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if id == self.0.len() {
            self.0.push(None);
        }
        self.0[id] = Some(segment);
        id
    }

    /// Removes a segment.
    pub fn remove(&mut self, id: SegmentId) -> Option<T> {
        self.0.get_mut(id)?.take()
    }

    /// A segment that was not removed.
    pub fn get(&self, id: SegmentId) -> Option<&T> {
        self.0.get(id)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: SegmentId) -> Option<&mut T> {
        self.0.get_mut(id)?.as_mut()
    }

    /// All numbers, each with its segment unless that was removed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Option<&mut T>> {
        self.0.iter_mut().map(Option::as_mut)
    }
}

/// A layer's weights: norms `[D]` and matrices `[out, in]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerWeights<N, M> {
    pub input_norm: N,
    pub q: M,
    pub k: M,
    pub v: M,
    pub o: M,
    /// Norms of the heads of queries and keys, both or none.
    pub q_norm: Option<N>,
    pub k_norm: Option<N>,
    pub post_attention_norm: N,
    pub gate: M,
    pub up: M,
    pub down: M,
}

/// For which new tokens queries are computed, and all that follows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queries {
    /// For all.
    All,
    /// For the last of each text.
    LastOfEach,
}

/// The operations that decoding consists of, with the KV caches of one layer.
pub(crate) trait DecodeOps {
    /// Activations `[N, width]`.
    type Rows;
    /// A norm's weight.
    type Norm;
    /// A matrix.
    type Matrix;
    /// Rotated and scaled queries.
    type Queries;
    /// Rotated keys, and values.
    type KeysValues;

    /// The norm of the rows of `x`.
    fn normed(&self, x: &Self::Rows, norm: &Self::Norm) -> Self::Rows;
    /// `x` times the transpose of each matrix.
    fn linear<const M: usize>(&self, x: &Self::Rows, matrices: [&Self::Matrix; M]) -> [Self::Rows; M];
    /// Queries as asked for, and the keys and values of all new tokens; queries and keys in their head norms,
    /// where there are any, and rotated.
    fn qkv(
        &self,
        h: Self::Rows,
        weights: [&Self::Matrix; 3],
        head_norms: [Option<&Self::Norm>; 2],
        queries: Queries,
    ) -> (Self::Queries, Self::KeysValues);
    /// The keys and values alone.
    fn keys_values(
        &self,
        h: Self::Rows,
        weights: [&Self::Matrix; 2],
        head_norm: Option<&Self::Norm>,
    ) -> Self::KeysValues;
    /// Appends keys and values to the caches of their texts.
    fn append(&mut self, keys_values: Self::KeysValues);
    /// Attention of queries over the caches of their texts, `[N, heads * W]`.
    fn attend(&self, q: Self::Queries, queries: Queries) -> Self::Rows;
    /// The row of the last new token of each text.
    fn last_of_each(&self, x: &Self::Rows) -> Self::Rows;
    /// `silu(gate) * up`.
    fn swiglu(&self, gate: Self::Rows, up: Self::Rows) -> Self::Rows;
    /// `x + y`.
    fn add(&self, x: Self::Rows, y: Self::Rows) -> Self::Rows;
}

/// A layer's weights as `O` takes them.
type Weights<O> = LayerWeights<<O as DecodeOps>::Norm, <O as DecodeOps>::Matrix>;

/// The layer on the rows `x` of all new tokens, whose keys and values are appended to the caches.
pub(crate) fn decode<O: DecodeOps>(ops: &mut O, layer: &Weights<O>, x: O::Rows) -> O::Rows {
    let attended = attended(ops, layer, &x, Queries::All);
    after_attention(ops, layer, x, attended)
}

/// [`decode`] whose result is that of the last new token of each text.
pub(crate) fn decode_last<O: DecodeOps>(ops: &mut O, layer: &Weights<O>, x: &O::Rows) -> O::Rows {
    let attended = attended(ops, layer, x, Queries::LastOfEach);
    let x = ops.last_of_each(x);
    after_attention(ops, layer, x, attended)
}

/// Appends the keys and values of the rows `x` to the caches, and computes nothing else.
pub(crate) fn extend_caches<O: DecodeOps>(ops: &mut O, layer: &Weights<O>, x: &O::Rows) {
    let h = ops.normed(x, &layer.input_norm);
    let keys_values = ops.keys_values(h, [&layer.k, &layer.v], layer.k_norm.as_ref());
    ops.append(keys_values);
}

fn attended<O: DecodeOps>(ops: &mut O, layer: &Weights<O>, x: &O::Rows, queries: Queries) -> O::Rows {
    let h = ops.normed(x, &layer.input_norm);
    let head_norms = [layer.q_norm.as_ref(), layer.k_norm.as_ref()];
    let (q, keys_values) = ops.qkv(h, [&layer.q, &layer.k, &layer.v], head_norms, queries);
    ops.append(keys_values);
    ops.attend(q, queries)
}

/// The output projection, and the MLP sublayer.
fn after_attention<O: DecodeOps>(ops: &O, layer: &Weights<O>, x: O::Rows, attended: O::Rows) -> O::Rows {
    let [o] = ops.linear(&attended, [&layer.o]);
    let x = ops.add(x, o);
    let h = ops.normed(&x, &layer.post_attention_norm);
    let [gate, up] = ops.linear(&h, [&layer.gate, &layer.up]);
    let [down] = ops.linear(&ops.swiglu(gate, up), [&layer.down]);
    ops.add(x, down)
}
