//! The origins of URLs.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Authority;
use serde::Deserialize;

use super::address::is_public;

/// Scheme, host and port of a URL (RFC 6454): `https://payments.example:8443`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct HttpOrigin {
    https: bool,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

/// The error of a text that is no origin.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is no origin such as https://payments.example or http://127.0.0.1:9090")]
pub struct NoOrigin(String);

impl HttpOrigin {
    /// Returns the origin of an absolute URL; none if the URL has another scheme or a user name, which reads
    /// like a host.
    pub fn of(url: &Uri) -> Option<Self> {
        let https = match url.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        Self::at(https, url.authority()?)
    }

    /// Returns the origin of a host and a port; none if there is a user name before them.
    pub(crate) fn at(https: bool, authority: &Authority) -> Option<Self> {
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" if https => 443,
            "" => 80,
            port => port.strip_prefix(':')?.parse().ok()?,
        };
        let host = authority.host().to_ascii_lowercase();
        (!host.is_empty()).then_some(Self { https, host, port })
    }

    /// Returns whether the host is an address outside of the public internet. A name is resolved when it is
    /// called.
    pub(crate) fn is_private(&self) -> bool {
        self.literal().is_some_and(|address| !is_public(address))
    }

    /// Returns whether nobody on the way can read or change what is sent: over TLS, or within this machine.
    pub fn is_protected(&self) -> bool {
        self.https || self.is_loopback()
    }

    /// Returns whether the host is this machine.
    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.literal().is_some_and(|address| address.is_loopback())
    }

    /// Returns the address that the URL has instead of a name, if it has one.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        self.host.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { https, host, port } = self;
        match (https, port) {
            (true, 443) => write!(f, "https://{host}"),
            (true, _) => write!(f, "https://{host}:{port}"),
            (false, 80) => write!(f, "http://{host}"),
            (false, _) => write!(f, "http://{host}:{port}"),
        }
    }
}

impl FromStr for HttpOrigin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let url = text.parse::<Uri>().ok().filter(|url| url.path() == "/" && url.query().is_none());
        let origin = url.filter(|_| !text.ends_with('/')).and_then(|url| Self::of(&url));
        origin.ok_or_else(|| NoOrigin(text.to_owned()))
    }
}

impl TryFrom<String> for HttpOrigin {
    type Error = NoOrigin;

    fn try_from(text: String) -> Result<Self, NoOrigin> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let table = [
            ("https://payments.example", Some("https://payments.example")),
            ("https://Payments.EXAMPLE:443", Some("https://payments.example")),
            ("http://payments.example:443", Some("http://payments.example:443")),
            ("http://127.0.0.1:9090", Some("http://127.0.0.1:9090")),
            ("http://[::1]:9090", Some("http://[::1]:9090")),
            ("https://payments.example/", None),
            ("https://payments.example/v1", None),
            ("https://payments.example?x=1", None),
            ("https://ada@payments.example", None),
            ("https://payments.example:99999", None),
            ("https://payments.example:", None),
            ("ftp://payments.example", None),
            ("payments.example", None),
            ("/v1", None),
            ("https://", None),
            ("", None),
        ];
        for (text, expected) in table {
            let origin = text.parse::<HttpOrigin>().ok().map(|origin| origin.to_string());
            assert_eq!(origin.as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_url_has_the_origin_that_a_request_to_it_goes_to() {
        let table = [
            ("https://payments.example/v1?x=http://other.example", Some("https://payments.example")),
            ("https://payments.example@other.example/v1", None),
            ("https://payments.example:1@other.example/v1", None),
        ];
        for (url, expected) in table {
            let origin = HttpOrigin::of(&url.parse().unwrap()).map(|origin| origin.to_string());
            assert_eq!(origin.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_sent_is_protected_by_tls_or_stays_within_the_machine() {
        let table = [
            ("https://shop.example", true),
            ("http://localhost:7070", true),
            ("http://LOCALHOST", true),
            ("http://127.8.0.1", true),
            ("http://[::1]:7070", true),
            ("http://shop.example", false),
            ("http://10.0.0.1", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
        ];
        for (origin, expected) in table {
            assert_eq!(origin.parse::<HttpOrigin>().unwrap().is_protected(), expected, "{origin}");
        }
    }

    #[test]
    fn an_address_instead_of_a_name_is_recognized() {
        let table = [
            ("http://10.0.0.1", Some("10.0.0.1")),
            ("http://[::ffff:127.0.0.1]:80", Some("::ffff:127.0.0.1")),
            ("http://127.1", None),
            ("http://localhost", None),
        ];
        for (origin, literal) in table {
            let expected = literal.map(|address| address.parse::<IpAddr>().unwrap());
            assert_eq!(origin.parse::<HttpOrigin>().unwrap().literal(), expected, "{origin}");
        }
    }
}
