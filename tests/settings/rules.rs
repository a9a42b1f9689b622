//! Values of the right type that are refused.

use super::{Files, problem, variable};
use wmtp::{
    settings::{Settings, Sources},
    track::TrackerKind,
};

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
