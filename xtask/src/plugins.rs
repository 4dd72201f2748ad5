//! Builds the plugins and the fixtures of the tests, and copies the components to where the host and the
//! tests expect them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{Workspace, succeed};
use crate::{Result, cargo};

pub(crate) const TARGET: &str = "wasm32-wasip2";
pub(crate) const PROFILE: &str = "plugin";

/// Packages that are components. Each has the name of its folder.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// The folder of the packages' folders.
    packages: &'static str,
    /// The folder of the built components, in cargo's target directory: one `<package>.wasm` each.
    built: &'static str,
}

pub(crate) const PLUGINS: Group = Group { packages: "plugins", built: "plugins" };
/// Services for the tests; most misbehave.
pub(crate) const FIXTURES: Group = Group { packages: "testkit/fixtures", built: "fixtures" };

impl Group {
    /// Returns the folder of the built components.
    pub(crate) fn folder(self, workspace: &Workspace) -> PathBuf {
        workspace.target.join(self.built)
    }

    /// Returns the folder of a component's package.
    pub(crate) fn package(self, workspace: &Workspace, name: &str) -> PathBuf {
        workspace.root.join(self.packages).join(name)
    }

    /// Returns the names of the packages, sorted.
    pub(crate) fn names(self, workspace: &Workspace) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(workspace.root.join(self.packages))? {
            let entry = entry?;
            if entry.path().join("Cargo.toml").exists() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Compiles all packages of the groups in one call of cargo, and copies changed components to the groups'
/// folders.
pub(crate) fn build(workspace: &Workspace, groups: &[Group]) -> Result<()> {
    ensure_target(workspace)?;
    let mut compile = workspace.cargo(&["build", "--target", TARGET, "--profile", PROFILE]);
    let mut components = Vec::new();
    for group in groups {
        let folder = group.folder(workspace);
        fs::create_dir_all(&folder)?;
        for name in group.names(workspace)? {
            compile.args(["--package", &name]);
            components.push((name, folder.clone()));
        }
    }
    cargo::succeed("build of the plugins", &mut compile)?;

    let compiled = workspace.target.join(TARGET).join(PROFILE);
    for (name, folder) in components {
        let library = compiled.join(name.replace('-', "_")).with_extension("wasm");
        replace(&library, &folder.join(name).with_extension("wasm"))?;
    }
    Ok(())
}

/// Installs the standard library for components with rustup, unless this Rust has it already.
fn ensure_target(workspace: &Workspace) -> Result<()> {
    let mut ask = Command::new("rustc");
    ask.current_dir(&workspace.root).args(["--print", "target-libdir", "--target", TARGET]);
    let libraries = PathBuf::from(String::from_utf8(ask.output()?.stdout)?.trim());
    if libraries.is_dir() {
        return Ok(());
    }
    let mut install = Command::new("rustup");
    install.current_dir(&workspace.root).args(["target", "add", TARGET]);
    succeed("rustup", &mut install).map_err(|error| {
        format!(
            "plugins need the Rust target {TARGET}, and installing it failed ({error}).\n\
             Install rustup from https://rustup.rs, or add the target by other means."
        )
        .into()
    })
}

/// Copies a file in one step, so that a watching host never reads half of it. Leaves an equal file untouched.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    let partial = to.with_extension("partial");
    fs::write(&partial, bytes)?;
    fs::rename(&partial, to)?;
    Ok(())
}
