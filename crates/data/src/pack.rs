//! Which documents share a row: order and packing, as pure functions of lengths and seed.

use super::seeded::generator;
use rand::seq::SliceRandom;

/// Rows that still take documents while packing. Older ones are closed, so that packing stays
/// linear in the number of documents.
const OPEN_ROWS: usize = 64;

/// `0..n` in the order of an epoch: a function of seed and epoch only.
pub(super) fn order(n: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut generator(seed, &[0xda7a, epoch as u64]));
    order
}

/// Puts documents, in the order given, each into the first open row that has room.
///
/// `documents` are (index, length) with lengths of at most `seq_len`; returns the indices of each
/// row in column order.
pub(super) fn first_fit(
    documents: impl IntoIterator<Item = (usize, usize)>,
    seq_len: usize,
    pack: bool,
) -> Vec<Vec<usize>> {
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for (index, len) in documents {
        let oldest = rows.len().saturating_sub(OPEN_ROWS);
        let open = rows
            .iter_mut()
            .skip(oldest)
            .find(|(used, _)| pack && used + len <= seq_len);
        match open {
            Some((used, row)) => {
                *used += len;
                row.push(index);
            }
            None => rows.push((len, vec![index])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(lengths: &[usize], seq_len: usize, on: bool) -> Vec<Vec<usize>> {
        first_fit(lengths.iter().copied().enumerate(), seq_len, on)
    }

    #[test]
    fn a_document_goes_to_the_first_row_with_room() {
        assert_eq!(pack(&[6, 5, 4, 5, 1], 10, true), [vec![0, 2], vec![1, 3], vec![4]]);
        assert_eq!(pack(&[6, 5, 4], 10, false), [vec![0], vec![1], vec![2]]);
        assert!(pack(&[], 10, true).is_empty());
    }

    #[test]
    fn an_epoch_has_its_own_order_and_the_same_one_every_time() {
        assert_eq!(order(50, 7, 0), order(50, 7, 0));
        assert_ne!(order(50, 7, 0), order(50, 7, 1));
        assert_ne!(order(50, 7, 0), order(50, 8, 0));
        let mut sorted = order(50, 7, 3);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
    }
}
