//! Generation in a backend's own operations: every device and float type.
//!
//! The products of all texts are taken together; attention goes text by text, each over a cache of
//! its own. A piece that follows another one starts with a copy of its keys and values, so that what
//! is shared is computed once, though not held once.

use std::ops::Range;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, module::embedding};

use super::engine::{Engine, Piece, Span, Stay};
use crate::attention::{Cached, LayerCache, Rows};
use crate::llama::MtpLlama;

/// Attention scores of one layer that are made at a time; longer prompts go in shorter parts.
const MOST_SCORES: usize = 1 << 24;

/// Caches of a text up to the end of a piece, one a layer: those seen through head 1, then heads 2..H.
struct Text {
    parent: Option<Piece>,
    layers: Vec<LayerCache>,
}

/// What the last step left for [`Engine::settle`].
struct Stepped {
    rows: Vec<(Piece, Range<usize>)>,
    /// Tokens of each text before its rows.
    before: Vec<usize>,
    /// The trunk's output `[N, D]`.
    trunk: Tensor<2>,
}

/// A model and the pieces of text that it has read.
pub struct OnDevice<'a> {
    model: &'a MtpLlama,
    heads: usize,
    dtype: DType,
    device: Device,
    pieces: Vec<Option<Text>>,
    stepped: Option<Stepped>,
}

impl<'a> OnDevice<'a> {
    /// `drafts`: with heads 2..H.
    pub fn new(model: &'a MtpLlama, drafts: bool) -> Self {
        Self {
            model,
            heads: if drafts { model.n_heads() } else { 1 },
            dtype: model.decoded_dtype(),
            device: model.device(),
            pieces: Vec::new(),
            stepped: None,
        }
    }

    /// Tokens of the text up to this piece's end.
    fn length(&self, piece: Piece) -> usize {
        self.pieces
            .get(piece)
            .and_then(Option::as_ref)
            .and_then(|text| text.layers.first())
            .map_or(0, LayerCache::len)
    }

    /// A piece that has read nothing yet takes over what its parent has read.
    fn inherit(&mut self, piece: Piece) {
        let parent = self
            .pieces
            .get(piece)
            .and_then(Option::as_ref)
            .filter(|text| text.layers.is_empty())
            .map(|text| text.parent);
        let Some(parent) = parent else {
            return;
        };
        let inherited = parent
            .and_then(|parent| self.pieces.get(parent)?.as_ref())
            .map(|text| text.layers.clone());
        let layers = self.model.config().num_hidden_layers + self.heads - 1;
        let new = || LayerCache::new(self.model.config(), self.dtype, &self.device);
        let caches = inherited
            .filter(|caches| !caches.is_empty())
            .unwrap_or_else(|| (0..layers).map(|_| new()).collect());
        if let Some(text) = self.pieces.get_mut(piece).and_then(Option::as_mut) {
            text.layers = caches;
        }
    }

