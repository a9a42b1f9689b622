//! KV caches of text segments in host memory.
//!
//! A segment continues another one, its parent, or starts a text; segments with the same parent share
//! its keys and values. Those of a segment are its own allocations, so that texts grow, end and share
//! prefixes without anything being moved.

use std::collections::BTreeMap;
use std::ops::Range;

use super::decode::{SegmentId, Segments};
use wmtp_kernels::attention::{flex::Heads, kv_cache::KvCache};

/// Rows of a batch that belong to one text, and the number of that text's tokens before them.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub segment: SegmentId,
    pub rows: Range<usize>,
    pub before: usize,
}

/// Keys and values of a segment.
struct Segment {
    parent: Option<SegmentId>,
    /// Tokens of all segments before.
    before: usize,
    /// By layer, by key head.
    layers: Vec<Vec<KvCache>>,
}

impl Segment {
    fn len(&self) -> usize {
        self.layers
            .first()
            .and_then(|heads| heads.first())
            .map_or(0, KvCache::len)
    }
}

/// All segments of a call, for a model of `layers` layers.
pub(crate) struct SegmentCaches {
    heads: Heads,
    layers: usize,
    segments: Segments<Segment>,
}

impl SegmentCaches {
    /// None yet.
    pub fn new(heads: Heads, layers: usize) -> Self {
        Self {
            heads,
            layers,
            segments: Segments::new(),
        }
    }

    /// A new, empty segment.
    pub fn add(&mut self, parent: Option<SegmentId>) -> SegmentId {
        let Heads { kv_heads, width, .. } = self.heads;
        let segment = Segment {
            parent,
            before: 0,
            layers: (0..self.layers)
                .map(|_| (0..kv_heads).map(|_| KvCache::new(width)).collect())
                .collect(),
        };
        self.segments.add(segment)
    }

    /// Frees a segment.
    pub fn remove(&mut self, segment: SegmentId) {
        self.segments.remove(segment);
    }

    /// Segments that were not removed.
    #[cfg(test)]
    pub fn count(&mut self) -> usize {
        self.segments.iter_mut().flatten().count()
    }

    /// Keys and values of a layer's key head for all of a text up to this segment.
    pub fn text(&self, segment: SegmentId, layer: usize, kv_head: usize) -> Vec<&KvCache> {
        let mut path: Vec<&KvCache> =
            std::iter::successors(self.segments.get(segment), |segment| self.segments.get(segment.parent?))
                .filter_map(|segment| segment.layers.get(layer)?.get(kv_head))
                .collect();
        path.reverse();
        path
    }

    /// The rows of each span of new tokens, given their numbers, and the positions of all rows. A segment
    /// may have several spans, one after the other, and come after its parent in the same call.
    pub fn parts(&mut self, spans: impl Iterator<Item = (SegmentId, usize)>) -> (Vec<Part>, Vec<i64>) {
        let mut new = BTreeMap::<SegmentId, usize>::new();
        let (mut parts, mut positions) = (Vec::new(), Vec::new());
        for (segment, tokens) in spans {
            let parent = self.segments.get(segment).and_then(|segment| segment.parent);
            let before_segment = parent.map_or(0, |parent| {
                let cached = self
                    .segments
                    .get(parent)
                    .map_or(0, |parent| parent.before + parent.len());
                cached + new.get(&parent).copied().unwrap_or(0)
            });
            let mut cached = 0;
            if let Some(segment) = self.segments.get_mut(segment) {
                segment.before = before_segment;
                cached = segment.len();
            }
            let own = new.entry(segment).or_insert(0);
            let before = before_segment + cached + *own;
            *own += tokens;
            let rows = positions.len()..positions.len() + tokens;
            positions.extend((before..before + tokens).map(|p| p as i64));
            parts.push(Part { segment, rows, before });
        }
        (parts, positions)
    }

    /// Appends new keys and values `[N, kv heads * W]` of a layer to their segments.
    pub fn append(&mut self, parts: &[Part], layer: usize, [keys, values]: &[Vec<f32>; 2]) {
        let Heads { kv_heads, width, .. } = self.heads;
        for part in parts {
            let Some(segment) = self.segments.get_mut(part.segment) else {
                continue;
            };
            for (kv, cache) in segment.layers[layer].iter_mut().enumerate() {
                if part.rows.len() > 1 {
                    cache.reserve(part.rows.len());
                }
                for i in part.rows.clone() {
                    let at = i * kv_heads * width + kv * width;
                    cache.push(&keys[at..at + width], &values[at..at + width]);
                }
            }
        }
    }

    /// Appends the first `count` keys and values of `branch` to its parent's, in the first `layers` layers,
    /// and frees the branch.
    pub fn merge(&mut self, segment: SegmentId, branch: SegmentId, count: usize, layers: usize) {
        let Some(branch) = self.segments.remove(branch) else {
            return;
        };
        if let Some(segment) = self.segments.get_mut(segment) {
            let caches = segment.layers.iter_mut().take(layers).flatten();
            caches
                .zip(branch.layers.iter().flatten())
                .for_each(|(cache, more)| cache.extend_from(more, count));
        }
    }

    /// Truncates the text up to this segment to `length` tokens, in the first `layers` layers.
    pub fn truncate(&mut self, segment: SegmentId, length: usize, layers: usize) {
        if let Some(segment) = self.segments.get_mut(segment) {
            let own = length.saturating_sub(segment.before);
            for cache in segment.layers.iter_mut().take(layers).flatten() {
                cache.truncate(own);
            }
        }
    }
}
