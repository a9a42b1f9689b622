//! Programs that try to pass without solving anything, and what each is called. What a pass is worth is in
//! `verified`.

use super::runner;
use std::time::Duration;
use wmtp::eval::{
    Verdict,
    sandbox::Limits,
    verdict::{Checked, Names, check},
};

const CHECKS: [&str; 2] = ["assert double(2) == 4", "assert double(5) == 10"];

fn verdict_with(code: &str, limits: &Limits) -> Verdict {
    let checked = Checked {
        code,
        checks: &CHECKS,
        names: Names::default(),
    };
    check(runner(), limits, &checked).unwrap()
}

fn verdict(code: &str) -> Verdict {
    verdict_with(code, &Limits::default())
}

fn error(what: &str) -> Verdict {
    Verdict::Error(what.into())
}

#[test]
fn an_honest_solution_passes_whatever_it_prints() {
    let double = "def double(x):\n    return 2 * x\n";
    assert_eq!(verdict(double), Verdict::Passed);
    for extra in [
        "print('hello')",
        "import sys; sys.stdout.write('no line end')",
        "print('late', end='', flush=True)",
        "if __name__ == '__main__':\n    print(double(3))",
        "import threading, time; threading.Thread(target=time.sleep, args=(30,)).start()",
        "import sys; sys.stdout = None",
    ] {
        assert_eq!(verdict(&format!("{double}{extra}")), Verdict::Passed, "{extra}");
    }
}

#[test]
fn failures_are_told_apart() {
    let tight = Limits {
        wall: Duration::from_secs(2),
        memory_bytes: 256 << 20,
        output_bytes: 10_000,
        ..Limits::default()
    };
    for (code, expected) in [
        ("def double(x): return x + 2", Verdict::Wrong),
        ("def double(x): assert False", Verdict::Wrong),
        ("assert False", error("AssertionError")),
        ("def double(x): return y", error("NameError")),
        ("", error("NameError")),
        ("class Mine(Exception): pass\nraise Mine", error("Mine")),
        ("def double(x) return x", Verdict::Syntax),
        ("\0", Verdict::Syntax),
        ("def double(x):\n    while True: pass", Verdict::Timeout),
        ("x = input()", error("EOFError")),
        ("def double(x): return double(x)", error("RecursionError")),
        ("def double(x): return [0] * (1 << 32)", error("MemoryError")),
        ("while True: print('x' * 1000)", Verdict::OutputLimit),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            Verdict::Killed(9),
        ),
    ] {
        assert_eq!(verdict_with(code, &tight), expected, "{code}");
    }
}

/// Every way out before the checks. None of them shows the nonce.
#[test]
fn leaving_early_does_not_pass() {
    for (code, expected) in [
        ("import sys; sys.exit(0)", error("SystemExit")),
        ("raise SystemExit", error("SystemExit")),
        ("exit()", error("SystemExit")),
        ("quit(0)", error("SystemExit")),
        ("def double(x): raise SystemExit(0)", error("SystemExit")),
        ("raise KeyboardInterrupt", error("KeyboardInterrupt")),
        ("import os; os._exit(0)", error("exit code 0")),
        (
            "import os; print('passed', flush=True); os._exit(0)",
            error("exit code 0"),
        ),
        ("import os; os.execv('/bin/true', ['true'])", error("PermissionError")),
        ("import os\nif os.fork(): os._exit(0)", error("PermissionError")),
        ("import atexit, os\natexit.register(os._exit, 0)", error("NameError")),
        ("import atexit\natexit.register(print, 'passed')", error("NameError")),
        (
            "import sys\nsys.excepthook = lambda *a: None\n1 / 0",
            error("ZeroDivisionError"),
        ),
        (
            "import threading, os\nthreading.Timer(0.05, os._exit, [0]).start()\nimport time\ntime.sleep(60)",
            error("exit code 0"),
        ),
    ] {
        assert_eq!(verdict(code), expected, "{code}");
    }
}

/// Output that looks like a verdict.
#[test]
fn printing_a_guess_does_not_pass() {
    for code in [
        "print('passed')",
        "print('ok')",
        "print('0' * 32 + ' passed')",
        "import os; os.write(1, b'\\n' + b'0' * 32 + b' passed\\n')",
        "import os, secrets\nprint(secrets.token_hex(16), 'passed', flush=True)\nos._exit(0)",
    ] {
        let verdict = verdict(code);
        assert!(matches!(verdict, Verdict::Error(_)), "{code}: {verdict}");
    }
}