    /// Rows of the spans with the number of tokens before each.
    fn rows(&mut self, spans: &[Span<'_>]) -> (Vec<(Piece, Range<usize>)>, Vec<usize>) {
        let mut from = 0;
        let mut rows = Vec::with_capacity(spans.len());
        for span in spans {
            self.inherit(span.piece);
            rows.push((span.piece, from..from + span.tokens.len()));
            from += span.tokens.len();
        }
        let before = rows.iter().map(|(piece, _)| self.length(*piece)).collect();
        (rows, before)
    }

    fn cached(&self, rows: &[(Piece, Range<usize>)], before: &[usize]) -> Cached {
        let of = |((_, rows), before): (&(Piece, Range<usize>), &usize)| *before..before + rows.len();
        let positions = rows.iter().zip(before).map(of).collect();
        Cached::new(self.model.config(), positions, self.dtype, &self.device)
    }

    fn embedded(&self, spans: &[Span<'_>]) -> Tensor<2> {
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

    /// The caches of a layer for these texts, in their order.
    fn with_caches<R>(
        &mut self,
        rows: &[(Piece, Range<usize>)],
        layer: usize,
        task: impl FnOnce(&mut [&mut LayerCache]) -> R,
    ) -> R {
        let mut places: Vec<Option<&mut LayerCache>> = self
            .pieces
            .iter_mut()
            .map(|text| text.as_mut().and_then(|text| text.layers.get_mut(layer)))
            .collect();
        let mut caches: Vec<&mut LayerCache> = rows
            .iter()
            .filter_map(|(piece, _)| places.get_mut(*piece).and_then(Option::take))
            .collect();
        task(&mut caches)
    }

    /// The trunk's output `[N, D]`.
    fn trunk(&mut self, mut x: Tensor<2>, rows: &[(Piece, Range<usize>)], cached: &Cached) -> Tensor<2> {
        let model = self.model;
        for (index, layer) in model.parts().trunk.iter().enumerate() {
            x = self.with_caches(rows, index, |caches| layer.decode(x, cached, caches, Rows::All));
        }
        x
    }

    fn logits(&self, x: Tensor<2>) -> Vec<f32> {
        let [n, d] = x.dims();
        let hidden = self.model.parts().norm.forward(x).reshape([1, n, d]);
        self.model.logits(hidden).into_data().iter::<f32>().collect()
    }
}

impl Engine for OnDevice<'_> {
    fn add(&mut self, parent: Option<Piece>) -> Piece {
        let text = Text {
            parent,
            layers: Vec::new(),
        };
        match self.pieces.iter().position(Option::is_none) {
            Some(free) => {
                self.pieces[free] = Some(text);
                free
            }
            None => {
                self.pieces.push(Some(text));
                self.pieces.len() - 1
            }
        }
    }

    fn remove(&mut self, piece: Piece) {
        if let Some(place) = self.pieces.get_mut(piece) {
            *place = None;
        }
    }

    fn fill(&mut self, spans: &[Span<'_>]) {
        let model = self.model;
        let last = model.parts().trunk.len();
        for span in spans {
            let mut rest = span.tokens;
            while !rest.is_empty() {
                self.inherit(span.piece);
                let keys = self.length(span.piece) + rest.len();
                let most = MOST_SCORES / (keys * model.config().num_attention_heads).max(1);
                let (now, later) = rest.split_at(rest.len().min(most.max(1)));
                let spans = [Span { tokens: now, ..*span }];
                let (rows, before) = self.rows(&spans);
                let cached = self.cached(&rows, &before);
                let x = self.embedded(&spans);
                let x = self.trunk(x, &rows, &cached);
                for (head, layer) in model.parts().heads.iter().take(self.heads).enumerate() {
                    self.with_caches(&rows, last + head, |caches| layer.keep(x.clone(), &cached, caches));
                }
                rest = later;
            }
        }
    }

    /// A branch would need a copy of all caches of its text.
    fn branches(&self) -> bool {
        false
    }

    fn step(&mut self, spans: &[Span<'_>]) -> Vec<f32> {
        let model = self.model;
        let (rows, before) = self.rows(spans);
        let cached = self.cached(&rows, &before);
        let x = self.embedded(spans);
        let trunk = self.trunk(x, &rows, &cached);
        let parts = model.parts();
        let Some(head) = parts.heads.first() else {
            return Vec::new();
        };
        let x = self.with_caches(&rows, parts.trunk.len(), |caches| {
            head.decode(trunk.clone(), &cached, caches, Rows::All)
        });
        self.stepped = Some(Stepped { rows, before, trunk });
        self.logits(x)
    }

    fn settle(&mut self, stay: &[Stay]) -> Vec<f32> {
        let Some(Stepped { rows, before, trunk }) = self.stepped.take() else {
            return Vec::new();
        };
        let model = self.model;
        let last = model.parts().trunk.len();
        let (mut rows_staying, mut stay_before, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
        for (((piece, rows), before), Stay { tokens: kept, .. }) in rows.iter().zip(&before).zip(stay) {
            if let Some(text) = self.pieces.get_mut(*piece).and_then(Option::as_mut) {
                let layers = text.layers.iter_mut().take(last + 1);
                layers.for_each(|cache| cache.truncate(before + kept));
            }
            if *kept > 0 {
                rows_staying.push((*piece, chosen.len()..chosen.len() + kept));
                stay_before.push(*before);
                chosen.extend((rows.start..rows.start + kept).map(|row| row as i64));
            }
        }
        if rows_staying.is_empty() {
            return Vec::new();
        }
        let count = chosen.len();
        let chosen = Tensor::<1, Int>::from_data(TensorData::new(chosen, [count]), &self.device);
        let x = trunk.select(0, chosen);
        let cached = self.cached(&rows_staying, &stay_before);
        let heads = model.parts().heads.iter().enumerate().take(self.heads).skip(1);
        let states: Vec<Tensor<3>> = heads
            .map(|(head, layer)| {
                let x = self.with_caches(&rows_staying, last + head, |caches| {
                    layer.decode(x.clone(), &cached, caches, Rows::LastOfEach)
                });
                x.unsqueeze_dim(1)
            })
            .collect();
        self.logits(Tensor::cat(states, 1).flatten(0, 1))
    }
}
