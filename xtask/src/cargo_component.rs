//! The plugins built by cargo-component (<https://github.com/bytecodealliance/cargo-component>) pass the same
//! tests, and a host runs them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;
use crate::cargo::{Workspace, succeed};
use crate::plugins::{PLUGINS, replace};

/// The target that cargo-component compiles for. It turns the modules into components itself, with its
/// adapter for WASI preview 1.
const TARGET: &str = "wasm32-wasip1";

const INSTALL: &str = "cargo install cargo-component --locked";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut version = workspace.cargo(&["component", "--version"]);
    succeed("cargo component", &mut version).map_err(|error| {
        format!("{error}; `{INSTALL}` installs it, in about ten minutes of processor time")
    })?;
    let folder = workspace.target.join("cargo-component");
    fs::create_dir_all(&folder)?;
    let names = PLUGINS.names(workspace)?;
    for name in &names {
        let mut build = workspace.cargo(&["component", "build", "--release"]);
        build.current_dir(PLUGINS.package(workspace, name)).env("CARGO_TARGET_DIR", &workspace.target);
        succeed(&format!("cargo component build of {name}"), &mut build)?;
        let built = workspace.target.join(TARGET).join("release").join(name.replace('-', "_"));
        replace(&built.with_extension("wasm"), &folder.join(name).with_extension("wasm"))?;
    }
    test(workspace, &names, &folder)?;
    serve(workspace, &folder)
}

/// Runs the tests of the plugins on these components.
fn test(workspace: &Workspace, names: &[String], folder: &Path) -> Result<()> {
    let mut files = BTreeSet::new();
    for name in names {
        for file in fs::read_dir(PLUGINS.package(workspace, name).join("tests"))? {
            files.extend(file?.path().file_stem().map(ToOwned::to_owned));
        }
    }
    let mut tests = workspace.cargo(&["test", "--workspace"]);
    tests.args(files.iter().flat_map(|file| ["--test".as_ref(), file.as_os_str()]));
    succeed("tests of the plugins", tests.env("KONTOR_COMPONENTS", folder))
}

/// Starts a host with these components on an empty log, and stops it once it listens.
fn serve(workspace: &Workspace, folder: &Path) -> Result<()> {
    succeed("build of the host", &mut workspace.cargo(&["build", "--workspace", "--bin", "kontor"]))?;
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    let mut serve = Command::new(workspace.target.join("debug/kontor"));
    serve.current_dir(&workspace.root).args(["serve", "--listen", "127.0.0.1:0", "--plugins"]).arg(folder);
    let mut host = serve.arg("--data").arg(&data).stdout(Stdio::piped()).spawn()?;
    let mut first = String::new();
    if let Some(stdout) = host.stdout.take() {
        BufReader::new(stdout).read_line(&mut first)?;
    }
    host.kill()?;
    host.wait()?;
    if first.starts_with("listening on ") {
        Ok(())
    } else {
        Err("the host does not start with these components".into())
    }
}
