//! The tile unit: the instructions of AMX, and the same in scalar code.
//!
//! A tile is 16 rows of 64 bytes; a thread has eight. `multiply` adds the product of a left tile (16 lines of 32
//! bf16 values along K) and a right one (16 pairs of values along K, each of 16 lines) to a tile of 16 x 16 sums in
//! f32. For each sum, with `even` and `odd` that begin at 0, `tdpbf16ps` computes
//!
//! ```text
//! for p in 0..16:  even = fma(left[2 p], right[2 p], even);  odd = fma(left[2 p + 1], right[2 p + 1], odd)
//! sum = sum + (even + odd)
//! ```
//!
//! each operation rounded to the nearest even. Subnormal values are zeros, as inputs and as results (whether a
//! result is subnormal is decided after rounding), whatever MXCSR says.
//!
//! Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, `TDPBF16PS`.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// Rows of a tile: lines of a left factor, pairs of values of a right one.
pub const ROWS: usize = 16;

/// bf16 values in a row of a tile.
pub const VALUES: usize = 32;

/// Bytes of a tile's row.
pub const ROW_BYTES: usize = 64;

/// A tile in memory. It begins with a cache line: tiles that do not take many times as long to load.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile(pub [u8; ROWS * ROW_BYTES]);

impl Tile {
    /// All zeros.
    pub const ZERO: Self = Self([0; ROWS * ROW_BYTES]);

    /// The bits of its bf16 values: of a left tile, lines of values along K.
    #[inline(always)]
    pub fn rows_mut(&mut self) -> &mut [[u16; VALUES]; ROWS] {
        // SAFETY: as many bytes, aligned to a cache line, and any bits are values.
        unsafe { &mut *(&raw mut self.0).cast() }
    }

    /// The same two at a time: of a right tile, pairs along K, each of 16 lines, the first one in the low half.
    #[inline(always)]
    pub fn words_mut(&mut self) -> &mut [[u32; ROWS]; ROWS] {
        // SAFETY: as above.
        unsafe { &mut *(&raw mut self.0).cast() }
    }
}

/// Eight tiles, numbered 0 to 7, of the calling thread.
pub trait TileUnit {
    /// Takes the calling thread's tiles until the value is dropped.
    fn open() -> Self;

    /// Sets tile `T` to zeros.
    fn zero<const T: usize>(&mut self);

    /// Loads tile `T` from 16 rows, `stride` bytes apart.
    ///
    /// # Safety
    /// 64 bytes can be read at each row.
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);

    /// [`TileUnit::load`] of what is used once: it need not stay in the first cache.
    ///
    /// # Safety
    /// As [`TileUnit::load`].
    unsafe fn load_once<const T: usize>(&mut self, from: *const u8, stride: usize);

    /// Adds the product of the tiles `LEFT` and `RIGHT` to tile `SUM`; the three differ.
    fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self);

    /// Writes tile `T` to 16 rows, `stride` bytes apart.
    ///
    /// # Safety
    /// 64 bytes can be written at each row.
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize);
}

/// Whether the processor has tiles for bf16 and the system lets this process use them.
///
/// Linux must be asked: until then a thread's state has no room for its tiles. It is asked once, for all threads
/// of the process.
pub fn has_amx() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| cfg!(target_os = "linux") && processor_has_amx() && is_permitted() && Amx::is_exact())
}

/// AMX-TILE and AMX-BF16, tile state that the system saves, and eight tiles of 16 rows of 64 bytes.
fn processor_has_amx() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    const TILE_LEAF: u32 = 0x1d;
    if __cpuid(0).eax < TILE_LEAF
        || __cpuid(1).ecx & OSXSAVE == 0
        || __cpuid_count(7, 0).edx & BF16_AND_TILE != BF16_AND_TILE
    {
        return false;
    }
    // SAFETY: OSXSAVE says that the instruction exists.
    let state = unsafe { _xgetbv(0) };
    let palette = __cpuid_count(TILE_LEAF, 1);
    let [bytes_per_row, tiles, rows] = [palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff];
    state & TILE_STATE == TILE_STATE && [bytes_per_row, tiles, rows] == [64, 8, 16]
}

