//! The command-line program `wmtp`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wmtp_kernels::keep_freed_memory();
    wmtp::cli::main()
}
