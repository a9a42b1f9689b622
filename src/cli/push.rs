//! `wmtp push`: a run's model into a repository of the model hub, with its card.

use super::{
    Failure, Output, SettingsArgs,
    card::{self, CardFacts, model_files, read_json},
    track::run_with_settings,
};
use crate::{
    paths::expand_home,
    pipeline::weights_hash,
    run::{self, RunRecord, file},
    settings::Config,
    storage::{HubName, Location, Push, PushContent, PushFile, PushState, Pushed, Storage},
    text::mib,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// `wmtp push RUN hf://OWNER/NAME`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run: its name or its directory. Or a model directory, as `wmtp export` writes it.
    #[arg(value_name = "RUN")]
    run: String,
    /// The repository: hf://OWNER/NAME. It is created, private, if it does not exist.
    #[arg(value_name = "REPOSITORY")]
    to: String,
    /// Which checkpoint of the run; `best`, or `last` where there is no best one, if left out.
    #[arg(long, value_name = "NAME")]
    checkpoint: Option<String>,
    /// Create the repository public, or push to one that is. The model card must then be complete.
    #[arg(long)]
    public: bool,
    /// The branch; it is created if it does not exist.
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    revision: String,
    /// Message of the commit; run, checkpoint and step if left out.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Model card fields that the run does not record: a YAML file with intended_use, limits, licence and
    /// data_licence. Kept with the run.
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Print what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where run directories are (paths.runs).
    #[arg(long, value_name = "DIR", value_parser = crate::cli::common::Utf8Path)]
    output: Option<PathBuf>,
}

/// What goes to the hub, before it goes.
struct Upload {
    files: Vec<PushFile>,
    message: String,
    config: Config,
    notes: Vec<String>,
}

/// Pushes.
pub fn run(args: Args, output: &Output) -> Result<(), Failure> {
    let to = repository(&args)?;
    let upload = match exported(&args)? {
        Some(dir) => of_directory(&args, &dir)?,
        None => of_run(&args, &to)?,
    };
    let push = Push {
        to,
        public: args.public,
        message: args.message.clone().unwrap_or(upload.message),
        files: upload.files,
        dry_run: args.dry_run,
    };
    let mut bar = output.transfer_bar(&push.to.to_string());
    let storage = Storage::new(&upload.config.storage, &upload.config.paths);
    let pushed = storage.push(&push, &mut |transfer| {
        bar.set(&transfer.file, transfer.done, transfer.total);
    })?;
    drop(bar);
    let (json, text) = (
        document(&push, &pushed, &upload.notes),
        said(&push, &pushed, &upload.notes),
    );
    output.result(&json, &text)
}

/// The repository and its branch.
fn repository(args: &Args) -> Result<HubName, Failure> {
    let Location::Hub(mut name) = Location::parse(&args.to)? else {
        return Err(Failure::usage(format!(
            "`{}` is no repository of the model hub: write hf://OWNER/NAME",
            args.to
        )));
    };
    let is_default = args.revision == "main";
    if name.revision != "main" && !is_default && name.revision != args.revision {
        return Err(Failure::usage(format!(
            "`{}` and --revision {} name two branches: leave out one",
            args.to, args.revision
        )));
    }
    if !is_default {
        // The same letters as in a URI.
        let uri = format!("hf://{}/{}@{}", name.owner, name.name, args.revision);
        let Location::Hub(checked) = Location::parse(&uri)? else {
            return Ok(name);
        };
        name = checked;
    }
    Ok(name)
}

/// A model directory that is no run: None for a run.
fn exported(args: &Args) -> Result<Option<PathBuf>, Failure> {
    let dir = PathBuf::from(&args.run);
    let is_model = ["config.json", "adapter_config.json"]
        .iter()
        .any(|name| dir.join(name).is_file());
    if !is_model || run::is_run(&dir) {
        return Ok(None);
    }
    if args.checkpoint.is_some() || args.card.is_some() {
        return Err(Failure::usage(format!(
            "`{}` is a model directory: leave out --checkpoint and --card, and write its README.md yourself",
            args.run
        )));
    }
    Ok(Some(dir))
}

fn of_directory(args: &Args, dir: &Path) -> Result<Upload, Failure> {
    let settings = args.settings.sources(None).load()?;
    let mut notes = Vec::new();
    let mut files = Vec::new();
    for path in model_files(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            files.push(PushFile {
                name,
                content: PushContent::Disk(path),
            });
        }
    }
    if !files.iter().any(|file| file.name == "README.md") {
        notes.push(format!(
            "{} has no README.md, so that the repository has no model card",
            dir.display()
        ));
    }
    notes.extend(local_base(dir));
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Upload {
        files,
        message: format!("Push {name}"),
        config: settings.config,
        notes,
    })
}

