//! The permissions that operators grant to services, beyond those of every service.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::{env, fmt, fs, io};

use serde::Deserialize;

use super::refs::names;
use crate::contract::{CommandRef, EventRef, HttpOrigin, Method};

/// The permissions of one service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// The origins that it may call, one entry each.
    pub http: Vec<HttpGrant>,
    /// The commands of other services that its sagas may send: `payment.authorize`.
    #[serde(deserialize_with = "names")]
    pub commands: Vec<CommandRef>,
    /// The events of other services that it may follow, wait for and start sagas on: `order.order-created`.
    #[serde(deserialize_with = "names")]
    pub events: Vec<EventRef>,
    /// The services that it may query.
    pub services: Vec<String>,
    /// The NATS subjects that it may publish on and subscribe to.
    pub subjects: Vec<String>,
}

/// The permission to call an origin.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpGrant {
    /// The origin.
    pub origin: HttpOrigin,
    /// The methods that it may use.
    pub methods: Vec<Method>,
    /// True if the origin may resolve to loopback, private and link-local addresses too.
    #[serde(default)]
    pub private: bool,
    /// Headers that the host sets on every request to the origin, instead of those of the component, which
    /// never sees them: the source of each value, by the name of the header.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretSource>,
}

impl Grants {
    /// Returns the permissions inside the host.
    pub(crate) fn internal(&self) -> impl Iterator<Item = Grant> + '_ {
        Grant::internal(&self.commands, &self.events, &self.services, &self.subjects)
    }
}

impl HttpGrant {
    /// Returns the permission of `--grant http:<origin>`: everything that needs no entry in the
    /// configuration.
    pub(crate) fn with_deployment(origin: HttpOrigin) -> Self {
        let methods = vec![Method::Get, Method::Post, Method::Put, Method::Delete, Method::Patch];
        Self { origin, methods, private: false, headers: BTreeMap::new() }
    }
}

/// A permission that an operator grants with a deployment: `command:payment.authorize`,
/// `event:order.order-created`, `service:payment`, `subject:orders.>`, `http:https://payments.example`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Grant {
    /// To send a command of another service.
    Command(CommandRef),
    /// To follow and to wait for an event of another service, and to start sagas on it.
    Event(EventRef),
    /// To query a service.
    Service(String),
    /// To publish on and subscribe to subjects.
    Subject(String),
    /// To call an origin with any method, at public addresses and without a secret.
    Http(HttpOrigin),
}

/// The error of a text that is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no grant: use `command:<aggregate>.<command>`, `event:<aggregate>.<event>`, `service:<name>`, \
     `subject:<subject>` or `http:<origin>`, with an origin such as https://payments.example"
)]
pub struct InvalidGrant(String);

impl Grant {
    /// Returns the permissions inside the host.
    pub(super) fn internal<'a>(
        commands: &'a [CommandRef],
        events: &'a [EventRef],
        services: &'a [String],
        subjects: &'a [String],
    ) -> impl Iterator<Item = Self> + 'a {
        let commands = commands.iter().cloned().map(Self::Command);
        let events = events.iter().cloned().map(Self::Event);
        let services = services.iter().cloned().map(Self::Service);
        commands.chain(events).chain(services).chain(subjects.iter().cloned().map(Self::Subject))
    }
}

impl FromStr for Grant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let grant = match text.split_once(':') {
            Some(("command", name)) => name.parse().ok().map(Self::Command),
            Some(("event", name)) => name.parse().ok().map(Self::Event),
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
            Self::Command(command) => write!(f, "command:{command}"),
            Self::Event(event) => write!(f, "event:{event}"),
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
            Self::Http(origin) => write!(f, "http:{origin}"),
        }
    }
}

/// The source of a secret. It is read once, when the host starts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file. Line breaks at its end are ignored.
    File(PathBuf),
}

/// A value that is never printed.
#[derive(Clone)]
pub struct Secret(String);

/// The error of a secret that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// The environment variable is not UTF-8.
    #[error("the environment variable {0} is not UTF-8")]
    NoText(String),
    /// The file cannot be read.
    #[error("the file {} cannot be read", .file.display())]
    File {
        /// The path of the file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
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
    /// Returns the value, for the one place that sends it.
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
    fn a_secret_is_the_content_of_a_file_and_is_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        fs::write(&file, "Bearer hush\r\n").unwrap();
        let secret = SecretSource::File(file).read().unwrap();
        assert_eq!(secret.reveal(), "Bearer hush");
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn a_missing_secret_is_an_error_with_its_source() {
        let table = [
            (SecretSource::Env("KONTOR_TEST_NO_SUCH".to_owned()), "variable KONTOR_TEST_NO_SUCH is not set"),
            (SecretSource::File("/nowhere/secret".into()), "/nowhere/secret cannot be read"),
        ];
        for (source, expected) in table {
            let error = source.read().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_grant_is_its_text() {
        for text in [
            "command:payment.authorize",
            "event:order.order-created",
            "service:payment",
            "subject:orders.>",
            "http:https://pay.example:8443",
        ] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in [
            "payment",
            "service:",
            "command:payment",
            "event:.order-created",
            "http:pay.example",
            "http:https://pay.example/v1",
            "https://pay.example",
            "",
        ] {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }
}
