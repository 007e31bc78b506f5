//! Entry point of `sonde-bench`. Only starts the program.

use std::process::ExitCode;

fn main() -> ExitCode {
    sonde_benches::app::main()
}
