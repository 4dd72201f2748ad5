//! The other end of a connection: its address, and what it has proven about itself.

use std::net::IpAddr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::edge::caller_limits::Sender;
use crate::identity;
use crate::model::Actor;

/// The client of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Peer {
    /// The address of the client, as its proxy says if the proxy is trusted. `None`: a program on this
    /// machine, over the Unix socket.
    pub(super) address: Option<IpAddr>,
    /// The address of this host at which the connection arrived. `None`: the Unix socket.
    pub(super) local: Option<IpAddr>,
    /// True if the client has sent the request over TLS.
    pub(super) secure: bool,
    /// The identity that the connection proves. `None`: it proves none.
    pub(super) proven: Option<Arc<identity::Peer>>,
}

impl Peer {
    /// Returns the client of a TCP connection without TLS.
    pub(super) fn of_tcp(address: IpAddr, local: IpAddr) -> Self {
        // A listener for both versions of IP shows IPv4 addresses as IPv6 ones.
        let (address, local) = (address.to_canonical(), local.to_canonical());
        Self { address: Some(address), local: Some(local), secure: false, proven: None }
    }

    /// Returns the client of a connection to the Unix socket.
    pub(super) fn of_user(uid: u32) -> Self {
        let proven = Some(Arc::new(identity::Peer::Socket { uid }));
        Self { address: None, local: None, secure: false, proven }
    }

    /// Returns this client after a handshake. `subject`: the name in the certificate that it has shown.
    pub(super) fn over_tls(self, subject: Option<Actor>) -> Self {
        let proven = subject.map(|subject| Arc::new(identity::Peer::Certificate { subject }));
        Self { secure: true, proven, ..self }
    }

    /// Returns the sender of a request. `subject`: the caller, if it has signed in.
    pub(super) fn sender(&self, subject: Option<&Actor>) -> Sender {
        Sender::of(subject, self.proven.as_deref(), self.address)
    }

    /// Returns if the client runs on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }
}

/// Returns the name in a certificate in DER: its common name, or else its first alternative name, which is a
/// DNS name, an e-mail address or a URI. `None`: it has neither, or cannot be read.
pub(super) fn subject_of(certificate: &[u8]) -> Option<Actor> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let common_name = certificate.subject().iter_common_name().next();
    let common_name = common_name.and_then(|name| name.as_str().ok());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    common_name.into_iter().chain(names.filter_map(name)).find(|name| !name.is_empty()).map(Actor::from)
}

fn name<'n>(name: &GeneralName<'n>) -> Option<&'n str> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn the_subject_of_a_certificate_is_its_common_name_or_else_its_first_other_name() {
        let key = KeyPair::generate().unwrap();
        let subject = |common_name: Option<&str>, names: &[SanType]| {
            let mut parameters = CertificateParams::default();
            parameters.distinguished_name = DistinguishedName::new();
            if let Some(name) = common_name {
                parameters.distinguished_name.push(DnType::CommonName, name);
            }
            parameters.subject_alt_names = names.to_vec();
            subject_of(parameters.self_signed(&key).unwrap().der())
        };
        let dns = SanType::DnsName("till-7.example".try_into().unwrap());
        let uri = SanType::URI("spiffe://shop/till-7".try_into().unwrap());
        let address = SanType::IpAddress([10, 0, 0, 1].into());
        for (common_name, names, expected) in [
            (Some("till-7"), vec![dns.clone(), uri.clone()], Some("till-7")),
            (None, vec![dns.clone(), uri.clone()], Some("till-7.example")),
            (None, vec![address.clone(), uri, dns.clone()], Some("spiffe://shop/till-7")),
            (Some(""), vec![dns], Some("till-7.example")),
            (None, vec![address], None),
            (None, vec![], None),
        ] {
            let found = subject(common_name, &names);
            assert_eq!(found.as_ref().map(Actor::as_str), expected, "{common_name:?} {names:?}");
        }
        assert_eq!(subject_of(b"no certificate"), None);
    }

    #[test]
    fn a_certificate_without_a_name_does_not_lift_the_limit_of_its_address() {
        let address = IpAddr::from([10, 0, 0, 1]);
        let client = |subject: Option<Actor>| Peer::of_tcp(address, address).over_tls(subject);
        assert_eq!(client(None).sender(None), Sender::At(address));
        assert_eq!(client(Some("till-7".into())).sender(None), Sender::Named("till-7".into()));
        assert_eq!(Peer::of_user(7).sender(None), Sender::Named("unix:7".into()));
    }
}
