//! Generation in a backend's own operations: every device and float type.
//!
//! The products of all texts are computed together; attention goes text by text, each over a KV cache of
//! its own. A segment with a parent starts with a copy of the parent's keys and values, so that shared
//! prefixes are computed once, though not stored once.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, module::embedding};

use super::engine::{Accepted, DraftSpan, Engine, SegmentId};
use crate::causal_lm::CausalLm;
use crate::decoder::{
    DecoderLayer, LayerWeights, NewTexts, Segments, TensorDecode, TensorKvCache, decode, decode_last, extend_caches,
};
use crate::linear::{Linear, RmsNorm};
use crate::llama::MtpLlama;
use wmtp_kernels::attention::flex::Heads;

/// Most attention scores of one layer held at a time, 64 MiB in f32; longer prompts are read in shorter
/// parts.
const MOST_SCORES: usize = 1 << 24;

/// KV caches of a text up to the end of a segment, one a layer: those up to head 1, then heads 2..H.
struct Text {
    parent: Option<SegmentId>,
    layers: Vec<TensorKvCache>,
}

/// What the last step left for [`Engine::commit`].
struct Stepped {
    rows: Vec<(SegmentId, Range<usize>)>,
    /// Tokens of each text before its rows.
    before: Vec<usize>,
    /// The trunk's output `[N, D]`.
    trunk: Tensor<2>,
}

/// A model and the KV caches of text segments.
pub struct TensorEngine<'a> {
    model: &'a MtpLlama,
    heads: usize,
    attention: Heads,
    dtype: DType,
    device: Device,
    segments: Segments<Text>,
    stepped: Option<Stepped>,
}

impl<'a> TensorEngine<'a> {
    /// `drafts`: with heads 2..H.
    pub fn new(model: &'a MtpLlama, drafts: bool) -> Self {
        Self {
            model,
            heads: if drafts { model.n_heads() } else { 1 },
            attention: model.config().layer_spec().heads,
            dtype: model.decoded_dtype(),
            device: model.device(),
            segments: Segments::new(),
            stepped: None,
        }
    }

    /// Tokens of the text up to this segment's end.
    fn length(&self, segment: SegmentId) -> usize {
        let text = self.segments.get(segment);
        text.and_then(|text| text.layers.first()).map_or(0, TensorKvCache::len)
    }

    /// Gives an empty segment a copy of its parent's caches.
    fn inherit(&mut self, segment: SegmentId) {
        let empty = self.segments.get(segment).filter(|text| text.layers.is_empty());
        let Some(Text { parent, .. }) = empty else {
            return;
        };
        let inherited = parent
            .and_then(|parent| self.segments.get(parent))
            .map(|text| text.layers.clone());
        let layers = self.model.config().num_hidden_layers + self.heads - 1;
        let new = || TensorKvCache::new(self.model.config(), self.dtype, &self.device);
        let caches = inherited
            .filter(|caches| !caches.is_empty())
            .unwrap_or_else(|| (0..layers).map(|_| new()).collect());
        if let Some(text) = self.segments.get_mut(segment) {
            text.layers = caches;
        }
    }

    /// Rows of the spans with the number of tokens before each.
    fn rows(&mut self, spans: &[DraftSpan<'_>]) -> (Vec<(SegmentId, Range<usize>)>, Vec<usize>) {
        let mut from = 0;
        let mut rows = Vec::with_capacity(spans.len());
        for span in spans {
            self.inherit(span.segment);
            rows.push((span.segment, from..from + span.tokens.len()));
            from += span.tokens.len();
        }
        let before = rows.iter().map(|(segment, _)| self.length(*segment)).collect();
        (rows, before)
    }

    fn new_texts(&self, rows: &[(SegmentId, Range<usize>)], before: &[usize]) -> NewTexts {
        let of = |((_, rows), before): (&(SegmentId, Range<usize>), &usize)| *before..before + rows.len();
        let positions = rows.iter().zip(before).map(of).collect();
        NewTexts::new(self.model.config(), positions, self.dtype, &self.device)
    }

    fn embedded(&self, spans: &[DraftSpan<'_>]) -> Tensor<2> {
        let ids: Vec<i64> = spans
            .iter()
            .flat_map(|span| span.tokens)
            .map(|token| i64::from(*token))
            .collect();
        let count = ids.len();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, count]), &self.device);
        let weight = self.model.parts().embedding;
        embedding(weight, ids).flatten::<2>(0, 1).cast(self.dtype)
    }

    /// Runs `task` on the decoding of new tokens through `layer`, whose caches have this index.
    fn with_layer<R>(
        &mut self,
        (index, layer): (usize, &'a DecoderLayer),
        rows: &[(SegmentId, Range<usize>)],
        new: &NewTexts,
        task: impl for<'x> FnOnce(&mut TensorDecode<'x, '_>, &LayerWeights<&'x RmsNorm, &'x Linear>) -> R,
    ) -> R {
        let mut places: Vec<Option<&mut TensorKvCache>> = self
            .segments
            .iter_mut()
            .map(|text| text.and_then(|text| text.layers.get_mut(index)))
            .collect();
        let mut caches: Vec<&mut TensorKvCache> = rows
            .iter()
            .filter_map(|(segment, _)| places.get_mut(*segment).and_then(Option::take))
            .collect();
        let mut decoding = TensorDecode {
            new,
            caches: &mut caches,
            heads: self.attention,
            kind: layer.kind(),
        };
        task(&mut decoding, &layer.by_role())
    }

    /// The trunk's output `[N, D]`.
    fn trunk(&mut self, mut x: Tensor<2>, rows: &[(SegmentId, Range<usize>)], new: &NewTexts) -> Tensor<2> {
        let model = self.model;
        for layer in model.parts().trunk.iter().enumerate() {
            x = self.with_layer(layer, rows, new, |ops, layer| decode(ops, layer, x));
        }
        x
    }

    /// Logits of normed rows.
    fn logits(&self, normed: Tensor<2>) -> Vec<f32> {
        let [n, d] = normed.dims();
        let hidden = normed.reshape([1, n, d]);
        self.model.logits(hidden).into_data().iter::<f32>().collect()
    }
}

