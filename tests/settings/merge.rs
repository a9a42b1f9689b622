//! Which source wins, and what stays of the others.

use super::{Files, problem, variable};
use std::path::PathBuf;
use wmtp::{
    scorer::{CriticConfig, Rho1Config, ScorerConfig},
    settings::Sources,
    train::{HeadOrder, LoraConfig},
};

#[test]
fn later_sources_win() {
    let files = Files::new();
    let first = files.write(
        "first.yaml",
        "optim:\n  lr: 1e-3\n  beta1: 0.8\n  beta2: 0.9\n  eps: 1e-7\n",
    );
    let second = files.write("second.yaml", "optim:\n  beta1: 0.7\n  beta2: 0.91\n  eps: 1e-6\n");
    let settings = Sources::new(None)
        .recipe(first)
        .recipe(second)
        .variables(variable("WMTP_OPTIM__BETA2", "0.92"))
        .set("optim.eps=2e-6")
        .flag("--max-steps", "train.steps", Some(7))
        .load()
        .unwrap();
    let optim = &settings.recipe.optim;
    assert_eq!(optim.lr, 1e-3, "only the first file says it");
    assert_eq!(optim.beta1, 0.7, "the second file wins over the first");
    assert_eq!(optim.beta2, 0.92, "a variable wins over files");
    assert_eq!(optim.eps, 2e-6, "--set wins over files");
    assert_eq!(optim.weight_decay, 0.1, "a default stays");
    assert_eq!(settings.recipe.train.steps, Some(7));

    let both = Sources::new(None)
        .variables(variable("WMTP_OPTIM__LR", "1e-5"))
        .set("optim.lr=2e-5")
        .set("optim.lr=3e-5");
    assert_eq!(
        both.load().unwrap().recipe.optim.lr,
        3e-5,
        "--set wins over variables, the last one over all"
    );
}

#[test]
fn config_and_recipe_share_one_namespace() {
    let files = Files::new();
    let config = files.write("c.yaml", "seed: 7\npaths: {runs: /tmp/x}\n");
    let settings = Sources::new(None)
        .config(config)
        .set("project=other")
        .set("data.train_tasks=[601, 610]")
        .variables(variable("WMTP_DEVICES__BACKEND", "flex"))
        .load()
        .unwrap();
    assert_eq!((settings.config.seed, settings.config.project.as_str()), (7, "other"));
    assert_eq!(settings.config.devices.backend, "flex");
    assert_eq!(settings.config.paths.runs, PathBuf::from("/tmp/x"));
    assert_eq!(settings.recipe.data.train_tasks, (601, 610));
}

#[test]
fn null_takes_an_optional_value_away() {
    let files = Files::new();
    let recipe = files.write("r.yaml", "train: {steps: 5, lora: {rank: 4}}\nrun: {name: a}\n");
    let settings = Sources::new(None)
        .recipe(recipe)
        .set("train.steps=null")
        .set("train.lora=~")
        .load()
        .unwrap();
    assert_eq!(
        (settings.recipe.train.steps, &settings.recipe.train.lora),
        (None, &None)
    );
    assert_eq!(settings.recipe.run.name.as_deref(), Some("a"));
}

#[test]
fn an_optional_section_appears_with_its_defaults() {
    let settings = Sources::new(None).set("train.lora.rank=8").load().unwrap();
    assert_eq!(
        settings.recipe.train.lora,
        Some(LoraConfig {
            rank: 8,
            ..LoraConfig::default()
        })
    );
}

#[test]
fn another_kind_drops_the_settings_of_the_kind_below() {
    let files = Files::new();
    let critic = files.write("critic.yaml", "scorer:\n  kind: critic\n  gamma: 0.9\n  epochs: 3\n");
    let rho1 = Sources::new(None)
        .recipe(&critic)
        .set("scorer.kind=rho1")
        .set("scorer.top_p=0.3")
        .set("model.reference=ref")
        .load()
        .unwrap();
    assert_eq!(
        rho1.recipe.scorer,
        ScorerConfig::Rho1(Rho1Config {
            top_p: 0.3,
            ..Rho1Config::default()
        })
    );

    let same = Sources::new(None)
        .recipe(&critic)
        .set("scorer.gamma=0.5")
        .load()
        .unwrap();
    let expected = CriticConfig {
        gamma: 0.5,
        epochs: 3,
        ..CriticConfig::default()
    };
    assert_eq!(
        same.recipe.scorer,
        ScorerConfig::Critic(expected),
        "the same kind keeps the rest"
    );

    let back = Sources::new(None)
        .recipe(&critic)
        .set("scorer.kind=uniform")
        .set("scorer.kind=critic")
        .load()
        .unwrap();
    assert_eq!(
        back.recipe.scorer,
        ScorerConfig::Critic(CriticConfig::default()),
        "what is gone stays gone"
    );

    let refused = problem(
        Sources::new(None)
            .recipe(&critic)
            .set("scorer.kind=rho1")
            .set("scorer.gamma=1"),
    );
    assert!(
        refused.contains("scorer.gamma") && refused.contains("kind `rho1`"),
        "{refused}"
    );
}

#[test]
fn shuffled_holds_another_scorer() {
    let settings = Sources::new(None)
        .set("scorer={kind: shuffled, of: {kind: critic, gamma: 0.5}}")
        .set("scorer.of.epochs=2")
        .load()
        .unwrap();
    let ScorerConfig::Shuffled(shuffled) = settings.recipe.scorer else {
        panic!("not shuffled")
    };
    let expected = CriticConfig {
        gamma: 0.5,
        epochs: 2,
        ..CriticConfig::default()
    };
    assert_eq!(*shuffled.of, ScorerConfig::Critic(expected));
    let twice = "scorer={kind: shuffled, of: {kind: shuffled, of: {kind: uniform}}}";
    assert!(problem(Sources::new(None).set(twice)).contains("`scorer.of`"));
}

#[test]
fn a_renamed_value_is_read_by_its_old_name() {
    for name in ["sequential", "in-turn"] {
        let settings = Sources::new(None).set(format!("train.heads={name}")).load().unwrap();
        assert_eq!(settings.recipe.train.heads, HeadOrder::Sequential);
        assert!(settings.recipe.to_yaml().contains("heads: sequential"));
    }
    let said = problem(Sources::new(None).set("train.heads=in-parallel"));
    assert!(said.contains("`together` or `sequential`"), "{said}");
}
