//! The program `kontor`: parses the command line, runs one command, prints its error.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

/// A command's memory is mostly freed on another thread than the one that allocated it. The system's
/// allocator spends a tenth of the processor on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = cli::Cli::parse().run(&mut *cli::terminal::output());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::report(&error),
    }
}
