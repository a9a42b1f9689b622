//! What generation needs of a device: KV caches of growing texts, and logits.

pub(crate) use crate::decoder::SegmentId;

/// New tokens at the end of a segment: those that are known, or drafts to verify.
#[derive(Debug, Clone, Copy)]
pub struct DraftSpan<'a> {
    pub segment: SegmentId,
    pub tokens: &'a [u32],
    /// Branches of a draft tree, each a continuation of `tokens`; branches do not attend to each other. For
    /// [`Engine::step`] only, and none where [`Engine::supports_branches`] is false.
    pub branches: &'a [Vec<u32>],
}

/// The accepted tokens of a draft span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// Number of accepted tokens; 0 only for a segment that is removed next.
    pub tokens: usize,
    /// If all of them are, a branch's index and the number of its accepted tokens.
    pub branch: Option<(usize, usize)>,
}

/// A model with the KV caches of text segments. A segment continues another one, its parent, or starts
/// a text; segments with the same parent share its keys and values.
pub trait Engine {
    /// A new, empty segment after `parent`, which is complete once its child gets a token.
    fn add(&mut self, parent: Option<SegmentId>) -> SegmentId;

    /// Frees a segment, whose children were removed before.
    fn remove(&mut self, segment: SegmentId);

    /// Prefill: fills the KV caches of all layers and heads, and computes no logits. A segment comes after
    /// its parent.
    fn fill(&mut self, spans: &[DraftSpan<'_>]);

    /// Whether a span may have branches.
    fn supports_branches(&self) -> bool;

    /// Appends tokens to the KV caches of trunk and head 1 and returns head 1's logits after each, `[N, V]`:
    /// those of a span, then of its branches. The heads that draft get them in [`Engine::commit`].
    fn step(&mut self, spans: &[DraftSpan<'_>]) -> Vec<f32>;

    /// Commits the accepted tokens of each span of the last step to the KV caches and rolls back the rest.
    /// Returns the logits of the first `heads` of heads 2..H after the last accepted token, `[spans with one, heads,
    /// W]`, of the first W tokens of the vocabulary.
    fn commit(&mut self, accepted: &[Accepted], heads: usize) -> Vec<f32>;
}
