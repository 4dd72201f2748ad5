//! The commands of the program `kontor`, one file each.

mod actor;
mod audit;
mod backup;
mod bearer;
mod client;
mod config;
mod dead_letters;
mod deploy;
mod describe;
mod events;
mod exit;
mod export;
mod gates;
mod gc;
mod import;
mod login;
mod logout;
mod new;
mod nodes;
mod output;
mod plugins;
mod profiles;
mod progress;
mod projections;
#[cfg(test)]
mod reference;
mod replay;
mod rollback;
mod saga;
mod sagas;
#[cfg(test)]
mod scripted_host;
mod serve;
mod sign;
mod sse;
mod style;
mod table;
mod target;
pub(crate) mod terminal;
mod timeline;
mod token;
mod undeploy;
mod unix;
mod verify;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kontor::error::with_causes;

use self::exit::Exit;

/// The display order of an option that stands behind those of the command itself.
const LAST: usize = 100;

const EXAMPLES: &str = "\
Examples:
  kontor serve --plugins target/plugins
  kontor plugins
  kontor deploy order.wasm --note 'spring sale'
  kontor events --stream order/A-1
  kontor events --follow --json
  kontor sagas --state parked
  kontor saga show 01997a2b-3c4d
  kontor projections
  kontor dead-letters
  kontor nodes
  kontor gc --dry-run
  kontor token list
  kontor audit
  kontor export shop.jsonl
  kontor login prod --host https://shop.example --token-file -

`kontor <command> --help` describes a command, its arguments and examples.";

fn after_help() -> String {
    format!("{EXAMPLES}\n\n{}", Exit::help())
}

/// A host for business logic in WebAssembly: event log, sagas, read models and HTTP for your services
#[derive(Debug, Parser)]
#[command(name = "kontor", version, after_help = after_help(), args_override_self = true)]
pub(crate) struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true, display_order = LAST)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Plugins(plugins::Plugins),
    Deploy(deploy::Deploy),
    Rollback(rollback::Rollback),
    Undeploy(undeploy::Undeploy),
    Events(events::Events),
    Sagas(sagas::Sagas),
    Saga(saga::Saga),
    Projections(projections::Projections),
    Replay(replay::Replay),
    DeadLetters(dead_letters::DeadLetters),
    Nodes(nodes::Nodes),
    Gc(gc::Gc),
    Login(login::Login),
    Logout(logout::Logout),
    Token(token::Token),
    Audit(audit::Audit),
    Export(export::Export),
    Import(import::Import),
    Verify(verify::Verify),
    New(new::New),
    Config(config::Config),
    Sign(sign::Sign),
}

impl Cli {
    /// Runs the command. Its output goes to `out`.
    pub(crate) fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run(self.json, out),
            Command::Plugins(plugins) => plugins.run(self.json, out),
            Command::Deploy(deploy) => deploy.run(self.json, out),
            Command::Rollback(rollback) => rollback.run(self.json, out),
            Command::Undeploy(undeploy) => undeploy.run(self.json, out),
            Command::Events(events) => events.run(self.json, out),
            Command::Sagas(sagas) => sagas.run(self.json, out),
            Command::Saga(saga) => saga.run(self.json, out),
            Command::Projections(projections) => projections.run(self.json, out),
            Command::Replay(replay) => replay.run(self.json, out),
            Command::DeadLetters(dead_letters) => dead_letters.run(self.json, out),
            Command::Nodes(nodes) => nodes.run(self.json, out),
            Command::Gc(gc) => gc.run(self.json, out),
            Command::Login(login) => login.run(self.json, out),
            Command::Logout(logout) => logout.run(self.json, out),
            Command::Token(token) => token.run(self.json, out),
            Command::Audit(audit) => audit.run(self.json, out),
            Command::Export(export) => export.run(self.json, out),
            Command::Import(import) => import.run(self.json, out),
            Command::Verify(verify) => verify.run(self.json, out),
            Command::New(new) => new.run(self.json, out),
            Command::Config(config) => config.run(self.json, out),
            Command::Sign(sign) => sign.run(self.json, out),
        }
    }
}

/// Prints an error with its causes, each once, to standard error. Returns the exit code for it.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let exit = Exit::of(error);
    if exit != Exit::Success {
        // Err: nobody reads it.
        let _ = writeln!(terminal::errors(), "error: {}", with_causes(error.as_ref()));
    }
    ExitCode::from(exit as u8)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_part_of_it_is_described() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        assert_described(&cli);
    }

    fn assert_described(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} is not described");
        assert!(command.get_after_help().is_some(), "{name} has no examples");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} of {name} is not described", argument.get_id());
        }
        command.get_subcommands().filter(|command| command.get_name() != "help").for_each(assert_described);
    }

    #[test]
    fn the_last_of_two_equal_flags_holds() {
        let line = ["kontor", "serve", "--plugins", "one", "--plugins", "two"];
        let Command::Serve(serve) = Cli::try_parse_from(line).unwrap().command else {
            panic!("the command is serve");
        };
        assert_eq!(serve.overrides.plugins.unwrap().to_str(), Some("two"));
    }

    #[test]
    fn a_cause_that_its_error_repeats_is_printed_once() {
        let error = anyhow::anyhow!("no route").context("no route").context("the host is not there");
        assert_eq!(with_causes(error.as_ref()), "the host is not there: no route");
    }
}
