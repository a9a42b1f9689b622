//! What honest programs rely on.

use super::{common, printed, run, sandbox, text};
use std::collections::HashSet;
use wmtp_sandbox::{ExtraFile, Limits, Options, Program, Runner, Sandbox, SandboxError, Status, run_all};

#[test]
fn the_standard_library_imports() {
    let modules = "math re collections itertools random datetime decimal fractions heapq json sys threading time \
        string typing functools hashlib statistics copy bisect cmath tempfile pickle struct io os.path queue operator \
        array textwrap unicodedata calendar enum dataclasses contextlib csv zlib base64 secrets uuid logging \
        unittest concurrent.futures zoneinfo ctypes";
    let source = format!(
        "import importlib\nfor name in {:?}.split(): importlib.import_module(name)\n\
         import hashlib; print(hashlib.sha256(b'x').hexdigest()[:8], hashlib.md5(b'x').hexdigest()[:8])",
        modules.replace("        ", " ")
    );
    assert_eq!(printed(&source, b""), "2d711642 9dd4e461");
}

#[test]
fn numpy_works_where_it_is_installed() {
    let source = "try:\n    import numpy\nexcept ImportError:\n    print('absent')\nelse:\n    \
        print((numpy.ones((200, 200)) @ numpy.ones((200, 200))).sum())";
    match printed(source, b"").as_str() {
        "absent" => common::say("NOT TESTED: this interpreter has no numpy"),
        sum => assert_eq!(sum, "8000000.0"),
    }
}

#[test]
fn threads_work() {
    let source = "import threading\nfrom concurrent.futures import ThreadPoolExecutor\ntotal = []\n\
        threads = [threading.Thread(target=total.append, args=(i,)) for i in range(100)]\n\
        [t.start() for t in threads]; [t.join() for t in threads]\n\
        print(sum(total), sum(ThreadPoolExecutor(16).map(lambda i: i * i, range(100))))";
    assert_eq!(printed(source, b""), "4950 328350");
}

#[test]
fn files_in_the_working_directory_and_through_tempfile() {
    let source = "import os, tempfile, shutil\n\
        open('a.txt', 'w').write('hello'); os.mkdir('d'); os.rename('a.txt', 'd/b.txt')\n\
        with tempfile.TemporaryFile() as f: f.write(b'x' * 100000); f.seek(0); n = len(f.read())\n\
        with tempfile.TemporaryDirectory() as t: open(t + '/x', 'w').write('y'); shutil.copyfile(t + '/x', 'z')\n\
        with tempfile.NamedTemporaryFile('w+') as f: f.write('q'); f.flush(); q = open(f.name).read()\n\
        os.symlink('z', 'link'); os.link('z', 'hard')\n\
        print(open('d/b.txt').read(), n, open('link').read() + open('hard').read(), q, sorted(os.listdir('.')))";
    let expected = "hello 100000 yy q ['d', 'hard', 'link', 'main.py', 'z']";
    assert_eq!(printed(source, b""), expected);
}

#[test]
fn standard_input_is_a_regular_file_without_a_name_or_dev_null() {
    let source = "import os, stat, sys\ns = os.fstat(0)\n\
        print(stat.S_ISREG(s.st_mode), s.st_size, s.st_nlink, sys.stdin.read(), os.listdir('.'))";
    assert_eq!(printed(source, b"hello"), "True 5 0 hello ['main.py']");
    assert_eq!(printed("import sys; print(repr(sys.stdin.read()))", b""), "''");
    assert_eq!(printed("print(open(0).read())", b"hello"), "hello");
}

#[test]
fn many_lines_of_input_and_output() {
    let lines: String = (0..200_000).map(|i| format!("{i}\n")).collect();
    let sum = "import sys\nprint(sum(int(line) for line in sys.stdin), sum(map(int, [])))";
    assert_eq!(printed(sum, lines.as_bytes()), "19999900000 0");
    assert_eq!(
        printed(
            "n = 0\nfor _ in range(200000): n += int(input())\nprint(n)",
            lines.as_bytes()
        ),
        "19999900000"
    );
    let much = run("print('x' * ((1 << 20) - 1))");
    assert_eq!((much.status, much.stdout.len()), (Status::Exit(0), 1 << 20));
}

#[test]
fn recursion_is_as_deep_as_asked_for() {
    let source = "import sys, threading\nsys.setrecursionlimit(10**6)\n\
        def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n\
        print(depth(5000))\nthreading.stack_size(256 << 20)\n\
        t = threading.Thread(target=lambda: print(depth(50000))); t.start(); t.join()";
    assert_eq!(printed(source, b""), "5000\n50000");
}

