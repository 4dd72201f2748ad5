//! Checks that a service from `kontor new` builds and passes its tests outside the repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::cargo::{Workspace, succeed};

/// Its name has two words, so that all the ways to write it differ.
const SERVICE: &str = "gift-card";

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    succeed("build of the host", &mut workspace.cargo(&["build", "--workspace", "--bin", "kontor"]))?;
    // One folder for each checkout, and the same every time: cargo finds what it compiled before.
    let checkout = workspace.root.display().to_string().replace('/', "-");
    let folder = std::env::temp_dir().join(format!("kontor-new{checkout}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let service = folder.join(SERVICE);
    let mut new = Command::new(workspace.target.join("debug/kontor"));
    new.args(["new", SERVICE, "--dir"]).arg(&service).arg("--sdk").arg(&workspace.root);
    succeed("kontor new", &mut new)?;
    // The same versions, profiles and target directory as in the workspace, so that nothing is compiled
    // twice.
    fs::copy(workspace.root.join("Cargo.lock"), service.join("Cargo.lock"))?;
    let cargo = |what, arguments: &[&str]| succeed(what, &mut in_folder(workspace, &service, arguments));
    cargo("format of a new service", &["fmt", "--check"])?;
    cargo("build of a new service", &["build", "--offline", "--release", "--target", "wasm32-wasip2"])?;
    let profiles = workspace.root.join("Cargo.toml");
    let profiles = profiles.to_str().ok_or("the folder of the repository has a name that is no text")?;
    cargo("tests of a new service", &["test", "--offline", "--config", profiles])?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}

fn in_folder(workspace: &Workspace, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = workspace.cargo(arguments);
    command.current_dir(folder).env("CARGO_TARGET_DIR", &workspace.target);
    command
}
