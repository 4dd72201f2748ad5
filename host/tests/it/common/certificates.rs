//! Certificates of authorities that a test makes itself.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::shop::configuration;

/// A folder with certificates.
pub(crate) struct Certificates {
    folder: TempDir,
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    /// Returns the file with a name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, contents: &str) -> PathBuf {
        let file = self.path(name);
        fs::write(&file, contents).unwrap();
        file
    }

    pub(crate) fn authority(&self, name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = self.write(&format!("{name}.pem"), &issuer.pem());
        Authority { issuer, file }
    }

    /// Writes a certificate for a name, and its key.
    pub(crate) fn certify(&self, authority: &Authority, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let file = |kind: &str, contents: &str| self.write(&format!("{name}.{kind}"), contents);
        (file("crt", &certificate.pem()), file("key", &key.serialize_pem()))
    }

    /// Returns the configuration of a host with a certificate for its name.
    pub(crate) fn configuration(&self, authority: &Authority, name: &str, more: &str) -> String {
        let (certificate, key) = self.certify(authority, name);
        format!(
            "[http]\nhosts = ['{name}']\n[tls]\ncertificate = '{}'\nkey = '{}'\n{more}\n{}",
            certificate.display(),
            key.display(),
            configuration()
        )
    }
}
