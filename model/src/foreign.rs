//! Weights that other tools write and that are refused by name: quantised ones, and heads of other trainers.

/// What the names of a model's tensors show, as a sentence for an error; none where nothing is known of them.
pub(crate) fn refusal<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    names
        .into_iter()
        .find_map(|name| Some(format!("{} (`{name}`)", of(name)?)))
}

/// What a tensor's name shows.
fn of(name: &str) -> Option<&'static str> {
    const PARTS: [(&[&str], &str); 5] = [
        (
            &[".qweight", ".qzeros"],
            "it holds weights quantised by GPTQ or AWQ, which are not read: take the unquantised model",
        ),
        (
            &[".SCB", ".absmax", ".quant_map", ".quant_state."],
            "it holds weights quantised by bitsandbytes, which are not read: take the unquantised model",
        ),
        (
            &[".weight_packed"],
            "it holds packed weights of compressed-tensors, which are not read: take the unquantised model",
        ),
        (
            &[".eh_proj.", ".enorm.", ".hnorm.", "mtp.fc.", "mtp.pre_fc_norm"],
            "it holds sequential heads as DeepSeek-V3's or Qwen3-Next's, which are not read: only parallel ones are",
        ),
        (
            &["medusa_head.", ".medusa_head", "embed_layernorm.", "midlayer."],
            "it holds Medusa or EAGLE heads, which are not read: only heads that are decoder layers are",
        ),
    ];
    let found = PARTS.iter().find(|(parts, _)| {
        parts
            .iter()
            .any(|part| name.contains(part) || name.starts_with(part.trim_start_matches('.')))
    });
    found.map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_layouts_are_named() {
        for (name, word) in [
            ("model.layers.0.mlp.up_proj.qweight", "GPTQ"),
            ("model.layers.0.mlp.up_proj.SCB", "bitsandbytes"),
            ("model.layers.0.mlp.up_proj.weight.absmax", "bitsandbytes"),
            ("model.layers.0.mlp.up_proj.weight_packed", "compressed-tensors"),
            ("model.layers.61.eh_proj.weight", "DeepSeek"),
            ("mtp.fc.weight", "Qwen3-Next"),
            ("medusa_head.0.0.linear.weight", "Medusa"),
        ] {
            let said = refusal(std::iter::once(name)).unwrap();
            assert!(said.contains(word) && said.contains(name), "{said}");
            assert!(said.split_whitespace().count() <= 30, "{said}");
        }
        let read = [
            "model.layers.0.self_attn.q_norm.weight",
            "model.embed_tokens.weight",
            "mtp.heads.2.mlp.up_proj.weight",
            "model.layers.0.input_layernorm.weight",
        ];
        assert_eq!(refusal(read.into_iter()), None);
    }
}
