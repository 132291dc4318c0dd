//! The binary: runs one command and prints its error with the causes.

use std::process::ExitCode;

use skylark::allocator::Allocator;
use skylark::cli;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    cli::exit_code(cli::run(std::env::args_os()))
}
