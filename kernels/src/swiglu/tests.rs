//! SwiGLU on slices against its definition in f64, and its gradients against central differences.

use super::flex;
use crate::test_support::{assert_close, wide};
use crate::test_values::values;

fn swiglu_f64(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect()
}

#[test]
fn swiglu_and_its_gradients() {
    for n in [1, 15, 100, 8193] {
        let mut gate: Vec<f32> = values(n, 4).iter().map(|g| 8.0 * g).collect();
        if n > 2 {
            (gate[0], gate[1]) = (-200.0, 200.0);
        }
        let (up, upstream) = (values(n, 5), values(n, 6));
        let mut y = gate.clone();
        flex::forward(&mut y, &up);
        let expected = swiglu_f64(&wide(&gate), &wide(&up));
        assert_close("y", &y, &expected, 1e-6);
        let (mut d_gate, mut d_up, mut result) = (gate.clone(), up.clone(), upstream.clone());
        flex::backward(&mut d_gate, &mut d_up, &mut result);
        assert_close("the result again", &result, &expected, 1e-6);
        // Element-wise, so the derivative of each is that of its own element.
        let step = 1e-5;
        let slope = |f: &dyn Fn(f64) -> f64, at: f64| (f(at + step) - f(at - step)) / (2.0 * step);
        let one = |g: f64, u: f64| g / (1.0 + (-g).exp()) * u;
        let each = |i: usize| (f64::from(gate[i]), f64::from(up[i]), f64::from(upstream[i]));
        let of_gate: Vec<f64> = (0..n).map(each).map(|(g, u, d)| d * slope(&|g| one(g, u), g)).collect();
        let of_up: Vec<f64> = (0..n).map(each).map(|(g, u, d)| d * slope(&|u| one(g, u), u)).collect();
        assert_close("d gate", &d_gate, &of_gate, 1e-5);
        assert_close("d up", &d_up, &of_up, 1e-5);
    }
}
