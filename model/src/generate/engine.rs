//! What generation asks of a device: keys and values of texts that grow, and logits.

/// Number of a piece of text, given out by an [`Engine`].
pub type Piece = usize;

/// New tokens at the end of a piece.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    pub piece: Piece,
    pub tokens: &'a [u32],
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

    /// Reads tokens and gives head 1's logits after each, `[N, V]`. The heads that draft have not read
    /// them before [`Engine::settle`].
    fn step(&mut self, spans: &[Span<'_>]) -> Vec<f32>;

    /// Of the tokens of span i of the last step the first `kept[i]` stay, and the others were never
    /// there; 0 only for a piece that is removed next. Gives the logits of heads 2..H after the last
    /// token that stays, `[spans with one, H - 1, V]`.
    fn settle(&mut self, kept: &[usize]) -> Vec<f32>;
}