/// `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
fn is_permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: the system call reads and writes no memory of the process; the registers that it changes are named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// The processor's tiles.
///
/// A thread has one set, so nothing that opens them again may run on it before this is dropped: a task that waits
/// for others (and may be given one of them meanwhile) must not hold them.
pub struct Amx(PhantomData<*const ()>);

impl Amx {
    /// Whether a product on the processor has the sums of [`Software`], bit for bit: a virtual machine that promises
    /// tiles and does something else is not used.
    fn is_exact() -> bool {
        /// Values and sums of both signs and many sizes.
        fn sums(mut unit: impl TileUnit) -> Tile {
            let tile = |salt: usize| {
                let mut tile = Tile::ZERO;
                for (i, byte) in tile.0.iter_mut().enumerate() {
                    // Exponents from 120 to 127 in the upper byte of a value, noise in the lower one.
                    let noise = ((i + salt).wrapping_mul(0x9e37_79b9) >> 16) as u8;
                    *byte = if i % 2 == 1 { noise & 0x83 | 0x3c } else { noise };
                }
                tile
            };
            let (left, right, mut to) = (tile(1), tile(5000), Tile::ZERO);
            unit.zero::<0>();
            // SAFETY: each is a whole tile.
            unsafe {
                unit.load::<4>(left.0.as_ptr(), ROW_BYTES);
                unit.load_once::<6>(right.0.as_ptr(), ROW_BYTES);
                unit.multiply::<0, 4, 6>();
                unit.multiply::<0, 4, 6>();
                unit.store::<0>(to.0.as_mut_ptr(), ROW_BYTES);
            }
            to
        }
        sums(Self::configured()).0 == sums(Software::open()).0
    }

    /// The caller knows that the processor has AMX and that the process may use it.
    fn configured() -> Self {
        // Palette 1; the bytes of a row of each tile from byte 16 on, its rows from byte 48 on.
        let mut configuration = Tile::ZERO;
        configuration.0[0] = 1;
        for t in 0..8 {
            configuration.0[16 + 2 * t] = ROW_BYTES as u8;
            configuration.0[48 + t] = ROWS as u8;
        }
        // SAFETY: the processor has AMX and the process may use it; the configuration is one of palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &configuration, options(nostack, readonly)) };
        Self(PhantomData)
    }
}