fn of_run(args: &Args, to: &HubName) -> Result<Upload, Failure> {
    let (dir, settings) = run_with_settings(&args.run, &args.settings, args.output.as_deref())?;
    let record: RunRecord = read_json(&dir.join(file::RECORD))?;
    if record.is_evaluation() {
        return Err(Failure::usage(format!(
            "{} is an evaluation: push the run that it evaluated",
            dir.display()
        )));
    }
    let (checkpoint, path) = card::checkpoint(&dir, args.checkpoint.as_deref())?;
    let fields = card::fields(args.card.as_deref(), &dir)?;
    let sha256 = weights_hash(&path)?;
    let facts = CardFacts::read(&dir, &path, &sha256)?;
    let made = facts.card(&to.name, &checkpoint, &sha256, &record, &fields);
    let text = match args.public {
        true => made.markdown().map_err(Failure::usage)?,
        false => made.draft().map_err(Failure::usage)?,
    };
    let header = made.hub_header(path.join("adapter_config.json").is_file());
    if !args.dry_run {
        card::save(&dir, &fields, &text)?;
    }
    let mut files = vec![PushFile {
        name: "README.md".into(),
        content: PushContent::Memory(format!("{header}{text}").into_bytes()),
    }];
    files.extend(model_files(&path)?.into_iter().map(|path| PushFile {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        content: PushContent::Disk(path),
    }));
    let run = record.name.clone().unwrap_or_else(|| args.run.clone());
    Ok(Upload {
        files,
        message: format!("Push {run}: checkpoint {checkpoint}, step {}", facts.trainer.step),
        config: settings.config,
        notes: local_base(&path).into_iter().collect(),
    })
}

/// What is to be said of an adapter whose base only this machine has.
fn local_base(dir: &Path) -> Option<String> {
    let adapter: Value = crate::fs::read_json(&dir.join("adapter_config.json")).ok()?;
    let base = adapter["base_model_name_or_path"].as_str()?;
    let is_local = base.starts_with(['/', '.', '~']) || expand_home(Path::new(base)).exists();
    is_local.then(|| {
        format!("the adapter names its base `{base}`, which is a path of this machine: others need --base, or the whole model (wmtp export --merge)")
    })
}

fn word(state: PushState, dry_run: bool) -> &'static str {
    match state {
        PushState::Unchanged => "unchanged",
        PushState::Stored => "stored",
        PushState::Sent if dry_run => "new",
        PushState::Sent => "sent",
    }
}

fn document(push: &Push, pushed: &Pushed, notes: &[String]) -> Value {
    let files = pushed.files.iter().map(|file| {
        json!({
            "name": file.name,
            "bytes": file.bytes,
            "sha256": file.sha256,
            "state": word(file.state, push.dry_run),
        })
    });
    json!({
        "repository": push.to.to_string(),
        "url": pushed.url,
        "revision": push.to.revision,
        "private": pushed.private,
        "created": pushed.created && !push.dry_run,
        "dry_run": push.dry_run,
        "committed": pushed.committed,
        "commit": pushed.commit,
        "message": push.message,
        "files": files.collect::<Vec<_>>(),
        "removed": pushed.removed,
        "notes": notes,
    })
}

fn said(push: &Push, pushed: &Pushed, notes: &[String]) -> String {
    let mut lines = Vec::new();
    for file in &pushed.files {
        let state = word(file.state, push.dry_run);
        lines.push(format!("{state:<9}  {:>9.1} MiB  {}", mib(file.bytes), file.name));
    }
    let removed = if push.dry_run { "obsolete" } else { "removed" };
    lines.extend(
        pushed
            .removed
            .iter()
            .map(|name| format!("{removed:<9}  {:>13}  {name}", "")),
    );
    let visible = if pushed.private { "private" } else { "public" };
    let commit = pushed
        .commit
        .as_deref()
        .and_then(|commit| commit.get(..10))
        .unwrap_or("-");
    lines.push(match (push.dry_run, pushed.created, pushed.committed) {
        (true, true, _) => format!("{} would be created, {visible}; nothing was sent", push.to),
        (true, false, _) => format!("{} is {visible}; nothing was sent", push.to),
        (false, _, false) => format!("{} has all of it already, at commit {commit}: {}", push.to, pushed.url),
        (false, true, true) => format!("created {} ({visible}), commit {commit}: {}", push.to, pushed.url),
        (false, false, true) => format!("pushed to {} ({visible}), commit {commit}: {}", push.to, pushed.url),
    });
    lines.extend(notes.iter().map(|note| format!("note: {note}")));
    lines.join("\n")
}
