//! The statement that is signed, and its checks.

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::clock::Time;
use crate::contract::Manifest;
use crate::deployed::HistoryError;
use crate::error::Chain;
use crate::model::{Digest, ServiceName};

/// The statement that a component may be deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The service.
    pub service: ServiceName,
    /// The version of the service.
    pub version: String,
    /// The digest of the component.
    pub digest: Digest,
    /// The permissions that the component may request, as its manifest names them: `service:payment`.
    pub permissions: Vec<String>,
    /// The time after which the component is not deployed any more.
    pub expires: Time,
}

/// The reason why a signature does not let a component through.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature.
    #[error("the component is not signed, and keys are configured: sign it with `kontor sign`")]
    Unsigned,
    /// A signature of the digest alone.
    #[error(
        "the signature is of an earlier version of Kontor, which signed nothing but the digest: sign the \
         component again with `kontor sign`"
    )]
    Bare,
    /// The bytes are no envelope.
    #[error("the signature is no DSSE envelope: `kontor sign` writes one")]
    NoEnvelope,
    /// Another kind of document is signed.
    #[error("the signature is one of {0}, and not of a deployment")]
    OtherType(String),
    /// No trusted key has signed.
    #[error("no trusted key has made this signature: sign the component with one, or configure its key")]
    Untrusted,
    /// The statement cannot be read.
    #[error("the signed statement cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The statement is about another component.
    #[error("the signature is for {signed}, and this is {found}")]
    Other {
        /// The signed component.
        signed: String,
        /// The component that is to run.
        found: String,
    },
    /// The component requests something that is not signed.
    #[error(
        "the component requests {}, which its signed statement does not permit: no grant adds to that",
        .0.join(", ")
    )]
    Permissions(Vec<String>),
    /// The statement has expired.
    #[error("the signed statement has expired at {}: sign the component again", String::from(*.0))]
    Expired(Time),
    /// The history has the highest version.
    #[error("the history cannot be read: {}", Chain(.0))]
    History(#[from] HistoryError),
    /// The version cannot be compared.
    #[error(
        "the version {0:?} is no semantic version such as 1.4.0, so an older one could pass for it: correct \
         it in the manifest"
    )]
    NoVersion(String),
    /// A newer version was deployed.
    #[error(
        "the version {version} is older than {highest}, which was deployed with a trusted signature: deploy \
         a newer one, or name it with --allow-breaking {:?}",
        downgrade_of(service)
    )]
    Older {
        /// The service.
        service: ServiceName,
        /// The version that is to run.
        version: Version,
        /// The highest version that was deployed.
        highest: Version,
    },
}

/// Returns the name of a breaking change: an older version of a service is deployed.
fn downgrade_of(service: &ServiceName) -> String {
    format!("downgrade:{service}")
}

impl Statement {
    /// Fails if the statement is about another component, or permits less than the component requests.
    /// `manifest`: none if the component does not load.
    pub(crate) fn fits(&self, digest: Digest, manifest: Option<&Manifest>) -> Result<(), SignatureError> {
        let Self { service, version, permissions, .. } = self;
        let other = |signed: String, found: String| Err(SignatureError::Other { signed, found });
        if self.digest != digest {
            return other(format!("the component {}", self.digest.short()), digest.short().to_string());
        }
        let Some(manifest) = manifest else { return Ok(()) };
        if (service, version) != (&manifest.service, &manifest.version) {
            let found = format!("{} {}", manifest.service, manifest.version);
            return other(format!("{service} {version}"), found);
        }
        let unsigned = manifest.permissions.requests().filter(|request| !permissions.contains(request));
        let unsigned: Vec<_> = unsigned.collect();
        if unsigned.is_empty() { Ok(()) } else { Err(SignatureError::Permissions(unsigned)) }
    }

    /// Fails if the statement has expired.
    pub(crate) fn is_valid_at(&self, now_ms: u64) -> Result<(), SignatureError> {
        if Time(now_ms) < self.expires { Ok(()) } else { Err(SignatureError::Expired(self.expires)) }
    }

