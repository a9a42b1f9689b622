//! How a run begins: its directory, what it says of itself, what it reports.

use super::{
    PipelineError,
    inputs::Inputs,
    request::{Prepared, Request},
    resume::{recipe_id, sha256},
};
use crate::{
    data::{SpecialInText, TokenReport, Tokenizer},
    run::{LongDocument, Machine, RunDir, RunLock, RunRecord, file},
    settings::has_random_weights,
};
use wmtp_model::Companions;

/// Makes the run's directory and takes its lock. The run's name is that of the directory: another one than the
/// request's where that was made up and is in use.
pub(super) fn create_run(
    request: &Request,
    prepared: &Prepared,
    inputs: &Inputs,
) -> Result<(RunDir, RunLock), PipelineError> {
    let (run, lock) = RunDir::create(&request.runs(), &request.run_name, request.numbered)?;
    // Half a run would keep the name, and could not be resumed.
    fill(&run, request, prepared, inputs).inspect_err(|_| _ = std::fs::remove_dir_all(run.path()))?;
    Ok((run, lock))
}

/// Writes what a run says of itself; the record last.
fn fill(run: &RunDir, request: &Request, prepared: &Prepared, inputs: &Inputs) -> Result<(), PipelineError> {
    let config_yaml = request.config.to_yaml();
    let recipe_yaml = request.recipe.to_yaml();
    run.write_text(file::CONFIG, &config_yaml)?;
    run.write_text(file::RECIPE, &recipe_yaml)?;
    if let Some(rewards) = &prepared.rewards {
        run.write_json(file::LABELS, &rewards.found())?;
    }
    let report = prepared.splits.train.report();
    let too_long = report.dropped.iter().map(|(name, tokens)| LongDocument {
        name: name.clone(),
        tokens: *tokens,
    });
    let record = RunRecord {
        format: Some(1),
        uid: Some(uid()),
        name: Some(run.name()),
        algorithm: Some(request.pipeline.name().into()),
        started: Some(crate::clock::now().to_string()),
        wmtp: Some(env!("CARGO_PKG_VERSION").into()),
        commit: Some(option_env!("WMTP_COMMIT").map(str::to_owned)),
        device: Some(request.device_name.clone()),
        environment: Some(Machine::here()),
        seed: Some(request.seed()),
        model: Some(request.recipe.model.base.clone()),
        model_sha256: inputs.own_fields().remove("model_sha256"),
        places: Some(request.model_dirs.places()),
        data: Some(request.recipe.data.source.to_string()),
        data_sha256: Some(prepared.splits.train.hash().into()),
        chat_date: Some(request.recipe.data.chat_date.clone()),
        inputs_sha256: Some(inputs.hashes()),
        config_sha256: Some(sha256(&config_yaml)),
        recipe_sha256: Some(sha256(&recipe_yaml)),
        recipe_id: Some(recipe_id(request.pipeline, &request.recipe)),
        documents: Some(report.documents),
        documents_too_long_count: Some(report.too_long),
        documents_too_long: Some(too_long.collect()),
        copies_left_out: Some(prepared.splits.overlap.left_out),
        copies_trained: Some(prepared.splits.overlap.copies),
        response_tokens: Some(report.response_tokens),
        tokens: Some(serde_json::to_value(&prepared.splits.tokens).unwrap_or_default()),
        steps: Some(prepared.total_steps),
        random_weights: Some(has_random_weights(&request.recipe.model.base)),
        ..RunRecord::default()
    };
    run.write_json(file::RECORD, &record)?;
    Ok(())
}

/// Distinguishes the run from all others, wherever it is continued.
fn uid() -> String {
    use std::hash::{BuildHasher, RandomState};
    // The keys of a RandomState are the operating system's.
    let random = || RandomState::new().hash_one(crate::clock::now().as_nanosecond());
    format!("{:016x}{:016x}", random(), random())
}

