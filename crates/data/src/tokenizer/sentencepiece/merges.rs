//! The merges of a BPE: SentencePiece's file has scores instead.
//!
//! Every split of a piece into two pieces is a merge. Both orders are those of transformers 5, which agree
//! where ids have the order of scores, as trainers write them.

use super::{
    error::PiecesError,
    model::{Piece, PieceKind},
};
use std::{cmp::Ordering, collections::HashMap};

/// Two pieces that become one, by name; the first of a list is applied first.
pub(super) type Merges = Vec<(String, String)>;

/// Merges of a vocabulary; the largest known, Gemma's, have a quarter of this.
const MAX_MERGES: usize = 1 << 21;
/// Bytes of all their results; Gemma's have 4 million.
const MAX_BYTES: usize = 64 << 20;

/// By the id of the result, then the length of the left part. Pieces of every kind take part, as in the
/// classes that transformers builds from vocabulary and merges (`generate_merges`).
pub(super) fn by_id(vocabulary: &[String]) -> Result<Merges, PiecesError> {
    let known: HashMap<&str, usize> = vocabulary.iter().map(String::as_str).zip(0..).collect();
    Ok(owned(&splits(
        vocabulary.iter().map(|name| (name.as_str(), ())),
        &known,
    )?))
}

/// By score, highest first, then the id of the result, then the parts. Only normal pieces take part, as
/// SentencePiece itself merges (`build_tokenizer_from_spm_proto`). `names` are the pieces' names, which the
/// configuration may have changed.
pub(super) fn by_score(pieces: &[Piece], names: &[String]) -> Result<Merges, PiecesError> {
    let normal: HashMap<&str, (f32, usize)> = pieces
        .iter()
        .zip(names)
        .enumerate()
        .filter(|(_, (piece, _))| piece.kind == PieceKind::Normal)
        .map(|(id, (piece, name))| (name.as_str(), (piece.score, id)))
        .collect();
    let mut merges = splits(normal.iter().map(|(name, rank)| (*name, *rank)), &normal)?;
    merges.sort_by(
        |((score, id), left, right), ((other_score, other_id), other_left, other_right)| {
            let by_score = other_score.partial_cmp(score).unwrap_or(Ordering::Equal);
            by_score.then_with(|| (id, left, right).cmp(&(other_id, other_left, other_right)))
        },
    );
    Ok(owned(&merges))
}

/// A merge that makes something of rank `R`.
type Ranked<'a, R> = (R, &'a str, &'a str);

/// Every split of every piece into two `known` ones, shorter left parts first. A made-up file may have very
/// many, so that they are counted before they are copied.
fn splits<'a, R: Copy, V>(
    pieces: impl Iterator<Item = (&'a str, R)>,
    known: &HashMap<&str, V>,
) -> Result<Vec<Ranked<'a, R>>, PiecesError> {
    let mut merges = Vec::new();
    let mut bytes = 0;
    for (whole, rank) in pieces {
        for (at, _) in whole.char_indices().skip(1) {
            let (left, right) = whole.split_at(at);
            if known.contains_key(left) && known.contains_key(right) {
                bytes += whole.len();
                if merges.len() >= MAX_MERGES || bytes > MAX_BYTES {
                    return Err(PiecesError::Damaged("its pieces have over two million merges"));
                }
                merges.push((rank, left, right));
            }
        }
    }
    Ok(merges)
}

fn owned<R>(merges: &[Ranked<'_, R>]) -> Merges {
    let copied = |(_, left, right): &Ranked<'_, R>| ((*left).to_owned(), (*right).to_owned());
    merges.iter().map(copied).collect()
}