/// Looking for the nonce (32 hexadecimal digits) in every place that is easy to reach, and
/// printing it as the harness would.
#[test]
fn the_nonce_is_not_lying_about() {
    let print_found = "\n\
        import re, os\n\
        text = text if isinstance(text, str) else repr(text)\n\
        for nonce in set(re.findall('[0-9a-f]{32}', text)):\n    \
            print(nonce, 'passed')\n\
        import sys; sys.stdout.flush(); os._exit(0)";
    // What the sandbox keeps shut holds no nonce either.
    let peek = "def peek(path):\n    \
            try: return open(path, 'rb').read()\n    \
            except OSError: return b''\n";
    for (place, search) in [
        ("its own source", "import sys; text = open('main.py').read()"),
        (
            "every file in reach",
            "import os; text = [open(f).read() for f in os.listdir('.')]",
        ),
        ("__file__", "text = open(globals().get('__file__', 'main.py')).read()"),
        (
            "arguments",
            "import sys; text = [sys.argv, sys.orig_argv, peek('/proc/self/cmdline')]",
        ),
        (
            "environment",
            "import os; text = [dict(os.environ), peek('/proc/self/environ')]",
        ),
        ("standard input", "import os; text = os.read(0, 1 << 20)"),
        (
            "standard input, rewound",
            "import os\ntry: os.lseek(0, 0, 0)\nexcept OSError: pass\ntext = peek('/proc/self/fd/0')",
        ),
        (
            "the main module",
            "import __main__, sys; text = [vars(__main__), vars(sys.modules['__main__'])]",
        ),
        ("globals", "text = globals()"),
        (
            "all frames",
            "import sys\ntext, f = [], sys._getframe()\nwhile f: text += [f.f_locals, f.f_globals]; f = f.f_back",
        ),
        (
            "inspect",
            "import inspect; text = [(s.filename, s.code_context, s.frame.f_locals) for s in inspect.stack()]",
        ),
        (
            "all objects",
            "import gc\ntext = [repr(o) for o in gc.get_objects() if isinstance(o, (dict, list, tuple, set))]\ntext = ' '.join(text)",
        ),
        (
            "all descriptors",
            "import os\ntext = b''\nfor fd in range(3, 64):\n    try: text += os.read(fd, 100)\n    except OSError: pass",
        ),
    ] {
        let verdict = verdict(&format!("{peek}{search}{print_found}"));
        assert!(
            matches!(&verdict, Verdict::Error(what) if what.starts_with("exit code")),
            "{place}: {verdict}"
        );
    }
}

/// Replacing what a harness might use after the candidate.
#[test]
fn replacing_what_the_harness_uses_does_not_pass() {
    for code in [
        "print = lambda *a: None",
        "import builtins\nbuiltins.print = lambda *a, **k: None",
        "import builtins\nbuiltins.AssertionError = Exception",
        "import builtins\nbuiltins.BaseException = KeyError",
        "import builtins\nbuiltins.exec = lambda *a: None",
        "import builtins\nbuiltins.compile = lambda *a, **k: None",
        "import os\nos._exit = lambda code: None",
        "import os\nos.write = lambda fd, data: len(data)",
        "import sys\nsys.modules.clear()",
        "import sys\nsys.settrace(lambda *a: None)",
        "__debug__2 = False\n__builtins__ = {}",
        "import os\nos.close(1)",
        "import os\nos.closerange(0, 64)",
        "def double(x):\n    import os\n    os.closerange(0, 64)\n    return 2 * x",
        "double = None",
        "import os\nos.dup2(2, 1)",
    ] {
        assert_ne!(verdict(code), Verdict::Passed, "{code}");
    }
}

/// Recursion, threads that outlive, and exceptions that are none of the everyday ones.
#[test]
fn unusual_endings_do_not_pass() {
    for code in [
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef double(x): return double(x)",
        "class Out(BaseException): pass\ndef double(x): raise Out",
        "def double(x): raise GeneratorExit",
        "import threading, os, time\ndef late():\n    time.sleep(0.05)\n    os.write(1, b'passed\\n')\n    os._exit(0)\nthreading.Thread(target=late).start()\ndef double(x):\n    time.sleep(5)\n    return 0",
        "import atexit, os\natexit.register(lambda: os._exit(0))\ndef double(x): return 0",
        "import sys\nsys.exit = lambda *a: None\ndef double(x): return 0",
        "class Bad:\n    def __del__(self): import os; os._exit(0)\nb = Bad()\ndel b\ndef double(x): return 0",
        "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\nimport time\ntime.sleep(5)",
        "class Hide(AssertionError): pass\ndef double(x): raise Hide",
        "import sys, io\nsys.stdout = io.StringIO()\ndef double(x): return 0",
        "def double(x): return NotImplemented",
        "def double(x): return float('nan')",
        "async def double(x): return 2 * x",
    ] {
        let limits = Limits {
            wall: Duration::from_secs(5),
            ..Limits::default()
        };
        assert_ne!(verdict_with(code, &limits), Verdict::Passed, "{code}");
    }
}

#[test]
fn a_nonce_counts_only_from_a_program_that_ended_by_itself() {
    let slow = "def double(x):\n    import time\n    time.sleep(30)\n    return 2 * x";
    let limits = Limits {
        wall: Duration::from_millis(500),
        ..Limits::default()
    };
    assert_eq!(verdict_with(slow, &limits), Verdict::Timeout);
}