/// Reports that training begins, with what a display of its progress shows on top.
pub(super) fn open_progress(request: &Request) -> Result<(), PipelineError> {
    let what = format!(
        "{} of {} on {}",
        request.pipeline.name(),
        request.recipe.model.base,
        request.device_name
    );
    request
        .progress
        .open(&request.run_name, &what, &request.stop)
        .map_err(|e| PipelineError::Setting(format!("cannot draw on this terminal: {e}; pass --plain for lines")))
}

pub(super) fn announce(request: &Request, prepared: &Prepared, run: &RunDir) {
    let say = |text: String| request.progress.message(&text);
    let report = prepared.splits.train.report();
    say(format!(
        "{} of {} ({} parameters, {} heads) on {}: {} documents, {} response tokens, {} steps; run directory {}",
        request.pipeline.name(),
        request.recipe.model.base,
        prepared.config.num_params(),
        prepared.config.n_heads,
        request.device_name,
        report.documents,
        report.response_tokens,
        prepared.total_steps,
        run.path().display()
    ));
    if has_random_weights(&request.recipe.model.base) {
        let train = &request.recipe.train;
        let lr = train.pretrain.lr.filter(|_| train.pretrain.steps > 0);
        say(format!(
            "the model starts from random weights: learning rate {:e} at first",
            lr.unwrap_or(request.recipe.optim.lr)
        ));
    }
    if report.too_long > 0 {
        let longer = match report.too_long {
            1 => "1 document is longer".into(),
            n => format!("{n} documents are longer"),
        };
        let (seq_len, named) = (request.recipe.data.seq_len, report.dropped.len());
        say(match report.too_long > named {
            false => format!("{longer} than data.seq_len = {seq_len} and left out (run.json names them)"),
            true => format!("{longer} than data.seq_len = {seq_len} and left out (run.json names {named} of them)"),
        });
    }
    for line in token_lines(&prepared.splits.tokens, &prepared.tokenizer) {
        say(line);
    }
    if request.recipe.train.head_warmup.steps == 0 && prepared.new_heads > 0 && request.resume.is_none() {
        request.progress.warning(&format!(
            "{} of the heads are new to this model, and their losses will pull at what it knows: see train.head_warmup.steps, or train head 1 alone with model.mtp.n_heads=1",
            prepared.new_heads
        ));
    }
}

/// The base model's files for the checkpoints, with what training decided about special tokens.
pub(super) fn companions(request: &Request, tokenizer: &Tokenizer) -> Result<Companions, PipelineError> {
    let files =
        Companions::read(request.model_dirs.model.tokenizer())?.or(Companions::read(request.model_dirs.model.whole())?);
    Ok(match tokenizer.config_file() {
        Some((name, text)) => files.with(name, text.into_bytes()),
        None => files,
    })
}

/// What a reader of the log should know of special tokens and of text files left out.
pub(super) fn token_lines(tokens: &TokenReport, tokenizer: &Tokenizer) -> Vec<String> {
    let mut lines: Vec<String> = tokenizer
        .notice()
        .map(|notice| format!("note: {notice}"))
        .into_iter()
        .collect();
    if !tokens.spelled_special_tokens.is_empty() {
        let counts: Vec<String> = tokens
            .spelled_special_tokens
            .iter()
            .map(|(token, count)| format!("`{token}` {count} times"))
            .collect();
        let treated = match tokens.choice.special_in_text {
            SpecialInText::Plain => "kept as plain text",
            SpecialInText::Auto | SpecialInText::Parse => {
                "read as special tokens (data.special_in_text: plain keeps them as text)"
            }
        };
        lines.push(format!(
            "the training texts spell special tokens: {}; {treated}",
            counts.join(", ")
        ));
    }
    if !tokens.text_files_too_short.is_empty() {
        const SHOWN: usize = 5;
        let files = &tokens.text_files_too_short;
        let mut names: Vec<String> = files
            .iter()
            .take(SHOWN)
            .map(|file| format!("{} ({} tokens)", file.name, file.tokens))
            .collect();
        if tokens.texts_too_short > SHOWN {
            names.push(format!("{} more", tokens.texts_too_short - SHOWN));
        }
        lines.push(format!(
            "{} text files are too short to train on and were left out: {}",
            tokens.texts_too_short,
            names.join(", ")
        ));
    }
    lines
}
