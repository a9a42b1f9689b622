//! Defaults, the files in `configs`, and their schemas.

use super::variable;
use std::path::PathBuf;
use wmtp::{
    scorer::ScorerConfig,
    settings::{
        Config, Pipeline, Recipe, Settings, Sources, config_schema, for_editors, has_random_weights, recipe_schema,
    },
    sweep::sweep_schema,
    validate::Validate,
};

#[test]
fn every_shipped_file_loads() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // The schemas, for editors.
        if path.is_dir() && name == "schema" {
            continue;
        }
        let sources = Sources::new(None).set("model.reference=somewhere");
        let sources = match name.split('.').next() {
            Some("config") => sources.config(&path),
            Some("recipe") => sources.recipe(&path),
            // Every arm of theirs is checked by `tests/sweep.rs`.
            Some("sweep") => continue,
            _ => panic!("{name} is no config.*.yaml, recipe.*.yaml or sweep.*.yaml"),
        };
        if let Err(e) = sources.load() {
            panic!("{name}: {e}");
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn built_in_recipes_choose_their_scorer() {
    for (pipeline, sources) in [
        (Pipeline::Critic, Sources::new(Some(Pipeline::Critic))),
        (Pipeline::Baseline, Sources::new(Some(Pipeline::Baseline))),
        (
            Pipeline::Rho1,
            Sources::new(Some(Pipeline::Rho1)).set("model.reference=x"),
        ),
    ] {
        let scorer = sources.load().unwrap().recipe.scorer;
        let fits = match pipeline {
            Pipeline::Critic => matches!(scorer, ScorerConfig::Critic(_)),
            Pipeline::Rho1 => matches!(scorer, ScorerConfig::Rho1(_)),
            Pipeline::Baseline => matches!(scorer, ScorerConfig::Uniform(_)),
        };
        assert!(fits, "{pipeline:?}: {scorer:?}");
    }
}

#[test]
fn a_model_with_random_weights_gets_settings_of_its_own() {
    let lr = |sources: Sources| sources.load().unwrap().recipe.optim.lr;
    let critic = || Sources::new(Some(Pipeline::Critic));
    assert_eq!(lr(critic()), 3e-3, "the built-in model is the default");
    assert_eq!(
        lr(critic().set("model.base=some/directory")),
        1e-4,
        "a loaded model is fine-tuned"
    );
    assert_eq!(
        lr(critic().flag_text("--model", "model.base", Some("some/directory"))),
        1e-4
    );
    assert_eq!(
        lr(critic()
            .set("model.base=x")
            .flag_text("--model", "model.base", Some("builtin:micro"))),
        3e-3
    );
    assert_eq!(lr(critic().set("optim.lr=2e-5")), 2e-5, "what is set wins");
    assert_eq!(lr(critic().variables(variable("WMTP_OPTIM__LR", "3e-5"))), 3e-5);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.yaml");
    std::fs::write(&file, "optim: {lr: 4e-5}\n").unwrap();
    assert_eq!(lr(critic().recipe(&file)), 4e-5, "a file's setting, too");
    assert!(has_random_weights("builtin:micro") && !has_random_weights("hf://builtin/micro"));
}

#[test]
fn defaults_are_usable_and_described() {
    assert_eq!(Config::default().validate(), []);
    assert_eq!(Recipe::default().validate(), []);
    assert_eq!(Sources::new(None).load().unwrap(), Settings::default());
    for (schema, section) in [(recipe_schema(), "optim"), (config_schema(), "paths")] {
        assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
        assert!(schema["properties"][section]["description"].is_string());
        assert_eq!(schema["additionalProperties"], false);
    }
}

/// Editors read these files (`# yaml-language-server: $schema=...` in `configs/*.yaml`).
#[test]
fn the_schemas_in_configs_are_the_programs() {
    for (name, schema) in [
        ("config", config_schema()),
        ("recipe", recipe_schema()),
        ("sweep", sweep_schema()),
    ] {
        let path = format!("{}/configs/schema/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let kept = std::fs::read_to_string(&path).unwrap();
        let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
        assert!(kept == for_editors(schema, name), "{path} is old: run `just schemas`");
    }
}
