//! RMSNorm on slices against its definition in f64, and its gradients against central differences.

use super::flex;
use crate::test_support::{assert_close, differences, wide};
use crate::test_values::values;

fn rms_norm_f64(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let d = weight.len();
    let row = |x: &[f64]| {
        let r = (x.iter().map(|x| x * x).sum::<f64>() / d as f64 + eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x / r * w).collect::<Vec<_>>()
    };
    x.chunks(d).flat_map(row).collect()
}

#[test]
fn rms_norm_and_its_gradients() {
    for (n, d) in [(1, 1), (3, 5), (17, 16), (33, 37)] {
        let (x, weight, upstream) = (values(n * d, 1), values(d, 2), values(n * d, 3));
        let mut y = vec![0.0; n * d];
        flex::forward(&x, &weight, 1e-5, &mut y);
        let eps = f64::from(1e-5f32);
        assert_close("y", &y, &rms_norm_f64(&wide(&x), &wide(&weight), eps), 1e-6);
        let mut d_x = vec![1.0; n * d];
        let d_weight = flex::backward(&x, &weight, 1e-5, &upstream, &mut d_x);
        let of_x = differences(&x, &upstream, |x| rms_norm_f64(x, &wide(&weight), eps));
        let added: Vec<f64> = of_x.iter().map(|g| g + 1.0).collect();
        assert_close("dx", &d_x, &added, 1e-5);
        let expected_weight_grad = differences(&weight, &upstream, |w| rms_norm_f64(&wide(&x), w, eps));
        assert_close("dw", &d_weight, &expected_weight_grad, 1e-5);
    }
}
