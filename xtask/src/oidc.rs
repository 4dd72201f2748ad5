//! An identity provider of another project, for the tests of signing in.

use std::path::PathBuf;

use crate::Result;
use crate::cargo::Workspace;
use crate::nats;

const PROVIDER: &str = "oidc-provider-mock==0.3.4";

/// Installs the provider with what it needs, unless it is there.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let folder: PathBuf = workspace.target.join("oidc");
    match folder.join("oidc_provider_mock/__init__.py").exists() {
        true => Ok(()),
        false => nats::install(PROVIDER, &folder, &[]),
    }
}
