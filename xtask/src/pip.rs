//! Packages of Python for the tests.

use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::cargo::succeed;

/// Installs a package into a folder of its own.
pub(crate) fn install(package: &str, folder: &Path, more: &[&str]) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    pip.args(more).args(["--upgrade", "--target"]).arg(folder).arg(package);
    succeed(&format!("installation of {package}"), &mut pip)
        .map_err(|error| format!("{error}; fetching it needs Python 3 with pip").into())
}
