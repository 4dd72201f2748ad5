//! The first token: with `[auth]` and nothing else, nobody could sign in to make one.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::names::HOST;
use super::tokens::{NewToken, Tokens};
use super::{AuthOptions, IdentityError};
use crate::model::{Caller, OPERATOR};

/// The name of the file in the data directory.
const FILE: &str = "operator.token";
/// Only the user of the host may read it.
const MODE: u32 = 0o600;

/// Makes a token for the operator and writes it to a file, if no token that is valid now has that role, and
/// the configuration names nobody else who could have it. So who is locked out restarts the host: who may
/// read its files owns everything of it anyway.
pub(super) async fn make_if_needed(
    options: &AuthOptions,
    tokens: &Tokens,
    data: &Path,
) -> Result<(), IdentityError> {
    let AuthOptions { issuers, certificates, socket_roles, .. } = options;
    let others = !issuers.is_empty() || !certificates.is_empty() || !socket_roles.is_empty();
    if others || tokens.has_role(OPERATOR) {
        return Ok(());
    }
    let new = NewToken {
        subject: OPERATOR.into(),
        roles: vec![OPERATOR.into()],
        expires: None,
        note: Some("the first token, made by the host".to_owned()),
    };
    let (text, info) = tokens.make(new, &Caller::named(HOST)).await?;
    let file = data.join(FILE);
    write(&file, text.reveal()).map_err(|source| IdentityError::WriteToken { file: file.clone(), source })?;
    tracing::warn!(
        id = info.id,
        "there is no token with the role operator, so the host has made one: it is in {}. Make one for each \
         operator with `kontor token new --subject NAME --role operator --token-file {}`, then revoke this",
        file.display(),
        file.display(),
    );
    Ok(())
}

fn write(file: &Path, token: &str) -> io::Result<()> {
    // One of an earlier start, whose token is not valid any more. Removed, since its mode may be another one.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(file)?;
    writeln!(file, "{token}")
}
