//! Generation on flex, in f32 with weights in f32 or bf16: on slices, without a tensor in between.
//!
//! Keys and values of a piece are its own allocations, so that texts grow, end and share beginnings
//! without anything being moved. The products of all texts are taken together, attention for each on
//! its own.

use super::engine::{Engine, Piece, Span, Stay};
use super::host_layer::{HostLayer, Matrix, Part, Rope, Rows, Shape, mixed, normal, vector};
use crate::attention::is_flex;
use crate::llama::MtpLlama;
use wmtp_kernels::attention::{flex::Heads, kv_cache::KvCache};

/// Keys and values of a piece: by layer (those seen through head 1, then heads 2..H), by key head.
struct Kept {
    parent: Option<Piece>,
    /// Tokens of all pieces before.
    before: usize,
    layers: Vec<Vec<KvCache>>,
}

impl Kept {
    fn len(&self, layer: usize) -> usize {
        self.layers
            .get(layer)
            .and_then(|heads| heads.first())
            .map_or(0, KvCache::len)
    }
}

/// What the last step left for [`Engine::settle`].
#[derive(Default)]
struct Stepped {
    /// Spans and their branches, one after another, and where each span begins among them.
    pieces: Vec<Piece>,
    parts: Vec<Part>,
    spans: Vec<usize>,
    /// The trunk's output, `[N, D]`.
    trunk: Vec<f32>,
}

/// A model's weights and the pieces of text that it has read.
pub struct Host {
    shape: Shape,
    embedding: Matrix,
    /// None where it is the embedding.
    unembedding: Option<Matrix>,
    norm: Vec<f32>,
    trunk: Vec<HostLayer>,
    /// Head 1, and the others if they draft.
    heads: Vec<HostLayer>,
    pieces: Vec<Option<Kept>>,
    stepped: Stepped,
}

impl Host {
    /// None where the model's device or type is another one. `drafts`: with heads 2..H.
    pub fn new(model: &MtpLlama, drafts: bool) -> Option<Self> {
        if !is_flex(&model.device()) {
            return None;
        }
        let config = model.config();
        let parts = model.parts();
        let heads = if drafts { parts.heads.len() } else { 1 };
        Some(Self {
            shape: Shape {
                heads: Heads {
                    heads: config.num_attention_heads,
                    kv_heads: config.num_key_value_heads,
                    width: config.head_dim,
                },
                eps: config.rms_norm_eps as f32,
                config: config.clone(),
            },
            embedding: Matrix::new(parts.embedding)?,
            unembedding: match parts.unembedding {
                Some(matrix) => Some(Matrix::new(matrix)?),
                None => None,
            },
            norm: vector(&parts.norm.weight),
            trunk: parts.trunk.iter().map(HostLayer::new).collect::<Option<_>>()?,
            heads: parts
                .heads
                .iter()
                .take(heads)
                .map(HostLayer::new)
                .collect::<Option<_>>()?,
            pieces: Vec::new(),
            stepped: Stepped::default(),
        })
    }

    fn kept(&self, piece: Piece) -> Option<&Kept> {
        self.pieces.get(piece).and_then(Option::as_ref)
    }

    /// Keys and values of a layer's key head for all of a text up to this piece.
    fn text(&self, piece: Piece, layer: usize, kv: usize) -> Vec<&KvCache> {
        let mut found: Vec<&KvCache> = std::iter::successors(self.kept(piece), |kept| self.kept(kept.parent?))
            .filter_map(|kept| kept.layers.get(layer)?.get(kv))
            .collect();
        found.reverse();
        found
    }

