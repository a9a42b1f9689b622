//! The rotation on slices, worked out by hand.

use super::{Rotation, flex};

#[test]
fn pairs_of_halves_are_rotated_and_back() {
    // Two rows with one head of width 4 to rotate and one value that stays; angles 90 and 0 degrees
    // for the first pair, 0 and 180 for the second.
    let mut rows = [1.0, 2.0, 3.0, 4.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0];
    let (cos, sin) = ([0.0, 1.0, 1.0, -1.0], [1.0, 0.0, 0.0, 0.0]);
    let before = rows;
    flex::rotate(&mut rows, 5, 0..1, 2, [&cos, &sin], Rotation::Forward);
    assert_eq!(rows, [-3.0, 2.0, 1.0, 4.0, 9.0, 1.0, -2.0, 3.0, -4.0, 9.0]);
    flex::rotate(&mut rows, 5, 0..1, 2, [&cos, &sin], Rotation::Inverse);
    assert_eq!(rows, before);
}
