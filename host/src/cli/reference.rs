//! Writes `docs/reference/cli.md` from the definitions of the commands.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};
use expect_test::expect_file;

use super::Cli;
use super::exit::Exit;

const HEAD: &str = "\
# CLI

`kontor <command> --help` prints the arguments and examples of a command. `--json` is an argument of every
command. Commands with `--host` call a running host. The others work on their own: `serve`, `config check`,
`export`, `import` and `verify` with a [configuration](configuration.md), `new` and `sign` with files,
`logout` with the profiles.

## The host to call

A command takes the host, the token and the authorities from the flag, else from the environment, else from
the [profile](#kontor-login), else from the default, which is `http://127.0.0.1:7070` without a token. A token
file goes before `KONTOR_TOKEN`. The token of a profile is sent to the profile's host alone, a token to no
host without TLS except on this machine, and no redirect is followed.
";

const EXIT_CODES: &str = "
## Exit codes

| code | meaning |
|---|---|
";

/// Returns text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Returns an argument as it is typed: `<FILE>…`, `--note <TEXT>`.
fn typed(argument: &Arg) -> String {
    let values = argument.get_value_names().unwrap_or_default().iter();
    let values: String = values.map(|name| format!(" <{name}>")).collect();
    let values = if argument.get_action().takes_values() { values } else { String::new() };
    match argument.get_long() {
        Some(long) => format!("--{long}{values}"),
        None => values.trim_start().to_owned(),
    }
}

/// Returns the row of an argument: its meaning, its values, its default and its environment variable.
fn row(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help()).unwrap().to_string();
    let (meaning, default) = match help.rsplit_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => {
            let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy());
            (help, defaults.collect::<Vec<_>>().join(", "))
        }
    };
    let mut text = cell(&meaning) + ".";
    let values = argument.get_possible_values();
    if argument.get_action().takes_values() && !values.is_empty() {
        let name = |value: &clap::builder::PossibleValue| format!("`{}`", value.get_name());
        text += &format!(" One of {}.", values.iter().map(name).collect::<Vec<_>>().join(", "));
    }
    if argument.is_required_set() {
        text += " Required.";
    }
    if argument.get_action().takes_values() && !default.is_empty() {
        text += &format!(" Default: {default}.");
    }
    let variable = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy()));
    format!("| `{}` | {} | {text} |\n", cell(&typed(argument)), variable.unwrap_or_default())
}

/// Returns the examples of a command as a block of code, and the notes behind them.
fn examples(command: &Command) -> String {
    let text = command.get_after_help().unwrap().to_string();
    let (examples, notes) = text.split_once("\n\n").unwrap_or((&text, ""));
    let lines = examples.lines().skip(1).map(|line| line.trim_start().to_owned() + "\n");
    let notes = if notes.is_empty() { String::new() } else { format!("\n{notes}\n") };
    format!("\n```sh\n{}```\n{notes}", lines.collect::<String>())
}

/// Adds the section of a command, and of the commands below it.
fn section(command: &Command, name: &str, out: &mut String) {
    write!(out, "\n## `{name}`\n\n{}.\n", command.get_about().unwrap()).unwrap();
    let own = |argument: &&Arg| !["json", "help", "version"].contains(&argument.get_id().as_str());
    let rows: String = command.get_arguments().filter(own).map(row).collect();
    if !rows.is_empty() {
        write!(out, "\n| argument | environment | meaning |\n|---|---|---|\n{rows}").unwrap();
    }
    *out += &examples(command);
    for inner in command.get_subcommands().filter(|command| command.get_name() != "help") {
        section(inner, &format!("{name} {}", inner.get_name()), out);
    }
}

#[test]
fn snapshot_of_the_reference() {
    let mut cli = Cli::command();
    cli.build();
    let mut text = HEAD.to_owned();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        section(command, &format!("kontor {}", command.get_name()), &mut text);
    }
    expect_file!["../../../docs/reference/cli.md"].assert_eq(&(text + EXIT_CODES + &Exit::rows()));
}
