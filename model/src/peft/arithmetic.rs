//! Products of factors and norms of rows, on the host, row by row.

use rayon::prelude::*;

/// `rows x columns`, row-major, as `columns x rows`.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let at = |i: usize| values.get((i % rows) * columns + i / rows).copied().unwrap_or(0.0);
    (0..rows * columns).map(at).collect()
}

/// Adds `scale` times `left` `[out, rank]` by `right` `[rank, width]` to `sum` `[out, width]`.
pub(super) fn add_product(sum: &mut [f32], left: &[f32], right: &[f32], rank: usize, width: usize, scale: f32) {
    let rows = sum.par_chunks_mut(width.max(1)).zip(left.par_chunks(rank.max(1)));
    rows.for_each(|(sum, left)| {
        let mut product = vec![0.0f32; sum.len()];
        for (factor, right) in left.iter().zip(right.chunks(width.max(1))) {
            product.iter_mut().zip(right).for_each(|(p, r)| *p += factor * r);
        }
        sum.iter_mut().zip(&product).for_each(|(s, p)| *s += scale * p);
    });
}

/// Stretches each row of `values` `[out, width]` to the length that `norms` `[out]` gives it.
pub(super) fn set_row_norms(values: &mut [f32], norms: &[f32], width: usize) {
    let rows = values.par_chunks_mut(width.max(1)).zip(norms);
    rows.for_each(|(row, norm)| {
        let squares: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let stretch = f64::from(*norm) / squares.sqrt();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * stretch) as f32);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_norms_worked_out_by_hand() {
        assert_eq!(
            transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3),
            [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]
        );
        // [[1, 2], [3, 4]] + 2 * [[1], [2]] [[10, 20]].
        let mut sum = [1.0, 2.0, 3.0, 4.0];
        add_product(&mut sum, &[1.0, 2.0], &[10.0, 20.0], 1, 2, 2.0);
        assert_eq!(sum, [21.0, 42.0, 43.0, 84.0]);
        let mut rows = [3.0, 4.0, 0.0, 2.0];
        set_row_norms(&mut rows, &[10.0, 1.0], 2);
        assert_eq!(rows, [6.0, 8.0, 0.0, 1.0]);
    }
}
