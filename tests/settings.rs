//! What a user may write into settings, and what comes out.

use proptest::prelude::*;
use std::path::PathBuf;
use wmtp::{
    scorer::{
        CriticConfig, CriticLoss, InitialValue, Reward, Rho1Config, Rho1Mode, Rho1Score, ScorerConfig, ScoringTime,
        Spread, ValueUse,
    },
    settings::{
        Config, Pipeline, RESERVED_VARIABLES, Recipe, Settings, Sources, config_schema, for_editors,
        has_random_weights, recipe_schema,
    },
    sweep::sweep_schema,
    track::TrackerKind,
    train::{LoraConfig, WeightBy},
};

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn variable(name: &str, value: &str) -> [(String, String); 1] {
    [(name.to_owned(), value.to_owned())]
}

fn problem(sources: Sources) -> String {
    match sources.load() {
        Ok(settings) => panic!("this should have been refused: {settings:?}"),
        Err(e) => e.to_string(),
    }
}

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
fn errors_say_key_place_and_remedy() {
    let files = Files::new();
    let cases: &[(&str, &[&str])] = &[
        (
            "optim:\n\n  lrate: 1\n",
            &["unknown key `optim.lrate`", "r.yaml line 3", "did you mean `optim.lr`?"],
        ),
        (
            "optimm:\n  lr: 1\n",
            &["unknown key `optimm`", "line 1", "did you mean `optim`?"],
        ),
        (
            "n_heads: 2\n",
            &["unknown key `n_heads`", "did you mean `model.mtp.n_heads`?"],
        ),
        (
            "scorer:\n  kind: rho1\n  topp: 0.1\n",
            &["unknown key `scorer.topp`", "line 3", "`scorer.top_p`?"],
        ),
        (
            "scorer:\n  kind: critik\n",
            &["`scorer.kind`", "line 2", "`critic`", "did you mean `critic`?"],
        ),
        ("scorer: critic\n", &["`scorer`", "{kind: critic}"]),
        (
            "optim:\n  lr: fast\n",
            &["`optim.lr`", "line 2", "must be a finite number", "the text \"fast\""],
        ),
        ("optim:\n  lr: .inf\n", &["`optim.lr`", "must be a finite number"]),
        ("optim: 3\n", &["`optim`", "must be a map", "the number 3"]),
        ("data:\n  pack: 1\n", &["`data.pack`", "true or false"]),
        ("data:\n  seq_len: 1.5\n", &["`data.seq_len`", "whole number", "1.5"]),
        ("data:\n  seq_len: -1\n", &["`data.seq_len`", "0 or more", "-1"]),
        ("data:\n  train_tasks: [601]\n", &["`data.train_tasks`", "a list of 2"]),
        (
            "data:\n  train_tasks: [601, 5000000000]\n",
            &["`data.train_tasks`", "4294967295 or less"],
        ),
        (
            "run:\n  tags: [a, 1]\n",
            &["`run.tags`", "must be a text", "the number 1"],
        ),
        ("model:\n  base: null\n", &["`model.base`", "must be a text", "null"]),
        (
            "loss:\n  weight_by: both\n",
            &["`loss.weight_by`", "`position` or `target`"],
        ),
        ("a: 1\nb: [1,\n", &["r.yaml line", "not valid YAML"]),
        ("- a\n", &["not valid YAML", "found a list of 1"]),
        ("optim:\n  lr: 1\noptim:\n  lr: 2\n", &["line 3", "duplicate"]),
        ("seed: 3\n", &["`seed`", "line 1", "--config"]),
    ];
    for (text, fragments) in cases {
        let path = files.write("r.yaml", text);
        let message = problem(Sources::new(None).recipe(path));
        for fragment in *fragments {
            assert!(
                message.contains(fragment),
                "{text:?} gave {message:?}, without {fragment:?}"
            );
        }
        assert!(!message.contains('\n'), "one sentence: {message:?}");
    }
    let config = files.write("c.yaml", "project: a\noptim: {lr: 1}\n");
    let message = problem(Sources::new(None).config(config));
    assert!(
        message.contains("c.yaml line 2") && message.contains("--recipe"),
        "{message}"
    );
}

