//! The `sonde` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sonde_ops::cli::run()
}