    /// Puts new keys and values `[N, kv heads * W]` of a layer at the end of their pieces.
    fn append(&mut self, pieces: &[Piece], parts: &[Part], layer: usize, [keys, values]: &[Vec<f32>; 2]) {
        let Heads { kv_heads, width, .. } = self.shape.heads;
        for (piece, part) in pieces.iter().zip(parts) {
            let Some(kept) = self.pieces.get_mut(*piece).and_then(Option::as_mut) else {
                continue;
            };
            for (kv, cache) in kept.layers[layer].iter_mut().enumerate() {
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

    /// Which rows belong to which text. A piece may have several spans, one after the other, and come
    /// after its parent in the same call.
    fn parts(&mut self, spans: &[Span<'_>]) -> (Vec<Piece>, Vec<Part>, Vec<i64>) {
        let mut new = std::collections::BTreeMap::<Piece, usize>::new();
        let (mut parts, mut positions) = (Vec::new(), Vec::new());
        for span in spans {
            let parent = self.kept(span.piece).and_then(|kept| kept.parent);
            let before_piece = parent.map_or(0, |parent| {
                let kept = self.kept(parent).map_or(0, |kept| kept.before + kept.len(0));
                kept + new.get(&parent).copied().unwrap_or(0)
            });
            if let Some(kept) = self.pieces.get_mut(span.piece).and_then(Option::as_mut) {
                kept.before = before_piece;
            }
            let own = new.entry(span.piece).or_insert(0);
            let before = before_piece + self.pieces[span.piece].as_ref().map_or(0, |kept| kept.len(0)) + *own;
            *own += span.tokens.len();
            let rows = positions.len()..positions.len() + span.tokens.len();
            positions.extend((before..before + span.tokens.len()).map(|p| p as i64));
            parts.push(Part { rows, before });
        }
        (spans.iter().map(|span| span.piece).collect(), parts, positions)
    }

    fn embedded(&self, spans: &[Span<'_>]) -> Vec<f32> {
        let mut x = Vec::new();
        for token in spans.iter().flat_map(|span| span.tokens) {
            self.embedding.push_row(*token as usize, &mut x);
        }
        x
    }

    /// Puts rows `x` through layer `index` of the trunk, or through head 1 behind it.
    fn layer(&mut self, index: usize, x: &mut [f32], pieces: &[Piece], parts: &[Part], rope: &Rope, rows: Rows) {
        let layer = self.trunk.get(index).unwrap_or(&self.heads[0]);
        let h = layer.normal(x, &self.shape);
        let [queries, keys, values] = layer.queries_keys_values(&h, rope, &self.shape, rows);
        self.append(pieces, parts, index, &[keys, values]);
        let mixed = mixed(&queries, parts, self.shape.heads, |part, kv| {
            self.text(pieces[part], index, kv)
        });
        let layer = self.trunk.get(index).unwrap_or(&self.heads[0]);
        layer.after_attention(x, &mixed, &self.shape, rows);
    }

    /// Keys and values of a head (from 0) for rows `x` of the trunk's output.
    fn head_keys(&mut self, head: usize, x: &[f32], pieces: &[Piece], parts: &[Part], rope: &Rope, rows: Rows) {
        let layer = &self.heads[head];
        let new = layer.keys_values(&layer.normal(x, &self.shape), rope, &self.shape, rows);
        self.append(pieces, parts, self.trunk.len() + head, &new);
    }

    fn logits(&self, x: &[f32]) -> Vec<f32> {
        let unembedding = self.unembedding.as_ref().unwrap_or(&self.embedding);
        unembedding.times(&normal(x, &self.norm, &self.shape), Rows::Few)
    }

    fn read(&mut self, spans: &[Span<'_>]) {
        let (pieces, parts, positions) = self.parts(spans);
        let rope = Rope::new(&self.shape.config, &positions);
        let mut x = self.embedded(spans);
        for index in 0..self.trunk.len() {
            self.layer(index, &mut x, &pieces, &parts, &rope, Rows::Many);
        }
        for head in 0..self.heads.len() {
            self.head_keys(head, &x, &pieces, &parts, &rope, Rows::Many);
        }
    }

    fn next(&mut self, spans: &[Span<'_>]) -> Vec<f32> {
        // A branch is a piece of its own behind its span's, until it is settled.
        let (mut all, mut begin) = (Vec::new(), Vec::new());
        for span in spans {
            begin.push(all.len());
            all.push(*span);
            for branch in span.branches {
                all.push(Span {
                    piece: self.add(Some(span.piece)),
                    tokens: branch,
                    branches: &[],
                });
            }
        }
        let (pieces, parts, positions) = self.parts(&all);
        let rope = Rope::new(&self.shape.config, &positions);
        let mut x = self.embedded(&all);
        for index in 0..self.trunk.len() {
            self.layer(index, &mut x, &pieces, &parts, &rope, Rows::Few);
        }
        let trunk = x.clone();
        self.layer(self.trunk.len(), &mut x, &pieces, &parts, &rope, Rows::Few);
        self.stepped = Stepped {
            pieces,
            parts,
            spans: begin,
            trunk,
        };
        self.logits(&x)
    }

    fn keep(&mut self, stay: &[Stay]) -> Vec<f32> {
        let stepped = std::mem::take(&mut self.stepped);
        let Stepped {
            pieces, parts, trunk, ..
        } = &stepped;
        let d = self.norm.len();
        // The rows that stay, and where each text's now are.
        let (mut rows, mut positions, mut staying) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
        for (span, stay) in stepped.spans.iter().zip(stay) {
            let (piece, part) = (pieces[*span], &parts[*span]);
            let from = rows.len() / d;
            let mut take = |part: &Part, count: usize| {
                rows.extend_from_slice(&trunk[part.rows.start * d..(part.rows.start + count) * d]);
            };
            take(part, stay.tokens);
            self.cut(piece, part.before + stay.tokens);
            if let Some((branch, count)) = stay.branch {
                let branch = span + 1 + branch;
                take(&parts[branch], count);
                self.join(piece, pieces[branch], count);
            }
            let kept = rows.len() / d - from;
            positions.extend((part.before..part.before + kept).map(|p| p as i64));
            if kept > 0 {
                staying.0.push(piece);
                staying.1.push(Part {
                    rows: from..from + kept,
                    before: part.before,
                });
            }
        }
        for (i, piece) in pieces.iter().enumerate() {
            if stepped.spans.binary_search(&i).is_err() {
                self.remove(*piece);
            }
        }
        let (pieces, parts) = staying;
        if pieces.is_empty() {
            return Vec::new();
        }
        // Only the last row of each text goes on behind the attention's keys.
        let lasts: Vec<usize> = parts.iter().map(|part| part.rows.end - 1).collect();
        let last_parts: Vec<Part> = parts
            .iter()
            .enumerate()
            .map(|(i, part)| Part {
                rows: i..i + 1,
                before: part.before + part.rows.len() - 1,
            })
            .collect();
        let last_positions: Vec<i64> = last_parts.iter().map(|part| part.before as i64).collect();
        let last: Vec<f32> = lasts.iter().flat_map(|i| &rows[i * d..(i + 1) * d]).copied().collect();
        let rope = Rope::new(&self.shape.config, &positions);
        let last_rope = Rope::new(&self.shape.config, &last_positions);
        let drafting = self.heads.len() - 1;
        let mut states = vec![0.0; pieces.len() * drafting * d];
        for head in 1..self.heads.len() {
            self.head_keys(head, &rows, &pieces, &parts, &rope, Rows::Few);
            let layer = &self.heads[head];
            let h = layer.normal(&last, &self.shape);
            let queries = layer.queries(&h, &last_rope, &self.shape, Rows::Few);
            let index = self.trunk.len() + head;
            let mixed = mixed(&queries, &last_parts, self.shape.heads, |part, kv| {
                self.text(pieces[part], index, kv)
            });
            let mut x = last.clone();
            layer.after_attention(&mut x, &mixed, &self.shape, Rows::Few);
            for (i, x) in x.chunks_exact(d).enumerate() {
                states[(i * drafting + head - 1) * d..][..d].copy_from_slice(x);
            }
        }
        self.logits(&states)
    }

    /// Puts the first `count` keys and values of a branch behind those of its piece, in the trunk and head 1.
    fn join(&mut self, piece: Piece, branch: Piece, count: usize) {
        let layers = self.trunk.len() + 1;
        let Some(branch) = self.pieces.get_mut(branch).and_then(Option::take) else {
            return;
        };
        if let Some(kept) = self.pieces.get_mut(piece).and_then(Option::as_mut) {
            let caches = kept.layers.iter_mut().take(layers).flatten();
            caches
                .zip(branch.layers.iter().flatten())
                .for_each(|(cache, more)| cache.extend_from(more, count));
        }
    }

    /// Leaves a text `length` tokens in the trunk and head 1.
    fn cut(&mut self, piece: Piece, length: usize) {
        let layers = self.trunk.len() + 1;
        if let Some(kept) = self.pieces.get_mut(piece).and_then(Option::as_mut) {
            let own = length.saturating_sub(kept.before);
            for cache in kept.layers.iter_mut().take(layers).flatten() {
                cache.truncate(own);
            }
        }
    }
}

/// Runs on a thread of rayon's pool: one outside of it would hand over every single product and wait,
/// while the pool's own threads, looking for work, take the processor from it.
fn in_pool<R: Send>(task: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| task())
}

impl Engine for Host {
    fn add(&mut self, parent: Option<Piece>) -> Piece {
        let Heads { kv_heads, width, .. } = self.shape.heads;
        let layers = self.trunk.len() + self.heads.len();
        let kept = Kept {
            parent,
            before: 0,
            layers: (0..layers)
                .map(|_| (0..kv_heads).map(|_| KvCache::new(width)).collect())
                .collect(),
        };
        match self.pieces.iter().position(Option::is_none) {
            Some(free) => {
                self.pieces[free] = Some(kept);
                free
            }
            None => {
                self.pieces.push(Some(kept));
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
        in_pool(|| self.read(spans));
    }

    fn branches(&self) -> bool {
        true
    }

    fn step(&mut self, spans: &[Span<'_>]) -> Vec<f32> {
        in_pool(|| self.next(spans))
    }

    fn settle(&mut self, stay: &[Stay]) -> Vec<f32> {
        in_pool(|| self.keep(stay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LlamaConfig;
    use burn::tensor::{DType, Device};

    fn model(dtype: DType) -> MtpLlama {
        let mut config = LlamaConfig::new(61, 64, 3, 4);
        (config.num_key_value_heads, config.n_heads, config.initializer_range) = (2, 3, 0.2);
        config.init_dtype(1, dtype, &Device::flex())
    }

    fn text(length: usize, offset: usize) -> Vec<u32> {
        (0..length).map(|i| ((offset + i * (i + 7)) % 61) as u32).collect()
    }

    fn span(piece: Piece, tokens: &[u32]) -> Span<'_> {
        Span {
            piece,
            tokens,
            branches: &[],
        }
    }

    fn stay(tokens: usize) -> Stay {
        Stay { tokens, branch: None }
    }

    /// Logits of head 1 after the last token of `text`, and of the others once it stays: alone, `read`
    /// tokens of a prompt at once and every other one in a step of its own.
    fn alone(model: &MtpLlama, text: &[u32], read: usize) -> [Vec<f32>; 2] {
        let mut host = Host::new(model, true).unwrap();
        let piece = host.add(None);
        host.fill(&[span(piece, &text[..read])]);
        let mut last = [Vec::new(), Vec::new()];
        for token in &text[read..] {
            last = [host.step(&[span(piece, &[*token])]), host.settle(&[stay(1)])];
        }
        last
    }

    /// To the last bit, in f32 and bf16: in company, after a shared piece, in several parts, behind
    /// drafts that were taken back, several tokens in one step. On machines with AVX-512; elsewhere
    /// `gemm` may add in another order, and closeness is all that is asked.
    #[test]
    fn no_logit_depends_on_company_or_on_how_its_text_was_read() {
        for dtype in [DType::F32, DType::BF16] {
            let model = model(dtype);
            let (a, b) = (text(90, 1), [&text(90, 1)[..50], &text(30, 9)].concat());
            let mut host = Host::new(&model, true).unwrap();
            let shared = host.add(None);
            let of_a = host.add(Some(shared));
            let other = host.add(None);
            let of_b = host.add(Some(shared));
            // The shared piece and its children in one call; a in two.
            host.fill(&[
                span(shared, &a[..50]),
                span(of_a, &a[50..70]),
                span(other, &text(33, 4)),
                span(of_b, &b[50..78]),
            ]);
            host.fill(&[span(of_a, &a[70..87])]);
            // Two tokens of a with a wrong draft behind them; one of b with two wrong ones.
            let wrong = [a[87], a[88], 60];
            host.step(&[span(other, &[7]), span(of_a, &wrong), span(of_b, &[b[78], 1, 2])]);
            host.settle(&[1, 2, 1].map(stay));
            let found = host.step(&[span(of_b, &[b[79]]), span(of_a, &[a[89], 3]), span(other, &[9])]);
            let drafts = host.settle(&[1, 1, 0].map(stay));
            let [expected_a, drafts_a] = alone(&model, &a, 87);
            let [expected_b, drafts_b] = alone(&model, &b, 78);
            let pairs = [
                (&found[..61], &expected_b),
                (&found[61..122], &expected_a),
                (&drafts[..122], &drafts_b),
                (&drafts[122..], &drafts_a),
            ];
            for (found, expected) in pairs {
                if wmtp_gemm::has_avx512_bf16() {
                    assert_eq!(found, expected, "{dtype:?}");
                } else {
                    println!("NOT RUN bit for bit: this machine has no AVX-512 with bf16");
                    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
                    assert!(close, "{dtype:?}: {found:?} {expected:?}");
                }
            }
        }
    }

    /// As above, for branches: what they give, what stays of one, and what comes after it.
    #[test]
    fn a_branch_is_as_if_the_others_had_never_been() {
        for dtype in [DType::F32, DType::BF16] {
            let model = model(dtype);
            let a = text(60, 1);
            let mut host = Host::new(&model, true).unwrap();
            let (of_a, other) = (host.add(None), host.add(None));
            host.fill(&[span(of_a, &a[..50]), span(other, &text(33, 4))]);
            let ways = [
                vec![(a[51] + 1) % 61, 3],
                vec![a[51], a[52], 60],
                vec![(a[51] + 2) % 61],
            ];
            let branching = Span {
                branches: &ways,
                ..span(of_a, &a[50..51])
            };
            let first = host.step(&[branching, span(other, &[7])]);
            let after_branch = Stay {
                tokens: 1,
                branch: Some((1, 2)),
            };
            let drafts = host.settle(&[after_branch, stay(0)]);
            let then = host.step(&[span(of_a, &a[53..54])]);
            let row = |i: usize| &first[i * 61..][..61];
            let [at_50, _] = alone(&model, &a[..51], 50);
            let [wrong, _] = alone(&model, &[&a[..51], &ways[0][..]].concat(), 50);
            let [at_52, drafts_52] = alone(&model, &a[..53], 50);
            let [at_53, _] = alone(&model, &a[..54], 50);
            let pairs = [
                (row(0), &at_50),
                (row(2), &wrong),
                (row(4), &at_52),
                (&drafts[..], &drafts_52),
                (&then[..], &at_53),
            ];
            for (found, expected) in pairs {
                let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
                assert!(
                    close && found.len() == expected.len(),
                    "{dtype:?}: {found:?} {expected:?}"
                );
                if wmtp_gemm::has_avx512_bf16() {
                    assert_eq!(found, expected, "{dtype:?}");
                }
            }
            // Branches leave no piece behind.
            assert_eq!(host.pieces.iter().flatten().count(), 2);
        }
    }

    #[test]
    fn a_device_without_flexs_memory_has_another_way() {
        assert!(Host::new(&model(DType::F64), false).is_none());
    }
}
