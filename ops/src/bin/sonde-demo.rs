//! The demo target of the local mesh.

use std::process::ExitCode;

fn main() -> ExitCode {
    sonde_ops::demo::run()
}