    /// Returns the version, by which a statement is older or newer than another.
    pub(crate) fn comparable_version(&self) -> Result<Version, SignatureError> {
        Version::parse(&self.version).map_err(|_| SignatureError::NoVersion(self.version.clone()))
    }

    /// Fails if a higher version was deployed, and that is not allowed.
    pub(crate) fn is_not_older(
        &self,
        highest: Option<Version>,
        allowed: &[String],
    ) -> Result<(), SignatureError> {
        let (service, version) = (self.service.clone(), self.comparable_version()?);
        match highest.filter(|highest| version < *highest) {
            Some(highest) if !allowed.contains(&downgrade_of(&service)) => {
                Err(SignatureError::Older { service, version, highest })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::contract::fixtures;

    pub(in crate::deploy::signature) fn statement() -> Statement {
        Statement {
            service: "order".into(),
            version: "1.2.0".to_owned(),
            digest: Digest::of(b"component"),
            permissions: vec!["service:payment".to_owned()],
            expires: Time(1_000),
        }
    }

    /// Returns the manifest of a service that requests others, which are separated by blanks.
    fn manifest(service: &str, version: &str, asks: &str) -> Manifest {
        let mut manifest = fixtures::manifest();
        (manifest.service, manifest.version) = (service.into(), version.to_owned());
        manifest.permissions.services = asks.split(' ').map(str::to_owned).collect();
        manifest
    }

    #[test]
    fn a_statement_is_for_one_component_and_its_permissions() {
        let table = [
            (&b"component"[..], manifest("order", "1.2.0", "payment"), None),
            (b"another", manifest("order", "1.2.0", "payment"), Some("the signature is for the component ")),
            (
                b"component",
                manifest("payment", "1.2.0", "payment"),
                Some("the signature is for order 1.2.0, and this is payment 1.2.0"),
            ),
            (
                b"component",
                manifest("order", "1.3.0", "payment"),
                Some("the signature is for order 1.2.0, and this is order 1.3.0"),
            ),
            (
                b"component",
                manifest("order", "1.2.0", "inventory"),
                Some("the component requests service:inventory, which its signed statement does not permit"),
            ),
            (
                b"component",
                manifest("order", "1.2.0", "inventory payment report"),
                Some("the component requests service:inventory, service:report, which its signed statement"),
            ),
        ];
        for (component, manifest, expected) in table {
            let error = statement().fits(Digest::of(component), Some(&manifest)).err();
            let error = error.map(|error| error.to_string());
            let as_expected = match (&error, expected) {
                (Some(error), Some(expected)) => error.starts_with(expected),
                (error, expected) => error.is_none() && expected.is_none(),
            };
            assert!(as_expected, "{error:?} is not {expected:?}");
        }
        assert!(statement().fits(Digest::of(b"component"), None).is_ok());
    }

    #[test]
    fn a_statement_expires() {
        assert!(statement().is_valid_at(999).is_ok());
        let error = statement().is_valid_at(1_000).unwrap_err().to_string();
        assert!(error.starts_with("the signed statement has expired at 1970-01-01T00:00:01.000Z"), "{error}");
    }

    #[test]
    fn a_version_below_the_highest_one_is_refused_unless_it_is_allowed() {
        let highest = |version| Some(Version::parse(version).unwrap());
        let allowed = ["downgrade:order".to_owned()];
        for (highest, allowed, passes) in [
            (None, &[][..], true),
            (highest("1.1.9"), &[], true),
            (highest("1.2.0-rc.1"), &[], true),
            (highest("1.2.0"), &[], true),
            (highest("1.10.0"), &[], false),
            (highest("2.0.0"), &["downgrade:payment".to_owned()], false),
            (highest("2.0.0"), &allowed, true),
        ] {
            assert_eq!(statement().is_not_older(highest.clone(), allowed).is_ok(), passes, "{highest:?}");
        }
        let named = Statement { version: "spring".to_owned(), ..statement() };
        assert!(matches!(named.is_not_older(None, &[]), Err(SignatureError::NoVersion(_))));
    }
}
