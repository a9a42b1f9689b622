//! Where the answers come from: which model or file, and what resuming a run takes.

use crate::{
    cli::{
        Failure, Model, ModelSource, Output,
        base::{find_dir, open_model},
        common::{generation_dtype, open_device, prepared_weights, resolve_model},
    },
    data::{PromptStyle, Tokenizer},
    eval::{Benchmark, EvalError, EvalRequest, Predictions},
    pipeline::{ModelDir, ModelGenerator, weights_hash},
    run::{RunDir, RunRecord, file, find, newest},
    settings::{MOST_SAMPLES, Settings},
};
use std::path::{Path, PathBuf};
use wmtp_model::Sampling;

/// Stands for the number of samples until a file of predictions has been read.
pub(super) const UNKNOWN_SAMPLES: usize = MOST_SAMPLES;

/// What was asked for, now or when the run began.
pub(super) enum Asked {
    Model(String),
    Predictions(PathBuf),
    NewestCheckpoint,
}

/// What gives the answers.
pub(super) enum Answers {
    Model(Box<ModelGenerator>),
    File(Predictions),
}

impl Answers {
    pub fn name(&self) -> String {
        match self {
            Self::Model(_) => "the model".into(),
            Self::File(_) => "the file".into(),
        }
    }
}

/// The run that `--resume` names; None starts a new one.
pub(super) fn run_to_resume(resume: Option<&str>, runs: &Path, benchmark: &str) -> Result<Option<PathBuf>, Failure> {
    match resume {
        None => Ok(None),
        Some("auto") => Ok(newest(runs, |run| {
            let ours = RunRecord::read(run).is_some_and(|record| record.is_of(&format!("eval-{benchmark}")));
            ours && !run.join(file::TIMING).exists()
        })),
        Some(name) => find(runs, name)
            .map(Some)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--resume {name}: there is no such run in {}; give the name of a directory there that holds run.json, or auto",
                    runs.display()
                ))
            }),
    }
}

/// Whether the resumed run used speculative decoding.
pub(super) fn was_speculative(run: &Path) -> bool {
    let request = RunRecord::read(run).and_then(|record| record.request);
    request.is_some_and(|request| request["origin"]["speculative"] == "true")
}

impl Asked {
    pub fn new(model: Option<&str>, predictions: Option<&Path>, resumed: Option<&Path>) -> Self {
        let request = resumed.and_then(RunRecord::read).and_then(|record| record.request);
        let request = request.unwrap_or_default();
        let was = |key: &str| request["origin"][key].as_str().map(str::to_owned);
        match (model, predictions) {
            (Some(model), _) => Self::Model(model.to_owned()),
            (None, Some(file)) => Self::Predictions(file.to_owned()),
            (None, None) => match (was("model"), was("predictions")) {
                (Some(model), _) => Self::Model(model),
                (None, Some(file)) => Self::Predictions(file.into()),
                (None, None) => Self::NewestCheckpoint,
            },
        }
    }

    /// Whether completions are given.
    pub fn is_a_file(&self) -> bool {
        matches!(self, Self::Predictions(_))
    }

    /// Finds it, fetching a model if it has to be.
    pub fn locate(&self, settings: &Settings, runs: &Path, output: &Output) -> Result<Located, Failure> {
        let model = match self {
            Self::Predictions(file) => {
                return if file.is_file() {
                    Ok(Located::File(file.clone()))
                } else {
                    Err(Failure::usage(format!(
                        "--predictions: there is no file `{}`",
                        file.display()
                    )))
                };
            }
            Self::Model(uri) => resolve_model(uri, &settings.config, output)?,
            Self::NewestCheckpoint => newest_best(runs)?,
        };
        let (device_name, device) = open_device(settings)?;
        generation_dtype(settings, &device_name, &device)?;
        let dir = find_dir(&model, &settings.config, &device, output)?;
        Ok(Located::Model(model, dir))
    }
}

/// A model's directory or a file, not yet opened.
pub(super) enum Located {
    Model(Model, ModelDir),
    File(PathBuf),
}

