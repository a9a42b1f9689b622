//! Which documents share a row: order and packing, as pure functions of lengths and seed.

use super::seeded::generator;
use rand::seq::SliceRandom;

/// Rows that still take documents while packing. Older ones are closed, so that packing stays
/// linear in the number of documents.
const OPEN_ROWS: usize = 64;

/// `0..n` in the order of an epoch: a function of seed and epoch only.
pub(super) fn order(n: usize, seed: u64, epoch: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut generator(seed, &[0xda7a, epoch as u64]));
    order
}

/// Documents by rows, in 4 bytes for each of both: data sets have millions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    /// Documents' indices, row by row in column order.
    documents: Vec<u32>,
    /// Where each row ends in `documents`.
    ends: Vec<u32>,
}

impl Rows {
    /// Rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The documents of a row; none past the end.
    pub fn row(&self, row: usize) -> &[u32] {
        let Some(&end) = self.ends.get(row) else { return &[] };
        let start = row.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let range = start.unwrap_or_default() as usize..end as usize;
        self.documents.get(range).unwrap_or_default()
    }

    /// Puts the rows of `other` after these.
    pub fn append(&mut self, other: &Self) {
        let before = self.documents.len() as u32;
        self.documents.extend(&other.documents);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }
}

/// Puts documents, in the order given, each into the first open row that has room.
///
/// `documents` are (index, length) with lengths of at most `seq_len`.
pub(super) fn first_fit(documents: impl IntoIterator<Item = (u32, u32)>, seq_len: usize, pack: bool) -> Rows {
    // Used tokens and documents of each row, and each document with its row.
    let mut used: Vec<u32> = Vec::new();
    let mut counts: Vec<u32> = Vec::new();
    let documents = documents.into_iter();
    let mut placed: Vec<(u32, u32)> = Vec::with_capacity(documents.size_hint().0);
    for (index, len) in documents {
        let oldest = used.len().saturating_sub(OPEN_ROWS);
        let room = |used: &u32| pack && *used as usize + len as usize <= seq_len;
        let open = used.iter().skip(oldest).position(room).map(|row| oldest + row);
        let row = open.unwrap_or(used.len());
        match (used.get_mut(row), counts.get_mut(row)) {
            (Some(used), Some(count)) => {
                *used += len;
                *count += 1;
            }
            _ => {
                used.push(len);
                counts.push(1);
            }
        }
        placed.push((index, row as u32));
    }
    drop(used);
    // Where the next document of each row goes; after the last one, where the row ends.
    let mut next = 0;
    for count in &mut counts {
        next += std::mem::replace(count, next);
    }
    let mut ends = counts;
    let mut rows = vec![0; placed.len()];
    for (index, row) in placed {
        if let Some(place) = ends.get_mut(row as usize) {
            if let Some(slot) = rows.get_mut(*place as usize) {
                *slot = index;
            }
            *place += 1;
        }
    }
    Rows { documents: rows, ends }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(lengths: &[u32], seq_len: usize, on: bool) -> Vec<Vec<u32>> {
        let rows = first_fit((0..).zip(lengths.iter().copied()), seq_len, on);
        (0..rows.len()).map(|row| rows.row(row).to_vec()).collect()
    }

    #[test]
    fn a_document_goes_to_the_first_row_with_room() {
        assert_eq!(pack(&[6, 5, 4, 5, 1], 10, true), [vec![0, 2], vec![1, 3], vec![4]]);
        assert_eq!(pack(&[6, 5, 4], 10, false), [vec![0], vec![1], vec![2]]);
        assert!(pack(&[], 10, true).is_empty());
    }

    #[test]
    fn rows_of_several_packings_follow_one_another() {
        let mut rows = first_fit([(4, 6), (7, 4), (2, 5)], 10, true);
        rows.append(&first_fit([(9, 3), (8, 8)], 10, true));
        let all: Vec<&[u32]> = (0..=rows.len()).map(|row| rows.row(row)).collect();
        assert_eq!(all, [&[4, 7][..], &[2], &[9], &[8], &[]]);
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
