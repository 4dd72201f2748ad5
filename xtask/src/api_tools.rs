//! The tools of other projects that the tests hold the OpenAPI document to: one that asks every route in many
//! ways, and one that generates a client.

use std::process::{Command, Stdio};

use crate::Result;
use crate::cargo::Workspace;
use crate::pip::install;

/// The tools, each with its module and its version.
const TOOLS: [(&str, &str); 2] = [("schemathesis", "4.32.5"), ("openapi_python_client", "0.29.1")];

/// Installs the tools with what they need, each into a folder of its own, unless they are there. Their tests
/// are skipped without Python.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let mut python = Command::new("python3");
    let python = python.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("warning: Python 3 is missing, so no tool is asked about the OpenAPI document");
        return Ok(());
    }
    for (module, version) in TOOLS {
        let package = module.replace('_', "-");
        let folder = workspace.target.join(&package);
        // A file of this version: another version is another package.
        let metadata = folder.join(format!("{module}-{version}.dist-info"));
        if !metadata.exists() {
            install(&format!("{package}=={version}"), &folder, &[])?;
        }
    }
    Ok(())
}
