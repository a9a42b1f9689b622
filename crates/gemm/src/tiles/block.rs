//! Blocks of 32 x 32 sums: four tiles, past which two groups of the left factor and two of the right one go.
//!
//! Four tiles are loaded for four products, which the second cache can feed. What becomes of a block's sums (an
//! [`Epilogue`]) is done by the vector unit while the tile unit computes the next block, a little with each tile of
//! K: written one after the other, sums on their way to memory would stop the tiles.

use super::{
    pack::{Panels, Side},
    unit::{ROW_BYTES, ROWS, Tile, TileUnit},
};

/// Rows and columns of a block.
pub const BLOCK: usize = 2 * ROWS;

/// Bytes from a row of sums to the next.
const SUMS_STRIDE: usize = BLOCK * size_of::<f32>();

/// The sums of a block, 32 rows of 32.
pub struct Sums([Tile; 4]);

impl Sums {
    /// Row `i`.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &[f32; BLOCK] {
        assert!(i < BLOCK);
        // SAFETY: four tiles are 32 rows of 32 f32 values, and any bits are values.
        unsafe { &*self.0.as_ptr().cast::<[f32; BLOCK]>().add(i) }
    }
}

/// What becomes of the sums of blocks.
pub trait Epilogue {
    /// The block of groups `[left, right]` is summed up from now on, in `steps` steps; none after the last block.
    /// The sums of the block before it are complete, and stay until `finish`.
    fn begin(&mut self, next: Option<[usize; 2]>, steps: usize);

    /// A share of the work on the sums of the block before.
    fn step(&mut self, sums: &Sums);

    /// All that is left of it.
    fn finish(&mut self, sums: &Sums);
}

/// Computes all blocks of the product of two packed factors. Blocks of the `inner` factor's groups follow one
/// another; that factor is the one that comes from further away.
///
/// # Panics
/// If the factors' groups differ in length.
pub fn blocks<U: TileUnit, E: Epilogue>(left: Panels, right: Panels, inner: Side, epilogue: &mut E) {
    assert_eq!(left.tiles, right.tiles, "both factors have the same K");
    let inner_is_left = inner == Side::Left;
    let [outer, within] = match inner {
        Side::Left => [right.groups, left.groups],
        Side::Right => [left.groups, right.groups],
    };
    let mut unit = U::open();
    let mut sums = Sums([Tile::ZERO; 4]);
    for o in (0..outer).step_by(2) {
        for w in (0..within).step_by(2) {
            let [i, j] = if inner_is_left { [w, o] } else { [o, w] };
            let compute = match (i + 1 < left.groups, j + 1 < right.groups, inner_is_left) {
                (true, true, true) => block::<U, E, 2, 2, true>,
                (true, true, false) => block::<U, E, 2, 2, false>,
                (true, false, _) => block::<U, E, 2, 1, true>,
                (false, true, _) => block::<U, E, 1, 2, false>,
                (false, false, _) => block::<U, E, 1, 1, true>,
            };
            epilogue.begin(Some([i, j]), left.tiles);
            compute(&mut unit, left, right, [i, j], &mut sums, epilogue);
        }
    }
    epilogue.begin(None, 1);
    epilogue.finish(&sums);
}

/// Sums up `16 R` rows times `16 C` columns from groups `i` and `j` on. The left factor's tiles are loaded as used
/// once if `LEFT_ONCE`, else the right one's: the other's are those of the block before, and stay in the first cache.
#[inline(never)]
fn block<U: TileUnit, E: Epilogue, const R: usize, const C: usize, const LEFT_ONCE: bool>(
    unit: &mut U,
    left: Panels,
    right: Panels,
    [i, j]: [usize; 2],
    sums: &mut Sums,
    epilogue: &mut E,
) {
    let rows: [*const u8; R] = std::array::from_fn(|r| left.group(i + r).cast());
    let columns: [*const u8; C] = std::array::from_fn(|c| right.group(j + c).cast());
    unit.zero::<0>();
    unit.zero::<1>();
    unit.zero::<2>();
    unit.zero::<3>();
    for t in 0..left.tiles {
        let tile = |start: *const u8| start.wrapping_add(t * size_of::<Tile>());
        // SAFETY: `group` has checked that the groups exist; each has `tiles` tiles, as many as the other factor's.
        unsafe {
            load::<U, 4, LEFT_ONCE>(unit, tile(rows[0]));
            load_right::<U, 6, LEFT_ONCE>(unit, tile(columns[0]));
            unit.multiply::<0, 4, 6>();
            if C == 2 {
                load_right::<U, 7, LEFT_ONCE>(unit, tile(columns[C - 1]));
                unit.multiply::<1, 4, 7>();
            }
            if R == 2 {
                load::<U, 5, LEFT_ONCE>(unit, tile(rows[R - 1]));
                unit.multiply::<2, 5, 6>();
            }
        }
        if R == 2 && C == 2 {
            unit.multiply::<3, 5, 7>();
        }
        epilogue.step(sums);
    }
    epilogue.finish(sums);
    let to = sums.0.as_mut_ptr().cast::<u8>();
    // SAFETY: the four tiles are the quarters of 32 rows of 128 bytes.
    unsafe {
        unit.store::<0>(to, SUMS_STRIDE);
        unit.store::<1>(to.add(ROW_BYTES), SUMS_STRIDE);
        unit.store::<2>(to.add(ROWS * SUMS_STRIDE), SUMS_STRIDE);
        unit.store::<3>(to.add(ROWS * SUMS_STRIDE + ROW_BYTES), SUMS_STRIDE);
    }
}

/// # Safety
/// `from` is a tile.
#[inline(always)]
unsafe fn load<U: TileUnit, const T: usize, const ONCE: bool>(unit: &mut U, from: *const u8) {
    // SAFETY: by the caller's promise.
    unsafe {
        if ONCE {
            unit.load_once::<T>(from, ROW_BYTES);
        } else {
            unit.load::<T>(from, ROW_BYTES);
        }
    }
}

/// The right factor's, once where the left one's are not.
///
/// # Safety
/// `from` is a tile.
#[inline(always)]
unsafe fn load_right<U: TileUnit, const T: usize, const LEFT_ONCE: bool>(unit: &mut U, from: *const u8) {
    // SAFETY: by the caller's promise.
    unsafe {
        if LEFT_ONCE {
            unit.load::<T>(from, ROW_BYTES);
        } else {
            unit.load_once::<T>(from, ROW_BYTES);
        }
    }
}
