//! Runs the product's processes under faults and counts every slot. See docs/guide/chaos.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    sonde_integration_tests::chaos::main()
}
