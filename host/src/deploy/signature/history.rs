//! The versions that were deployed with a trusted signature.

use semver::Version as SemanticVersion;

use super::envelope::Envelope;
use super::keys::PublicKey;
use crate::deployed::{self, HistoryError};
use crate::log::{EventLog, MAX_PAGE};
use crate::model::{ServiceName, Version};

/// Returns the highest version of a service that was ever deployed with a signature of one of these keys. The
/// signatures of the log are checked again, so that a host without keys cannot have raised it.
pub(in crate::deploy) async fn highest(
    log: &dyn EventLog,
    service: &ServiceName,
    trusted: &[PublicKey],
) -> Result<Option<SemanticVersion>, HistoryError> {
    let (mut after, mut highest) = (Version::START, None);
    loop {
        let page = deployed::releases(log, after, MAX_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(highest) };
        after = *last;
        let releases = page.iter().flat_map(|(_, releases)| releases);
        let signed = releases.filter(|release| release.service == *service).filter_map(|release| {
            let statement =
                Envelope::read(release.envelope.as_deref()?.as_bytes()).ok()?.open(trusted).ok()?;
            let is_of_release = statement.service == *service && statement.digest == release.digest;
            statement.comparable_version().ok().filter(|_| is_of_release)
        });
        highest = highest.max(signed.max());
    }
}
