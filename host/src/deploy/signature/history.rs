//! The releases of the log that were deployed with a trusted signature. The signatures of the log are checked
//! again, so that a host without keys cannot have made them up.

use std::io;
use std::sync::Arc;

use futures::FutureExt as _;
use semver::Version as SemanticVersion;

use super::envelope::Envelope;
use super::keys::PublicKey;
use super::statement::{SignatureError, Statement};
use crate::deployed::{self, HistoryError, PastError, Release, Trust};
use crate::log::{EventLog, MAX_PAGE};
use crate::model::{Digest, ServiceName, Version};

/// Returns the highest version of a service that was ever deployed with a signature of one of these keys.
pub(in crate::deploy) async fn highest(
    log: &dyn EventLog,
    service: &ServiceName,
    trusted: &[PublicKey],
) -> Result<Option<SemanticVersion>, HistoryError> {
    let mut highest = None;
    each_release(log, |release| {
        let of_service = Some(release).filter(|release| release.service == *service);
        let signed = of_service.and_then(|release| statement_of(release, trusted));
        highest = highest.take().max(signed.and_then(|statement| statement.comparable_version().ok()));
    })
    .await?;
    Ok(highest)
}

/// Fails if a component may not run for the streams and sagas that stay with it. It may if one of these keys
/// has signed one of its releases, or if it was released before the first one that any of them has signed.
pub(in crate::deploy) async fn check_earlier(
    log: &dyn EventLog,
    digest: Digest,
    trusted: &[PublicKey],
) -> Result<(), SignatureError> {
    if trusted.is_empty() {
        return Ok(());
    }
    let (mut is_signed, mut has_envelope, mut any_is_signed, mut is_earlier) = (false, false, false, false);
    each_release(log, |release| {
        let signed = statement_of(release, trusted).is_some();
        if release.digest == digest {
            is_signed |= signed;
            has_envelope |= release.envelope.is_some();
            is_earlier |= !any_is_signed;
        }
        any_is_signed |= signed;
    })
    .await?;
    match (is_signed || is_earlier && any_is_signed, has_envelope) {
        (true, _) => Ok(()),
        (false, true) => Err(SignatureError::Untrusted),
        (false, false) => Err(SignatureError::Unsigned),
    }
}

/// Returns the check of earlier components; see [`check_earlier`].
pub(crate) fn trust(log: Arc<dyn EventLog>, trusted: Arc<[PublicKey]>) -> Trust {
    Arc::new(move |digest| {
        let (log, trusted) = (log.clone(), trusted.clone());
        let check = async move {
            check_earlier(&*log, digest, &trusted).await.map_err(|error| match error {
                SignatureError::History(error) => PastError::Read { digest, source: io::Error::other(error) },
                error => PastError::Untrusted { digest, source: Box::new(error) },
            })
        };
        check.boxed()
    })
}

/// Visits the releases of the log, oldest first.
async fn each_release(log: &dyn EventLog, mut visit: impl FnMut(&Release)) -> Result<(), HistoryError> {
    let mut after = Version::START;
    loop {
        let page = deployed::releases(log, after, MAX_PAGE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = *last;
        page.iter().flat_map(|(_, releases)| releases).for_each(&mut visit);
    }
}

/// Returns the statement about a release that one of the keys has signed.
fn statement_of(release: &Release, trusted: &[PublicKey]) -> Option<Statement> {
    let envelope = Envelope::read(release.envelope.as_deref()?.as_bytes()).ok()?;
    let statement = envelope.open(trusted).ok()?;
    let is_of_release = statement.service == release.service && statement.digest == release.digest;
    is_of_release.then_some(statement)
}

#[cfg(test)]
mod tests {
    use super::super::keys::{SigningKey, new_key};
    use super::*;
    use crate::clock::Time;
    use crate::deployed::{Deployments, Happened, Released};
    use crate::log::EmbeddedLog;
    use crate::model::Caller;

    /// Returns a release of a version of the service `order`, signed if there is a key.
    fn release(version: &str, key: Option<&SigningKey>) -> Release {
        let release = Release::example(version);
        let statement = Statement {
            service: release.service.clone(),
            version: version.to_owned(),
            digest: release.digest,
            permissions: Vec::new(),
            expires: Time(0),
        };
        let envelope = key.map(|key| Envelope::seal(&statement, key).unwrap().text().unwrap());
        Release { envelope, ..release }
    }

    #[tokio::test]
    async fn an_earlier_component_runs_if_it_was_signed_or_came_before_all_signatures() {
        let data = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
        let (ours, theirs) = (new_key().unwrap(), new_key().unwrap());
        let mut deployments = Deployments::default();
        for (version, key) in [
            ("1.0.0", None),
            ("1.1.0", Some(&theirs)),
            ("2.0.0", Some(&ours)),
            ("3.0.0", None),
            ("4.0.0", Some(&theirs)),
            ("3.0.0", Some(&theirs)),
            ("5.0.0", None),
            ("5.0.0", Some(&ours)),
        ] {
            let services = vec![Released { release: release(version, key), gates: Vec::new() }];
            let deployed = Happened::Deployed { services, note: None };
            deployments.record(&*log, 0, deployed, Caller::named("ada")).await.unwrap();
        }
        let check = async |version: &str, keys: &[PublicKey]| {
            check_earlier(&*log, Release::example(version).digest, keys)
                .await
                .map_err(|error| error.to_string())
        };
        let (unsigned, untrusted) = ("the component is not signed", "no trusted key has made this signature");
        for (version, expected) in [
            ("1.0.0", None),
            ("1.1.0", None),
            ("2.0.0", None),
            ("3.0.0", Some(untrusted)),
            ("4.0.0", Some(untrusted)),
            ("5.0.0", None),
            ("6.0.0", Some(unsigned)),
        ] {
            let found = check(version, &[ours.public()]).await.err();
            let as_expected = match (&found, expected) {
                (Some(found), Some(expected)) => found.starts_with(expected),
                (found, expected) => found.is_none() && expected.is_none(),
            };
            assert!(as_expected, "{version}: {found:?}");
            assert_eq!(check(version, &[]).await, Ok(()), "{version} without keys");
        }
        // No release has a signature of this key, so none came before its first one.
        assert!(check("1.0.0", &[new_key().unwrap().public()]).await.is_err());
        let highest = highest(&*log, &"order".into(), &[ours.public()]).await.unwrap();
        assert_eq!(highest, Some(SemanticVersion::new(5, 0, 0)));
    }
}
