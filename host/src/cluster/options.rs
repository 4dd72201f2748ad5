//! The NATS servers that the host connects to, and the settings of the connection.

use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, fs, io};

use async_nats::ServerAddr;
use serde::Deserialize;

/// The section `[nats]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// The NATS servers: `nats://127.0.0.1:4222`. Default: `None`, the host does without NATS.
    pub url: Option<NatsUrl>,
    /// A file with the value of `url`, which keeps its password out of the configuration. Default: `None`.
    pub url_file: Option<PathBuf>,
    /// The certificate authorities to trust, beside those of the machine: a file in PEM. Default: `None`.
    pub ca: Option<PathBuf>,
    /// The certificate that the host presents to the servers: a file in PEM. Needs `key`. Default: `None`.
    pub certificate: Option<PathBuf>,
    /// The key of `certificate`: a file in PEM. Needs `certificate`. Default: `None`.
    pub key: Option<PathBuf>,
    /// The host's identity for the servers: a file as `nsc` writes it, with a JWT and the seed of its key, or
    /// with a seed alone. Default: `None`.
    pub credentials: Option<PathBuf>,
    /// The number of servers that keep each stream that the host creates: 1, 3 or 5. Default: 1.
    pub replicas: usize,
}

impl Default for Nats {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            ca: None,
            certificate: None,
            key: None,
            credentials: None,
            replicas: 1,
        }
    }
}

/// `nats.url_file` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UrlFileError {
    /// The address is there twice.
    #[error("nats.url and nats.url_file exclude each other")]
    Twice,
    /// The file cannot be read.
    #[error("{} cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file has something else in it, which is not shown.
    #[error("{} does not have the address of NATS servers", .file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: InvalidNatsUrl,
    },
}

impl Nats {
    /// Reads the addresses from `url_file`, if it is set.
    pub(crate) fn read_url_file(&mut self) -> Result<(), UrlFileError> {
        let Some(file) = self.url_file.clone() else { return Ok(()) };
        if self.url.is_some() {
            return Err(UrlFileError::Twice);
        }
        let text = fs::read_to_string(&file);
        let text = text.map_err(|source| UrlFileError::Read { file: file.clone(), source })?;
        let url = text.trim().parse().map_err(|source| UrlFileError::Invalid { file, source })?;
        self.url = Some(url);
        Ok(())
    }
}

/// The addresses of one or several servers of a cluster, separated by commas:
/// `nats://user:password@a:4222,nats://b:4222`. A user without a password is a token. `tls://` requires an
/// encrypted connection.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct NatsUrl(Vec<ServerAddr>);

/// The text is not the address of NATS servers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the address of a NATS server, such as nats://127.0.0.1:4222")]
pub struct InvalidNatsUrl;

impl NatsUrl {
    /// Returns the address of each server.
    pub(crate) fn servers(&self) -> &[ServerAddr] {
        &self.0
    }
}

impl FromStr for NatsUrl {
    type Err = InvalidNatsUrl;

    fn from_str(text: &str) -> Result<Self, InvalidNatsUrl> {
        let server = |text: &str| {
            let server = text.trim().parse::<ServerAddr>().ok();
            server.filter(|server| !server.host().is_empty() && !server.is_websocket()).ok_or(InvalidNatsUrl)
        };
        text.split(',').map(server).collect::<Result<_, _>>().map(Self)
    }
}

impl TryFrom<String> for NatsUrl {
    type Error = InvalidNatsUrl;

    fn try_from(text: String) -> Result<Self, InvalidNatsUrl> {
        text.parse()
    }
}

/// Omits user names, passwords and tokens.
impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |server: &ServerAddr| format!("{}://{}:{}", server.scheme(), server.host(), server.port());
        f.write_str(&self.0.iter().map(shown).collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_may_be_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str, url: Option<&str>| {
            let file = folder.path().join("url");
            fs::write(&file, text).unwrap();
            let url = url.map(|url| url.parse().unwrap());
            let mut nats = Nats { url, url_file: Some(file), ..Nats::default() };
            nats.read_url_file().map(|()| nats.url).map_err(|error| error.to_string())
        };
        let address = "nats://ada:hush@a:4222";
        assert_eq!(read(&format!("{address}\n"), None).unwrap(), Some(address.parse().unwrap()));
        let invalid = read("http://ada:hush@a", None).unwrap_err();
        assert!(invalid.ends_with("does not have the address of NATS servers"), "{invalid}");
        assert_eq!(
            read(address, Some(address)).unwrap_err(),
            "nats.url and nats.url_file exclude each other"
        );
    }

    #[test]
    fn an_address_is_displayed_without_its_secrets() {
        for (text, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("127.0.0.1", "nats://127.0.0.1:4222"),
            ("tls://ada:hush@nats.example", "tls://nats.example:4222"),
            ("nats://hush@a:1, nats://b:2", "nats://a:1,nats://b:2"),
        ] {
            let url: NatsUrl = text.parse().unwrap();
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()), "{text}");
        }
        for text in ["", "http://a:4222", "ws://a:80", "nats://a,,b", "a b"] {
            assert!(text.parse::<NatsUrl>().is_err(), "{text:?}");
        }
    }
}
