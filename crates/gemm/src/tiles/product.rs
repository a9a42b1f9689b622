//! Products of two factors, packed or not, into a result in memory.
//!
//! The smaller factor is packed whole, by all threads; the larger one a stripe of lines at a time, into memory of
//! the thread that multiplies it, small enough for its second cache. While a stripe is multiplied, the next one is
//! fetched. A K beyond [`LONGEST`] is multiplied in ranges, one after the other, whose sums are added up.

use super::{
    block::{BLOCK, blocks},
    pack::{Panels, Side, extent, pack},
    target::{Ahead, Kind, Target, Writer},
    unit::{ROWS, Tile, TileUnit, VALUES},
};
use crate::{MatrixView, Threads};
use rayon::prelude::*;
use std::cell::RefCell;

/// Bytes of a packed stripe and its lines, at most.
const STRIPE_BYTES: usize = 1 << 20;
const STRIPE_LINES: usize = 256;

/// Stripes that a thread takes at a time: each but the first is fetched while the one before it is multiplied. More
/// of them leave less for other threads to take over from one that was held up.
const STRIPES_PER_TASK: usize = 8;

/// Values along K that are multiplied at a time.
pub const LONGEST: usize = 8192;

/// A factor in memory, or packed.
#[derive(Clone, Copy)]
pub enum Factor<'a> {
    /// Lines `[count, K]`: rows of a left factor, columns of a right one.
    Lines(MatrixView<'a>),
    /// The same, packed.
    Packed(&'a Packed),
}

impl Factor<'_> {
    /// Number of lines.
    pub fn count(&self) -> usize {
        self.shape()[0]
    }

    /// Lines and values of each.
    fn shape(&self) -> [usize; 2] {
        match self {
            Self::Lines(lines) => lines.shape,
            Self::Packed(packed) => packed.shape,
        }
    }
}

/// A factor that is packed for several products.
#[derive(Default)]
pub struct Packed {
    room: Vec<Tile>,
    shape: [usize; 2],
}

impl Packed {
    /// Packs these lines, into the memory of what was packed here before: touching new memory for the first time
    /// takes longer than packing.
    pub fn fill(&mut self, lines: MatrixView<'_>, side: Side, threads: Threads) {
        let [groups, tiles] = extent(lines);
        self.room.resize(groups * tiles, Tile::ZERO);
        self.shape = lines.shape;
        pack(lines, side, &mut self.room, threads);
    }

    /// Its groups.
    pub fn panels(&self) -> Panels {
        let [count, k] = self.shape;
        Panels::new(&self.room, count.div_ceil(ROWS), k.div_ceil(VALUES))
    }
}

thread_local! {
    /// Memory for stripes, of the thread that multiplies them.
    static ROOM: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
    /// Memory for the factor that all threads share, of the thread that asked for the product.
    static SHARED: RefCell<Packed> = RefCell::default();
}

/// Hands `work` the thread's own room of `count` tiles. It must not wait for other tasks: the thread may be given
/// one that wants the room too.
pub fn with_room<R>(count: usize, work: impl FnOnce(&mut [Tile]) -> R) -> R {
    ROOM.with_borrow_mut(|room| {
        if room.len() < count {
            *room = vec![Tile::ZERO; count];
        }
        work(&mut room[..count])
    })
}

/// `to [M, N] (+)= left [M, K] * right [K, N]`; the right factor's lines are its columns. Every sum's order depends
/// on the shapes alone.
///
/// # Safety
/// `to` is a matrix of M rows and N columns that nothing else accesses.
///
/// # Panics
/// If shapes do not fit together; if K is beyond [`LONGEST`] and a factor is packed or the result is rounded.
pub unsafe fn multiply<U: TileUnit>(to: Target, left: Factor<'_>, right: Factor<'_>, threads: Threads) {
    let ([m, k], [n, inner]) = (left.shape(), right.shape());
    assert!(
        k == inner && to.rows == m && to.columns == n,
        "[{m}, {k}] times [{inner}, {n}] is not [{}, {}]",
        to.rows,
        to.columns
    );
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    if k <= LONGEST {
        // SAFETY: by the caller's promise.
        return unsafe { multiply_range::<U>(to, left, right, threads) };
    }
    let (Factor::Lines(left), Factor::Lines(right)) = (left, right) else {
        panic!("packed factors have at most {LONGEST} values along K");
    };
    assert!(to.kind != Kind::Rounded, "sums of several ranges are rounded once");
    let length = k.div_ceil(k.div_ceil(LONGEST)).next_multiple_of(VALUES);
    for from in (0..k).step_by(length) {
        let kind = if from > 0 { Kind::Add } else { to.kind };
        let [left, right] = [left, right].map(|lines| Factor::Lines(lines.columns(from, length.min(k - from))));
        // SAFETY: by the caller's promise.
        unsafe { multiply_range::<U>(Target { kind, ..to }, left, right, threads) };
    }
}

