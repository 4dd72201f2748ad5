//! The tokens with which the program signs in. They are never arguments, which every user of the machine can
//! read.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The bits of a file's mode that let others than its owner use the file.
const OTHERS: u32 = 0o077;

/// The longest token: a JWT with a hundred roles has a fraction of this, and proxies accept headers up to it.
const MAX_TOKEN_BYTES: u64 = 8 * 1024;

/// A bearer token (RFC 6750). It is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Token(String);

/// The reason why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("there is no token in {0}: one is a line without spaces")]
    NoToken(String),
    #[error("{file} can be read by others: type `chmod 600 {file}`", file = .0.display())]
    Open(PathBuf),
    #[error("cannot read {}", .file.display())]
    Read { file: PathBuf, source: io::Error },
}

impl Token {
    /// Returns the token in a text. `place` names it in an error.
    pub(super) fn parse(text: &str, place: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Self(text.to_owned())).ok_or_else(|| TokenError::NoToken(place.to_owned()))
    }

    /// Reads a token from a file, or from standard input for `-`.
    pub(super) fn read(file: &Path) -> Result<Self, TokenError> {
        if file == Path::new("-") {
            return Self::read_from(io::stdin(), "the standard input", file);
        }
        let opened = open_private(file)?;
        Self::read_from(opened, &file.display().to_string(), file)
    }

    fn read_from(reader: impl io::Read, place: &str, file: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        let read = reader.take(MAX_TOKEN_BYTES).read_to_string(&mut text);
        read.map_err(|source| TokenError::Read { file: file.to_owned(), source })?;
        Self::parse(&text, place)
    }

    /// Returns the value of the header `authorization`.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

/// Opens a file with a secret. Fails if others may read it.
pub(super) fn open_private(file: &Path) -> Result<File, TokenError> {
    let unreadable = |source| TokenError::Read { file: file.to_owned(), source };
    let opened = File::open(file).map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    // A pipe, as of a password manager, belongs to the two processes at its ends.
    match metadata.is_file() && metadata.mode() & OTHERS != 0 {
        true => Err(TokenError::Open(file.to_owned())),
        false => Ok(opened),
    }
}

impl TryFrom<String> for Token {
    type Error = TokenError;

    fn try_from(text: String) -> Result<Self, TokenError> {
        Self::parse(&text, "the profile")
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_file_that_nobody_else_can_read_has_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "kt_abc\n").unwrap();
        for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o644, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let read = Token::read(&file).map_err(|error| error.to_string());
            let path = file.display();
            let expected = match refused {
                true => Err(format!("{path} can be read by others: type `chmod 600 {path}`")),
                false => Ok(Token("kt_abc".to_owned())),
            };
            assert_eq!(read, expected, "{mode:o}");
        }
    }

    #[test]
    fn a_text_that_would_be_no_header_is_no_token() {
        for text in ["", " \n", "a b", "a\nb", "schlüssel"] {
            assert!(matches!(Token::parse(text, "x"), Err(TokenError::NoToken(_))), "{text:?}");
        }
        assert_eq!(format!("{:?}", Token::parse(" a.b-c \n", "x").unwrap()), "Token");
    }
}
