//! The process level of the sandbox: what a program meets, and how each limit ends it.

use super::runner;
use std::time::{Duration, Instant};
use wmtp::eval::sandbox::{Limits, Outcome, ProcessRunner, Program, Runner, SandboxError, Status};

fn run_with(source: &str, stdin: &[u8], limits: &Limits) -> Outcome {
    runner().run(&Program { source, stdin }, limits).unwrap()
}

fn run(source: &str) -> Outcome {
    run_with(source, b"", &Limits::default())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap().trim_end()
}

/// Whether a process with this number exists and is not a zombie.
fn alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn gone_within_a_second(pid: &str) -> bool {
    (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !alive(pid)
    })
}

#[test]
fn output_error_and_exit_code_come_back() {
    let outcome = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)");
    assert_eq!(outcome.status, Status::Exit(3));
    assert_eq!((text(&outcome.stdout), text(&outcome.stderr)), ("out", "err"));
    assert!(outcome.seconds > 0.0);
    assert_eq!(runner().level(), "process");
    assert!(runner().python().starts_with("3."), "{}", runner().python());
}

#[test]
fn the_environment_holds_nothing_of_the_callers() {
    let outcome = run("import os; print({k: v for k, v in os.environ.items() if k != 'LC_CTYPE'})");
    assert_eq!(text(&outcome.stdout), "{'PYTHONHASHSEED': '0'}");
}

#[test]
fn hash_order_repeats() {
    let source = "print(hash('one'), {'one', 'two', 'three', 'four'})";
    assert_eq!(run(source).stdout, run(source).stdout);
}

#[test]
fn standard_input_is_a_regular_file_without_a_name_or_dev_null() {
    let source = "import os, stat, sys\n\
        s = os.fstat(0)\n\
        print(stat.S_ISREG(s.st_mode), s.st_size, s.st_nlink, sys.stdin.read(), os.listdir('.'))";
    let outcome = run_with(source, b"hello", &Limits::default());
    assert_eq!(text(&outcome.stdout), "True 5 0 hello ['main.py']");
    assert_eq!(text(&run("import sys; print(repr(sys.stdin.read()))").stdout), "''");
}

#[test]
fn the_working_directory_is_temporary_even_when_it_is_locked() {
    let source = "import os\n\
        os.makedirs('a/b'); open('a/b/file', 'w').write('x')\n\
        os.chmod('a/b', 0); os.chmod('a', 0)\n\
        print(os.getcwd())";
    let outcome = run(source);
    let dir = text(&outcome.stdout);
    assert!(dir.contains("wmtp-run-"), "{dir}");
    assert!(!std::path::Path::new(dir).exists());
}

#[test]
fn the_program_leads_a_session_and_group_of_its_own_without_new_privileges() {
    let source = "import os\n\
        print(os.getsid(0) == os.getpid() == os.getpgid(0))\n\
        print([l.split()[1] for l in open('/proc/self/status') if l.startswith('NoNewPrivs')])\n\
        print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))";
    // Descriptors: the three standard ones and the listing's own.
    assert_eq!(text(&run(source).stdout), "True\n['1']\n['0', '1', '2'] 4");
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
fn the_processor_limit_ends_a_program_that_spins_even_if_it_ignores_the_signal() {
    let limits = Limits {
        cpu: Duration::from_secs(1),
        wall: Duration::from_secs(60),
        ..Limits::default()
    };
    assert_eq!(run_with("while True: pass", b"", &limits).status, Status::TimedOut);
    let deaf = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass";
    assert_eq!(run_with(deaf, b"", &limits).status, Status::TimedOut);
}

#[test]
fn memory_is_refused_beyond_the_limit() {
    let outcome = run("try:\n    bytearray(10 << 30)\nexcept MemoryError:\n    print('refused')");
    assert_eq!(text(&outcome.stdout), "refused");
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
        assert_eq!(outcome.stdout.len() + outcome.stderr.len(), 1000);
    }
    let exactly = run_with("print('x' * 999)", b"", &limits);
    assert_eq!((exactly.status, exactly.stdout.len()), (Status::Exit(0), 1000));
    let one_more = run_with("print('x' * 1000)", b"", &limits);
    assert_eq!((one_more.status, one_more.stdout.len()), (Status::OutputLimit, 1000));
}

#[test]
fn much_output_on_both_streams_does_not_stall() {
    let source = "import sys\n\
        for _ in range(50):\n    sys.stdout.write('o' * 10000); sys.stderr.write('e' * 10000)";
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
fn a_crash_is_a_signal() {
    let outcome = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)");
    assert_eq!(outcome.status, Status::Signal(11));
}

#[test]
fn children_die_with_the_program_and_an_open_pipe_does_not_hang_the_reader() {
    let source = "import os, time\n\
        pid = os.fork()\n\
        if pid == 0:\n    time.sleep(60)\n    os._exit(0)\n\
        print(pid)";
    let outcome = run(source);
    assert_eq!(outcome.status, Status::Exit(0));
    assert!(outcome.seconds < 5.0);
    assert!(gone_within_a_second(text(&outcome.stdout)));
}

#[test]
fn a_descendant_in_its_own_session_does_not_hang_the_reader_though_it_survives() {
    let source = "import os, time\n\
        pid = os.fork()\n\
        if pid == 0:\n    os.setsid()\n    time.sleep(3)\n    os._exit(0)\n\
        time.sleep(0.2)\n\
        print(pid)";
    let outcome = run(source);
    assert_eq!(outcome.status, Status::Exit(0));
    assert!(outcome.seconds < 2.5);
    assert!(!text(&outcome.stdout).is_empty());
}

#[test]
fn a_program_that_closes_its_output_is_still_waited_for() {
    let outcome = run("import os, time\nos.close(1); os.close(2); time.sleep(0.3); os._exit(7)");
    assert_eq!(outcome.status, Status::Exit(7));
    assert!(outcome.seconds >= 0.3);
}

#[test]
fn a_fork_bomb_ends_at_the_clock() {
    // Bounded here, because the kernel binds root to no number of processes.
    let source = "import os, time\nfor _ in range(5):\n    os.fork()\ntime.sleep(60)";
    let limits = Limits {
        wall: Duration::from_millis(800),
        ..Limits::default()
    };
    let outcome = run_with(source, b"", &limits);
    assert_eq!(outcome.status, Status::TimedOut);
    assert!(outcome.seconds < 5.0);
}

#[test]
fn many_programs_run_at_once() {
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| scope.spawn(move || text(&run(&format!("print({i} * {i})")).stdout).to_owned()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes, ["0", "1", "4", "9", "16", "25", "36", "49"]);
}

#[test]
fn a_missing_interpreter_is_one_clear_sentence() {
    for command in ["/nonexistent/python3", "/bin/true"] {
        let error = ProcessRunner::with_python(command.as_ref()).unwrap_err();
        assert!(matches!(error, SandboxError::NoPython { .. }));
        let text = error.to_string();
        assert!(text.contains(command) && text.contains("install Python 3"), "{text}");
    }
}
