//! A normaliser's compiled table: is it one that can be searched without leaving it?
//!
//! SentencePiece stores replacements (`nmt_nfkc` and others) as a double-array trie over UTF-8 bytes
//! ([Aoe 1989](https://doi.org/10.1109/32.31365); the layout is darts-clone's) and one string of
//! replacements, each ended by a zero byte: the trie's length in bytes (`u32`), its units (`u32` each), the
//! string. The library that searches it takes every index as valid, so that all of them are checked here.

use super::error::PiecesError;

/// Bytes of a table. `nmt_nfkc_cf`, the largest that is shipped, has a quarter of a million.
const MAX_BYTES: usize = 8 << 20;

const DAMAGED: PiecesError = PiecesError::Damaged("its table of replacements has a wrong index");

/// Refuses a table in which a search could leave the trie or the string. An empty one is none.
///
/// Every state that can be reached is visited once: at most 255 steps for each unit.
pub(super) fn check(charsmap: &[u8]) -> Result<(), PiecesError> {
    if charsmap.is_empty() {
        return Ok(());
    }
    if charsmap.len() > MAX_BYTES {
        return Err(PiecesError::Damaged("its table of replacements is larger than 8 MiB"));
    }
    let (length, rest) = charsmap.split_first_chunk::<4>().ok_or(DAMAGED)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| DAMAGED)?;
    let (units, replacements) = rest.split_at_checked(length).ok_or(DAMAGED)?;
    let (units, partial) = units.as_chunks::<4>();
    let replacements = std::str::from_utf8(replacements).map_err(|_| DAMAGED)?;
    if !partial.is_empty() {
        return Err(DAMAGED);
    }
    let units: Vec<u32> = units.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    let unit = |place: usize| units.get(place).copied().ok_or(DAMAGED);

    let mut visited = vec![false; units.len()];
    let mut open = vec![offset(unit(0)?)];
    while let Some(state) = open.pop() {
        match visited.get_mut(state) {
            None => return Err(DAMAGED),
            Some(true) => continue,
            Some(new) => *new = true,
        }
        for byte in 1..=255u8 {
            // A search reads the unit before it compares the label.
            let place = state ^ usize::from(byte);
            let next = unit(place)?;
            if next & (1 << 31 | 0xff) != u32::from(byte) {
                continue;
            }
            let target = place ^ offset(next);
            let leaf = unit(target)?;
            if next >> 8 & 1 == 1 {
                let start = usize::try_from(leaf & !(1 << 31)).map_err(|_| DAMAGED)?;
                if !replacements.is_char_boundary(start) {
                    return Err(DAMAGED);
                }
            }
            open.push(target);
        }
    }
    Ok(())
}

/// What a unit adds (by exclusive or) to a place.
fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}
