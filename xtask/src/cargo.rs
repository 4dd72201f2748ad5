//! Calls of cargo and of other programs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::Result;

/// Where this repository and what is built of it are.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// cargo's target directory, wherever the configuration or the environment has put it.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self> {
        let output =
            Command::new(cargo()).args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
        if !output.status.success() {
            return Err(format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let metadata = String::from_utf8(output.stdout)?;
        let path = |key| {
            json_string(&metadata, key)
                .map(PathBuf::from)
                .ok_or_else(|| format!("cargo metadata does not tell the {key}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// A call of cargo in the root of the repository, with what cargo says to this chore about its package left out: build
    /// scripts look at such variables, and what they compile would be compiled again with each change between a call
    /// from here and one from a shell.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root).args(arguments);
        let told = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for name in std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(told)) {
            command.env_remove(name);
        }
        command
    }
}

/// Runs a program; its failure is an error that names `what` it was for.
pub(crate) fn succeed(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{what}: {command:?} does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed").into()) }
}

/// The cargo that runs this chore.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The first string value of `key` in compact JSON. The quotes around the key cannot be found inside of another string,
/// because there they are escaped.
fn json_string(json: &str, key: &str) -> Option<String> {
    let start = format!("\"{key}\":\"");
    let mut rest = json[json.find(&start)? + start.len()..].chars();
    let mut value = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(value),
            '\\' => value.push(rest.next()?),
            character => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::json_string;

    #[test]
    fn strings_are_found_by_their_key_and_unescaped() {
        let json = r#"{"note":"\"root\":\"no\"","root":"/a \"b\"\\c","target":"/t"}"#;
        assert_eq!(json_string(json, "root").as_deref(), Some(r#"/a "b"\c"#));
        assert_eq!(json_string(json, "target").as_deref(), Some("/t"));
        assert_eq!(json_string(json, "other"), None);
    }
}
