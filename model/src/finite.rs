//! Weights that hold NaN or infinities: what a failed computation is traced back to.

use crate::decoder::Weight;
use crate::llama::MtpLlama;
use crate::raw;

impl MtpLlama {
    /// Names of the weights that hold NaN or infinite values, in the order of the model. Reads every
    /// weight: meant for explaining a result that is not finite.
    pub fn not_finite(&self) -> Vec<String> {
        let is_finite = |weight: &Weight<'_>| {
            let values = match weight {
                Weight::Matrix(param) => raw::to_f32(param.val().into_data()),
                Weight::Vector(param) => raw::to_f32(param.val().into_data()),
            };
            values.iter().all(|value| value.is_finite())
        };
        let weights = self.weights().into_iter();
        weights
            .filter(|(_, weight)| !is_finite(weight))
            .map(|(name, _)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{LlamaConfig, LoadOptions, SaveDtype, load, save};
    use burn::tensor::Device;

    #[test]
    fn the_weight_with_nan_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let config = LlamaConfig::new(8, 4, 2, 1);
        save(&config.init(1, &Device::flex()), dir.path(), SaveDtype::F32).unwrap();
        let read = || load(dir.path(), &LoadOptions::default(), &Device::flex()).unwrap();
        assert!(read().not_finite().is_empty());
        // The last tensor by name is the final norm; its last value lies at the end of the file.
        let path = dir.path().join("model.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.len() - 4;
        bytes[end..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read().not_finite(), ["model.norm.weight"]);
    }
}