/// # Safety
/// As [`multiply`].
unsafe fn multiply_range<U: TileUnit>(to: Target, left: Factor<'_>, right: Factor<'_>, threads: Threads) {
    let ([m, k], [n, _]) = (left.shape(), right.shape());
    let workers = match threads {
        Threads::All => rayon::current_num_threads(),
        Threads::Calling => 1,
    };
    // A factor that has to be packed is cut into stripes rather than one that is packed already: packing is shared so.
    let enough = BLOCK * workers;
    let striped = match (left, right) {
        (Factor::Lines(_), Factor::Packed(_)) if m >= enough => Side::Left,
        (Factor::Packed(_), Factor::Lines(_)) if n >= enough => Side::Right,
        _ if m > n => Side::Left,
        _ => Side::Right,
    };
    let (whole, whole_side, cut) = match striped {
        Side::Left => (right, Side::Right, left),
        Side::Right => (left, Side::Left, right),
    };
    let mut own = SHARED.take();
    let whole = match whole {
        Factor::Packed(packed) => packed.panels(),
        Factor::Lines(lines) => {
            own.fill(lines, whole_side, threads);
            own.panels()
        }
    };
    let (count, tiles) = (cut.shape()[0], k.div_ceil(VALUES));
    let most = (STRIPE_BYTES / (tiles * size_of::<Tile>()) * ROWS).clamp(BLOCK, STRIPE_LINES);
    let stripes = count.div_ceil(most).next_multiple_of(workers);
    let lines = count.div_ceil(stripes).next_multiple_of(BLOCK);
    let work = Stripes {
        to,
        whole,
        cut,
        side: striped,
        lines,
    };
    let stripes = count.div_ceil(lines);
    let each = stripes.div_ceil(workers).min(STRIPES_PER_TASK);
    let task = |task: usize| {
        with_room(lines.div_ceil(ROWS) * tiles, |room| {
            let last = stripes.min((task + 1) * each);
            // SAFETY: by the caller's promise; each stripe is one task's.
            (task * each..last).for_each(|stripe| unsafe { work.multiply::<U>(stripe, stripe + 1 < last, room) });
        });
    };
    let tasks = stripes.div_ceil(each);
    match threads {
        Threads::All => (0..tasks).into_par_iter().with_max_len(1).for_each(task),
        Threads::Calling => (0..tasks).for_each(task),
    }
    SHARED.set(own);
}

/// A product whose one factor is packed whole, and the other cut into stripes.
#[derive(Clone, Copy)]
struct Stripes<'a> {
    to: Target,
    whole: Panels,
    cut: Factor<'a>,
    /// Which factor is cut.
    side: Side,
    /// Lines of a stripe, a multiple of 32.
    lines: usize,
}

impl Stripes<'_> {
    /// First line of a stripe, and the one after its last.
    fn range(&self, stripe: usize) -> [usize; 2] {
        [stripe, stripe + 1].map(|stripe| (stripe * self.lines).min(self.cut.shape()[0]))
    }

    /// Multiplies a stripe, and fetches the next one meanwhile where it follows.
    ///
    /// # Safety
    /// Nothing else accesses the stripe's part of the target.
    unsafe fn multiply<U: TileUnit>(&self, stripe: usize, next_follows: bool, room: &mut [Tile]) {
        let [first, last] = self.range(stripe);
        let [next, next_last] = self.range(stripe + 1);
        let steps = self.whole.groups.div_ceil(2) * (last - first).div_ceil(BLOCK) * self.whole.tiles;
        let (panels, ahead) = match self.cut {
            Factor::Lines(lines) => {
                let part = |first: usize, last: usize| lines.rows(first, last - first);
                let ahead = match next_follows {
                    true => Ahead::of(part(next, next_last), steps),
                    false => Ahead::NOTHING,
                };
                (pack(part(first, last), self.side, room, Threads::Calling), ahead)
            }
            Factor::Packed(packed) => {
                let part = |first: usize, last: usize| {
                    let [from, to] = [first / ROWS, last.div_ceil(ROWS)];
                    packed.panels().part(from, to - from)
                };
                let ahead = match next_follows {
                    true => Ahead::memory(part(next, next_last).bytes(), steps),
                    false => Ahead::NOTHING,
                };
                (part(first, last), ahead)
            }
        };
        let ([left, right], to) = match self.side {
            Side::Left => ([panels, self.whole], self.to.part([first, last], [0, self.to.columns])),
            Side::Right => ([self.whole, panels], self.to.part([0, self.to.rows], [first, last])),
        };
        // SAFETY: by the caller's promise.
        let mut writer = unsafe { Writer::new(to, ahead) };
        blocks::<U, _>(left, right, self.side, &mut writer);
    }
}
