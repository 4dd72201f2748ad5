//! Checks by programs that are installed apart. They are no stages of `cargo xtask test`, because a fresh
//! machine would compile these programs first, which takes longer than the tests.

use std::process::{Command, Stdio};

use crate::Result;
use crate::cargo::{Workspace, succeed};
use crate::test::BENCH;

/// Checks licenses, duplicates, sources and known vulnerabilities of the dependencies with cargo-deny and
/// deny.toml.
pub(crate) fn deny(workspace: &Workspace) -> Result<()> {
    ensure(&mut workspace.cargo(&["deny", "--version"]), "cargo install cargo-deny --locked")?;
    let fetched = succeed("cargo deny fetch", &mut workspace.cargo(&["deny", "fetch", "db"]));
    let checks: &[&str] = match &fetched {
        Ok(()) => &["advisories", "bans", "licenses", "sources"],
        Err(_) => &["bans", "licenses", "sources"],
    };
    for manifest in ["Cargo.toml", BENCH] {
        let mut check = workspace.cargo(&["deny", "--manifest-path", manifest, "--config", "deny.toml"]);
        check.args(["--workspace", "--locked", "check", "--show-stats"]).args(checks);
        succeed("cargo deny", &mut check)?;
    }
    if fetched.is_err() {
        eprintln!("warning: the advisory database cannot be fetched, so vulnerabilities were not checked");
    }
    Ok(())
}

/// Checks the spelling with typos and _typos.toml.
pub(crate) fn typos(workspace: &Workspace) -> Result<()> {
    let typos = || {
        let mut command = Command::new("typos");
        command.current_dir(&workspace.root);
        command
    };
    ensure(typos().arg("--version"), "cargo install typos-cli --locked")?;
    succeed("typos", typos().arg("--hidden"))
}

/// Finds dependencies that no code names, with cargo-machete.
pub(crate) fn unused(workspace: &Workspace) -> Result<()> {
    ensure(&mut workspace.cargo(&["machete", "--version"]), "cargo install cargo-machete --locked")?;
    succeed("cargo machete", &mut workspace.cargo(&["machete", "."]))
}

/// Fails with the command that installs a program if its `version` cannot be asked.
fn ensure(version: &mut Command, install: &str) -> Result<()> {
    match version.stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("this chore needs a program that is not installed; `{install}` installs it").into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::ensure;

    #[test]
    fn a_missing_program_is_named_by_the_command_that_installs_it() {
        for mut missing in [Command::new("kontor-no-such-program"), Command::new("false")] {
            let error = ensure(&mut missing, "cargo install it").expect_err("it is missing");
            assert_eq!(
                error.to_string(),
                "this chore needs a program that is not installed; `cargo install it` installs it"
            );
        }
        ensure(&mut Command::new("true"), "").expect("it is there");
    }
}
