//! Sums and maxima over the units of a cube.
#![allow(missing_docs)] // the attribute generates items that can't carry comments

use cubecl::prelude::*;

/// Sum of `value` over the `units` units of a one-dimensional cube, in every unit. `units` is a power
/// of two. The order of summation depends on `units` and `planes` only. All units must call it.
#[cube]
pub fn cube_sum(value: f32, #[comptime] units: u32, #[comptime] planes: bool) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units as usize);
    if planes {
        let part = plane_sum(value);
        if UNIT_POS_PLANE == 0 {
            shared[(UNIT_POS / PLANE_DIM) as usize] = part;
        }
        sync_cube();
        let mut total = 0.0f32;
        for plane in 0..CUBE_DIM / PLANE_DIM {
            total += shared[plane as usize];
        }
        total
    } else {
        shared[UNIT_POS as usize] = value;
        sync_cube();
        let mut width = (units / 2).runtime();
        while width > 0 {
            if UNIT_POS < width {
                let other = shared[(UNIT_POS + width) as usize];
                shared[UNIT_POS as usize] += other;
            }
            sync_cube();
            width /= 2;
        }
        shared[0]
    }
}

/// As [`cube_sum()`], the largest instead.
#[cube]
pub fn cube_max(value: f32, #[comptime] units: u32, #[comptime] planes: bool) -> f32 {
    let mut shared = Shared::<[f32]>::new_slice(units as usize);
    if planes {
        let part = plane_max(value);
        if UNIT_POS_PLANE == 0 {
            shared[(UNIT_POS / PLANE_DIM) as usize] = part;
        }
        sync_cube();
        let mut largest = shared[0];
        for plane in 0..CUBE_DIM / PLANE_DIM {
            largest = max(largest, shared[plane as usize]);
        }
        largest
    } else {
        shared[UNIT_POS as usize] = value;
        sync_cube();
        let mut width = (units / 2).runtime();
        while width > 0 {
            if UNIT_POS < width {
                let other = shared[(UNIT_POS + width) as usize];
                shared[UNIT_POS as usize] = max(shared[UNIT_POS as usize], other);
            }
            sync_cube();
            width /= 2;
        }
        shared[0]
    }
}
