//! The checks of a request before its route is looked up, whatever the route. They keep pages in a browser
//! from reaching the host: those of other origins, and those whose name resolves to this machine (DNS
//! rebinding).
//!
//! | check | else |
//! |---|---|
//! | The connection has TLS, comes from this machine or from a trusted proxy. | `tls-required` |
//! | `Host` (over HTTP/2 `:authority`) is there, once. | `invalid-header` |
//! | It is a loopback name, the address of the connection, or one of `http.hosts`. | `unknown-host` |
//! | `Origin`, if any, is the origin of the host itself or one of `http.origins`. | `foreign-origin` |
//! | `Sec-Fetch-Site`, if any, is `none` or `same-origin`, or the request opens a page. | `cross-site` |

use std::net::{IpAddr, SocketAddr};

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use ipnet::IpNet;
use serde::Deserialize;

use super::peer::Peer;
use crate::contract::{HttpOrigin, Problem, ProblemCode};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_HOST: &str = "x-forwarded-host";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The section `[http]` of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// The names of the host, beside the loopback names and its addresses: `shop.example`.
    pub hosts: Vec<HostName>,
    /// The origins whose pages may send requests, beside that of the host itself: `https://app.example`.
    pub origins: Vec<HttpOrigin>,
    /// The networks of the proxies that end TLS and whose `X-Forwarded-*` headers are honored.
    pub trusted_proxies: Vec<IpNet>,
}

/// A name in `http.hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

/// The error of a text that is no host name.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is no host name such as shop.example, without a scheme and a port")]
pub struct NoHostName(String);

impl TryFrom<String> for HostName {
    type Error = NoHostName;

    fn try_from(text: String) -> Result<Self, NoHostName> {
        let is_name = text.parse::<Authority>().is_ok_and(|authority| authority.host() == text);
        if is_name { Ok(Self(text)) } else { Err(NoHostName(text)) }
    }
}

/// The headers of a trusted proxy about its client.
#[derive(Default)]
struct Forwarded<'h> {
    address: Option<IpAddr>,
    host: Option<&'h str>,
    secure: Option<bool>,
}

impl HttpOptions {
    /// Checks a request. Returns its client, which is the one behind a trusted proxy.
    pub(super) fn admit(&self, parts: &Parts, peer: Peer) -> Result<Peer, Problem> {
        let trusted = peer.address.is_some_and(|address| self.trusts(address));
        if !(peer.secure || trusted || peer.is_local()) {
            let detail = "This host answers over TLS only: use https, or its proxy.";
            return Err(Problem::new(ProblemCode::TlsRequired, detail));
        }
        let forwarded = if trusted { self.forwarded(&parts.headers)? } else { Forwarded::default() };
        // Checked behind a proxy too: a page whose name resolves to this machine can send any other header.
        let named = self.own(authority(parts)?, &peer)?;
        let authority = match forwarded.host {
            Some(host) => self.own(parse(host.as_bytes())?, &peer)?,
            None => named,
        };
        let peer = match forwarded {
            // The certificate, if any, is that of the proxy.
            Forwarded { address: address @ Some(_), .. } => Peer { address, proven: None, ..peer },
            Forwarded { address: None, .. } => peer,
        };
        let peer = Peer { secure: forwarded.secure.unwrap_or(peer.secure), ..peer };
        self.check_page(parts, &authority, peer.secure)?;
        Ok(peer)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// Reads the headers of a trusted proxy. The last one of several values is its own; the client may have
    /// sent the others. The client is the last address that is no trusted proxy.
    fn forwarded<'h>(&self, headers: &'h HeaderMap) -> Result<Forwarded<'h>, Problem> {
        let values = |name| {
            let values = headers.get_all(name).iter().rev().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.rsplit(',')).map(str::trim)
        };
        let mut address = None;
        for hop in values(FORWARDED_FOR) {
            let hop = client_address(hop).ok_or_else(|| {
                Problem::invalid_header("X-Forwarded-For must be IP addresses, separated by commas.")
            })?;
            address = Some(hop);
            if !self.trusts(hop) {
                break;
            }
        }
        Ok(Forwarded {
            address,
            host: values(FORWARDED_HOST).next(),
            secure: values(FORWARDED_PROTO).next().map(|scheme| scheme.eq_ignore_ascii_case("https")),
        })
    }

    /// Returns an authority that names this host. Fails if it names another one.
    fn own(&self, authority: Authority, peer: &Peer) -> Result<Authority, Problem> {
        if self.names_this_host(authority.host(), peer) {
            return Ok(authority);
        }
        let host = authority.host().escape_debug();
        let detail = format!("This host is not {host}. Its operator can add a name to http.hosts.");
        Err(Problem::new(ProblemCode::UnknownHost, detail))
    }

    /// Returns if a host without its port is this one. An address cannot be rebound, so that of the
    /// connection is as good as a name.
    fn names_this_host(&self, host: &str, peer: &Peer) -> bool {
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let own = match literal {
            Ok(address) => address.is_loopback() || peer.local == Some(address.to_canonical()),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        own || self.hosts.iter().any(|HostName(name)| name.eq_ignore_ascii_case(host))
    }

    /// Refuses a request that a browser sends for the page of another origin. Programs send neither header.
    fn check_page(&self, parts: &Parts, authority: &Authority, secure: bool) -> Result<(), Problem> {
        if let Some(origin) = parts.headers.get(header::ORIGIN) {
            let origin = origin.to_str().ok().and_then(|origin| origin.parse::<HttpOrigin>().ok());
            if origin.as_ref().is_some_and(|origin| self.origins.contains(origin)) {
                return Ok(());
            }
            if origin.is_none() || origin != HttpOrigin::at(secure, authority) {
                let detail = "The pages of other origins may not send requests to this host.";
                return Err(Problem::new(ProblemCode::ForeignOrigin, detail));
            }
        }
        let fetch = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
        let own = matches!(fetch("sec-fetch-site"), None | Some(b"none" | b"same-origin"));
        // A link to a page of this host. The page that it stands on cannot read the answer.
        let opens_page = parts.method == Method::GET
            && fetch("sec-fetch-mode") == Some(b"navigate")
            && fetch("sec-fetch-dest") == Some(b"document");
        if own || opens_page {
            return Ok(());
        }
        let detail = "The pages of other sites may only link to this host.";
        Err(Problem::new(ProblemCode::CrossSite, detail))
    }
}

/// Returns the host and the port that a request names.
fn authority(parts: &Parts) -> Result<Authority, Problem> {
    let mut headers = parts.headers.get_all(header::HOST).iter();
    let of_uri = parts.uri.authority();
    match (headers.next(), headers.next(), of_uri) {
        (None, None, Some(authority)) => parse(authority.as_str().as_bytes()),
        (Some(host), None, None) => parse(host.as_bytes()),
        (Some(host), None, Some(authority)) if parse(host.as_bytes())? == *authority => Ok(authority.clone()),
        _ => Err(Problem::invalid_header("Host must be there exactly once.")),
    }
}

/// Reads an address, with a port or without.
fn client_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

fn parse(host: &[u8]) -> Result<Authority, Problem> {
    // The library takes anything for the port.
    let has_port = |authority: &Authority| {
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("?");
        port.is_empty() || port == ":" || authority.port_u16().is_some()
    };
    let authority = Authority::try_from(host).ok();
    let authority = authority.filter(|authority| !authority.as_str().contains('@') && has_port(authority));
    authority
        .ok_or_else(|| Problem::invalid_header("Host must be a name or an address, such as localhost:7070."))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
