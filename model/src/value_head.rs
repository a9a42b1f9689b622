//! The value head: what a state is still worth, read off head 1's hidden states.
//!
//! Linear D -> D/2, ReLU, linear -> 1, with biases. Its file names the model that it was trained on
//! and is refused with any other.

use crate::error::ModelError;
use crate::names::TensorSpec;
use crate::random::{normal, param_id};
use crate::raw::{self, SaveDtype};
use crate::store::{METADATA, fail_if_any};
use crate::tensor_file::{self, Outgoing, TensorFiles};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData, activation};
use std::path::Path;

/// Metadata key of the hash of the model that the head belongs to.
const MODEL: &str = "model_sha256";

/// Values of hidden states.
#[derive(Module, Debug)]
pub struct ValueHead {
    /// `[D/2, D]`.
    weight_0: Param<Tensor<2>>,
    /// `[D/2]`.
    bias_0: Param<Tensor<1>>,
    /// `[1, D/2]`.
    weight_2: Param<Tensor<2>>,
    /// `[1]`.
    bias_2: Param<Tensor<1>>,
}

/// Names and shapes in the file for a model of hidden size `d`.
fn specs(d: usize) -> [TensorSpec; 4] {
    let inner = d / 2;
    [
        ("value_head.0.weight", vec![inner, d]),
        ("value_head.0.bias", vec![inner]),
        ("value_head.2.weight", vec![1, inner]),
        ("value_head.2.bias", vec![1]),
    ]
    .map(|(name, shape)| TensorSpec {
        name: name.to_owned(),
        shape,
    })
}

impl ValueHead {
    /// A head for hidden size `d` with the values of each tensor.
    fn build(d: usize, values: impl Fn(&TensorSpec) -> Vec<f32>, device: &Device) -> Self {
        let [w0, b0, w2, b2] = specs(d);
        Self {
            weight_0: param(&w0, values(&w0), device),
            bias_0: param(&b0, values(&b0), device),
            weight_2: param(&w2, values(&w2), device),
            bias_2: param(&b2, values(&b2), device),
        }
    }

    /// A head for hidden size `d` (at least 2), random from the seed: normal weights of deviation
    /// `1 / sqrt(inputs)`, zero biases.
    pub fn init(d: usize, seed: u64, device: &Device) -> Self {
        let values = |spec: &TensorSpec| {
            let inputs = spec.shape.last().copied().unwrap_or(1).max(1);
            let count = spec.shape.iter().product();
            match spec.shape.len() {
                2 => normal(seed, &spec.name, count, 1.0 / (inputs as f64).sqrt()),
                _ => vec![0.0; count],
            }
        };
        Self::build(d, values, device)
    }

    /// The same head on `device`, one with autodiff, where all its tensors learn. They are made anew
    /// there: a tensor that is moved stays outside of autodiff, and would never learn.
    pub fn trainable(self, device: &Device) -> Self {
        Self {
            weight_0: learning(&self.weight_0, device),
            bias_0: learning(&self.bias_0, device),
            weight_2: learning(&self.weight_2, device),
            bias_2: learning(&self.bias_2, device),
        }
    }

