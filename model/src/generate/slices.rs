//! Generation on flex, in f32 with weights in f32, bf16 or quantized: on slices, without a tensor in between.
//!
//! The matrix products of all texts are computed together, attention for each on its own.

use super::awake::in_pool;
use super::engine::{Accepted, DraftSpan, Engine, SegmentId};
use super::weights::Weights;
use crate::decoder::decode_slices::{Last, Products, SliceDecode, SliceWeights, tables};
use crate::decoder::{Part, SegmentCaches, decode, decode_last, extend_caches};
use crate::llama::MtpLlama;
use crate::quantization::Storage;
use crate::rope::{PerRotation, SliceTables};
use std::sync::Arc;

/// What the last step left for [`Engine::commit`].
#[derive(Default)]
struct Stepped {
    /// Spans and their branches, one after another, and the index of each span among them.
    parts: Vec<Part>,
    spans: Vec<usize>,
    /// The trunk's output, `[N, D]`.
    trunk: Vec<f32>,
}

/// A model's weights and the KV caches of text segments.
pub struct SliceEngine {
    weights: Arc<Weights>,
    caches: SegmentCaches,
    stepped: Stepped,
}

impl SliceEngine {
    /// None where the model's device or type is another one. `drafts`: with heads 2..H.
    pub fn new(model: &MtpLlama, drafts: bool) -> Option<Self> {
        Weights::new(model, drafts, Storage::Shared).map(|weights| Self::of(Arc::new(weights)))
    }

    /// With weights that are shared with other engines.
    pub fn of(weights: Arc<Weights>) -> Self {
        Self {
            caches: SegmentCaches::new(weights.heads, weights.layers.len()),
            weights,
            stepped: Stepped::default(),
        }
    }

