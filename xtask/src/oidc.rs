//! An identity provider of another project and a browser, for the tests of signing in.

use std::path::PathBuf;

use crate::Result;
use crate::cargo::Workspace;
use crate::pip::install;

const PROVIDER: &str = "oidc-provider-mock==0.3.4";
/// The names of the browser, as `chromium.py` looks for it.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Installs the provider with what it needs, unless it is there. Says what is left out without a browser.
pub(crate) fn ensure(workspace: &Workspace) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    if !folders.any(|folder| BROWSERS.iter().any(|name| folder.join(name).is_file())) {
        eprintln!("left out: the tests in a browser; to have them: apt-get install chromium");
    }
    let folder: PathBuf = workspace.target.join("oidc");
    match folder.join("oidc_provider_mock/__init__.py").exists() {
        true => Ok(()),
        false => install(PROVIDER, &folder, &[]),
    }
}
