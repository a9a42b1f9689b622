//! Shared by the CPU loops: an exponential that compiles to vector instructions, and sizes of blocks.

/// Rows that the loops over `[N, D]` matrices compute, and sum over, in one task.
pub(crate) const ROWS_PER_BLOCK: usize = 16;

/// Elements that element-wise loops compute in one task: 64 KiB of f32, which fit the L2 cache together with
/// the other operands, and take long compared with the start of a task.
pub(crate) const ELEMENTS_PER_BLOCK: usize = 1 << 14;

/// e^x for x <= 0 in f32: relative error below 2e-7 down to x = -87, exactly 0 below that (where the true
/// value is under 1.7e-38); a NaN stays one. Branch-free, so that it vectorizes; called inside of
/// [`wmtp_gemm::simd::vectorized`], where a multiply-add is one instruction.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, e^x = 2^n e^r; ln 2 in two parts (Cody and Waite 1980), the
/// polynomial for e^r with the coefficients of the Cephes library's expf (Moshier).
#[inline(always)]
pub(crate) fn exp_not_positive(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = (-n).mul_add(LN_2_LOW, (-n).mul_add(LN_2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let e_r = p.mul_add(r * r, r) + 1.0;
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = e_r * f32::from_bits(exponent);
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_as_accurate_as_it_says() {
        // Every 97th float from -87 to -1e-9, some 1.2 million of them.
        let (first, last) = (1e-9f32.to_bits(), 87f32.to_bits());
        let worst = (first..=last)
            .step_by(97)
            .map(|bits| {
                let x = -f32::from_bits(bits);
                let exact = f64::from(x).exp();
                ((f64::from(exp_not_positive(x)) - exact) / exact).abs()
            })
            .fold(0.0, f64::max);
        println!("largest relative error {worst:.2e}");
        assert!(worst < 2e-7, "{worst:e}");
    }

    #[test]
    fn the_edges_of_the_exponential() {
        assert_eq!(exp_not_positive(0.0), 1.0);
        assert_eq!(exp_not_positive(-0.0), 1.0);
        assert_eq!(exp_not_positive(-87.1), 0.0);
        assert_eq!(exp_not_positive(-1e30), 0.0);
        assert_eq!(exp_not_positive(f32::NEG_INFINITY), 0.0);
        assert!(exp_not_positive(f32::NAN).is_nan());
    }
}
