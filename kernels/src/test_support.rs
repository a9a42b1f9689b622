//! Comparisons for the tests: definitions in f64, and gradients against their central differences.

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

/// The gradient of `sum of upstream * f(x)` by central differences.
pub fn differences(x: &[f32], upstream: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let step = 1e-5;
    let at = |i: usize, delta: f64| {
        let mut x = wide(x);
        x[i] += delta;
        f(&x).iter().zip(upstream).map(|(y, u)| y * f64::from(*u)).sum::<f64>()
    };
    (0..x.len())
        .map(|i| (at(i, step) - at(i, -step)) / (2.0 * step))
        .collect()
}

/// Errors relative to the largest expected value.
pub fn assert_close(what: &str, found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |a: f64, b| a.max(b.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs() / scale;
        assert!(error < tolerance, "{what}, value {i}: {found} instead of {expected}");
    }
}

/// |found - expected| / |expected| in the Frobenius norm.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - b));
    difference / norm(&mut expected.iter().copied())
}