    /// Runs `task` on the decoding of new tokens through layer `index`, with the layer's weights.
    fn with_layer<R>(
        &mut self,
        index: usize,
        new: &NewTokens<'_>,
        task: impl FnOnce(&mut SliceDecode<'_>, &SliceWeights) -> R,
    ) -> R {
        let mut decoding = SliceDecode {
            caches: &mut self.caches,
            layer: index,
            heads: self.weights.heads,
            eps: self.weights.eps,
            products: new.products,
            parts: new.parts,
            kind: self.weights.kinds[index],
            rope: &new.rope,
            last: new.last.as_ref(),
        };
        task(&mut decoding, &self.weights.layers[index])
    }

    /// The trunk's output for `x` `[N, D]`.
    fn trunk(&mut self, mut x: Vec<f32>, new: &NewTokens<'_>) -> Vec<f32> {
        for index in 0..self.weights.trunk {
            x = self.with_layer(index, new, |ops, layer| decode(ops, layer, x));
        }
        x
    }

    fn read(&mut self, spans: &[DraftSpan<'_>]) {
        let (parts, positions) = self.caches.parts(lengths(spans));
        let new = NewTokens {
            products: Products::Many,
            parts: &parts,
            rope: tables(&self.weights.config, &positions),
            last: None,
        };
        let x = self.trunk(self.weights.embedded(spans), &new);
        for head in self.weights.trunk..self.weights.layers.len() {
            self.with_layer(head, &new, |ops, layer| extend_caches(ops, layer, &x));
        }
    }

    fn next(&mut self, spans: &[DraftSpan<'_>]) -> Vec<f32> {
        // A branch is a segment of its own behind its span's, until it is committed.
        let (mut all, mut begin) = (Vec::new(), Vec::new());
        for span in spans {
            begin.push(all.len());
            all.push(*span);
            for branch in span.branches {
                all.push(DraftSpan {
                    segment: self.caches.add(Some(span.segment)),
                    tokens: branch,
                    branches: &[],
                });
            }
        }
        let (parts, positions) = self.caches.parts(lengths(&all));
        let new = NewTokens {
            products: Products::Few,
            parts: &parts,
            rope: tables(&self.weights.config, &positions),
            last: None,
        };
        let trunk = self.trunk(self.weights.embedded(&all), &new);
        let x = trunk.clone();
        let x = self.with_layer(self.weights.trunk, &new, |ops, layer| decode(ops, layer, x));
        self.stepped = Stepped {
            parts,
            spans: begin,
            trunk,
        };
        self.weights.logits(&self.weights.normed(1, &x))
    }

    fn keep(&mut self, accepted: &[Accepted], heads: usize) -> Vec<f32> {
        let Stepped { parts, spans, trunk } = std::mem::take(&mut self.stepped);
        let d = self.weights.width();
        // Trunk and head 1 have cached all tokens of the step.
        let layers = self.weights.trunk + 1;
        let (mut rows, mut positions, mut committed) = (Vec::new(), Vec::new(), Vec::new());
        for (span, accepted) in spans.iter().zip(accepted) {
            let part = &parts[*span];
            let from = rows.len() / d;
            let mut take = |part: &Part, count: usize| {
                rows.extend_from_slice(&trunk[part.rows.start * d..(part.rows.start + count) * d]);
            };
            take(part, accepted.tokens);
            self.caches
                .truncate(part.segment, part.before + accepted.tokens, layers);
            if let Some((branch, count)) = accepted.branch {
                let branch = &parts[span + 1 + branch];
                take(branch, count);
                self.caches.merge(part.segment, branch.segment, count, layers);
            }
            let count = rows.len() / d - from;
            positions.extend((part.before..part.before + count).map(|p| p as i64));
            if count > 0 {
                committed.push(Part {
                    rows: from..from + count,
                    ..part.clone()
                });
            }
        }
        for (i, part) in parts.iter().enumerate() {
            if spans.binary_search(&i).is_err() {
                self.caches.remove(part.segment);
            }
        }
        if committed.is_empty() {
            return Vec::new();
        }
        let new = NewTokens {
            products: Products::Few,
            parts: &committed,
            rope: tables(&self.weights.config, &positions),
            last: Some(Last::of(&committed, &self.weights.config)),
        };
        let drafting = self.weights.drafting();
        let heads = heads.min(drafting.len());
        let mut hidden = vec![0.0; committed.len() * heads * d];
        for (i, head) in drafting.enumerate() {
            if i >= heads {
                self.with_layer(head, &new, |ops, layer| extend_caches(ops, layer, &rows));
                continue;
            }
            let x = self.with_layer(head, &new, |ops, layer| decode_last(ops, layer, &rows));
            let x = self.weights.normed(i + 2, &x);
            for (text, x) in x.chunks_exact(d).enumerate() {
                hidden[(text * heads + i) * d..][..d].copy_from_slice(x);
            }
        }
        self.weights.draft_logits(&hidden)
    }
}

/// The new tokens of a call.
struct NewTokens<'a> {
    products: Products,
    parts: &'a [Part],
    rope: PerRotation<SliceTables>,
    last: Option<Last>,
}

/// Segments and numbers of new tokens.
fn lengths<'a>(spans: &'a [DraftSpan<'_>]) -> impl Iterator<Item = (SegmentId, usize)> + use<'a> {
    spans.iter().map(|span| (span.segment, span.tokens.len()))
}

impl Engine for SliceEngine {
    fn add(&mut self, parent: Option<SegmentId>) -> SegmentId {
        self.caches.add(parent)
    }

    fn remove(&mut self, segment: SegmentId) {
        self.caches.remove(segment);
    }

    fn fill(&mut self, spans: &[DraftSpan<'_>]) {
        in_pool(|| self.read(spans));
    }

    fn supports_branches(&self) -> bool {
        true
    }

    fn step(&mut self, spans: &[DraftSpan<'_>]) -> Vec<f32> {
        in_pool(|| self.next(spans))
    }

    fn commit(&mut self, accepted: &[Accepted], heads: usize) -> Vec<f32> {
        in_pool(|| self.keep(accepted, heads))
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

    fn span(segment: SegmentId, tokens: &[u32]) -> DraftSpan<'_> {
        DraftSpan {
            segment,
            tokens,
            branches: &[],
        }
    }

    fn accepted(tokens: usize) -> Accepted {
        Accepted { tokens, branch: None }
    }

    /// Logits of head 1 after the last token of `text`, and of the others once it is committed: alone, `read`
    /// tokens of a prompt at once and every other one in a step of its own.
    fn alone(model: &MtpLlama, text: &[u32], read: usize) -> [Vec<f32>; 2] {
        let mut engine = SliceEngine::new(model, true).unwrap();
        let segment = engine.add(None);
        engine.fill(&[span(segment, &text[..read])]);
        let mut last = [Vec::new(), Vec::new()];
        for token in &text[read..] {
            last = [
                engine.step(&[span(segment, &[*token])]),
                engine.commit(&[accepted(1)], 2),
            ];
        }
        last
    }

    /// To the last bit, in f32 and bf16: in a batch, after a shared segment, in several parts, behind drafts
    /// that were rolled back, several tokens in one step. On machines with AVX2; elsewhere `gemm` may sum
    /// in another order, and only closeness is tested.
    #[test]
    fn no_logit_depends_on_the_batch_or_on_how_its_text_was_read() {
        for dtype in [DType::F32, DType::BF16] {
            let model = model(dtype);
            let (a, b) = (text(90, 1), [&text(90, 1)[..50], &text(30, 9)].concat());
            let mut engine = SliceEngine::new(&model, true).unwrap();
            let shared = engine.add(None);
            let of_a = engine.add(Some(shared));
            let other = engine.add(None);
            let of_b = engine.add(Some(shared));
            // The shared segment and its children in one call; a in two.
            engine.fill(&[
                span(shared, &a[..50]),
                span(of_a, &a[50..70]),
                span(other, &text(33, 4)),
                span(of_b, &b[50..78]),
            ]);
            engine.fill(&[span(of_a, &a[70..87])]);
            // Two tokens of a with a wrong draft behind them; one of b with two wrong ones.
            let wrong = [a[87], a[88], 60];
            engine.step(&[span(other, &[7]), span(of_a, &wrong), span(of_b, &[b[78], 1, 2])]);
            engine.commit(&[1, 2, 1].map(accepted), 0);
            let found = engine.step(&[span(of_b, &[b[79]]), span(of_a, &[a[89], 3]), span(other, &[9])]);
            let drafts = engine.commit(&[1, 1, 0].map(accepted), 2);
            let [expected_a, drafts_a] = alone(&model, &a, 87);
            let [expected_b, drafts_b] = alone(&model, &b, 78);
            let pairs = [
                (&found[..61], &expected_b),
                (&found[61..122], &expected_a),
                (&drafts[..122], &drafts_b),
                (&drafts[122..], &drafts_a),
            ];
            for (found, expected) in pairs {
                if wmtp_gemm::Isa::chosen().is_ok_and(|isa| isa >= wmtp_gemm::Isa::Avx2) {
                    assert_eq!(found, expected, "{dtype:?}");
                } else {
                    println!("NOT RUN bit for bit: without AVX2");
                    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
                    assert!(close, "{dtype:?}: {found:?} {expected:?}");
                }
            }
        }
    }

    /// As above, for branches: their logits, the KV cache after one is committed, and the next step.
    #[test]
    fn a_branch_is_as_if_the_others_had_never_been() {
        for dtype in [DType::F32, DType::BF16] {
            let model = model(dtype);
            let a = text(60, 1);
            let mut engine = SliceEngine::new(&model, true).unwrap();
            let (of_a, other) = (engine.add(None), engine.add(None));
            engine.fill(&[span(of_a, &a[..50]), span(other, &text(33, 4))]);
            let branches = [
                vec![(a[51] + 1) % 61, 3],
                vec![a[51], a[52], 60],
                vec![(a[51] + 2) % 61],
            ];
            let branching = DraftSpan {
                branches: &branches,
                ..span(of_a, &a[50..51])
            };
            let first = engine.step(&[branching, span(other, &[7])]);
            let after_branch = Accepted {
                tokens: 1,
                branch: Some((1, 2)),
            };
            let drafts = engine.commit(&[after_branch, accepted(0)], 2);
            let then = engine.step(&[span(of_a, &a[53..54])]);
            let row = |i: usize| &first[i * 61..][..61];
            let [at_50, _] = alone(&model, &a[..51], 50);
            let [wrong, _] = alone(&model, &[&a[..51], &branches[0][..]].concat(), 50);
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
                if wmtp_gemm::Isa::chosen().is_ok_and(|isa| isa >= wmtp_gemm::Isa::Avx2) {
                    assert_eq!(found, expected, "{dtype:?}");
                }
            }
            // Branches leave no segment behind.
            assert_eq!(engine.caches.count(), 2);
        }
    }

    #[test]
    fn a_type_that_slices_do_not_have_is_left_to_the_tensor_engine() {
        assert!(SliceEngine::new(&model(DType::F64), false).is_none());
    }
}
