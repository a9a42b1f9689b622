//! What the sandbox costs: `cargo run --release -p wmtp-sandbox --example cost [-- GIGABYTES]`.
//!
//! A trivial program under the sandbox and under plain `python3 -I`, alternating, 200 times each;
//! then 500 trivial programs on two threads. With GIGABYTES the caller first fills that much
//! memory, as a model would, and plain Python is started by the standard library's `Command` both
//! as it is and with the copying `fork` that a closure before `exec` brings.

use std::{
    error::Error,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::Instant,
};
use wmtp_sandbox::{Isolation, Limits, Options, Program, Runner, Sandbox, Status, run_all};

const ROUNDS: usize = 200;
const SOURCE: &str = "print(sum(range(10)))\n";

fn main() -> Result<(), Box<dyn Error>> {
    let gigabytes: usize = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let ballast: Vec<u8> = (0..gigabytes << 30).map(|i| i as u8 | 1).collect();
    println!(
        "{} cores; {gigabytes} GiB resident in the caller",
        std::thread::available_parallelism()?
    );
    for (isolation, mount) in [
        (Isolation::Landlock, true),
        (Isolation::Landlock, false),
        (Isolation::Bubblewrap, true),
        (Isolation::Bubblewrap, false),
    ] {
        match Sandbox::with(&Options {
            isolation,
            mount,
            ..Options::default()
        }) {
            Ok(sandbox) => measure(&sandbox)?,
            Err(error) => println!("\n{isolation:?}: not measured, {error}"),
        }
    }
    std::hint::black_box(ballast);
    Ok(())
}

fn measure(sandbox: &Sandbox) -> Result<(), Box<dyn Error>> {
    let program = Program {
        source: SOURCE,
        stdin: b"1 2 3\n",
    };
    let limits = Limits::default();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("main.py");
    std::fs::write(&file, SOURCE)?;
    let plain = |copying_fork: bool| -> Result<f64, Box<dyn Error>> {
        let started = Instant::now();
        let mut command = Command::new(executable()?);
        command.args(["-I".as_ref(), file.as_os_str()]).stdin(Stdio::null());
        if copying_fork {
            // SAFETY: the closure does nothing.
            unsafe { command.pre_exec(|| Ok(())) };
        }
        let output = command.output()?;
        assert_eq!(output.stdout, b"45\n");
        Ok(started.elapsed().as_secs_f64() * 1e3)
    };
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(plain(false)?);
        times[1].push(plain(true)?);
        let started = Instant::now();
        let outcome = sandbox.run(&program, &limits)?;
        times[2].push(started.elapsed().as_secs_f64() * 1e3);
        assert_eq!(
            (outcome.status, outcome.stdout.as_slice()),
            (Status::Exit(0), &b"45\n"[..])
        );
    }
    let [plain, forked, ours] = times.map(quartiles);
    println!(
        "\n{}, Python {}, {ROUNDS} alternating runs, ms",
        sandbox.level(),
        sandbox.python()
    );
    println!("                              25%   median      75%");
    for (name, [low, middle, high]) in [
        ("python3 -I", plain),
        ("python3 -I after fork", forked),
        ("sandbox", ours),
    ] {
        println!("{name:<24} {low:8.2} {middle:8.2} {high:8.2}");
    }
    println!("overhead of the sandbox, median: {:.2} ms", ours[1] - plain[1]);

    let programs = [program; 500];
    let started = Instant::now();
    let outcomes = run_all(sandbox, &programs, &limits, 2);
    let seconds = started.elapsed().as_secs_f64();
    let good = outcomes
        .iter()
        .flatten()
        .filter(|outcome| outcome.stdout == b"45\n")
        .count();
    println!(
        "{good} of {} programs judged on 2 threads in {seconds:.2} s",
        programs.len()
    );
    Ok(())
}

/// The interpreter itself and not a wrapper of it.
fn executable() -> Result<String, Box<dyn Error>> {
    use std::sync::OnceLock;
    static FOUND: OnceLock<String> = OnceLock::new();
    if FOUND.get().is_none() {
        let output = Command::new("python3")
            .args(["-I", "-c", "import sys; print(sys.executable)"])
            .output()?;
        let _ = FOUND.set(String::from_utf8(output.stdout)?.trim_end().to_owned());
    }
    FOUND.get().cloned().ok_or_else(|| "no python3".into())
}

fn quartiles(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| times[times.len() * quarter / 4])
}
