//! Weights of few bits for generating: how many, and a model whose matrices are rounded to them.

use crate::causal_lm::CausalLm;
use crate::compute::Compute;
use crate::llama::MtpLlama;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use wmtp_gemm::Bits;

/// How weights are rounded, in groups of 32 values with a scale in bf16. Norms and biases stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// 8.5 bits a weight: integers of 8 bits times the scale.
    Int8,
    /// 4.5 bits a weight: one of 16 levels (NF4, Dettmers et al. 2023) times the scale. Embedding and unembedding
    /// have 8.5.
    Int4,
}

impl Quantization {
    /// That of embedding and unembedding.
    pub(crate) fn of_embeddings(self) -> Self {
        match self {
            Self::Int8 | Self::Int4 => Self::Int8,
        }
    }

    pub(crate) fn bits(self) -> Bits {
        match self {
            Self::Int8 => Bits::Eight,
            Self::Int4 => Bits::Four,
        }
    }
}

/// How generation keeps a matrix.
#[cfg(feature = "flex")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// The model's own tensor, shared.
    Shared,
    /// A copy with few bits, or with the same values and no bits that are zero in all of them.
    Prepared(Option<Quantization>),
}

/// The model in f32 with the values of bf16 matrices, or with those that quantized ones stand for, and with activations
/// rounded as those round them. Norms and biases stay what they are.
pub fn with_rounded_matrices(model: MtpLlama, quantization: Option<Quantization>) -> MtpLlama {
    let compute = Compute {
        rounded_activations: quantization.is_some(),
        ..model.compute()
    };
    model.with_compute(compute).map(&mut Rounding {
        quantization,
        path: Vec::new(),
    })
}

struct Rounding {
    quantization: Option<Quantization>,
    /// Names of the modules that the mapper is in.
    path: Vec<String>,
}

impl ModuleMapper for Rounding {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 {
            return param;
        }
        param.map(|tensor| {
            let (device, shape) = (tensor.device(), tensor.shape());
            let inner = shape[1];
            let data = tensor.cast(DType::BF16).into_data();
            let mut values: Vec<f32> = data.iter::<f32>().collect();
            let of_layers = self
                .path
                .first()
                .is_some_and(|name| name == "layers" || name == "heads");
            let quantization = match of_layers {
                true => self.quantization,
                false => self.quantization.map(Quantization::of_embeddings),
            };
            if let Some(quantization) = quantization {
                quantization.bits().round(&mut values, inner);
            }
            Tensor::from_data(TensorData::new(values, shape), (&device, DType::F32))
        })
    }
}
