//! LoRA adapters of any maker, merged into the weights of their base as these are loaded.
//!
//! Reads what peft's `save_pretrained` writes, and this crate's own adapters: factors of any linear
//! map, of the embedding and of the unembedding, ranks and scales by pattern, rank-stabilised scales
//! (Kalajdzievski 2023, arXiv 2312.03732), DoRA's magnitudes (Liu et al. 2024, arXiv 2402.09353) and
//! modules saved whole. With `W` `[out, in]` the merged weight is `W + s B A`, of DoRA
//! `m (W + s B A) / |W + s B A|` with the norm of each row; both are exact. A tied model whose
//! embedding and unembedding end up different becomes an untied one. Adapters with biases are refused.
//! Nothing is trained here: see [`crate::apply_lora`].

mod arithmetic;
mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Problems};
use crate::findings::{Finding, listed};
use crate::lora::{PREFIX, open_factors, target};
use crate::names::{EMBEDDING, TensorSpec, UNEMBEDDING};
use crate::tensor_file::TensorFiles;
use config::AdapterConfig;

/// What an adapter does to one weight: names of tensors in its files.
#[derive(Debug, Default)]
struct Change {
    /// `[rank, in]`; of the embedding `[rank, V]`.
    a: Option<String>,
    /// `[out, rank]`; of the embedding `[D, rank]`.
    b: Option<String>,
    /// DoRA's `[out]`.
    magnitude: Option<String>,
    /// The base's own weight, saved along.
    base: Option<String>,
    /// The whole weight, in place of the base's.
    saved: Option<String>,
}

/// An adapter, checked against its base and ready to be merged.
#[derive(Debug)]
pub(crate) struct Adapter {
    files: TensorFiles,
    settings: AdapterConfig,
    /// By the name of the weight.
    changes: BTreeMap<String, Change>,
    place: PathBuf,
}

impl Adapter {
    /// Reads the adapter in `dir` for a base of this configuration (with the heads that the adapter
    /// has). `config` becomes that of the merged model: untied, or with another vocabulary, where the
    /// adapter makes it so.
    ///
    /// # Errors
    /// A file cannot be read, or the adapter does not fit or cannot be merged: all reasons.
    pub(crate) fn open(dir: &Path, config: &mut LlamaConfig) -> Result<Self, ModelError> {
        let mut problems = Vec::new();
        let settings = AdapterConfig::read(dir, &mut problems)?;
        let fail_if_any = |problems: Vec<String>| match problems.is_empty() {
            true => Ok(()),
            false => Err(ModelError::Adapter {
                place: dir.display().to_string(),
                problems: Problems(problems),
            }),
        };
        // What the tensors lack follows from these.
        fail_if_any(std::mem::take(&mut problems))?;
        let files = open_factors(dir)?;
        let mut adapter = Self {
            files,
            settings,
            changes: BTreeMap::new(),
            place: dir.to_path_buf(),
        };
        adapter.sort(config, &mut problems);
        adapter.check_complete(config, &mut problems);
        if problems.is_empty() {
            adapter.fit_vocabulary(config, &mut problems);
            adapter.check_shapes(config, &mut problems);
        }
        fail_if_any(problems)?;
        config.tie_word_embeddings &= !adapter.unties();
        Ok(adapter)
    }

    /// Finds what each tensor is for.
    fn sort(&mut self, config: &LlamaConfig, problems: &mut Vec<String>) {
        let known: BTreeSet<String> = weights(config).into_iter().map(|spec| spec.name).collect();
        let [mut biases, mut surplus] = [const { Vec::new() }; 2];
        for name in self.files.names().map(str::to_owned).collect::<Vec<_>>() {
            let (weight, part) = match parse(&name) {
                Some(parsed) => parsed,
                None => {
                    let list = if name.ends_with(".bias") {
                        &mut biases
                    } else {
                        &mut surplus
                    };
                    list.push(format!("`{name}`"));
                    continue;
                }
            };
            if !known.contains(&weight) {
                surplus.push(format!("`{name}`"));
                continue;
            }
            let change = self.changes.entry(weight).or_default();
            let slot = match part {
                Part::A => &mut change.a,
                Part::B => &mut change.b,
                Part::Magnitude => &mut change.magnitude,
                Part::Base => &mut change.base,
                Part::Saved => &mut change.saved,
            };
            if let Some(earlier) = slot.replace(name.clone()) {
                problems.push(format!("`{earlier}` and `{name}` are for the same weight: keep one"));
            }
        }
        let why = "adapters with biases are not supported, merge it with peft (`merge_and_unload()`)";
        problems.extend(listed(Finding::Surplus, why, &biases));
        problems.extend(listed(Finding::Surplus, "the base has no such weight", &surplus));
    }