    /// Values `[B, S]` of hidden states `[B, S, D]`.
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [batch, seq, d] = hidden.dims();
        let rows = hidden.reshape([batch * seq, d]);
        let inner = rows.matmul(self.weight_0.val().transpose()) + self.bias_0.val().unsqueeze();
        let value = activation::relu(inner).matmul(self.weight_2.val().transpose()) + self.bias_2.val().unsqueeze();
        value.reshape([batch, seq])
    }

    /// Writes the head in f32, bit for bit, with the hash of the model that it belongs to.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path, model_hash: &str) -> Result<(), ModelError> {
        let head = self.valid();
        let d = head.weight_0.lazy_shape().to_vec().last().copied().unwrap_or(0);
        let [w0, b0, w2, b2] = specs(d);
        let tensors = vec![
            outgoing(w0, &head.weight_0),
            outgoing(b0, &head.bias_0),
            outgoing(w2, &head.weight_2),
            outgoing(b2, &head.bias_2),
        ];
        tensor_file::write(path, &[METADATA[0], (MODEL, model_hash)], tensors)
    }

    /// Reads a head that belongs to the model with hash `model_hash`.
    ///
    /// # Errors
    /// An unreadable file, tensors of other names or shapes, or the head of another model.
    pub fn load(path: &Path, model_hash: &str, device: &Device) -> Result<Self, ModelError> {
        let files = TensorFiles::open(path)?;
        let found = files.metadata.get(MODEL).cloned().unwrap_or_else(|| "none".to_owned());
        if found != model_hash {
            return Err(ModelError::WrongModel {
                path: path.into(),
                expected: model_hash.into(),
                found,
            });
        }
        let inner = files.values("value_head.0.bias").map_or(0, |bias| bias.len());
        let d = files
            .values("value_head.0.weight")
            .map_or(0, |weight| weight.len().checked_div(inner).unwrap_or(0));
        let mut problems = Vec::new();
        files.check(&specs(d), &mut problems);
        fail_if_any(problems, path)?;
        let values = |spec: &TensorSpec| files.values(&spec.name).unwrap_or_default();
        Ok(Self::build(d, values, device))
    }
}

fn param<const D: usize>(spec: &TensorSpec, values: Vec<f32>, device: &Device) -> Param<Tensor<D>> {
    let tensor = Tensor::from_data(TensorData::new(values, spec.shape.clone()), device);
    Param::initialized(param_id(&spec.name), tensor).set_require_grad(true)
}

fn learning<const D: usize>(param: &Param<Tensor<D>>, device: &Device) -> Param<Tensor<D>> {
    let tensor = param.val();
    let dtype = tensor.dtype();
    let tensor = Tensor::from_data(tensor.into_data(), (device, dtype));
    Param::initialized(param.id, tensor).set_require_grad(true)
}

fn outgoing<const D: usize>(spec: TensorSpec, param: &Param<Tensor<D>>) -> Outgoing<'_> {
    let bytes = Box::new(move || SaveDtype::F32.encode(&raw::to_f32(param.val().into_data())));
    Outgoing {
        spec,
        dtype: SaveDtype::F32,
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2 -> 1 -> 1 by hand: relu(3 * 1 - 2 * 2 + 0.5) = 0 and relu(3 * 2 - 2 * 1 + 0.5) = 4.5.
    #[test]
    fn values_are_those_worked_out_by_hand() {
        let device = Device::flex();
        let [w0, b0, w2, b2] = specs(2);
        let head = ValueHead {
            weight_0: param(&w0, vec![3.0, -2.0], &device),
            bias_0: param(&b0, vec![0.5], &device),
            weight_2: param(&w2, vec![2.0], &device),
            bias_2: param(&b2, vec![-1.0], &device),
        };
        let hidden = Tensor::from_data([[[1.0f32, 2.0], [2.0, 1.0]]], &device);
        let values = head.forward(hidden).into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(values, [-1.0, 8.0]);
    }

    #[test]
    fn a_saved_head_comes_back_bit_for_bit_and_only_to_its_model() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value_head.safetensors");
        let head = ValueHead::init(8, 3, &Device::flex());
        head.save(&path, "abc").unwrap();
        let back = ValueHead::load(&path, "abc", &Device::flex()).unwrap();
        assert_eq!(head.weight_0.val().into_data(), back.weight_0.val().into_data());
        assert_eq!(head.bias_2.val().into_data(), back.bias_2.val().into_data());
        let error = ValueHead::load(&path, "abd", &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("abc") && error.contains("abd"), "{error}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value_head.safetensors");
        std::fs::write(&path, b"short").unwrap();
        let error = ValueHead::load(&path, "abc", &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("value_head.safetensors"), "{error}");
    }
}
