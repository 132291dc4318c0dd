//! The binary: runs one command and prints its error with the causes.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: skylark::cli::Allocator = skylark::cli::Allocator;

fn main() -> ExitCode {
    match skylark::cli::run() {
        Ok(code) => code,
        // The reader closed our output pipe. That is not an error of this command.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut told = error.to_string();
            for cause in error.chain().skip(1).map(ToString::to_string) {
                if !told.contains(&cause) {
                    eprintln!("  because: {cause}");
                    told = cause;
                }
            }
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_io = error.downcast_ref::<std::io::Error>();
    is_io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
