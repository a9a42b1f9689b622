//! Weights in 8 bits (E4M3, Micikevicius et al. 2022, arXiv 2209.05433) with scales: the layout of
//! DeepSeek-V3's and Qwen3's FP8 checkpoints (`weight_scale_inv`, one scale for each block) and that of
//! compressed-tensors (`weight_scale`, one for each matrix or row).
//!
//! They are read as bf16, value times scale rounded to nearest even. Quantised training and inference are not
//! supported; scales of activations (`input_scale`) have no effect.

use serde_json::Value;

use crate::fields::Fields;

/// Scales of a matrix `[out, in]`, one for each block.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    /// Row by row of blocks.
    values: Vec<f32>,
    /// Rows and columns of a block.
    block: [usize; 2],
}

impl Scale {
    /// `values` of the shape `of_scales` for a tensor of the shape `of_tensor`. None where they do not fit.
    pub(crate) fn new(
        values: Vec<f32>,
        of_scales: &[usize],
        of_tensor: &[usize],
        blocks: Option<[usize; 2]>,
    ) -> Option<Self> {
        let [rows, columns] = *of_tensor else { return None };
        let grid = match *of_scales {
            [] | [1] => [1, 1],
            [count] => [count, 1],
            [down, across] => [down, across],
            _ => return None,
        };
        let fits = |[height, width]: &[usize; 2]| {
            *height > 0 && *width > 0 && [rows.div_ceil(*height), columns.div_ceil(*width)] == grid
        };
        let even = [rows.checked_div(grid[0])?, columns.checked_div(grid[1])?];
        let even = Some(even).filter(|[height, width]| height * grid[0] == rows && width * grid[1] == columns);
        let block = blocks.filter(fits).or(even)?;
        (values.len() == grid[0] * grid[1]).then_some(Self { values, block })
    }

    /// The scaled values of a tensor's bytes. None where there are not as many as the shape says.
    pub(crate) fn values(&self, bytes: &[u8], shape: &[usize]) -> Option<Vec<f32>> {
        let [rows, columns] = *shape else { return None };
        if bytes.len() != rows * columns {
            return None;
        }
        let table: [f32; 256] = std::array::from_fn(|byte| e4m3(byte as u8));
        let across = columns.div_ceil(self.block[1]);
        let mut values = Vec::with_capacity(bytes.len());
        for (i, row) in bytes.chunks_exact(columns.max(1)).enumerate() {
            let scales = &self.values[i / self.block[0] * across..][..across];
            let row = row.iter().enumerate();
            values.extend(row.map(|(j, byte)| table[usize::from(*byte)] * scales[j / self.block[1]]));
        }
        Some(values)
    }
}

/// The value of a byte: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities.
fn e4m3(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    if byte & 0x80 == 0 { size } else { -size }
}

/// Reads `quantization_config`: rows and columns of a block with a scale of its own, where the file names
/// them. A configuration that is not E4M3 with scales is a problem.
pub(crate) fn read_blocks(fields: &mut Fields<'_>) -> Option<[usize; 2]> {
    let config = fields.object("quantization_config")?;
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
    let supported = match text("quant_method") {
        "fp8" => ["", "e4m3"].contains(&text("fmt")),
        "compressed-tensors" => ["float-quantized", "naive-quantized"].contains(&text("format")) && all_fp8(config),
        _ => false,
    };
    if !supported {
        let method = config.get("quant_method").cloned().unwrap_or(Value::Null);
        fields.problem(format!(
            "`quantization_config.quant_method` is {method}: of quantised weights only FP8 (E4M3) is read, take the model's unquantised weights"
        ));
    }
    let sizes = config.get("weight_block_size")?.as_array()?;
    <[usize; 2]>::try_from(sizes.iter().filter_map(size).collect::<Vec<_>>()).ok()
}

/// Whether all groups of compressed-tensors have weights of 8 bits, as floats.
fn all_fp8(config: &serde_json::Map<String, Value>) -> bool {
    let groups = config.get("config_groups").and_then(Value::as_object);
    let is_fp8 = |group: &Value| group["weights"]["type"] == "float" && group["weights"]["num_bits"] == 8;
    groups.is_some_and(|groups| !groups.is_empty() && groups.values().all(is_fp8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_values_of_the_format() {
        for (byte, value) in [
            (0x00, 0.0),
            (0x01, 1.0 / 512.0),
            (0x07, 7.0 / 512.0),
            (0x08, 1.0 / 64.0),
            (0x38, 1.0),
            (0x39, 1.125),
            (0x7e, 448.0),
            (0xfe, -448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3(byte), value, "{byte:#x}");
        }
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
    }

    #[test]
    fn a_block_that_is_cut_off_has_a_scale_of_its_own() {
        let scale = Scale::new(vec![1.0, 2.0, 4.0, 8.0], &[2, 2], &[3, 3], Some([2, 2])).unwrap();
        let ones = scale.values(&[0x38; 9], &[3, 3]).unwrap();
        assert_eq!(ones, [1.0, 1.0, 2.0, 1.0, 1.0, 2.0, 4.0, 4.0, 8.0]);
        // Without the size of a block only an even grid fits.
        assert!(Scale::new(vec![1.0; 4], &[2, 2], &[3, 3], None).is_none());
        let rows = Scale::new(vec![1.0, 2.0, 4.0], &[3, 1], &[3, 3], None).unwrap();
        assert_eq!(rows.values(&[0x38; 9], &[3, 3]).unwrap()[2..5], [1.0, 2.0, 2.0]);
        let whole = Scale::new(vec![0.5], &[], &[3, 3], None).unwrap();
        assert_eq!(whole.values(&[0x38; 9], &[3, 3]).unwrap(), [0.5; 9]);
    }
}
