//! `wmtp-faults`: see the library of the same name.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    wmtp_faults::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    use std::io::Write;
    let _ = writeln!(
        std::io::stderr(),
        "error: faults are made with what Linux has; run it there"
    );
    ExitCode::from(2)
}
