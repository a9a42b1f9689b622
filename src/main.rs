//! The command-line program `wmtp`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wmtp_kernels::disable_malloc_trim();
    wmtp::cli::main()
}