#[test]
fn a_program_may_ask_for_a_bigger_stack_as_contest_solutions_do() {
    let source = "import resource\n_, hard = resource.getrlimit(resource.RLIMIT_STACK)\n\
        resource.setrlimit(resource.RLIMIT_STACK, (min(hard, 512 << 20), hard)); print('ok')";
    assert_eq!(printed(source, b""), "ok");
    // As Codeforces solutions write it; the memory stays limited. A host may have a lower limit of its own.
    let source = "import resource\n\
        try: resource.setrlimit(resource.RLIMIT_STACK, (2**28, -1)); resource.setrlimit(resource.RLIMIT_STACK, (-1, -1))\n\
        except ValueError as e: print(e, resource.getrlimit(resource.RLIMIT_STACK))\n\
        try: bytearray(8 << 30)\n\
        except MemoryError: print('limited')";
    let limits = std::fs::read_to_string("/proc/self/limits").expect("the limits of this process");
    let own = limits
        .lines()
        .find(|line| line.starts_with("Max stack size"))
        .expect("a stack limit");
    if own.split_whitespace().nth(4) == Some("unlimited") {
        assert_eq!(printed(source, b""), "limited");
    }
}

#[test]
fn runs_repeat() {
    let source = "import time, locale, random\n\
        print(hash('one'), {'one', 'two', 'three'}, time.tzname, locale.getpreferredencoding(), random.Random(1).random())";
    assert_eq!(run(source).stdout, run(source).stdout);
    assert!(
        printed(source, b"").contains("('UTC', 'UTC') utf-8"),
        "{}",
        printed(source, b"")
    );
}

#[test]
fn what_is_refused_is_an_ordinary_exception() {
    let source = "import os, socket\ncaught = 0\nfor action in (os.fork, socket.socket, lambda: os.chmod('main.py', 0)):\n    \
        try: action()\n    except PermissionError: caught += 1\nprint(caught)";
    assert_eq!(printed(source, b""), "3");
}

#[test]
fn extra_files_lie_beside_the_program() {
    let program = Program {
        source: "import helper; print(helper.value, open('data.txt').read())",
        stdin: b"",
    };
    let file = |name, bytes| ExtraFile { name, bytes };
    let files = [file("helper.py", b"value = 7"), file("data.txt", b"data")];
    let outcome = sandbox().run_with_files(&program, &files, &Limits::default()).unwrap();
    assert_eq!(text(&outcome.stdout), "7 data");
    let error = sandbox()
        .run_with_files(&program, &[file("../x", b"")], &Limits::default())
        .unwrap_err();
    assert!(matches!(error, SandboxError::Request(_)), "{error}");
}

#[test]
fn more_can_be_made_readable() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("words"), "hello").unwrap();
    let path = shared.path().join("words");
    let source = format!("print(open({path:?}).read())");
    let program = Program {
        source: &source,
        stdin: b"",
    };
    let with = |readable| {
        Sandbox::with(&Options {
            readable,
            ..common::options()
        })
        .unwrap()
    };
    let outcome = with(vec![shared.path().to_owned()])
        .run(&program, &Limits::default())
        .unwrap();
    assert_eq!(text(&outcome.stdout), "hello");
    assert_eq!(
        with(vec![]).run(&program, &Limits::default()).unwrap().status,
        Status::Exit(1)
    );
}

#[test]
fn many_programs_run_at_once_in_their_own_directories() {
    let sources: Vec<String> = (0..24)
        .map(|i| format!("import os; open('f', 'x').write('{i}'); print({i} * {i}, os.getcwd())"))
        .collect();
    let programs: Vec<Program> = sources.iter().map(|source| Program { source, stdin: b"" }).collect();
    let outcomes = run_all(sandbox(), &programs, &Limits::default(), 8);
    let mut directories = HashSet::new();
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let outcome = outcome.unwrap();
        let (square, directory) = text(&outcome.stdout).split_once(' ').unwrap();
        assert_eq!(square, (i * i).to_string());
        assert!(!std::path::Path::new(directory).exists());
        directories.insert(directory.to_owned());
    }
    assert_eq!(directories.len(), 24);
}

#[test]
fn a_virtual_environment_and_other_interpreters_work() {
    let dir = tempfile::tempdir().unwrap();
    let venv = dir.path().join("venv");
    let make = std::process::Command::new(common::python())
        .args(["-m", "venv", "--without-pip"])
        .arg(&venv)
        .output();
    let made = make.is_ok_and(|output| output.status.success());
    let mut tried = Vec::new();
    let candidates = [venv.join("bin/python3"), "/usr/bin/python3".into()];
    for python in candidates.into_iter().filter(|python| python.exists()) {
        let sandbox = Sandbox::with(&Options {
            python: python.clone(),
            ..common::options()
        })
        .unwrap();
        let source = "import sys, math, json, hashlib; print(sys.prefix)";
        let outcome = sandbox
            .run(&Program { source, stdin: b"" }, &Limits::default())
            .unwrap();
        assert_eq!(
            outcome.status,
            Status::Exit(0),
            "{}: {}",
            python.display(),
            text(&outcome.stderr)
        );
        if python.starts_with(&venv) {
            assert_eq!(text(&outcome.stdout), venv.to_str().unwrap());
        }
        tried.push(python.display().to_string());
    }
    if !made {
        common::say("NOT TESTED: this interpreter makes no virtual environments (Debian: install python3-venv)");
    }
    assert!(!tried.is_empty(), "no interpreter to try");
}
