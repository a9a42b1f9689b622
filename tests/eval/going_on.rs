//! Runs that break off and go on, runs that may not, and verdicts that are known already.

use super::{
    answers::{Answers, benchmark, go, names, samples},
    runner,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use wmtp::eval::{
    EvalRequest, Source, parse_tasks, run,
    sandbox::{Limits, Outcome, Pair, Program, Runner, SandboxError},
};

/// Fails after so many programs, as a killed process would end.
struct Breaks(AtomicUsize);

impl Runner for Breaks {
    fn run(&self, program: &Program<'_>, limits: &Limits) -> Result<Outcome, SandboxError> {
        let left = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left.is_err() {
            return Err(SandboxError::Io {
                action: "start the interpreter",
                source: std::io::Error::other("the power went"),
            });
        }
        runner().run(program, limits)
    }

    fn run_pair(&self, pair: &Pair<'_>, limits: &Limits) -> Result<[Outcome; 2], SandboxError> {
        runner().run_pair(pair, limits)
    }

    fn level(&self) -> &str {
        runner().level()
    }

    fn python(&self) -> &str {
        runner().python()
    }
}

#[test]
fn a_run_that_broke_off_goes_on_to_the_same_files() {
    let benchmark = benchmark();
    let whole = tempfile::tempdir().unwrap();
    let broken = tempfile::tempdir().unwrap();
    let request = |dir: &Path, resume| EvalRequest {
        samples: 3,
        k: vec![1, 3],
        temperatures: vec![0.2, 0.7],
        resume,
        ..EvalRequest::new(parse_tasks("11-16").unwrap(), dir.to_owned())
    };
    go(
        &benchmark,
        &request(whole.path(), false),
        &mut Answers::new(&benchmark, true),
    )
    .unwrap();

    // The sandbox breaks, then the generator, then the last line is torn.
    let error = run(
        &benchmark,
        &request(broken.path(), false),
        Source::Generator(&mut Answers::new(&benchmark, true)),
        &Breaks(10.into()),
        &mut |_| (),
    )
    .unwrap_err();
    assert!(error.to_string().contains("the power went"), "{error}");
    assert_eq!(names(broken.path()), ["run.json", "samples.jsonl.part"]);
    let mut tired = Answers::new(&benchmark, true);
    tired.most = 9;
    let error = go(&benchmark, &request(broken.path(), true), &mut tired).unwrap_err();
    assert!(error.to_string().contains("the power went"), "{error}");
    let part = broken.path().join("samples.jsonl.part");
    let bytes = std::fs::read(&part).unwrap();
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 16);
    std::fs::write(&part, &bytes[..bytes.len() - 5]).unwrap();

    let mut generator = Answers::new(&benchmark, true);
    let mut first = None;
    let finished = run(
        &benchmark,
        &request(broken.path(), true),
        Source::Generator(&mut generator),
        runner(),
        &mut |progress| first = first.or(Some(*progress)),
    )
    .unwrap();
    assert_eq!((generator.answered, finished.resumed), (36 - 15, 15));
    assert_eq!(first.map(|p| (p.done, p.resumed)), Some((15, 15)));
    for name in ["samples.jsonl", "eval.json"] {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(whole.path()), read(broken.path()), "{name}");
    }
    assert_eq!(names(whole.path()), names(broken.path()));
    let again = go(
        &benchmark,
        &request(broken.path(), true),
        &mut Answers::new(&benchmark, true),
    )
    .unwrap_err();
    assert!(again.to_string().contains("has ended"), "{again}");
}

#[test]
fn a_run_does_not_go_on_with_another_request() {
    let benchmark = benchmark();
    let dir = tempfile::tempdir().unwrap();
    let request = || EvalRequest {
        resume: true,
        origin: BTreeMap::from([("model_hash".into(), "abc".into())]),
        ..EvalRequest::new(vec![11, 12], dir.path().to_owned())
    };
    let attempt = |request: EvalRequest| {
        go(&benchmark, &request, &mut Answers::new(&benchmark, false))
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let fresh = attempt(request()).unwrap_err();
    assert!(fresh.contains("holds no evaluation"), "{fresh}");
    let mut nothing = Answers::new(&benchmark, false);
    nothing.most = 0;
    go(
        &benchmark,
        &EvalRequest {
            resume: false,
            ..request()
        },
        &mut nothing,
    )
    .unwrap_err();

    let twice = attempt(EvalRequest {
        resume: false,
        ..request()
    })
    .unwrap_err();
    assert!(
        twice.contains("holds a run already") && twice.contains("--resume"),
        "{twice}"
    );
    let cases = [
        ("seed", EvalRequest { seed: 1, ..request() }),
        (
            "temperature",
            EvalRequest {
                temperatures: vec![0.3],
                ..request()
            },
        ),
        (
            "tasks",
            EvalRequest {
                tasks: vec![11],
                ..request()
            },
        ),
        (
            "samples",
            EvalRequest {
                samples: 2,
                ..request()
            },
        ),
        (
            "top_p",
            EvalRequest {
                top_p: 0.9,
                ..request()
            },
        ),
        (
            "max_new_tokens",
            EvalRequest {
                max_new_tokens: 9,
                ..request()
            },
        ),
        (
            "limits",
            EvalRequest {
                limits: Limits {
                    wall: std::time::Duration::from_secs(3),
                    ..Limits::default()
                },
                ..request()
            },
        ),
        (
            "origin",
            EvalRequest {
                origin: BTreeMap::from([("model_hash".into(), "abd".into())]),
                ..request()
            },
        ),
    ];
    for (key, request) in cases {
        let error = attempt(request).unwrap_err();
        assert!(error.contains(&format!("with another `{key}`")), "{key}: {error}");
    }
    assert_eq!(attempt(request()), Ok(()));
}

#[test]
fn known_verdicts_are_not_found_out_again() {
    let benchmark = benchmark();
    let cache = tempfile::tempdir().unwrap();
    let evaluate = |limits: Limits| {
        let dir = tempfile::tempdir().unwrap();
        let request = EvalRequest {
            samples: 2,
            limits,
            verdict_cache: Some(cache.path().to_owned()),
            judges: Some(1),
            ..EvalRequest::new(parse_tasks("11-14").unwrap(), dir.path().join("run"))
        };
        let finished = go(&benchmark, &request, &mut Answers::new(&benchmark, false)).unwrap();
        (finished.cached_verdicts, finished.report, samples(&request.output))
    };
    let (none, report, lines) = evaluate(Limits::default());
    // The second sample of a task is the same program.
    assert_eq!(none, 4);
    let (all, same, same_lines) = evaluate(Limits::default());
    assert_eq!((all, &same, &same_lines), (8, &report, &lines));
    let other = Limits {
        memory_bytes: 1 << 29,
        ..Limits::default()
    };
    assert_eq!(evaluate(other).0, 4);
}
