//! What generation asks of a device: keys and values of texts that grow, and logits.

/// Number of a piece of text, given out by an [`Engine`].
pub type Piece = usize;

/// New tokens at the end of a piece.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub piece: Piece,
    pub tokens: &'a [u32],
    /// Ways in which the text may go on behind them, each out of sight of the others. For
    /// [`Engine::step`] only, and none where [`Engine::branches`] is false.
    pub branches: &'a [Vec<u32>],
}

/// What stays of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// So many of its tokens; 0 only for a piece that is removed next.
    pub tokens: usize,
    /// If all of them, so many of a branch's behind them.
    pub branch: Option<(usize, usize)>,
}

/// A model with the keys and values of pieces of text. A piece follows another one, its parent, or
/// starts a text; pieces that follow the same one share its keys and values.
pub trait Engine {
    /// A new, empty piece after `parent`, which is complete once its child gets a token.
    fn add(&mut self, parent: Option<Piece>) -> Piece;

    /// Forgets a piece. Its children are gone already.
    fn remove(&mut self, piece: Piece);

    /// Reads tokens for what follows them: keys and values of all layers and heads, no logits. A piece
    /// stands behind its parent.
    fn fill(&mut self, spans: &[Span<'_>]);

    /// Whether a span may branch.
    fn branches(&self) -> bool;

    /// Reads tokens and gives head 1's logits after each, `[N, V]`: those of a span, then of its branches.
    /// The heads that draft have not read them before [`Engine::settle`].
    fn step(&mut self, spans: &[Span<'_>]) -> Vec<f32>;

    /// `stay[i]` of span i of the last step stays, and the rest was never there. Gives the logits of
    /// heads 2..H after the last token that stays, `[spans with one, H - 1, V]`.
    fn settle(&mut self, stay: &[Stay]) -> Vec<f32>;
}
