//! Products in bf16 on the tile unit (AMX).
//!
//! Everything but [`unit::Amx`]'s few instructions is the same over [`unit::Software`], which computes what they do
//! bit for bit: the tests run on every machine, and on one with AMX compare the two.

mod block;
mod pack;
mod product;
mod target;
#[cfg(test)]
mod tests;
mod unit;

pub use block::{BLOCK, Epilogue, Sums, blocks};
pub use pack::{Panels, Side, pack};
pub use product::{Factor, LONGEST, Packed, multiply, with_room};
pub use target::{Ahead, Kind, Target, Writer};
pub use unit::{Amx, ROWS, Software, Tile, TileUnit, VALUES, has_amx};
