//! The program: see [`scorefront::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    scorefront::cli::main()
}