impl Engine for TensorEngine<'_> {
    fn add(&mut self, parent: Option<SegmentId>) -> SegmentId {
        self.segments.add(Text {
            parent,
            layers: Vec::new(),
        })
    }

    fn remove(&mut self, segment: SegmentId) {
        self.segments.remove(segment);
    }

    fn fill(&mut self, spans: &[DraftSpan<'_>]) {
        let model = self.model;
        let last = model.parts().trunk.len();
        for span in spans {
            let mut rest = span.tokens;
            while !rest.is_empty() {
                self.inherit(span.segment);
                let keys = self.length(span.segment) + rest.len();
                let most = MOST_SCORES / (keys * model.config().num_attention_heads).max(1);
                let (now, later) = rest.split_at(rest.len().min(most.max(1)));
                let spans = [DraftSpan { tokens: now, ..*span }];
                let (rows, before) = self.rows(&spans);
                let new = self.new_texts(&rows, &before);
                let x = self.embedded(&spans);
                let x = self.trunk(x, &rows, &new);
                for (head, layer) in model.parts().heads.iter().take(self.heads).enumerate() {
                    self.with_layer((last + head, layer), &rows, &new, |ops, layer| {
                        extend_caches(ops, layer, &x);
                    });
                }
                rest = later;
            }
        }
    }

    /// A branch would need a copy of all caches of its text.
    fn supports_branches(&self) -> bool {
        false
    }

    fn step(&mut self, spans: &[DraftSpan<'_>]) -> Vec<f32> {
        let model = self.model;
        let (rows, before) = self.rows(spans);
        let new = self.new_texts(&rows, &before);
        let x = self.embedded(spans);
        let trunk = self.trunk(x, &rows, &new);
        let parts = model.parts();
        let Some(head) = parts.heads.first() else {
            return Vec::new();
        };
        let x = trunk.clone();
        let x = self.with_layer((parts.trunk.len(), head), &rows, &new, |ops, layer| {
            decode(ops, layer, x)
        });
        self.stepped = Some(Stepped { rows, before, trunk });
        self.logits(model.norm_of(1).forward(x))
    }

    fn commit(&mut self, accepted: &[Accepted], drafting: usize) -> Vec<f32> {
        let Some(Stepped { rows, before, trunk }) = self.stepped.take() else {
            return Vec::new();
        };
        let model = self.model;
        let last = model.parts().trunk.len();
        let (mut committed, mut committed_before, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
        for (((segment, rows), before), Accepted { tokens, .. }) in rows.iter().zip(&before).zip(accepted) {
            if let Some(text) = self.segments.get_mut(*segment) {
                let layers = text.layers.iter_mut().take(last + 1);
                layers.for_each(|cache| cache.truncate(before + tokens));
            }
            if *tokens > 0 {
                committed.push((*segment, chosen.len()..chosen.len() + tokens));
                committed_before.push(*before);
                chosen.extend((rows.start..rows.start + tokens).map(|row| row as i64));
            }
        }
        if committed.is_empty() {
            return Vec::new();
        }
        let count = chosen.len();
        let chosen = Tensor::<1, Int>::from_data(TensorData::new(chosen, [count]), &self.device);
        let x = trunk.select(0, chosen);
        let new = self.new_texts(&committed, &committed_before);
        let heads = model.parts().heads.iter().enumerate().take(self.heads).skip(1);
        let mut hidden: Vec<Tensor<3>> = Vec::new();
        for (head, layer) in heads {
            let place = (last + head, layer);
            if head > drafting {
                self.with_layer(place, &committed, &new, |ops, layer| extend_caches(ops, layer, &x));
                continue;
            }
            let x = self.with_layer(place, &committed, &new, |ops, layer| decode_last(ops, layer, &x));
            hidden.push(model.norm_of(head + 1).forward(x).unsqueeze_dim(1));
        }
        if hidden.is_empty() {
            return Vec::new();
        }
        self.logits(Tensor::cat(hidden, 1).flatten(0, 1))
    }
}
