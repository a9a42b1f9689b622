//! Uploads a run to S3: started with the run, waited for at its end.

use super::{PipelineError, request::Request};
use crate::{
    run::{Event, RunDir},
    storage::{Ended, RunMirror},
    text::mib,
};
use serde::Serialize;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often the end of training says what it waits for.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// What became of the upload.
#[derive(Clone, Debug, Serialize)]
pub struct UploadSummary {
    /// Where it is.
    pub url: String,
    /// Whether everything is there.
    pub complete: bool,
    /// Seconds that the end of training waited for it.
    pub waited_seconds: f64,
}

/// Starts the upload, if one is configured.
pub(super) fn start(request: &Request, run: &RunDir) -> Result<Option<Arc<RunMirror>>, PipelineError> {
    let Some(upload) = &request.upload else { return Ok(None) };
    let (log, progress) = (run.clone(), request.progress.clone());
    let report = Box::new(move |step, event, reason: String| {
        progress.warning(&reason);
        // A disk that takes no event will stop training by itself.
        if let Err(error) = log.event(&Event { step, event, reason }) {
            tracing::warn!("{error}");
        }
    });
    let keep = request.recipe.train.checkpoint.keep;
    let mirror = RunMirror::start(upload.to.clone(), run.path(), keep, report)?;
    Ok(Some(Arc::new(mirror)))
}

/// Waits until everything is there, or long enough.
pub(super) fn finish(
    request: &Request,
    mirror: Option<&RunMirror>,
    run: &RunDir,
    step: usize,
) -> Result<Option<UploadSummary>, PipelineError> {
    let (Some(upload), Some(mirror)) = (&request.upload, mirror) else {
        return Ok(None);
    };
    let url = upload.to.url();
    let begun = Instant::now();
    let mut said = begun;
    let ended = mirror.finish(upload.wait, &mut |transfer| {
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            let sent = transfer.total.map_or_else(String::new, |total| {
                format!(": {:.1} of {:.1} MiB sent", mib(transfer.done), mib(total))
            });
            request.progress.message(&format!("waiting for {url}{sent}"));
        }
    });
    let waited_seconds = begun.elapsed().as_secs_f64();
    if let Ended::Incomplete { missing_bytes, problem } = &ended {
        let reason = format!(
            "after {waited_seconds:.0} s of waiting {:.1} MiB of checkpoints are not at {url}{}; they are in {}, and --resume {} sends them",
            mib(*missing_bytes),
            problem
                .as_ref()
                .map_or_else(String::new, |problem| format!(" ({problem})")),
            run.checkpoints().display(),
            request.run_name
        );
        request.progress.warning(&reason);
        run.event(&Event {
            step,
            event: "upload-incomplete",
            reason,
        })?;
    }
    Ok(Some(UploadSummary {
        url,
        complete: ended == Ended::Complete,
        waited_seconds,
    }))
}
