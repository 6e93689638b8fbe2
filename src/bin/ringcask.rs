//! The `ringcask` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringcask::cli::main()
}
