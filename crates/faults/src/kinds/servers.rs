//! Servers of S3 and MLflow that answer slowly, wrongly, partly or never.

use crate::{
    bucket::{Agreeing, Bucket},
    compare::{Scar, checkpoints},
    http::{Manner, Server, Service, nobody},
    problem::{Outcome, Problem},
    schedule::Schedule,
};
use rand::RngExt;
use std::{fs, sync::Arc, time::Duration};

/// Manners of a server that is of no use.
fn bad(schedule: &mut Schedule<'_>) -> Manner {
    match schedule.random.random_range(0..7) {
        0 => Manner::Resets,
        1 => Manner::Silent,
        2 => Manner::Slow(Duration::from_millis(schedule.random.random_range(200..3000))),
        3 => Manner::Status(schedule.one_of(&[401, 403, 404, 429, 500, 502, 503])),
        4 => Manner::Cut,
        5 => Manner::Nonsense,
        _ => Manner::Flaky(0.9),
    }
}

fn server(schedule: &mut Schedule<'_>, service: Arc<dyn Service>, manner: Manner) -> Result<Server, Problem> {
    let seed = schedule.random.random();
    Server::start(service, manner, seed).map_err(Problem::io("serving for", schedule.home()))
}

/// Settings with which a server that does not answer is given up within seconds.
const SOON: [&str; 5] = [
    "storage.retries=1",
    "storage.retry_delay_ms=20",
    "storage.timeout_seconds=1",
    "storage.upload.wait_seconds=2",
    "storage.upload.report_after_seconds=1",
];

fn settle(schedule: &mut Schedule<'_>, endpoint: &str) {
    schedule.set = SOON.map(str::to_owned).to_vec();
    schedule.set.push(format!("storage.s3.endpoint={endpoint}"));
}

/// Runs that are uploaded to such a server, and runs that are resumed from one.
pub fn s3(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    match schedule.random.random_range(0..4) {
        0 => resume_from_nowhere(schedule),
        1 => {
            let manner = bad(schedule);
            upload_to_nowhere(schedule, manner)
        }
        _ => move_by_a_flaky_server(schedule),
    }
}

/// The upload fails, the run does not.
fn upload_to_nowhere(schedule: &mut Schedule<'_>, manner: Manner) -> Result<Outcome, Problem> {
    let server = server(schedule, Arc::new(Bucket::default()), manner)?;
    let endpoint = if schedule.chance(0.15) {
        nobody().map_err(Problem::io("finding an address for", schedule.home()))?
    } else {
        server.url()
    };
    settle(schedule, &endpoint);
    schedule.set.push("storage.runs=s3://bucket/runs".into());
    let ended = schedule.run_next()?;
    ended.check_success(&format!("a run with an S3 server that {manner:?}"))?;
    schedule.compare(&[])
}

/// A run that is nowhere, on a server of no use: a refusal that names the address or the server.
fn resume_from_nowhere(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let endless = schedule.chance(0.3);
    let bucket = Bucket::new(endless);
    let manner = if endless || schedule.chance(0.1) {
        Manner::Works
    } else {
        bad(schedule)
    };
    let server = server(schedule, Arc::new(bucket), manner)?;
    settle(schedule, &server.url());
    let address = "s3://bucket/runs/run";
    let mut command = schedule.world.resume(schedule.home(), &schedule.config, address);
    command.args(schedule.set.iter().flat_map(|set| ["--set", set]));
    let ended = schedule.start(&mut command)?.wait()?;
    ended.check_refusal(&[address.into(), server.url()])?;
    Ok(Outcome::Refused)
}

/// A run that is uploaded to a server that fails now and then, is killed, and is resumed from there by a machine
/// that has nothing of it.
fn move_by_a_flaky_server(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let bucket = Arc::new(Bucket::default());
    let share = schedule.random.random_range(0.0..0.3);
    let server = server(schedule, Arc::clone(&bucket) as Arc<dyn Service>, Manner::Flaky(share))?;
    settle(schedule, &server.url());
    schedule
        .set
        .extend(["storage.runs=s3://bucket/runs".into(), "storage.retries=6".into()]);
    let mut running = schedule.start_next()?;
    let moment = schedule.moment(0.3..1.5);
    if running.until(moment, || false)? {
        running.wait()?.check_success("a run with a flaky S3 server")?;
    } else {
        running.kill()?.check_sound()?;
    }
    if schedule.chance(0.5) {
        server.set(Manner::Works);
    }
    let run = schedule.run();
    // The upload's index says that a checkpoint is whole there.
    if bucket.has("/index.json") && schedule.chance(0.7) {
        let aside = schedule.home().join("lost");
        fs::rename(&run, &aside).map_err(Problem::io("moving", &run))?;
        let mut command = schedule
            .world
            .resume(schedule.home(), &schedule.config, "s3://bucket/runs/run");
        command.args(schedule.set.iter().flat_map(|set| ["--set", set]));
        let ended = schedule.start(&mut command)?.wait()?;
        if !ended.is_success() {
            // A server that fails too often; or one that lost what a killed process had not sent whole.
            ended.check_refusal(&["s3://bucket/runs/run".into(), server.url()])?;
            return Ok(Outcome::Refused);
        }
        // Of the checkpoints there, the newest and the best one are fetched.
        let kept: Vec<Scar> = checkpoints(&aside)
            .into_iter()
            .filter(|name| name.starts_with("step-"))
            .map(Scar::Checkpoint)
            .collect();
        return schedule.compare(&kept);
    }
    schedule.finish()
}

/// A run that is tracked by such a server: the same run.
pub fn mlflow(schedule: &mut Schedule<'_>) -> Result<Outcome, Problem> {
    let manner = match schedule.random.random_range(0..3) {
        0 => Manner::Flaky(schedule.random.random_range(0.0..0.6)),
        _ => bad(schedule),
    };
    let server = server(schedule, Arc::new(Agreeing::default()), manner)?;
    let url = if schedule.chance(0.1) {
        nobody().map_err(Problem::io("finding an address for", schedule.home()))?
    } else {
        server.url()
    };
    let settings = [
        "tracking.kinds=[mlflow]".to_owned(),
        format!("tracking.mlflow.uri={url}"),
        "tracking.mlflow.timeout_seconds=1".to_owned(),
        "tracking.interval_seconds=0.05".to_owned(),
        "tracking.wait_seconds=1".to_owned(),
    ];
    schedule.set = settings.to_vec();
    if schedule.chance(0.5) {
        schedule.interrupt()?;
    }
    let ended = schedule.run_next()?;
    ended.check_success(&format!("a run with a tracking server that {manner:?}"))?;
    schedule.compare(&[])
}
