//! Two programs that talk.

use super::{sandbox, text};
use std::time::{Duration, Instant};
use wmtp_sandbox::{ExtraFile, Limits, Outcome, Pair, PairSide, Program, Runner, Status};

fn talk(first: &str, second: &str, limits: &Limits) -> [Outcome; 2] {
    let side = |source, files| PairSide { source, files };
    let pair = Pair {
        first: side(
            first,
            &[ExtraFile {
                name: "word",
                bytes: b"A",
            }],
        ),
        second: side(
            second,
            &[ExtraFile {
                name: "word",
                bytes: b"B",
            }],
        ),
    };
    sandbox().run_pair(&pair, limits).unwrap()
}

/// Answers each line with itself and what its own directory holds.
const ECHO: &str = "import os\nwhile line := os.read(0, 100): os.write(1, line + open('word', 'rb').read())";

#[test]
fn each_reads_what_the_other_writes() {
    let asks = "import os, sys\nos.write(1, b'x')\nfound = os.read(0, 100)\nos.write(1, b'y')\n\
        found += os.read(0, 100) + open('word', 'rb').read()\nos.write(2, found)\nos._exit(3)";
    let [first, second] = talk(ECHO, asks, &Limits::default());
    assert_eq!(second.status, Status::Exit(3));
    assert_eq!((text(&second.stderr), text(&second.stdout)), ("xAyAB", ""));
    // The end of the second is the end of its requests.
    assert!(matches!(first.status, Status::Exit(0) | Status::Signal(9)), "{first:?}");
}

/// For the time of a start: what is installed can be large, and can have put anything into every start.
#[test]
fn they_begin_without_what_is_installed() {
    let tells = "import os, sys\nos.write(1, b'%d' % sys.flags.no_site)";
    let repeats = "import os, sys\nos.write(2, os.read(0, 1) + b'%d' % sys.flags.no_site)";
    let [_, second] = talk(tells, repeats, &Limits::default());
    assert_eq!(text(&second.stderr), "11");
    let alone = sandbox()
        .run(
            &Program {
                source: "import sys\nprint(sys.flags.no_site)",
                stdin: b"",
            },
            &Limits::default(),
        )
        .unwrap();
    assert_eq!(text(&alone.stdout), "0");
}

#[test]
fn the_end_of_the_second_is_the_end_of_both() {
    let begun = Instant::now();
    let [first, second] = talk("import time\ntime.sleep(60)", "print(1)", &Limits::default());
    assert_eq!((first.status, second.status), (Status::Signal(9), Status::Exit(0)));
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[test]
fn the_end_of_the_first_is_an_end_of_file() {
    for first in ["pass", "import os\nos._exit(1)", "import ctypes\nctypes.string_at(0)"] {
        let reads = "import os\nos.write(2, repr(os.read(0, 10)).encode())";
        let [_, second] = talk(first, reads, &Limits::default());
        assert_eq!(text(&second.stderr), "b''", "{first}");
    }
}

#[test]
fn each_has_its_limits() {
    let limits = Limits {
        wall: Duration::from_secs(1),
        ..Limits::default()
    };
    let [_, second] = talk(ECHO, "import os\nos.read(0, 10)", &limits);
    assert_eq!(second.status, Status::TimedOut);
    // A limit that the first hits ends it alone.
    let floods = "import os\nwhile True: os.write(2, b'x' * 65536)";
    let [first, second] = talk(floods, "import os\nos._exit(len(os.read(0, 10)))", &Limits::default());
    assert_eq!((first.status, second.status), (Status::OutputLimit, Status::Exit(0)));
}

#[test]
fn neither_reaches_the_other() {
    let looks = "\
import os
def look(action, *arguments):
    try: return action(*arguments)
    except OSError: return []
def read(path):
    with open(path) as file: return file.read()
found = [look(read, f'{path}/{name}/word') for path in ('/tmp', '..') for name in look(os.listdir, path)]
look(os.kill, os.getppid(), 9)
os.write(1, repr(found).encode())
";
    let [_, second] = talk(looks, "import os\nos.write(2, os.read(0, 1000))", &Limits::default());
    // Behind bwrap it finds its own.
    let found = text(&second.stderr);
    assert!(found.starts_with('[') && !found.contains('B'), "{found}");
}