impl Located {
    /// The model's directory; a file of completions has none.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::Model(_, model) => Some(&model.dir),
            Self::File(_) => None,
        }
    }

    /// The model's tokenizer, which has its chat template; a file has none.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, Failure> {
        match self {
            Self::Model(_, model) => Ok(Some(Tokenizer::load(model.tokenizer())?)),
            Self::File(_) => Ok(None),
        }
    }

    /// Reads the file, and says in the request where its answers come from; None for a model.
    pub fn predictions(
        &self,
        settings: &mut Settings,
        benchmark: &dyn Benchmark,
        request: &mut EvalRequest,
        most: Option<usize>,
    ) -> Result<Option<Predictions>, Failure> {
        let Self::File(file) = self else { return Ok(None) };
        let named = settings.recipe.eval.tasks.is_some();
        let tasks = named.then_some(request.tasks.as_slice());
        let predictions = Predictions::read(file, benchmark, tasks, most)?;
        let (most, fewest) = predictions.most_and_fewest();
        if let Some(k) = request.k.iter().find(|&&k| k > fewest) {
            return Err(EvalError::Request(format!(
                "pass@{k} needs {k} answers to each problem, and one has {fewest} in {}: take a smaller --k",
                file.display()
            ))
            .into());
        }
        request.tasks = predictions.tasks();
        request.samples = most;
        request.temperatures.clear();
        settings.recipe.eval.samples = most;
        let origin = &mut request.origin;
        origin.insert("predictions".into(), file.display().to_string());
        origin.insert("predictions_sha256".into(), predictions.sha256.clone());
        Ok(Some(predictions))
    }

    /// Loads the model, with all its heads if they draft, and says in the request which it is.
    pub fn model(
        self,
        settings: &Settings,
        request: &mut EvalRequest,
        style: PromptStyle,
        speculative: bool,
        output: &Output,
    ) -> Result<Answers, Failure> {
        let Self::Model(model, place) = self else {
            return Err(Failure::failed("completions are given, and a model was asked for"));
        };
        let e = &settings.recipe.eval;
        let (device_name, device) = open_device(settings)?;
        let dtype = generation_dtype(settings, &device_name, &device)?;
        let (loaded, tokenizer) = open_model(&model, (!speculative).then_some(1), dtype, settings, &device, output)?;
        let origin = &mut request.origin;
        origin.insert("model_hash".into(), weights_hash(&place.dir)?);
        if let Some(base) = &place.base {
            origin.insert("base_hash".into(), weights_hash(base)?);
        }
        origin.insert("model".into(), model.uri);
        origin.insert("precision".into(), e.precision.name().into());
        if speculative {
            // Where sums hang on the number of rows, a token may be another one with drafts.
            origin.insert("speculative".into(), "true".into());
        }
        // A chat template writes special tokens itself.
        let tokenizer = if style == PromptStyle::Chat {
            tokenizer.for_chat()
        } else {
            tokenizer
        };
        let choice = tokenizer.choice();
        origin.insert("special_tokens".into(), choice.special_tokens.name().into());
        origin.insert("special_in_text".into(), choice.special_in_text.name().into());
        origin.insert("begin_ids".into(), format!("{:?}", tokenizer.begin_ids()));
        let sampling = Sampling {
            temperature: 0.0,
            top_p: e.top_p,
            max_new_tokens: e.max_new_tokens,
        };
        let prepared = prepared_weights(settings, &loaded, speculative)?;
        let mut generator = ModelGenerator::new(loaded, tokenizer, sampling);
        generator.decoding.prepared = prepared;
        generator.decoding.rows = e.batch;
        generator.decoding.speculative = speculative;
        Ok(Answers::Model(Box::new(generator)))
    }
}

/// The best checkpoint of the run that was started last.
pub(in crate::cli) fn newest_best(runs: &Path) -> Result<Model, Failure> {
    let best = |run: &Path| RunDir::at(run).checkpoint(file::BEST);
    newest(runs, |run| best(run).join("config.json").is_file())
        .map(|run| best(&run))
        .map(|best| Model {
            uri: best.display().to_string(),
            source: ModelSource::Directory(best),
        })
        .ok_or_else(|| {
            Failure::usage(format!(
                "no --model was given and {} holds no run with a best checkpoint: train first, or give --model",
                runs.display()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    #[test]
    fn the_newest_run_with_a_best_checkpoint_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        assert!(newest_best(dir.path()).unwrap_err().message().contains("--model"));
        for (name, age, has_best) in [("c-old", 300, true), ("a-new", 100, true), ("b-newest", 0, false)] {
            let run = dir.path().join(name);
            fs::create_dir_all(run.join("checkpoints/best")).unwrap();
            let json = fs::File::create(run.join("run.json")).unwrap();
            json.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            if has_best {
                fs::write(run.join("checkpoints/best/config.json"), "{}").unwrap();
            }
        }
        let best = dir.path().join("a-new/checkpoints/best");
        assert_eq!(newest_best(dir.path()).unwrap().source, ModelSource::Directory(best));
    }
}
