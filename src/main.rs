//! The program: an allocator, and [`scorefront::cli`].

use std::process::ExitCode;

/// A third less time in malloc than the system's under small requests on several threads; see docs/benchmarks.md.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    scorefront::cli::main()
}
