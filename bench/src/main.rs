//! The program `kontor-bench`: puts load on a host and on the program that it is compared with.

mod add_stock;
mod api;
mod callers;
mod commands;
mod component;
mod deploy;
mod figures;
mod gateway;
mod growth;
mod http;
mod in_process;
mod jetstream;
mod latencies;
mod load;
mod native;
mod orders;
mod overload;
mod read_database;
mod report;
mod reports;
mod sagas;
mod server;
mod shop;
mod starts;
mod swaps;
mod turns;

use clap::{Parser, Subcommand};

/// The host's allocator. The baseline, and the parts of the host that run here, must not differ from it in
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure Kontor against the same service written by hand
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    AddStock(add_stock::AddStock),
    Callers(callers::Callers),
    Commands(commands::Commands),
    Component(component::Decisions),
    Deploy(deploy::Deploy),
    Gateway(gateway::Gateway),
    Growth(growth::Growth),
    #[command(name = "jetstream")]
    JetStream(jetstream::JetStream),
    Overload(overload::Overload),
    Sagas(sagas::Sagas),
    Native(native::Native),
    Reports(reports::Reports),
    Starts(starts::Starts),
    Swaps(swaps::Swaps),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::AddStock(comparison) => comparison.run(),
        Command::Callers(comparison) => comparison.run(),
        Command::Commands(commands) => commands.run(),
        Command::Component(comparison) => comparison.run(),
        Command::Deploy(deploy) => deploy.run(),
        Command::Gateway(comparison) => comparison.run(),
        Command::Growth(comparison) => comparison.run(),
        Command::JetStream(comparison) => comparison.run(),
        Command::Overload(overload) => overload.run(),
        Command::Sagas(comparison) => comparison.run(),
        Command::Native(baseline) => baseline.run(),
        Command::Reports(reports) => reports.run(),
        Command::Starts(starts) => starts.run(),
        Command::Swaps(comparison) => comparison.run(),
    }
}
