//! Runs a Python file in the sandbox: `cargo run -p wmtp-sandbox --example run -- FILE [STDIN-FILE]`. With
//! `ISOLATION=landlock` or `bubblewrap` in the environment that and no other isolation. Prints its output,
//! and on standard error how it ended and how it was held.

use std::{error::Error, io::Write};
use wmtp_sandbox::{Isolation, Limits, Options, Program, Runner, Sandbox};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let source = std::fs::read_to_string(arguments.next().ok_or("name a Python file")?)?;
    let stdin = arguments.next().map_or(Ok(Vec::new()), std::fs::read)?;
    let isolation = match std::env::var("ISOLATION").as_deref() {
        Ok("landlock") => Isolation::Landlock,
        Ok("bubblewrap") => Isolation::Bubblewrap,
        _ => Isolation::Auto,
    };
    let sandbox = Sandbox::with(&Options {
        isolation,
        mount: std::env::var_os("WATCHED").is_none(),
        ..Options::default()
    })?;
    let program = Program {
        source: &source,
        stdin: &stdin,
    };
    let outcome = sandbox.run(&program, &Limits::default())?;
    std::io::stdout().write_all(&outcome.stdout)?;
    std::io::stderr().write_all(&outcome.stderr)?;
    eprintln!(
        "{:?} {:?} after {:.3} s; {}, Python {}",
        outcome.status,
        outcome.breach,
        outcome.seconds,
        sandbox.level(),
        sandbox.python()
    );
    Ok(())
}
