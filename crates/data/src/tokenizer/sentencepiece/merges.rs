//! The merges of a BPE: SentencePiece's file has scores instead.
//!
//! Every split of a piece into two pieces is a merge. Both orders are those of transformers 5, which agree
//! where ids have the order of scores, as trainers write them.

use super::model::{Piece, PieceKind};
use std::collections::HashMap;

/// Two pieces that become one, by name; the first of a list is applied first.
pub(super) type Merges = Vec<(String, String)>;

/// Every split of `whole`, by the position in its bytes.
fn splits(whole: &str) -> impl Iterator<Item = (&str, &str)> {
    whole.char_indices().skip(1).map(|(at, _)| whole.split_at(at))
}

/// By the id of the result, then the length of the left part. Pieces of every kind take part, as in the
/// classes that transformers builds from vocabulary and merges (`generate_merges`).
pub(super) fn by_id(vocabulary: &[String]) -> Merges {
    let known: HashMap<&str, usize> = vocabulary.iter().map(String::as_str).zip(0..).collect();
    let merges = vocabulary
        .iter()
        .flat_map(|whole| splits(whole).filter(|(left, right)| known.contains_key(left) && known.contains_key(right)));
    owned(merges)
}

/// By score, highest first, then the id of the result, then the parts. Only normal pieces take part, as
/// SentencePiece itself merges (`build_tokenizer_from_spm_proto`). `names` are the pieces' names, which the
/// configuration may have changed.
pub(super) fn by_score(pieces: &[Piece], names: &[String]) -> Merges {
    let normal: HashMap<&str, (f32, usize)> = pieces
        .iter()
        .zip(names)
        .enumerate()
        .filter(|(_, (piece, _))| piece.kind == PieceKind::Normal)
        .map(|(id, (piece, name))| (name.as_str(), (piece.score, id)))
        .collect();
    let mut ranked: Vec<(f32, usize, &str, &str)> = normal
        .iter()
        .flat_map(|(whole, &(score, id))| splits(whole).map(move |(left, right)| (score, id, left, right)))
        .filter(|(_, _, left, right)| normal.contains_key(left) && normal.contains_key(right))
        .collect();
    ranked.sort_by(|a, b| {
        let by_score = b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal);
        by_score.then_with(|| (a.1, a.2, a.3).cmp(&(b.1, b.2, b.3)))
    });
    owned(ranked.into_iter().map(|(_, _, left, right)| (left, right)))
}

fn owned<'a>(merges: impl Iterator<Item = (&'a str, &'a str)>) -> Merges {
    merges
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}
