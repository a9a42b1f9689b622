//! What a run of the library reports to its `Progress`: all that the command line shows, in order.

use std::{
    io,
    sync::{Arc, Mutex},
};
use wmtp::{
    pipeline::Experiment,
    settings::{Pipeline, Sources},
    stop::Stop,
    train::{Progress, TrainStepDone},
};

/// Keeps what it hears.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<String>>>);

impl Collected {
    fn push(&self, text: String) {
        self.0.lock().expect("no test panics here").push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("no test panics here"))
    }
}

impl Progress for Collected {
    fn message(&self, text: &str) {
        self.push(text.to_owned());
    }

    fn open(&self, run: &str, what: &str, _stop: &Stop) -> io::Result<()> {
        self.push(format!("open {run}: {what}"));
        Ok(())
    }

    fn step(&self, at: &TrainStepDone<'_>) {
        self.push(format!("step {}/{}", at.step, at.total));
    }

    fn close(&self) {
        self.push("close".into());
    }
}

#[test]
fn a_run_reports_its_start_its_steps_its_warnings_and_its_end() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let experiment = |steps: usize, resume| {
        let settings = Sources::new(Some(Pipeline::Baseline))
            .set("data.train_tasks=[602,631]")
            .set("data.valid_tasks=[511,515]")
            .set("data.seq_len=256")
            .set("model.mtp.n_heads=2")
            .set("train.record.documents=0")
            .set("train.checkpoint.every=1")
            .set(format!("train.steps={steps}"))
            .set(format!("paths.runs={}", home.path().join("runs").display()))
            .set(format!("paths.cache={}", home.path().join("cache").display()))
            .load()
            .expect("settings");
        let heard = Collected::default();
        let run = Experiment::from(settings)
            .run_name("heard")
            .resume(resume)
            .progress(heard.clone())
            .run();
        (run, heard.take())
    };
    let (run, heard) = experiment(2, None);
    let dir = run.expect("trains").run_dir;
    assert!(heard[0].starts_with("baseline of builtin:micro ("), "{heard:?}");
    let shown: Vec<&String> = heard
        .iter()
        .filter(|text| ["open", "step ", "close"].iter().any(|start| text.starts_with(start)))
        .filter(|text| !text.contains("validation"))
        .collect();
    assert_eq!(
        shown,
        [
            "open heard: baseline of builtin:micro on flex",
            "step 1/2",
            "step 2/2",
            "close"
        ]
    );

    // A damaged checkpoint is passed over with a warning.
    let weights = dir.join("checkpoints/last/model.safetensors");
    std::fs::write(&weights, b"damaged").expect("a file to damage");
    let (run, heard) = experiment(3, Some(dir));
    run.expect("resumes at the checkpoint before");
    let warnings: Vec<&String> = heard.iter().filter(|text| text.starts_with("warning: ")).collect();
    assert!(
        warnings.iter().any(|text| text.contains("checkpoints/last")),
        "{heard:?}"
    );
}