impl TileUnit for Amx {
    fn open() -> Self {
        assert!(has_amx(), "this processor has no AMX");
        Self::configured()
    }

    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: `open` has configured the tiles.
        unsafe { asm!("tilezero tmm{t}", t = const T, options(nostack, nomem, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: as above; by the caller's promise.
        unsafe {
            asm!(
                "tileloadd tmm{t}, [{from} + {stride}]",
                t = const T,
                from = in(reg) from,
                stride = in(reg) stride,
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn load_once<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: as above; by the caller's promise.
        unsafe {
            asm!(
                "tileloaddt1 tmm{t}, [{from} + {stride}]",
                t = const T,
                from = in(reg) from,
                stride = in(reg) stride,
                options(nostack, readonly, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: as above.
        unsafe {
            asm!(
                "tdpbf16ps tmm{sum}, tmm{left}, tmm{right}",
                sum = const SUM,
                left = const LEFT,
                right = const RIGHT,
                options(nostack, nomem, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        // SAFETY: as above; by the caller's promise.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}], tmm{t}",
                t = const T,
                to = in(reg) to,
                stride = in(reg) stride,
                options(nostack, preserves_flags)
            );
        }
    }
}

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: the tiles are this thread's. Once released, a switch of threads does not carry them along.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The tile unit in scalar code: the same results bit for bit, but for the payloads of NaNs. For tests on every
/// machine; thousands of times slower.
pub struct Software([[[u32; ROWS]; ROWS]; 8]);

/// `rounded`, or a zero of its sign where `exact` is so small that it rounds to a subnormal number.
fn flushed(rounded: f32, exact: f64) -> f32 {
    // Halfway between the least normal number and the one below it with as many bits.
    let least = f64::from(f32::MIN_POSITIVE) * (1.0 - 0.5_f64.powi(25));
    if exact.abs() < least {
        0.0_f32.copysign(rounded)
    } else {
        rounded
    }
}

/// `a + b`
fn add(a: f32, b: f32) -> f32 {
    let [a, b] = [a, b].map(|x| flushed(x, x.into()));
    flushed(a + b, f64::from(a) + f64::from(b))
}

/// `left * right + sum` of bf16 values, given as the low 16 bits.
fn multiply_add(left: u32, right: u32, sum: f32) -> f32 {
    let [left, right] = [left, right]
        .map(|bits| f32::from_bits(bits << 16))
        .map(|x| flushed(x, x.into()));
    flushed(
        left.mul_add(right, sum),
        f64::from(left) * f64::from(right) + f64::from(sum),
    )
}

impl TileUnit for Software {
    fn open() -> Self {
        Self([[[0; ROWS]; ROWS]; 8])
    }

    fn zero<const T: usize>(&mut self) {
        self.0[T] = [[0; ROWS]; ROWS];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        for (i, row) in self.0[T].iter_mut().enumerate() {
            // SAFETY: by the caller's promise.
            *row = unsafe { from.add(i * stride).cast::<[u32; ROWS]>().read_unaligned() };
        }
    }

    unsafe fn load_once<const T: usize>(&mut self, from: *const u8, stride: usize) {
        // SAFETY: by the caller's promise.
        unsafe { self.load::<T>(from, stride) };
    }

    fn multiply<const SUM: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        let (left, right) = (self.0[LEFT], self.0[RIGHT]);
        for (sums, left) in self.0[SUM].iter_mut().zip(left) {
            for (n, sum) in sums.iter_mut().enumerate() {
                let (mut even, mut odd) = (0.0, 0.0);
                for (a, b) in left.into_iter().zip(right.iter().map(|pair| pair[n])) {
                    even = multiply_add(a & 0xffff, b & 0xffff, even);
                    odd = multiply_add(a >> 16, b >> 16, odd);
                }
                *sum = add(f32::from_bits(*sum), add(even, odd)).to_bits();
            }
        }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        for (i, row) in self.0[T].iter().enumerate() {
            // SAFETY: by the caller's promise.
            unsafe { to.add(i * stride).cast::<[u32; ROWS]>().write_unaligned(*row) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums that come of three tiles of 256 words of 32 bits: sums, left and right factor.
    fn product<U: TileUnit>([sums, left, right]: [[u32; 256]; 3]) -> [u32; 256] {
        let tile = |words: [u32; 256]| {
            let mut tile = Tile::ZERO;
            let bytes = tile.0.chunks_exact_mut(4).zip(words);
            bytes.for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
            tile
        };
        let (sums, left, right, mut to) = (tile(sums), tile(left), tile(right), Tile::ZERO);
        let mut unit = U::open();
        // SAFETY: each is a whole tile.
        unsafe {
            unit.load::<0>(sums.0.as_ptr(), ROW_BYTES);
            unit.load::<4>(left.0.as_ptr(), ROW_BYTES);
            unit.load_once::<6>(right.0.as_ptr(), ROW_BYTES);
            unit.multiply::<0, 4, 6>();
            unit.store::<0>(to.0.as_mut_ptr(), ROW_BYTES);
        }
        std::array::from_fn(|i| u32::from_le_bytes(std::array::from_fn(|b| to.0[4 * i + b])))
    }

    fn bf16_bits(value: f64) -> u32 {
        (value as f32).to_bits() >> 16
    }

    /// A row of pairs times a column of pairs, by hand: 1 * 3 + 2 * 4 + 10 = 21, and what only the order shows.
    #[test]
    fn a_sum_is_that_of_its_pairs() {
        let (mut sums, mut left, mut right) = ([0; 256], [0; 256], [0; 256]);
        sums[16 * 2 + 5] = 10.0_f32.to_bits();
        left[16 * 2 + 3] = bf16_bits(1.0) | bf16_bits(2.0) << 16;
        right[16 * 3 + 5] = bf16_bits(3.0) | bf16_bits(4.0) << 16;
        // Even values by themselves: 2^30 - 2^30 + 1 = 1; in the order of K, 2^30 + 1 - 2^30 would be 0.
        left[16 * 7] = bf16_bits(2_f64.powi(30)) | bf16_bits(1.0) << 16;
        left[16 * 7 + 1] = bf16_bits(-(2_f64.powi(30)));
        right[6] = bf16_bits(1.0) | bf16_bits(1.0) << 16;
        right[16 + 6] = bf16_bits(1.0);
        let found = product::<Software>([sums, left, right]);
        assert_eq!(f32::from_bits(found[16 * 2 + 5]), 21.0);
        assert_eq!(f32::from_bits(found[16 * 7 + 6]), 1.0);
        assert_eq!(found.iter().filter(|bits| **bits != 0).count(), 2);
    }

    /// 2^-126 less 1, 2, 3 or 4 times 2^-152: whether that is subnormal is decided after rounding to 24 bits.
    #[test]
    fn what_rounds_to_the_least_normal_number_is_kept() {
        let (mut left, mut right) = ([0; 256], [0; 256]);
        for i in 0..4_u32 {
            left[16 * i as usize] = bf16_bits(2_f64.powi(-63));
            left[16 * i as usize + 1] = bf16_bits(-f64::from(i + 1) * 2_f64.powi(-52));
        }
        (right[0], right[16]) = (bf16_bits(2_f64.powi(-63)), bf16_bits(2_f64.powi(-100)));
        let least = f32::MIN_POSITIVE.to_bits();
        let expected = [least, least, 0, 0];
        let first = |found: [u32; 256]| [0, 16, 32, 48].map(|i| found[i]);
        assert_eq!(first(product::<Software>([[0; 256], left, right])), expected);
        if has_amx() {
            assert_eq!(first(product::<Amx>([[0; 256], left, right])), expected);
        }
    }

    /// Values of like size, of all sizes, subnormal ones, infinities and NaNs.
    #[test]
    fn the_processor_computes_what_the_software_does() {
        if !has_amx() {
            return eprintln!("NOT TESTED: this processor has no AMX");
        }
        let mut seed = 1_u64;
        let mut noise = move || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 32) as u32
        };
        // Least exponent and number of exponents of the factors, then of the sums.
        let ranges = [
            [120, 14, 113, 28],
            [0, 256, 0, 256],
            [50, 30, 0, 60],
            [55, 20, 0, 40],
            [0, 6, 0, 12],
            [250, 6, 244, 12],
        ];
        for round in 0..600 {
            let [least, span, sum_least, sum_span] = ranges[round % 6];
            let mut value = |least: u32, span: u32| (noise() & 0x807f_ffff) | (least + noise() % span) << 23;
            let sums = std::array::from_fn(|_| value(sum_least, sum_span));
            let [left, right] =
                [(); 2].map(|()| std::array::from_fn(|_| value(least, span) >> 16 | value(least, span) & 0xffff_0000));
            let (software, amx) = (
                product::<Software>([sums, left, right]),
                product::<Amx>([sums, left, right]),
            );
            for (i, (s, a)) in software.into_iter().zip(amx).enumerate() {
                let both_nan = f32::from_bits(s).is_nan() && f32::from_bits(a).is_nan();
                assert!(
                    s == a || both_nan,
                    "round {round}, sum {i}: {s:08x}, the processor {a:08x}"
                );
            }
        }
    }
}
