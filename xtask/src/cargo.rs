//! Calls of cargo and of other programs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::Result;

/// The folders of this repository and of its build output.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// cargo's target directory, from its configuration or the environment.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo for the folders.
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
                .ok_or_else(|| format!("the output of cargo metadata has no {key}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// Returns a call of cargo in the root of the repository, without the variables that cargo sets for the
    /// package of this chore. Build scripts depend on such variables, and would run again after each change
    /// between a call from here and one from a shell.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root).args(arguments);
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for name in
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_str().is_some_and(is_of_package))
        {
            command.env_remove(name);
        }
        command
    }
}

/// Runs a program. Fails with a message that begins with `what` unless it succeeds.
pub(crate) fn succeed(what: &str, command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| format!("{what}: {command:?} does not start: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed").into()) }
}

/// Returns the path of the cargo that runs this chore.
fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Returns the first string value of `key` in compact JSON. The quotes around the key are never found inside
/// another string, because they are escaped there.
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
