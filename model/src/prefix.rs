//! Tensor names of other writers: with wrappers' names in them, or without the base model's prefix.
//!
//! transformers' names are `model.layers.0.…` and `lm_head.weight`. A base model saved alone lacks
//! `model.`; `torch.compile`, DDP, FSDP and checkpointing leave the names of their wrappers in those
//! of the parameters. The place of a name in the model is found by the one tensor that every Llama
//! has, [`ANCHOR`]; a file in which that is not unique is left as it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::tensor_file::TensorFiles;

/// Found once in every Llama, whatever stands before it.
const ANCHOR: &str = "layers.0.input_layernorm.weight";

/// What transformers puts before the names of the decoder.
const BASE: &str = "model.";

/// First parts of the decoder's names.
const DECODER: [&str; 3] = ["layers.", "embed_tokens.", "norm."];

/// Wrapper modules of PyTorch, which may stand anywhere in a name.
const WRAPPERS: [&str; 4] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];

/// Gives the tensors transformers' names where that is unambiguous; else adds the reason to `problems`.
pub(crate) fn to_standard_names(files: &mut TensorFiles, problems: &mut Vec<String>) {
    let names: Vec<String> = files.names().map(str::to_owned).collect();
    if let Some(name) = names
        .iter()
        .find(|name| name.contains(".lora_") || name.contains(".base_layer."))
    {
        problems.push(format!(
            "it holds an adapter that was not merged (`{name}`): save the model with peft's `merge_and_unload()`, or the adapter with `save_pretrained`"
        ));
        return;
    }
    match standard(&names) {
        Ok(None) => {}
        Ok(Some(renamed)) => files.rename(&renamed),
        Err(problem) => problems.push(problem),
    }
}

/// New names by the stored ones; none where they are standard already, or not recognised.
fn standard(names: &[String]) -> Result<Option<BTreeMap<String, String>>, String> {
    let plain: Vec<String> = names.iter().map(|name| without_wrappers(name)).collect();
    let places: BTreeSet<&str> = plain
        .iter()
        .filter_map(|name| name.strip_suffix(ANCHOR))
        .filter(|place| place.is_empty() || place.ends_with('.'))
        .collect();
    let mut places = places.into_iter();
    let (Some(place), None) = (places.next(), places.next()) else {
        return Ok(None);
    };
    let outer = place.strip_suffix(BASE).unwrap_or(place);
    let rename = |name: &str| {
        let inner = name.strip_prefix(place).filter(|rest| is_of_decoder(rest));
        match inner {
            Some(rest) => format!("{BASE}{rest}"),
            None => name.strip_prefix(outer).unwrap_or(name).to_owned(),
        }
    };
    let mut renamed: BTreeMap<String, String> = BTreeMap::new();
    let mut taken: BTreeMap<String, &String> = BTreeMap::new();
    for (stored, plain) in names.iter().zip(&plain) {
        let new = rename(plain);
        if let Some(first) = taken.insert(new.clone(), stored) {
            return Err(format!(
                "`{first}` and `{stored}` both stand for `{new}`: keep one of them"
            ));
        }
        renamed.insert(stored.clone(), new);
    }
    let changed = renamed.iter().any(|(old, new)| old != new);
    Ok(changed.then_some(renamed))
}

fn is_of_decoder(rest: &str) -> bool {
    DECODER.iter().any(|part| rest.starts_with(part))
}

/// Without the names of wrappers; `module` is DDP's and stands first.
fn without_wrappers(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let first = parts.iter().position(|part| *part != "module").unwrap_or(0);
    parts.get(first..).unwrap_or_default().join(".")
}

/// Says what stands in the way where not one expected name is there.
pub(crate) fn no_name_in_common<'a>(
    mut stored: impl Iterator<Item = &'a str>,
    expected: &[crate::names::TensorSpec],
    missing: usize,
) -> Option<String> {
    let (found, wanted) = (stored.next()?, expected.first()?);
    (missing == expected.len()).then(|| {
        format!(
            "no tensor has an expected name: the first one here is `{found}`, the first one expected `{}`",
            wanted.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(names: &[&str]) -> Result<Option<Vec<String>>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let map = standard(&names)?;
        Ok(map.map(|map| names.iter().map(|name| map[name].clone()).collect()))
    }

    #[test]
    fn known_prefixes_and_wrappers_are_taken_off() {
        let standard = [
            "model.layers.0.input_layernorm.weight",
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
        ];
        assert_eq!(renamed(&standard), Ok(None));
        type Writer<'a> = (&'a str, &'a dyn Fn(&str) -> String);
        let writers: [Writer<'_>; 7] = [
            ("base model", &|name| name.replace("model.", "")),
            ("compile", &|name| format!("_orig_mod.{name}")),
            ("compiled layers", &|name| {
                name.replace("layers.0.", "layers.0._orig_mod.")
            }),
            ("DDP of a compiled model", &|name| format!("module._orig_mod.{name}")),
            ("FSDP", &|name| {
                format!(
                    "_fsdp_wrapped_module.{}",
                    name.replace("layers.0.", "layers.0._fsdp_wrapped_module.")
                )
            }),
            ("peft", &|name| format!("base_model.model.{name}")),
            ("compiled base model", &|name| {
                format!("_orig_mod.{}", name.replace("model.", ""))
            }),
        ];
        for (writer, write) in writers {
            let written: Vec<String> = standard.iter().map(|name| write(name)).collect();
            let written: Vec<&str> = written.iter().map(String::as_str).collect();
            assert_eq!(renamed(&written).unwrap().expect(writer), standard, "{writer}");
        }
    }

    #[test]
    fn two_models_in_one_file_and_other_models_are_left_alone() {
        let two = [
            "actor.model.layers.0.input_layernorm.weight",
            "critic.model.layers.0.input_layernorm.weight",
        ];
        assert_eq!(renamed(&two), Ok(None));
        assert_eq!(renamed(&["transformer.h.0.ln_1.weight"]), Ok(None));
        let twice = [
            "model.layers.0.input_layernorm.weight",
            "_orig_mod.model.layers.0.input_layernorm.weight",
        ];
        let error = renamed(&twice).unwrap_err();
        assert!(error.contains("_orig_mod.") && error.contains("keep one"), "{error}");
    }
}
