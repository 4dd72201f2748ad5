//! The program `kontor`: parses the command line, runs one command, tells its error.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let outcome = cli::Cli::parse().run(&mut std::io::stdout());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::tell(&error),
    }
}
