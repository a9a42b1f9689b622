//! The step on CubeCL, a vector of elements to a unit.
//!
//! With everything in f32 it moves 28 bytes an element (p, m, v read and written, g read), in bf16
//! with f32 moments 22, and takes about 15 operations: memory bounds it. 135 M parameters in f32 are
//! 3.8 GB, 2.4 ms on an A100 and 1.1 ms on an H100.
#![allow(missing_docs)] // the attribute generates items that can't carry comments

use super::{AdamWOps, AdamWStep, plain};
use crate::cube::{contiguous, cubes_for_elements, element, is_supported, vector_size};
use burn::backend::{Cube, TensorMetadata, tensor::FloatTensor};
use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// All four tensors hold as many elements; types of parameter, moments and gradient are P, M and G.
#[cube(launch, create_dummy_kernel)]
#[allow(clippy::too_many_arguments)]
pub fn adamw<P: Float, M: Float, G: Float, N: Size>(
    parameter: &mut Tensor<Vector<P, N>>,
    moment_1: &mut Tensor<Vector<M, N>>,
    moment_2: &mut Tensor<Vector<M, N>>,
    gradient: &Tensor<Vector<G, N>>,
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    shrink: f32,
    step_size: f32,
    correction_2: f32,
    rest_1: f32,
    rest_2: f32,
    #[define(P)] _p: ElemType,
    #[define(M)] _m: ElemType,
    #[define(G)] _g: ElemType,
) {
    if ABSOLUTE_POS < parameter.len() {
        let g = Vector::<f32, N>::cast_from(gradient[ABSOLUTE_POS]);
        let p = Vector::<f32, N>::cast_from(parameter[ABSOLUTE_POS]);
        let m = Vector::<f32, N>::cast_from(moment_1[ABSOLUTE_POS]);
        let v = Vector::<f32, N>::cast_from(moment_2[ABSOLUTE_POS]);
        let m = m * Vector::new(beta_1) + g * Vector::new(rest_1);
        let v = v * Vector::new(beta_2) + g * g * Vector::new(rest_2);
        let root = (v * Vector::new(correction_2)).sqrt() + Vector::new(epsilon);
        let p = p * Vector::new(shrink) - m / root * Vector::new(step_size);
        moment_1[ABSOLUTE_POS] = Vector::cast_from(m);
        moment_2[ABSOLUTE_POS] = Vector::cast_from(v);
        parameter[ABSOLUTE_POS] = Vector::cast_from(p);
    }
}

/// `tensor` itself where it may be overwritten, else a contiguous copy.
fn own(tensor: CubeTensor) -> CubeTensor {
    if tensor.can_mut() && tensor.is_contiguous() {
        tensor
    } else {
        contiguous(tensor.copy())
    }
}

impl AdamWOps for Cube {
    fn adamw_step(
        parameter: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let elements = parameter.shape().num_elements();
        let dtypes = [parameter.dtype, moment_1.dtype, gradient.dtype];
        let supported = dtypes.iter().all(|dtype| is_supported(*dtype)) && moment_2.dtype == dtypes[1];
        if !supported || elements == 0 {
            return plain::step::<Self>(parameter, moment_1, moment_2, gradient, step);
        }
        let [p, m, v] = [parameter, moment_1, moment_2].map(own);
        let gradient = contiguous(gradient);
        let vector = vector_size(&p.client, elements, DType::F32);
        let (count, dim) = cubes_for_elements(elements / vector);
        adamw::launch(
            &p.client,
            count,
            dim,
            vector,
            p.clone().into_tensor_arg(),
            m.clone().into_tensor_arg(),
            v.clone().into_tensor_arg(),
            gradient.into_tensor_arg(),
            step.beta_1 as f32,
            step.beta_2 as f32,
            step.epsilon as f32,
            step.shrink() as f32,
            step.step_size() as f32,
            step.correction_2() as f32,
            // The gradient's scale joins what it and its square are multiplied by.
            ((1.0 - step.beta_1) * step.gradient_scale) as f32,
            ((1.0 - step.beta_2) * step.gradient_scale.powi(2)) as f32,
            element(dtypes[0]),
            element(dtypes[1]),
            element(dtypes[2]),
        );
        (p, m, v)
    }
}
