//! The plugins as components: compiled, and put where the host and the tests look for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{Workspace, succeed};
use crate::{Result, cargo};

const TARGET: &str = "wasm32-wasip2";
const PROFILE: &str = "plugin";

/// Where the built components are: one `<service>.wasm` a plugin.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("plugins")
}

/// Compiles all plugins in one call of cargo and copies what has changed to [`folder`].
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    ensure_target(workspace)?;
    let names = names(workspace)?;
    let mut compile = workspace.cargo(&["build", "--target", TARGET, "--profile", PROFILE]);
    for name in &names {
        compile.args(["--package", name]);
    }
    cargo::succeed("build of the plugins", &mut compile)?;

    let folder = folder(workspace);
    fs::create_dir_all(&folder)?;
    for name in &names {
        let library = name.replace('-', "_");
        let built = workspace
            .target
            .join(TARGET)
            .join(PROFILE)
            .join(library)
            .with_extension("wasm");
        replace(&built, &folder.join(name).with_extension("wasm"))?;
    }
    Ok(())
}

/// The packages in plugins/, each called like its folder.
fn names(workspace: &Workspace) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace.root.join("plugins"))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Installs the standard library for components unless it is there, by rustup or by any other way.
fn ensure_target(workspace: &Workspace) -> Result<()> {
    let mut ask = Command::new("rustc");
    ask.current_dir(&workspace.root)
        .args(["--print", "target-libdir", "--target", TARGET]);
    let libraries = PathBuf::from(String::from_utf8(ask.output()?.stdout)?.trim());
    if libraries.is_dir() {
        return Ok(());
    }
    let mut install = Command::new("rustup");
    install
        .current_dir(&workspace.root)
        .args(["target", "add", TARGET]);
    succeed("rustup", &mut install).map_err(|error| {
        format!(
            "plugins need the Rust target {TARGET}, and it could not be installed ({error}).\n\
             Install rustup from https://rustup.rs, or add the target to your Rust in its own way."
        )
        .into()
    })
}

/// Copies a file in one step, so that a host that watches never sees half of it; leaves an equal file untouched.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let partial = to.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, to)?;
    Ok(())
}
