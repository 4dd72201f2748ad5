//! `cargo xtask bless`: rewrites the snapshots of tests and the generated documents from the output of the
//! code.

use crate::cargo::{Workspace, succeed};
use crate::{ALL, Result, plugins};

/// Part of the name of each test that compares with a snapshot, and of no other.
const SNAPSHOT: &str = "snapshot";
/// The variable that makes expect-test write snapshots instead of comparing with them.
const UPDATE: &str = "UPDATE_EXPECT";

/// Builds the plugins and runs the snapshot tests, which write their files. `git diff` shows the changes for
/// review.
///
/// `cargo test` runs them, not nextest: snapshots within a source file move each other's lines, and only
/// tests of one process know by how much.
pub(crate) fn bless(workspace: &Workspace) -> Result<()> {
    plugins::build(workspace, ALL)?;
    let mut tests = workspace.cargo(&["test", "--workspace", "--tests", "--no-fail-fast", SNAPSHOT]);
    succeed("snapshot tests", tests.env(UPDATE, "1"))?;
    eprintln!("snapshots are written; review them with `git diff`");
    Ok(())
}