    /// Every weight that is targeted has both factors, and none else.
    fn check_complete(&self, config: &LlamaConfig, problems: &mut Vec<String>) {
        let [mut missing, mut surplus] = [const { Vec::new() }; 2];
        for spec in weights(config) {
            let module = spec.name.strip_suffix(".weight").unwrap_or(&spec.name);
            let none = Change::default();
            let change = self.changes.get(&spec.name).unwrap_or(&none);
            let targeted = spec.shape.len() == 2 && self.settings.targets(module);
            // Whether all patterns can be matched is known once they have been.
            self.settings.scale(module, self.settings.rank(module));
            for (factor, stored) in [("lora_A", &change.a), ("lora_B", &change.b)] {
                if stored.is_none() && (targeted || change.a.is_some() || change.b.is_some()) {
                    missing.push(format!("`{factor}` of `{module}`"));
                }
            }
            if targeted && self.settings.dora && change.magnitude.is_none() {
                missing.push(format!("`lora_magnitude_vector` of `{module}`"));
            }
            if !self.settings.dora {
                surplus.extend(change.magnitude.iter().map(|name| format!("`{name}`")));
            }
            let factors = change.a.iter().chain(&change.b);
            let saved = change.saved.iter().filter(|_| !self.settings.saves(module));
            let unexpected = factors.filter(|_| !targeted).chain(saved);
            // peft's `ensure_weight_tying` changes the other one of two tied matrices as well.
            let partner = match spec.name.as_str() {
                EMBEDDING => Some("lm_head"),
                UNEMBEDDING => Some("model.embed_tokens"),
                _ => None,
            };
            let partner = partner.filter(|_| config.tie_word_embeddings);
            let along = partner.is_some_and(|module| self.settings.targets(module) || self.settings.saves(module));
            surplus.extend(unexpected.filter(|_| !along).map(|name| format!("`{name}`")));
        }
        problems.extend(listed(Finding::Missing, "`target_modules` names them", &missing));
        let why = "`target_modules` and `modules_to_save` do not name it";
        problems.extend(listed(Finding::Surplus, why, &surplus));
        if self.settings.gave_up() {
            problems.push("a pattern takes too many steps to match the weights' names: write it plainer".to_owned());
        }
    }

    /// An adapter for a base whose vocabulary was made larger has to hold both matrices.
    fn fit_vocabulary(&self, config: &mut LlamaConfig, problems: &mut Vec<String>) {
        let rows = |weight: &str| -> Option<usize> {
            let saved = self.changes.get(weight)?.saved.as_ref()?;
            self.files.shape(saved)?.first().copied()
        };
        let (embedding, unembedding) = (rows(EMBEDDING), rows(UNEMBEDDING));
        let Some(size) = embedding.or(unembedding).filter(|size| *size != config.vocab_size) else {
            return;
        };
        if embedding == Some(size) && unembedding == Some(size) {
            config.vocab_size = size;
        } else {
            problems.push(format!(
                "it has an embedding or unembedding of {size} rows, the base of {}, and not both matrices: merge it with peft (`merge_and_unload()`)",
                config.vocab_size
            ));
        }
    }

