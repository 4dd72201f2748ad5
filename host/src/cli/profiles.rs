//! The profiles of `kontor login`: hosts with their tokens, in a file that only the operator can read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};

use super::bearer::{Token, TokenError, open_private};

/// The profile that holds if none is named.
pub(super) const DEFAULT_PROFILE: &str = "default";

const DIRECTORY: &str = "kontor";
const FILE: &str = "profiles.toml";
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A host, and how to sign in there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// The host's address.
    pub(super) host: String,
    /// The certificate authorities that the host's certificate is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ca: Option<PathBuf>,
    /// None: the host asks for no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Token>,
}

/// All profiles, by name.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Profiles(pub(super) BTreeMap<String, Profile>);

/// The failure of the file of the profiles.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    #[error("there is no home directory for the profiles: set XDG_CONFIG_HOME")]
    NoHome,
    #[error("the profiles in {} cannot be used", .file.display())]
    Read { file: PathBuf, source: TokenError },
    #[error("the profiles in {} are not valid", .file.display())]
    Invalid { file: PathBuf, source: Box<toml::de::Error> },
    #[error("the profiles cannot be written to {}", .file.display())]
    Write { file: PathBuf, source: io::Error },
}

/// Returns the file of the profiles, or none if there is no home directory.
pub(super) fn file() -> Option<PathBuf> {
    let directories = etcetera::choose_base_strategy().ok()?;
    Some(directories.config_dir().join(DIRECTORY).join(FILE))
}

impl Profiles {
    /// Reads the profiles. There are none without the file.
    pub(super) fn read(file: &Path) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::Read { file: file.to_owned(), source };
        let mut text = String::new();
        match open_private(file) {
            Err(TokenError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(mut opened) => {
                let read = opened.read_to_string(&mut text);
                read.map_err(|source| failed(TokenError::Read { file: file.to_owned(), source }))?;
            }
        }
        let invalid = |source| ProfileError::Invalid { file: file.to_owned(), source: Box::new(source) };
        toml::from_str(&text).map_err(invalid)
    }

    /// Writes the profiles: all of them, or nothing.
    pub(super) fn write(&self, file: &Path) -> Result<(), ProfileError> {
        let written = || {
            let text = toml::to_string(self).map_err(io::Error::other)?;
            let directory = file.parent().unwrap_or(Path::new("."));
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
            let new = file.with_extension(format!("toml.{}", std::process::id()));
            let options = fs::File::options().write(true).create_new(true).mode(FILE_MODE).open(&new);
            let renamed = options.and_then(|mut opened| {
                opened.write_all(text.as_bytes())?;
                opened.sync_all()?;
                fs::rename(&new, file)
            });
            if renamed.is_err() {
                // Err: the new file was never made; the first error is the one to report.
                let _ = fs::remove_file(&new);
            }
            renamed
        };
        written().map_err(|source| ProfileError::Write { file: file.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn profiles_are_read_as_they_are_written_and_by_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kontor/profiles.toml");
        assert_eq!(Profiles::read(&file).unwrap(), Profiles::default());
        let prod = Profile {
            host: "https://shop.example".to_owned(),
            ca: Some("/etc/ca.pem".into()),
            token: Some(Token::parse("kt_abc", "x").unwrap()),
        };
        let local = Profile { host: "unix:/run/kontor.sock".to_owned(), ca: None, token: None };
        let profiles = Profiles([("prod".to_owned(), prod), ("local".to_owned(), local)].into());
        profiles.write(&file).unwrap();
        profiles.write(&file).unwrap();
        assert_eq!(Profiles::read(&file).unwrap(), profiles);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Profiles::read(&file), Err(ProfileError::Read { .. })));
    }
}
