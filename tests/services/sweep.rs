//! A sweep at an MLflow server: its arms are nested under its own run.

use crate::{
    common::{json, succeed, wmtp},
    unique,
    world::{kept, mlflow, read_back},
};

#[test]
fn arms_and_their_evaluations_are_filed_under_the_sweep() {
    let home = tempfile::tempdir().unwrap();
    let (uri, experiment) = (mlflow(), unique("sweep"));
    let file = format!(
        "
set:
  {{train.steps: 2, data.seq_len: 128, batching.micro_batch: 1, data.valid_tasks: [511, 520],
   tracking.kinds: [mlflow], tracking.mlflow.uri: '{uri}', tracking.experiment: {experiment}, tracking.interval_seconds: 0.05}}
grid: {{optim.lr: [1.0e-4, 1.0e-3]}}
seeds: [1, 2]
parallel: 2
"
    );
    std::fs::write(home.path().join("sweep.nested.yaml"), file).unwrap();
    let table = json(&succeed(wmtp(home.path()).args([
        "sweep",
        "sweep.nested.yaml",
        "--json",
    ])));

    let dir = home.path().join("runs/nested");
    let ledger = kept(&dir, "mlflow");
    let parent = read_back("run", &uri, ledger["kept"]["run_id"].as_str().unwrap());
    assert_eq!(parent["name"], "nested");
    assert_eq!(parent["status"], "FINISHED");
    assert_eq!(parent["experiment"], experiment.as_str());
    let mut children: Vec<&str> = parent["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c.as_str().unwrap())
        .collect();
    let mut arms: Vec<&str> = table["arms"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arm| arm["run_name"].as_str().unwrap())
        .collect();
    children.sort_unstable();
    arms.sort_unstable();
    assert_eq!(children, arms);
    for name in ["sweep/sweep.md", "sweep/sweep.html", "sweep/sweep.json"] {
        assert!(
            parent["artifacts"].get(name).is_some(),
            "{name}: {}",
            parent["artifacts"]
        );
    }
    let finished = &parent["metrics"]["arms_finished"];
    assert_eq!(
        finished[0][2].as_str().unwrap().parse::<f64>().unwrap(),
        4.0,
        "{finished}"
    );
}
