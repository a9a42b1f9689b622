//! The product for every machine, compiled for its widest vectors.

use super::Floats;
use crate::host::vectorised;
use std::borrow::Cow;

/// Sums that are taken side by side, so that they fit one vector.
const LANES: usize = 16;

/// The rows as they are.
pub fn arranged<'a>(rows: &'a [f32], _: Floats<'_>, _: usize) -> Cow<'a, [f32]> {
    Cow::Borrowed(rows)
}

/// See [`super::Kernel`].
pub fn multiply(to: &mut [f32], rows: &[f32], weight: Floats<'_>, [first, count]: [usize; 2], [_, k]: [usize; 2]) {
    let mut widened = vec![0.0; k];
    vectorised(|| {
        for j in 0..count {
            let range = (first + j) * k..(first + j + 1) * k;
            let line = match weight {
                Floats::F32(values) => &values[range],
                Floats::Bf16(values) => {
                    for (to, value) in widened.iter_mut().zip(&values[range]) {
                        *to = f32::from_bits(u32::from(value.to_bits()) << 16);
                    }
                    &widened[..]
                }
            };
            for (i, row) in rows.chunks_exact(k).enumerate() {
                to[i * count + j] = dot(row, line);
            }
        }
    });
}

#[inline(always)]
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<LANES>(), right.as_chunks::<LANES>());
    let mut sums = [0.0f32; LANES];
    for (left, right) in left.iter().zip(right) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    for (sum, (left, right)) in sums.iter_mut().zip(left_rest.iter().zip(right_rest)) {
        *sum += left * right;
    }
    sums.iter().sum()
}
