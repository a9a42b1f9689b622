//! Hostile programs: nothing is read, written, reached or left behind, and the next honest program
//! is judged as ever. As root, as an ordinary user, and behind bubblewrap.
#![allow(clippy::unwrap_used)] // helpers of tests, which fail by panicking

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod world;

use cases::{CASES, Case, Ends, PRELUDE};
use std::{process::Command, time::Duration};
use wmtp_sandbox::{Isolation, Limits, Outcome, Program, Runner, Sandbox, Status};
use world::World;

fn limits() -> Limits {
    Limits {
        wall: Duration::from_secs(8),
        cpu: Duration::from_secs(4),
        ..Limits::default()
    }
}

fn run(sandbox: &Sandbox, source: &str, limits: &Limits) -> Outcome {
    sandbox
        .run(
            &Program {
                source,
                stdin: b"input\n",
            },
            limits,
        )
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn no_hostile_program_gets_through() {
    let world = World::new();
    let sandbox = Sandbox::with(&wmtp_sandbox::Options {
        temp: world.temp().to_owned(),
        ..common::options()
    })
    .unwrap();
    let mut wrong = Vec::new();
    let (mut ran, mut controls) = (0, 0);
    for case in CASES {
        if case.only_landlock && common::isolation() != Isolation::Landlock {
            continue;
        }
        if common::watched() && !case.fills {
            continue; // the other layers are the same
        }
        ran += 1;
        let source = world.fill(&format!("{PRELUDE}{}", case.source));
        let limits = (case.limits)(limits());
        let outcome = run(&sandbox, &source, &limits);
        if let Err(why) = judge(case, &outcome, &limits) {
            let told =
                [&outcome.stdout, &outcome.stderr].map(|bytes| text(bytes).chars().take(2000).collect::<String>());
            wrong.push(format!(
                "{}: {why}: {:?} {:?}\n{}{}",
                case.name, outcome.status, outcome.breach, told[0], told[1]
            ));
        }
        wrong.extend(
            world
                .changes()
                .into_iter()
                .map(|change| format!("{}: {change}", case.name)),
        );
        // With all of its time: these tests run in parallel, and a second is short for a start then.
        let usual = self::limits();
        let limits = Limits {
            wall: usual.wall,
            cpu: usual.cpu,
            ..limits
        };
        let honest = run(&sandbox, "print(sum(map(ord, input())))", &limits);
        if (honest.status, honest.stdout.as_slice()) != (Status::Exit(0), &b"560\n"[..]) {
            wrong.push(format!("{}: the next program: {honest:?}", case.name));
        }
        if case.works_outside {
            controls += 1;
            let outside = plainly(&source);
            if !outside.contains("DONE") {
                wrong.push(format!(
                    "{}: does nothing outside the sandbox either:\n{outside}",
                    case.name
                ));
            }
        }
    }
    common::say(&format!(
        "{ran} hostile programs under {} with Python {}, {controls} of them seen to work without the sandbox",
        sandbox.level(),
        sandbox.python()
    ));
    let least = if common::watched() { 7 } else { 50 };
    assert!(ran >= least && wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a case ended as it should.
fn judge(case: &Case, outcome: &Outcome, limits: &Limits) -> Result<(), String> {
    let out = text(&outcome.stdout);
    if out.contains("DONE") || out.contains("ODD") {
        return Err("something was not refused".into());
    }
    let status = |expected| match outcome.status == expected {
        true => Ok(()),
        false => Err(format!("expected {expected:?}")),
    };
    if outcome.seconds > limits.wall.as_secs_f64() + 2.0 {
        return Err(format!("{} s", outcome.seconds));
    }
    match case.ends {
        Ends::Refused(times) => {
            status(Status::Exit(0))?;
            let refused = out.lines().filter(|line| line.ends_with(" refused")).count();
            match refused == times {
                true => Ok(()),
                false => Err(format!("{refused} refusals, not {times}")),
            }
        }
        Ends::Breach(breach) => {
            status(Status::Signal(libc::SIGKILL))?;
            match outcome.breach == Some(breach) {
                true => Ok(()),
                false => Err(format!("expected {breach:?}")),
            }
        }
        Ends::With(expected) => status(expected),
        Ends::Bounded(expected, breach) => match common::watched() {
            true => (outcome.breach == Some(breach))
                .then_some(())
                .ok_or(format!("expected {breach:?}")),
            false => status(expected),
        },
    }
}

/// What the program prints when nothing holds it; harmless by the choice of cases.
fn plainly(source: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("main.py");
    std::fs::write(&file, source).unwrap();
    let output = Command::new(common::python())
        .arg("-I")
        .arg(&file)
        .current_dir(dir.path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn programs_that_run_at_once_cannot_read_each_others_files() {
    let sandbox = Sandbox::with(&common::options()).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let other = Sandbox::with(&wmtp_sandbox::Options {
        temp: temp.path().to_owned(),
        ..common::options()
    })
    .unwrap();
    std::thread::scope(|scope| {
        let waits = "import time\nopen('secret', 'w').write('x')\nprint('made', flush=True)\ntime.sleep(2)";
        let waiting = scope.spawn(|| run(&other, waits, &limits()));
        let directory = (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            let entry = std::fs::read_dir(temp.path()).unwrap().flatten().next()?;
            // A mounted directory has its files for its own program alone.
            let made = entry.path().join("secret").exists() || sandbox.layers().iter().any(|layer| layer == "tmpfs");
            made.then(|| entry.path())
        });
        let directory = directory.expect("the other program never wrote its file");
        let source = format!(
            "{PRELUDE}d = {directory:?}\nattempt('read', open, d + '/secret')\nattempt('list', os.listdir, d)\n\
             attempt('write', open, d + '/new', 'w')\nattempt('program', open, d + '/main.py')\n\
             attempt('enter', lambda: (os.chdir(d), open('secret')))\n"
        );
        let outcome = run(
            &sandbox,
            &source.replace("@SIBLING@", "1").replace("@HARNESS@", "1"),
            &limits(),
        );
        assert_eq!(text(&outcome.stdout).matches(" refused").count(), 5, "{outcome:?}");
        assert_eq!(waiting.join().unwrap().status, Status::Exit(0));
    });
}

#[test]
fn again_as_an_ordinary_user() {
    common::again_as_an_ordinary_user();
}

/// As on a host that lets nobody mount.
#[test]
fn again_without_mounts() {
    common::again("without mounts", |command| {
        command.env(common::WATCHED, "1");
    });
}

#[test]
fn again_behind_bubblewrap() {
    common::again_behind_bubblewrap();
}
