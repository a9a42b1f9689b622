//! The YAML before a model card, by which the model hub files a model: licence, base, data, tags.
//!
//! Its keys are described at <https://huggingface.co/docs/hub/model-cards>. The hub refuses a commit whose
//! header names a licence that it does not know, so that any other is `other`, with its words in the card.

use super::card::ModelCard;
use serde_json::Value;

/// Licences that the hub knows by these names (<https://huggingface.co/docs/hub/repositories-licenses>).
const LICENCES: &[&str] = &[
    "apache-2.0",
    "bigcode-openrail-m",
    "bigscience-openrail-m",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "gemma",
    "gpl-3.0",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "mit",
    "openrail",
];

impl ModelCard<'_> {
    /// The header of this card; `is_adapter`: its model is a LoRA adapter.
    pub fn hub_header(&self, is_adapter: bool) -> String {
        let mut lines = vec!["---".to_owned()];
        if let Some(licence) = self.licence() {
            let id = licence.to_lowercase();
            let known = LICENCES.iter().find(|known| **known == id).copied();
            lines.push(format!("license: {}", known.unwrap_or("other")));
        }
        lines.push(format!(
            "library_name: {}",
            if is_adapter { "peft" } else { "transformers" }
        ));
        lines.push("pipeline_tag: text-generation".into());
        if let Some(base) = self.run.model.as_deref().and_then(repository) {
            lines.push(format!("base_model: {}", Value::from(base)));
            let relation = if is_adapter { "adapter" } else { "finetune" };
            lines.push(format!("base_model_relation: {relation}"));
        }
        if let Some(data) = self.run.data.as_deref().and_then(repository) {
            lines.push(format!("datasets:\n- {}", Value::from(data)));
        }
        lines.push("tags:\n- code\n- multi-token-prediction\n- wmtp\n---\n\n".into());
        lines.join("\n")
    }
}

/// `OWNER/NAME` of `hf://OWNER/NAME[@REVISION]`.
fn repository(uri: &str) -> Option<&str> {
    let name = uri.strip_prefix("hf://")?;
    Some(name.split_once('@').map_or(name, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use crate::{report::card::CardFields, report::card::ModelCard, run::RunRecord};
    use serde_json::{Value, json};

    fn header(run: &Value, licence: Option<&str>, is_adapter: bool) -> String {
        let run: RunRecord = serde_json::from_value(run.clone()).unwrap();
        ModelCard {
            name: "m",
            checkpoint: "best",
            sha256: "w",
            run: &run,
            trainer: &serde_json::from_value(json!({"step": 7})).unwrap(),
            manifest: &serde_json::from_value(json!({"format": 1, "step": 7, "files": {}})).unwrap(),
            recipe: "",
            evaluations: &[],
            fields: &CardFields {
                licence: licence.map(str::to_owned),
                ..CardFields::default()
            },
        }
        .hub_header(is_adapter)
    }

    #[test]
    fn the_hub_is_told_licence_base_and_data() {
        let run = json!({"model": "hf://owner/base@v1", "data": "hf://owner/data"});
        assert_eq!(
            header(&run, Some("Apache-2.0"), false),
            "---\nlicense: apache-2.0\nlibrary_name: transformers\npipeline_tag: text-generation\n\
             base_model: \"owner/base\"\nbase_model_relation: finetune\ndatasets:\n- \"owner/data\"\n\
             tags:\n- code\n- multi-token-prediction\n- wmtp\n---\n\n"
        );
        let adapter = header(&run, Some("ours, see below"), true);
        assert!(adapter.contains("license: other\nlibrary_name: peft\n"), "{adapter}");
        assert!(adapter.contains("base_model_relation: adapter\n"), "{adapter}");
        // Paths of this machine are nothing that the hub knows.
        let local = header(&json!({"model": "/home/me/model", "data": "rows.jsonl"}), None, false);
        assert!(!local.contains("license") && !local.contains("base_model") && !local.contains("datasets"));
    }
}
