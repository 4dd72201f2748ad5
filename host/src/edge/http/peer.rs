//! The other end of a connection: its address, and what it has proven about itself.

use std::net::IpAddr;
use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity;

/// The client of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    /// The address of the client, as its proxy says if the proxy is trusted. `None`: a program on this
    /// machine, over the Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// The address of this host at which the connection arrived. `None`: the Unix socket.
    pub(crate) local: Option<IpAddr>,
    /// True if the client has sent the request over TLS.
    pub(crate) secure: bool,
    /// `None`: the client has proven nothing.
    pub(crate) identity: Option<Arc<PeerIdentity>>,
}

/// The identity that a client has proven by its connection alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerIdentity {
    /// A user of this machine, over the Unix socket.
    User {
        /// The id of the user.
        uid: u32,
    },
    /// The holder of a certificate that one of the authorities in `tls.client_ca` has signed.
    Certificate(CertificateSubject),
}

/// The subject of a client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CertificateSubject {
    /// The common name.
    pub(crate) common_name: Option<String>,
    /// The alternative names: DNS names, e-mail addresses and URIs.
    pub(crate) names: Vec<String>,
}

impl Peer {
    /// Returns the client of a TCP connection without TLS.
    pub(super) fn of_tcp(address: IpAddr, local: IpAddr) -> Self {
        // A listener for both versions of IP shows IPv4 addresses as IPv6 ones.
        let (address, local) = (address.to_canonical(), local.to_canonical());
        Self { address: Some(address), local: Some(local), secure: false, identity: None }
    }

    /// Returns the client of a connection to the Unix socket.
    pub(super) fn of_user(uid: u32) -> Self {
        let identity = Some(Arc::new(PeerIdentity::User { uid }));
        Self { address: None, local: None, secure: false, identity }
    }

    /// Returns this client after a handshake in which it has shown a certificate, or none.
    pub(super) fn over_tls(self, subject: Option<CertificateSubject>) -> Self {
        let identity = subject.map(|subject| Arc::new(PeerIdentity::Certificate(subject)));
        Self { secure: true, identity, ..self }
    }

    /// Returns the identity that the connection proves, as the identification of callers takes it.
    pub(super) fn proven(&self) -> Option<identity::Peer> {
        match &**self.identity.as_ref()? {
            PeerIdentity::User { uid } => Some(identity::Peer::Socket { uid: *uid }),
            PeerIdentity::Certificate(subject) => {
                Some(identity::Peer::Certificate { subject: subject.name()?.to_owned() })
            }
        }
    }

    /// Returns if the client runs on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }
}

impl CertificateSubject {
    /// Returns the common name, or else the first alternative name.
    pub(super) fn name(&self) -> Option<&str> {
        self.common_name.as_deref().or(self.names.first().map(String::as_str))
    }

    /// Reads the subject of a certificate in DER. `None`: the certificate cannot be read.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let common_name = certificate.subject().iter_common_name().next();
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        Some(Self {
            common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            names: names.filter_map(name).map(str::to_owned).collect(),
        })
    }
}

fn name<'n>(name: &GeneralName<'n>) -> Option<&'n str> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn the_subject_of_a_certificate_is_its_common_name_and_its_other_names() {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(["till-7.example".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "till-7");
        parameters.subject_alt_names.push(SanType::URI("spiffe://shop/till-7".try_into().unwrap()));
        let certificate = parameters.self_signed(&key).unwrap();
        let subject = CertificateSubject::of(certificate.der()).unwrap();
        assert_eq!(subject.common_name.as_deref(), Some("till-7"));
        assert_eq!(subject.names, ["till-7.example", "spiffe://shop/till-7"]);
        assert_eq!(CertificateSubject::of(b"no certificate"), None);
    }

    #[test]
    fn a_certificate_without_a_common_name_has_its_first_other_name() {
        let proven = |common_name: Option<&str>, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let subject = CertificateSubject { common_name: common_name.map(str::to_owned), names };
            let address = IpAddr::from([127, 0, 0, 1]);
            Peer::of_tcp(address, address).over_tls(Some(subject)).proven()
        };
        let certificate = |subject: &str| Some(identity::Peer::Certificate { subject: subject.to_owned() });
        assert_eq!(proven(Some("till-7"), &["till-7.example"]), certificate("till-7"));
        assert_eq!(proven(None, &["till-7.example"]), certificate("till-7.example"));
        assert_eq!(proven(None, &[]), None);
    }
}
