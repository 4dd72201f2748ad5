//! `cargo xtask instructions`: counts the processor's instructions on the way of a command, and compares them
//! with the recorded figure, so that nothing gets slower unseen. The count hardly differs from run to run,
//! and not with the load of the machine, as times do.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::cargo::{Workspace, succeed};
use crate::test::BENCH;

/// The recorded figure: instructions of one command.
const FIGURE: &str = "bench/instructions.txt";
/// The numbers of commands of two runs. Their difference has no start and no end of a host.
const COMMANDS: [u64; 2] = [50, 250];
/// The part by which a command may take more than the recorded figure.
const MORE_PERCENT: u64 = 5;

/// Compares, or records the figure if `record` is true. Leaves it at a sentence if there is no valgrind.
pub(crate) fn check(workspace: &Workspace, record: bool) -> Result<()> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("instructions are not counted: there is no valgrind; Debian has it as `valgrind`");
        return Ok(());
    }
    // The host as the tests have it: an optimized one takes a quarter of an hour to compile.
    let mut build = workspace.cargo(&["build", "--manifest-path", BENCH, "--config", "Cargo.toml"]);
    succeed("build of the bench", build.env("CARGO_TARGET_DIR", &workspace.target))?;
    let [few, many] = COMMANDS.map(|commands| count(workspace, commands));
    let found = (many? - few?) / (COMMANDS[1] - COMMANDS[0]);
    let file = workspace.root.join(FIGURE);
    if record {
        return Ok(fs::write(file, format!("{found}\n"))?);
    }
    let recorded: u64 = fs::read_to_string(&file)?.trim().parse()?;
    println!("a command takes {found} instructions; recorded are {recorded}");
    match found * 100 > recorded * (100 + MORE_PERCENT) {
        true => Err(format!(
            "a command takes over {MORE_PERCENT} % more instructions than recorded in {FIGURE}: find out \
             why, or record them with `cargo xtask instructions --record` and say why in the commit"
        )
        .into()),
        false => Ok(()),
    }
}

/// Returns the instructions of a process that sends commands.
fn count(workspace: &Workspace, commands: u64) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
    valgrind.arg(workspace.target.join("debug/kontor-bench"));
    valgrind.args(["commands", "--commands", &commands.to_string()]);
    let option = |option: &str, path: &Path| [option.into(), path.as_os_str().to_owned()];
    valgrind.args(option("--plugins", &workspace.target.join("plugins")));
    valgrind.args(option("--data", &workspace.target));
    let output = valgrind.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let counted = said.lines().find_map(|line| line.split_once("I   refs:"));
    let counted = counted.and_then(|(_, number)| number.trim().replace(',', "").parse().ok());
    match (output.status.success(), counted) {
        (true, Some(instructions)) => Ok(instructions),
        _ => Err(format!("instructions cannot be counted:\n{said}").into()),
    }
}