#[test]
fn variables_and_set_are_named_in_errors() {
    let message = problem(Sources::new(None).variables(variable("WMTP_OPTIM__LRR", "1")));
    assert_eq!(
        message,
        "unknown key `optim.lrr` in the environment variable WMTP_OPTIM__LRR, did you mean `optim.lr`?"
    );
    let message = problem(Sources::new(None).set("optim.lr=-1"));
    assert_eq!(message, "`optim.lr` must be above 0 (set in --set optim.lr=-1)");
    for bad in ["optim.lr", "=1", "a..b=1", ".=1", "optim lr=1"] {
        assert!(problem(Sources::new(None).set(bad)).contains("key.path=value"), "{bad}");
    }
    for name in RESERVED_VARIABLES {
        let sources = Sources::new(None).variables(variable(name, "x"));
        assert!(sources.load().is_ok(), "{name} is reserved");
    }
    assert!(
        Sources::new(None).variables(variable("OTHER__X", "1")).load().is_ok(),
        "not ours"
    );
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let cases = [
        ("optim.lr", "0"),
        ("optim.beta1", "1"),
        ("optim.beta2", "0"),
        ("optim.eps", "0"),
        ("optim.weight_decay", "-0.1"),
        ("optim.clip_norm", "-1"),
        ("optim.warmup", "1.5"),
        ("optim.min_lr_ratio", "2"),
        ("weights.eps", "1"),
        ("weights.w_max", "1"),
        ("weights.temperature", "0"),
        ("weights.max_fallback_share", "1.1"),
        ("loss.lambda", "1.01"),
        ("model.mtp.n_heads", "0"),
        ("model.base", "''"),
        ("data.seq_len", "7"),
        ("data.train_tasks", "[974, 601]"),
        ("data.train_tasks", "[500, 974]"),
        ("data.train_tasks", "[1, 11]"),
        ("data.valid_tasks", "[510, 600]"),
        ("data.valid_tasks", "[511, 601]"),
        ("batching.micro_batch", "0"),
        ("batching.accumulate", "0"),
        ("batching.tokens_per_step", "1000"),
        ("train.epochs", "0"),
        ("train.steps", "0"),
        ("train.lora.rank", "0"),
        ("train.lora.alpha", "-1"),
        ("train.early_stopping.min_delta", "-1"),
        ("fallback.patience", "0"),
        ("eval.samples", "0"),
        ("eval.k", "[1, 10]"),
        ("eval.k", "[]"),
        ("eval.temperature", "-1"),
        ("eval.top_p", "0"),
        ("eval.tasks", "[20, 11]"),
        ("eval.max_new_tokens", "0"),
        ("eval.batch", "0"),
        ("eval.precision", "f16"),
        ("eval.timeout_seconds", "0"),
        ("run.name", "a/b"),
        ("project", "''"),
        ("paths.cache", "''"),
        ("storage.timeout_seconds", "0"),
        ("storage.parallel", "0"),
        ("storage.s3.endpoint", "localhost:8333"),
        ("storage.s3.endpoint", "https://key:secret@host"),
        ("storage.runs", "runs/here"),
        ("storage.cache.max_size", "many"),
        ("devices.backend", "gpu"),
    ];
    for (key, value) in cases {
        let message = problem(Sources::new(None).set(format!("{key}={value}")));
        assert!(message.contains(&format!("`{key}`")), "{key}={value} gave {message}");
        assert!(message.contains("--set") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn settings_that_need_each_other_are_checked_together() {
    let set = |texts: &[&str]| texts.iter().fold(Sources::new(None), |s, text| s.set(*text));
    let needs_reference = problem(set(&["scorer.kind=rho1"]));
    assert!(needs_reference.contains("`model.reference`"), "{needs_reference}");
    assert!(
        !needs_reference.contains("defaults"),
        "nobody set it, so no place is named: {needs_reference}"
    );
    assert!(set(&["scorer.kind=rho1", "model.reference=x"]).load().is_ok());
    let select = [
        "scorer.kind=rho1",
        "model.reference=x",
        "scorer.mode=select",
        "scorer.score=abs_excess",
    ];
    assert!(problem(set(&select)).contains("`scorer.score`"));
    assert!(set(&select[..3]).load().is_ok());
    for (setting, ok) in [
        ("top_p=0", false),
        ("top_p=1", true),
        ("emphasis=1", false),
        ("emphasis=1.1", true),
    ] {
        let sources = set(&["scorer.kind=rho1", "model.reference=x", &format!("scorer.{setting}")]);
        assert_eq!(sources.load().is_ok(), ok, "{setting}");
    }
    let reward = problem(set(&["scorer.kind=critic", "scorer.reward=reward_model"]));
    assert!(reward.contains("`model.reward`"), "{reward}");
    for (setting, ok) in [
        ("gamma=1.1", false),
        ("gamma=0", true),
        ("lambda_gae=-0.1", false),
        ("lr=0", false),
    ] {
        let sources = set(&["scorer.kind=critic", &format!("scorer.{setting}")]);
        assert_eq!(sources.load().is_ok(), ok, "{setting}");
    }
    assert!(problem(set(&["batching.tokens_per_step=2048", "batching.accumulate=2"])).contains("twice"));
    assert!(set(&["batching.tokens_per_step=2048"]).load().is_ok());
    assert!(problem(set(&["eval.samples=2", "eval.temperature=0"])).contains("`eval.samples`"));
    let long_words = [
        "data.train_tasks=[11, 20]",
        "data.i_know_this_trains_on_evaluation_data=true",
    ];
    assert!(set(&long_words).load().is_ok());
}

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
fn tracking_is_off_and_its_values_are_checked() {
    let settings = Sources::new(None).load().unwrap();
    assert!(!settings.config.tracking.is_on());
    let settings = Sources::new(None)
        .set("tracking={kinds: [mlflow], mlflow: {uri: http://host:5000, batch: 100}}")
        .load()
        .unwrap();
    assert_eq!(settings.config.tracking.kinds, [TrackerKind::Mlflow]);
    for (bad, says) in [
        (
            "tracking.mlflow.batch=1001",
            "`tracking.mlflow.batch` must be between 1 and 1000",
        ),
        ("tracking.kinds=[wandb]", "tracking.kinds"),
        (
            "tracking.wait_seconds=-1",
            "`tracking.wait_seconds` must be between 0 and 86400",
        ),
        ("tracking.parent_run=''", "`tracking.parent_run` must not be empty"),
    ] {
        let said = problem(Sources::new(None).set(bad));
        assert!(said.contains(says), "{bad}: {said}");
    }
}

#[test]
fn the_removed_file_tracker_is_named_with_its_place_and_what_to_do() {
    let files = Files::new();
    let named = files.write(
        "named.yaml",
        "tracking:\n  kinds: [mlflow, files]\n  files: {dir: mlruns}\n",
    );
    let said = problem(Sources::new(None).config(&named));
    assert_eq!(
        said,
        format!(
            "`tracking.kinds` names `files` (MLflow's file layout), which was removed: write [mlflow], or [] and send the run later with `wmtp track sync` (set in {} line 2)",
            named.display()
        )
    );
    let settings = Sources::new(None).config(&named).set("tracking.kinds=[mlflow]");
    assert_eq!(settings.load().unwrap().config.tracking.kinds, [TrackerKind::Mlflow]);
    // What every run directory has that was made while there was such a tracker.
    let resolved = files.write("resolved.yaml", "tracking:\n  kinds: []\n  files:\n    dir: mlruns\n");
    assert_eq!(Sources::new(None).config(resolved).load().unwrap(), Settings::default());
    let said = problem(Sources::new(None).set("tracking.files.dir=x"));
    assert!(said.contains("unknown key `tracking.files`"), "{said}");
}

#[test]
fn an_address_with_a_password_is_refused_without_showing_it() {
    let files = Files::new();
    let file = files.write("c.yaml", "tracking:\n  mlflow:\n    uri: http://me:hunter2@host\n");
    let in_file = Sources::new(None).config(file);
    let set = Sources::new(None).set("tracking.mlflow.uri=http://me:hunter2@host");
    let in_recipe = Sources::new(None).set("data.source=s3://me:hunter2@bucket/key");
    let in_variable = Sources::new(None).variables(variable("WMTP_MODEL__BASE", "http://me:hunter2@host"));
    for (sources, key) in [
        (in_file, "tracking.mlflow.uri"),
        (set, "tracking.mlflow.uri"),
        (in_recipe, "data.source"),
        (in_variable, "model.base"),
        (Sources::new(None).set("seed=http://me:hunter2@host"), "seed"),
        (Sources::new(None).set("http://me:hunter2@host"), "--set"),
    ] {
        let said = problem(sources);
        assert!(said.contains(key) && !said.contains("hunter2"), "{said}");
    }
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

fn number(from: f64, to: f64) -> impl Strategy<Value = f64> {
    prop_oneof![
        (0.0..1.0f64).prop_map(move |u| from + u * (to - from)),
        (-12.0..0.0f64).prop_map(move |e| from + 10f64.powf(e) * (to - from)),
    ]
}

fn scorer() -> impl Strategy<Value = ScorerConfig> {
    let rho1 = (
        prop_oneof![Just(None), Just(Some(Rho1Score::Excess))],
        any::<bool>(),
        number(0.01, 1.0),
        number(1.01, 9.0),
        any::<bool>(),
    )
        .prop_map(|(score, select, top_p, emphasis, offline)| {
            ScorerConfig::Rho1(Rho1Config {
                score,
                mode: if select { Rho1Mode::Select } else { Rho1Mode::Weighted },
                top_p,
                emphasis,
                when: if offline {
                    ScoringTime::Offline
                } else {
                    ScoringTime::Online
                },
            })
        });
    let critic = (
        prop_oneof![Just(Reward::Verified), Just(Reward::Pseudo), Just(Reward::RewardModel)],
        prop_oneof![
            Just(Spread::Terminal),
            Just(Spread::Uniform),
            Just(Spread::Length),
            Just(Spread::Gae)
        ],
        (number(0.0, 1.0), number(0.0, 1.0), number(1e-9, 1.0), number(0.0, 5.0)),
        prop_oneof![
            Just(CriticLoss::Mse),
            Just(CriticLoss::Huber),
            Just(CriticLoss::Pairwise)
        ],
        (any::<bool>(), any::<bool>()),
        (1usize..9, 0usize..99, 1usize..99),
        proptest::option::of("[ -~]{1,20}x"),
    )
        .prop_map(
            |(reward, spread, (gamma, lambda_gae, lr, value_weight), loss, (zero, joint), n, value_head)| {
                ScorerConfig::Critic(CriticConfig {
                    // Pairs are of right and wrong solutions, whatever else says how good they are.
                    reward: if loss == CriticLoss::Pairwise {
                        Reward::Verified
                    } else {
                        reward
                    },
                    spread,
                    gamma,
                    lambda_gae,
                    loss,
                    initial_value: if zero { InitialValue::Zero } else { InitialValue::Prompt },
                    value: if joint { ValueUse::Joint } else { ValueUse::Frozen },
                    epochs: n.0,
                    max_steps: n.1,
                    patience: n.1 / 9,
                    batch: n.2,
                    lr,
                    value_weight,
                    value_head,
                })
            },
        );
    prop_oneof![Just(ScorerConfig::default()), rho1, critic]
}

fn recipe() -> impl Strategy<Value = Recipe> {
    // Names with quotes, colons, hashes and other characters that mean something in YAML.
    let text = || "[ -~äß→]{0,30}x";
    (
        scorer(),
        (text(), text(), text(), proptest::collection::vec(text(), 0..4)),
        (
            number(1e-9, 1.0),
            number(1e-6, 0.999),
            number(1e-12, 1e-3),
            number(0.0, 1.0),
        ),
        (number(1e-3, 1e6), number(1e-6, 0.99), number(1.001, 1e9)),
        (
            1usize..65,
            8usize..100_000,
            any::<bool>(),
            proptest::option::of(1usize..1000),
        ),
        (proptest::option::of((1usize..512, number(1e-3, 1e3))), any::<bool>()),
    )
        .prop_map(|(scorer, texts, optim, weights, sizes, (lora, by_target))| {
            let mut recipe = Recipe {
                scorer,
                ..Recipe::default()
            };
            recipe.model.base = texts.0;
            recipe.model.reference = Some(texts.1);
            recipe.model.reward = Some(texts.2);
            // A tag has a name: nothing but `=` and blanks would be refused.
            recipe.run.tags = texts.3.into_iter().map(|tag| format!("t{tag}")).collect();
            (
                recipe.optim.lr,
                recipe.optim.beta1,
                recipe.optim.eps,
                recipe.optim.warmup,
            ) = optim;
            (recipe.weights.temperature, recipe.weights.eps, recipe.weights.w_max) = weights;
            (
                recipe.model.mtp.n_heads,
                recipe.data.seq_len,
                recipe.data.pack,
                recipe.train.steps,
            ) = sizes;
            recipe.train.lora = lora.map(|(rank, alpha)| LoraConfig { rank, alpha });
            if by_target {
                recipe.loss.weight_by = WeightBy::Target;
            }
            recipe
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_resolved_recipe_read_back_is_the_same(recipe in recipe()) {
        let files = Files::new();
        let path = files.write("recipe.yaml", &recipe.to_yaml());
        // On top of another pipeline's recipe, too: everything is written out, nothing shines through.
        for pipeline in [None, Some(Pipeline::Critic)] {
            let again = Sources::new(pipeline).recipe(&path).load().map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(&again.recipe, &recipe);
        }
    }

    #[test]
    fn a_resolved_config_read_back_is_the_same(seed in 0..i64::MAX as u64, project in "[ -~ä]{0,20}x", cache in "[ -~]{1,20}") {
        let mut config = Config { seed, project, ..Config::default() };
        config.paths.cache = cache.into();
        let files = Files::new();
        let path = files.write("config.yaml", &config.to_yaml());
        let again = Sources::new(None).config(&path).load().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(again.config, config);
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
