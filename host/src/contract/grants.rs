//! What the operator grants to services, beyond what every service may do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::{env, fmt, fs, io};

use serde::Deserialize;

use crate::contract::{HttpOrigin, Method};

/// What one service is granted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// One entry an origin.
    pub http: Vec<HttpGrant>,
    /// The services that it may ask.
    pub services: Vec<String>,
    /// The NATS subjects that it may publish on and subscribe to.
    pub subjects: Vec<String>,
}

/// That a service may call an origin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGrant {
    pub origin: HttpOrigin,
    pub methods: Vec<Method>,
    /// Whether the origin may stand for loopback, private and link-local addresses too.
    #[serde(default)]
    pub private: bool,
    /// Headers that the host sets on every request to the origin, in the place of the component's: the component never sees
    /// them. By name, where the value comes from.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretSource>,
}

impl HttpGrant {
    /// What `--grant http:<origin>` grants: whatever takes no trust of the configuration's.
    pub(crate) fn with_deployment(origin: HttpOrigin) -> Self {
        let methods = vec![Method::Get, Method::Post, Method::Put, Method::Delete, Method::Patch];
        Self { origin, methods, private: false, headers: BTreeMap::new() }
    }
}

/// What an operator grants with a deployment: `service:payment`, `subject:orders.>`, `http:https://payments.example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// To query a service.
    Service(String),
    /// To publish on and subscribe to subjects.
    Subject(String),
    /// To call an origin with any method, at public addresses and without a secret.
    Http(HttpOrigin),
}

/// Why a text is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is nothing that can be granted with a deployment: that is `service:<name>`, `subject:<subject>` or \
     `http:<origin>`, with an origin such as https://payments.example"
)]
pub struct InvalidGrant(String);

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let grant = match text.split_once(':') {
            Some(("service", name)) if !name.is_empty() => Some(Self::Service(name.to_owned())),
            Some(("subject", subject)) if !subject.is_empty() => Some(Self::Subject(subject.to_owned())),
            Some(("http", origin)) => origin.parse().ok().map(Self::Http),
            _ => None,
        };
        grant.ok_or_else(|| InvalidGrant(text.to_owned()))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
            Self::Http(origin) => write!(f, "http:{origin}"),
        }
    }
}

/// Where a secret comes from. It is read once, when the host starts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file; line breaks at its end do not count.
    File(PathBuf),
}

/// A value that is shown to nobody.
#[derive(Clone)]
pub struct Secret(String);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    #[error("the environment variable {0} is no text")]
    NoText(String),
    #[error("the file {} cannot be read", .file.display())]
    File { file: PathBuf, source: io::Error },
}

impl SecretSource {
    /// Reads the secret.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Env(name) => match env::var(name) {
                Ok(value) => Ok(Secret(value)),
                Err(env::VarError::NotPresent) => Err(SecretError::NotSet(name.clone())),
                Err(env::VarError::NotUnicode(_)) => Err(SecretError::NoText(name.clone())),
            },
            Self::File(file) => match fs::read_to_string(file) {
                Ok(text) => Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(source) => Err(SecretError::File { file: file.clone(), source }),
            },
        }
    }
}

impl Secret {
    /// The value itself, for the one place that it is meant for.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_content_of_a_file_and_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "Bearer hush\r\n").unwrap();
        let secret = SecretSource::File(file).read().unwrap();
        assert_eq!(secret.reveal(), "Bearer hush");
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn a_secret_that_is_not_there_is_an_error_that_says_where_it_should_be() {
        let table = [
            (SecretSource::Env("KONTOR_TEST_NO_SUCH".to_owned()), "variable KONTOR_TEST_NO_SUCH is not set"),
            (SecretSource::File("/nowhere/secret".into()), "/nowhere/secret cannot be read"),
        ];
        for (source, told) in table {
            let error = source.read().unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_grant_says_what_it_grants() {
        for text in ["service:payment", "subject:orders.>", "http:https://pay.example:8443"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in [
            "payment",
            "service:",
            "http:pay.example",
            "http:https://pay.example/v1",
            "https://pay.example",
            "",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}
