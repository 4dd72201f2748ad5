//! `cargo xtask bench`: the measurements of the bench, each with its table and a file of its figures.

use std::fs;
use std::process::Command;

use crate::cargo::{Workspace, succeed};
use crate::plugins::{PROFILE, TARGET};
use crate::test::BENCH;
use crate::{ALL, Result, build, nats};

/// The measurements by name, each with the arguments of `kontor-bench`.
const MEASUREMENTS: [(&str, &[&str]); 13] = [
    ("add-stock", &["add-stock"]),
    ("hot-product", &["add-stock", "--products", "1", "--connections", "256"]),
    ("sagas", &["sagas"]),
    ("callers", &["callers"]),
    ("gateway", &["gateway"]),
    ("overload", &["overload"]),
    ("jetstream", &["jetstream"]),
    ("deploy", &["deploy"]),
    ("starts", &["starts"]),
    ("swaps", &["swaps"]),
    ("growth", &["growth"]),
    ("reports", &["reports", "--orders", "1000000"]),
    ("component", &["component"]),
];
/// The folder of the figures in cargo's target directory.
const FIGURES: &str = "bench";

/// Builds everything with optimizations, and runs the measurement `name`, or all. `more`: further arguments
/// of each.
pub(crate) fn bench(workspace: &Workspace, name: Option<&str>, more: &[String]) -> Result<()> {
    let chosen: Vec<_> =
        MEASUREMENTS.iter().filter(|(known, _)| name.is_none_or(|name| name == *known)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no such measurement; there are {}", names.join(", ")).into());
    }
    build(workspace, ALL, true)?;
    nats::ensure(workspace)?;
    let by_hand = ["build", "--package", "by-hand", "--target", TARGET, "--profile", PROFILE];
    succeed("build of the shop without sagas", &mut in_bench(workspace, &by_hand))?;
    succeed("build of the bench", &mut in_bench(workspace, &["build", "--release"]))?;

    let figures = workspace.target.join(FIGURES);
    fs::create_dir_all(&figures)?;
    for (name, arguments) in chosen {
        let file = figures.join(name).with_extension("json");
        println!("==> {name}");
        let mut measure = in_bench(workspace, &["run", "--release", "--quiet", "--"]);
        measure.args(*arguments).args(more).arg("--json").arg(&file);
        succeed(name, &mut measure)?;
        println!("==> {name}: the figures are in {}\n", file.display());
    }
    Ok(())
}

/// Returns a call of cargo for the package of the bench, which is outside of the workspace.
fn in_bench(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut cargo = workspace.cargo(arguments);
    if let Some(folder) = workspace.root.join(BENCH).parent() {
        cargo.current_dir(folder);
    }
    cargo
}
