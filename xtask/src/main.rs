//! Chores of the repository: `cargo xtask help`. It uses the standard library only, and so builds in seconds.

mod api_tools;
mod bench;
mod bless;
mod cargo;
mod cargo_component;
mod cluster;
mod fuzz;
mod instructions;
mod layers;
mod links;
mod long;
mod nats;
mod new_service;
mod oidc;
mod pip;
mod plugins;
mod programs;
mod rust_text;
mod sources;
mod test;
mod tidy;
mod tools;

use std::error::Error;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use cargo::Workspace;
use plugins::{FIXTURES, Group, PLUGINS};

const HELP: &str = "\
Chores of the Kontor repository

Usage: cargo xtask <COMMAND> [OPTIONS] [-- ARGUMENTS]

Commands:
  build            Build the plugins into target/plugins/, the fixtures of the tests, and the host
  run              Build, then run `kontor serve` with the plugins in the root of the repository
  cluster          Build, then run three hosts on one log that three nats-servers keep, until Ctrl-C
  test             Run all checks of the repository itself, lints, documentation and all tests
  long             Build, then run the tests with random load and kills in large sizes, for an hour
  bench [NAME]     Build with optimizations, then run one measurement of the bench, or all of them
  fuzz             Build, then send a million generated inputs to each part that reads input
  bless            Rewrite the snapshots of tests and the generated documents

Checks:
  layers           Modules of the host use only modules below them in the table of ARCHITECTURE.md
  tidy             Words, doc comments, widths, lengths: the rules of xtask/src/tidy/rules.rs
  instructions     A command takes no more of the processor's instructions than recorded (valgrind)
  links            Links in Markdown and paths in backticks lead somewhere

Checks that need another program, and print how to install it:
  deny             Licenses, duplicates, sources and vulnerabilities of dependencies (cargo-deny)
  typos            Spelling (typos)
  unused           Dependencies that no code names (cargo-machete)
  cargo-component  Build the plugins with cargo-component, run their tests and a host on the result

  help             Print this text

Options:
  --release        build, run, cluster: compile the host with optimizations (plugins always are)
  --fresh          cluster: delete the data of the previous run first
  --cases NUMBER   fuzz: as many inputs for each part
  --record         instructions: record them instead

Arguments after -- are passed on: by run to `kontor serve`, by test, long and fuzz to the test runner, by
bench to `kontor-bench`.

Examples:
  cargo xtask run
  cargo xtask run --release -- --listen 127.0.0.1:8080
  cargo xtask test -- insufficient_stock
  cargo xtask bench add-stock -- --seconds 5
  cargo xtask fuzz --cases 100000 -- fuzz::http";

const ALL: &[Group] = &[PLUGINS, FIXTURES];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match chore() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn chore() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (own, passed_on) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (&arguments[..], &[][..]),
    };
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    match own[..] {
        ["build"] if passed_on.is_empty() => build(&Workspace::find()?, ALL, false),
        ["build", "--release"] if passed_on.is_empty() => build(&Workspace::find()?, ALL, true),
        ["run"] => run(&Workspace::find()?, false, passed_on),
        ["run", "--release"] => run(&Workspace::find()?, true, passed_on),
        ["cluster", ref options @ ..] if passed_on.is_empty() && are_of_cluster(options) => {
            cluster::run(&Workspace::find()?, options.contains(&"--release"), options.contains(&"--fresh"))
        }
        ["bless"] if passed_on.is_empty() => bless::bless(&Workspace::find()?),
        ["deny"] if passed_on.is_empty() => tools::deny(&Workspace::find()?),
        ["typos"] if passed_on.is_empty() => tools::typos(&Workspace::find()?),
        ["unused"] if passed_on.is_empty() => tools::unused(&Workspace::find()?),
        ["layers"] if passed_on.is_empty() => layers::check(&Workspace::find()?),
        ["instructions"] if passed_on.is_empty() => instructions::check(&Workspace::find()?, false),
        ["instructions", "--record"] if passed_on.is_empty() => {
            instructions::check(&Workspace::find()?, true)
        }
        ["links"] if passed_on.is_empty() => links::check(&Workspace::find()?),
        ["tidy"] if passed_on.is_empty() => tidy::check(&Workspace::find()?),
        ["cargo-component"] if passed_on.is_empty() => cargo_component::check(&Workspace::find()?),
        ["test"] => test::test(&Workspace::find()?, passed_on),
        ["bench"] => bench::bench(&Workspace::find()?, None, passed_on),
        ["bench", name] => bench::bench(&Workspace::find()?, Some(name), passed_on),
        ["long"] => long::long(&Workspace::find()?, passed_on),
        ["fuzz"] => fuzz::fuzz(&Workspace::find()?, fuzz::CASES, passed_on),
        ["fuzz", "--cases", cases] => fuzz::fuzz(&Workspace::find()?, cases.parse()?, passed_on),
        [] | ["help" | "--help" | "-h", ..] => {
            println!("{HELP}");
            Ok(())
        }
        _ => Err(format!("there is no chore `{}`\n\n{HELP}", arguments.join(" ")).into()),
    }
}

fn are_of_cluster(options: &[&str]) -> bool {
    options.iter().all(|option| ["--release", "--fresh"].contains(option))
}

/// Builds the components and the host.
fn build(workspace: &Workspace, components: &[Group], release: bool) -> Result<()> {
    plugins::build(workspace, components)?;
    // With the features of the whole workspace, so that this and the tests share one build of wasmtime.
    let mut host = workspace.cargo(&["build", "--workspace", "--bin", "kontor"]);
    if release {
        host.arg("--release");
    }
    cargo::succeed("build of the host", &mut host)
}

/// Builds, and replaces this process by `kontor serve`, so that signals reach the host itself.
fn run(workspace: &Workspace, release: bool, serve_arguments: &[String]) -> Result<()> {
    build(workspace, &[PLUGINS], release)?;
    let profile = if release { "release" } else { "debug" };
    let host = workspace.target.join(profile).join("kontor");
    let error = Command::new(&host)
        .current_dir(&workspace.root)
        .args(["serve", "--plugins"])
        .arg(PLUGINS.folder(workspace))
        .args(serve_arguments)
        .exec();
    Err(format!("{} does not start: {error}", host.display()).into())
}
