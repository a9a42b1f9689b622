//! How each limit ends a program, and what comes back.

use super::{common, run, run_with, sandbox, text};
use std::time::{Duration, Instant};
use wmtp_sandbox::{Isolation, Limits, Runner, Status};

#[test]
fn output_error_and_exit_code_come_back() {
    let outcome = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)");
    assert_eq!((outcome.status, outcome.breach), (Status::Exit(3), None));
    assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), ("out", "err"));
    assert!(outcome.seconds > 0.0);
    assert!(sandbox().python().starts_with("3."), "{}", sandbox().python());
}

#[test]
fn the_level_names_its_layers() {
    let [files, seccomp, rlimits, rest @ ..] = sandbox().layers() else {
        panic!("{:?}", sandbox().layers())
    };
    match common::isolation() {
        Isolation::Bubblewrap => assert_eq!(files, "bubblewrap"),
        _ => assert!(
            files
                .strip_prefix("landlock-")
                .is_some_and(|n| n.parse::<u32>().is_ok()),
            "{files}"
        ),
    }
    assert_eq!((seccomp.as_str(), rlimits.as_str()), ("seccomp", "rlimits"));
    assert!(rest.is_empty() || rest == ["tmpfs"], "{rest:?}");
    assert_eq!(sandbox().level(), sandbox().layers().join("+"));
}

#[test]
fn the_working_directory_is_temporary() {
    let outcome = run("import os; print(os.getcwd())");
    let dir = text(&outcome.stdout);
    assert!(dir.contains("wmtp-run-"), "{dir}");
    assert!(!std::path::Path::new(dir).exists());
}

#[test]
fn the_program_leads_a_session_and_group_of_its_own() {
    if common::isolation() == Isolation::Bubblewrap {
        common::say("not asked behind bubblewrap, whose own process leads, outside the program's process table");
        return;
    }
    let outcome = run("import os; print(os.getsid(0) == os.getpid() == os.getpgid(0))");
    assert_eq!(text(&outcome.stdout), "True");
}

#[test]
fn the_clock_ends_a_program_that_sleeps() {
    let limits = Limits {
        wall: Duration::from_millis(300),
        ..Limits::default()
    };
    let started = Instant::now();
    let outcome = run_with("print('on', flush=True)\nimport time; time.sleep(60)", b"", &limits);
    assert_eq!(outcome.status, Status::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_processor_limit_ends_a_program_that_spins_in_all_its_threads() {
    let limits = Limits {
        cpu: Duration::from_secs(1),
        wall: Duration::from_secs(60),
        ..Limits::default()
    };
    assert_eq!(run_with("while True: pass", b"", &limits).status, Status::TimedOut);
    let threads = "import threading\ndef spin():\n    while True: pass\n\
        for _ in range(3): threading.Thread(target=spin).start()";
    assert_eq!(run_with(threads, b"", &limits).status, Status::TimedOut);
}

#[test]
fn endless_output_is_cut_on_both_streams() {
    let limits = Limits {
        output_bytes: 1000,
        ..Limits::default()
    };
    for stream in ["stdout", "stderr"] {
        let source = format!("import sys\nwhile True: sys.{stream}.write('x' * 5000)");
        let outcome = run_with(&source, b"", &limits);
        assert_eq!(outcome.status, Status::OutputLimit, "{stream}");
        // A program may find its pipe closed before it is killed, and say so on the other stream.
        let (endless, other) = match stream {
            "stdout" => (&outcome.stdout, &outcome.stderr),
            _ => (&outcome.stderr, &outcome.stdout),
        };
        assert_eq!(endless.len(), 1000, "{stream}");
        assert!(other.len() <= 1000, "{stream}");
    }
    let exactly = run_with("print('x' * 999)", b"", &limits);
    assert_eq!((exactly.status, exactly.stdout.len()), (Status::Exit(0), 1000));
    let one_more = run_with("print('x' * 1000)", b"", &limits);
    assert_eq!((one_more.status, one_more.stdout.len()), (Status::OutputLimit, 1000));
}

#[test]
fn much_output_on_both_streams_does_not_stall() {
    let source = "import sys\nfor _ in range(50):\n    sys.stdout.write('o' * 10000); sys.stderr.write('e' * 10000)";
    let outcome = run(source);
    assert_eq!(outcome.status, Status::Exit(0));
    assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (500_000, 500_000));
}

#[test]
fn files_stop_growing_at_the_limit() {
    let limits = Limits {
        file_bytes: 1000,
        ..Limits::default()
    };
    let source = "try:\n    open('f', 'wb', buffering=0).write(b'x' * 999)\n    \
        f = open('f', 'ab', buffering=0); f.write(b'x' * 10); f.write(b'x')\n\
        except OSError:\n    import os; print(os.path.getsize('f'))";
    assert_eq!(text(&run_with(source, b"", &limits).stdout), "1000");
}

#[test]
fn a_program_that_closes_its_output_is_still_waited_for() {
    let outcome = run("import os, time\nos.close(1); os.close(2); time.sleep(0.3); os._exit(7)");
    assert_eq!(outcome.status, Status::Exit(7));
    assert!(outcome.seconds >= 0.3);
}

#[test]
fn a_crash_is_a_signal() {
    let outcome = run("import ctypes; ctypes.string_at(8)");
    assert_eq!(outcome.status, Status::Signal(11));
}

#[test]
fn a_program_dies_with_its_harness() {
    // This test runs itself again as a harness that is killed while its program sleeps.
    const HARNESS: &str = "WMTP_TEST_HARNESS";
    if std::env::var_os(HARNESS).is_some() {
        run_with("import time; time.sleep(8)", b"", &Limits::default());
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let name = "limits::a_program_dies_with_its_harness";
    let mut harness = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(HARNESS, "1")
        .env("TMPDIR", temp.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let programs = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let here = |cwd: std::path::PathBuf| cwd.starts_with(temp.path().canonicalize().unwrap());
        all.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(here))
            .count()
    };
    let until = |wanted: fn(usize) -> bool| {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            wanted(programs())
        })
    };
    assert!(until(|n| n > 0), "the program never started");
    // The probe runs first; after it the program sleeps. Any of them has to die.
    std::thread::sleep(Duration::from_millis(300));
    harness.kill().unwrap();
    harness.wait().unwrap();
    assert!(until(|n| n == 0), "the program lives on");
}