    fn check_shapes(&self, config: &LlamaConfig, problems: &mut Vec<String>) {
        let mut expected = Vec::new();
        let most = config.largest_rank();
        let mut misranked: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for TensorSpec { name, shape } in weights(config) {
            let Some(change) = self.changes.get(&name) else {
                continue;
            };
            let (out, width) = (shape.first().copied(), shape.last().copied());
            let (out, width) = (out.unwrap_or(0), width.unwrap_or(0));
            let module = name.strip_suffix(".weight").unwrap_or(&name);
            let rank = self.settings.rank(module);
            if name == EMBEDDING && change.magnitude.is_some() {
                problems.push(
                    "`use_dora` is true and the embedding is a target, which is not supported: merge it with peft (`merge_and_unload()`)"
                        .to_owned(),
                );
            }
            if change.a.is_some() && !(1..=most).contains(&rank) {
                misranked.entry(rank).or_default().push(module.to_owned());
                continue;
            }
            let (a, b) = match name.as_str() {
                EMBEDDING => ([rank, out], [width, rank]),
                _ => ([rank, width], [out, rank]),
            };
            let mut expect = |tensor: &Option<String>, shape: Vec<usize>| {
                expected.extend(tensor.iter().map(|name| TensorSpec {
                    name: name.clone(),
                    shape: shape.clone(),
                }));
            };
            expect(&change.a, a.to_vec());
            expect(&change.b, b.to_vec());
            if name != EMBEDDING {
                expect(&change.magnitude, vec![out]);
            }
            expect(&change.base, shape.clone());
            expect(&change.saved, shape.clone());
        }
        for (rank, modules) in misranked {
            let more = match modules.len() {
                0 | 1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            problems.push(format!(
                "`r` or `rank_pattern` gives `{}`{more} rank {rank}, it must be from 1 to {most}",
                modules.first().map_or("", String::as_str)
            ));
        }
        self.files.check(&expected, problems);
    }

    /// Whether embedding and unembedding differ afterwards, although the base ties them.
    fn unties(&self) -> bool {
        let changed = |weight: &str| {
            self.changes
                .get(weight)
                .is_some_and(|change| change.a.is_some() || change.saved.is_some())
        };
        changed(EMBEDDING) || changed(UNEMBEDDING)
    }

    /// The base's weight as the adapter's file has it, if it has it: of a tied base, that of the other
    /// matrix as well.
    fn base_values(&self, weight: &str, tied: bool) -> Option<Vec<f32>> {
        let of = |weight: &str| -> Option<Vec<f32>> { self.files.values(self.changes.get(weight)?.base.as_ref()?) };
        let other = match weight {
            EMBEDDING if tied => Some(UNEMBEDDING),
            UNEMBEDDING if tied => Some(EMBEDDING),
            _ => None,
        };
        of(weight).or_else(|| of(other?))
    }

    /// Whether the adapter has factors or a whole tensor for a weight.
    pub(crate) fn changes(&self, weight: &str) -> bool {
        self.changes.contains_key(weight)
    }

    /// The merged values of a weight `[out, in]` (or `[D]`); `tied`: whether the base ties its
    /// embedding and unembedding.
    ///
    /// # Errors
    /// A tensor that was there when the adapter was opened cannot be read any more.
    pub(crate) fn merge(
        &self,
        weight: &str,
        shape: &[usize],
        base: impl FnOnce() -> Option<Vec<f32>>,
        tied: bool,
    ) -> Result<Vec<f32>, ModelError> {
        let unreadable = |name: &str| ModelError::Weights {
            place: self.place.display().to_string(),
            problems: Problems(vec![format!("`{name}` could not be read")]),
        };
        let values = |name: &String| self.files.values(name).ok_or_else(|| unreadable(name));
        let none = Change::default();
        let change = self.changes.get(weight).unwrap_or(&none);
        if let Some(saved) = &change.saved {
            return values(saved);
        }
        let mut merged = self
            .base_values(weight, tied)
            .or_else(base)
            .ok_or_else(|| unreadable(weight))?;
        let (Some(a), Some(b)) = (&change.a, &change.b) else {
            return Ok(merged);
        };
        let module = weight.strip_suffix(".weight").unwrap_or(weight);
        let rank = self.settings.rank(module);
        let scale = self.settings.scale(module, rank) as f32;
        let (a, b) = (values(a)?, values(b)?);
        let (out, width) = (shape.first().copied().unwrap_or(0), shape.last().copied().unwrap_or(0));
        let (left, right) = match weight {
            // The embedding's factors are those of its transpose.
            EMBEDDING => (
                arithmetic::transposed(&a, rank, out),
                arithmetic::transposed(&b, width, rank),
            ),
            _ => (b, a),
        };
        arithmetic::add_product(&mut merged, &left, &right, rank, width, scale);
        if let Some(magnitude) = &change.magnitude {
            arithmetic::set_row_norms(&mut merged, &values(magnitude)?, width);
        }
        Ok(merged)
    }

    /// The factors `(A, B)` of every weight that has them, if adapters of `rank` and scale
    /// `alpha / rank` on the linear maps of all layers can express what this adapter does; else the
    /// reason why they cannot.
    pub(crate) fn as_factors(&self, rank: usize, alpha: f64) -> Result<BTreeMap<String, [Vec<f32>; 2]>, String> {
        let mut found = BTreeMap::new();
        for (weight, change) in &self.changes {
            let module = weight.strip_suffix(".weight").unwrap_or(weight);
            let whole = change.saved.is_some() || change.magnitude.is_some();
            if whole || target(weight).is_none() {
                return Err(format!(
                    "changes `{module}` by more than a low-rank product of a layer's linear map"
                ));
            }
            let own = self.settings.rank(module);
            let scale = self.settings.scale(module, own);
            if own != rank || (scale - alpha / rank as f64).abs() > 1e-9 * scale.abs() {
                return Err(format!(
                    "has rank {own} and scale {scale} at `{module}`, `train.lora` rank {rank} and scale {}",
                    alpha / rank as f64
                ));
            }
            let factors = [&change.a, &change.b].map(|name| self.files.values(name.as_deref().unwrap_or_default()));
            let [Some(a), Some(b)] = factors else {
                return Err(format!("has no factors for `{module}`"));
            };
            found.insert(weight.clone(), [a, b]);
        }
        Ok(found)
    }
}

/// The weights that an adapter may change; a tied model's unembedding is a module of its own to peft.
fn weights(config: &LlamaConfig) -> Vec<TensorSpec> {
    let mut specs = config.model_tensors();
    if config.tie_word_embeddings {
        specs.push(TensorSpec {
            name: UNEMBEDDING.to_owned(),
            shape: vec![config.vocab_size, config.hidden_size],
        });
    }
    specs.extend(config.all_head_tensors());
    specs
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    A,
    B,
    Magnitude,
    Base,
    Saved,
}

/// The weight that a tensor of peft's file is for, and what it is of it. peft's own name of the
/// adapter (`.default`) may still be in the name.
fn parse(name: &str) -> Option<(String, Part)> {
    let name = name.strip_prefix(PREFIX)?;
    let endings = [
        (".lora_A.weight", Part::A),
        (".lora_A.default.weight", Part::A),
        (".lora_embedding_A", Part::A),
        (".lora_embedding_A.default", Part::A),
        (".lora_B.weight", Part::B),
        (".lora_B.default.weight", Part::B),
        (".lora_embedding_B", Part::B),
        (".lora_embedding_B.default", Part::B),
        (".lora_magnitude_vector", Part::Magnitude),
        (".lora_magnitude_vector.weight", Part::Magnitude),
        (".lora_magnitude_vector.default.weight", Part::Magnitude),
        (".base_layer.weight", Part::Base),
        (".modules_to_save.default.weight", Part::Saved),
        (".modules_to_save.weight", Part::Saved),
    ];
    let found = endings
        .iter()
        .find_map(|(end, part)| Some((format!("{}.weight", name.strip_suffix(end)?), *part)));
    let whole = || {
        let plain = name.ends_with(".weight") && !name.contains(".lora_") && !name.contains("token_adapter");
        plain.then(|| (name.to_owned(), Part::Saved))
    };
    found.or_else(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_versions_are_understood() {
        let q = "model.layers.0.self_attn.q_proj.weight";
        for (name, weight, part) in [
            ("model.layers.0.self_attn.q_proj.lora_A.weight", q, Part::A),
            ("model.layers.0.self_attn.q_proj.lora_B.default.weight", q, Part::B),
            ("model.embed_tokens.lora_embedding_A", EMBEDDING, Part::A),
            (
                "model.layers.0.self_attn.q_proj.lora_magnitude_vector",
                q,
                Part::Magnitude,
            ),
            ("lm_head.base_layer.weight", UNEMBEDDING, Part::Base),
            ("lm_head.weight", UNEMBEDDING, Part::Saved),
            (
                "model.embed_tokens.modules_to_save.default.weight",
                EMBEDDING,
                Part::Saved,
            ),
        ] {
            assert_eq!(
                parse(&format!("{PREFIX}{name}")),
                Some((weight.to_owned(), part)),
                "{name}"
            );
        }
        for name in [
            "model.layers.0.self_attn.q_proj.lora_B.bias",
            "model.embed_tokens.token_adapter.trainable_tokens_delta",
            "model.layers.0.self_attn.q_proj.ia3_l",
        ] {
            assert_eq!(parse(&format!("{PREFIX}{name}")), None, "{name}");
        }
        assert_eq!(parse("model.norm.weight"), None);
    }
}
