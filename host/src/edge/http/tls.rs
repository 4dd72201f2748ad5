//! TLS: the certificate of the host, loaded again when its files change, and the certificates of clients.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::peer::subject_of;
use super::plain;
use crate::error::Chain;
use crate::model::Actor;

/// The time between two looks at the files. Certificates are replaced weeks before they expire.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum time for a handshake, or for the refusal of a request without TLS: several round trips of the
/// slowest network.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// HTTP/2 in the negotiation of the protocol.
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// The section `[tls]` of the configuration: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate of the host, followed by those of the authorities up to the root.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities whose client certificates are accepted. Default: `None`, clients show none.
    pub client_ca: Option<PathBuf>,
}

/// The files of `[tls]` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{} cannot be read", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is not PEM, or has something else in it.
    #[error("{} has no {expected} in PEM", .file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// The content that was expected.
        expected: &'static str,
        /// The cause.
        source: pem::Error,
    },
    /// The certificate and the key do not belong together, or one is not valid.
    #[error("the certificate {} cannot be used with the key {}", .certificate.display(), .key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// An authority is not valid.
    #[error("an authority in {} cannot be used", .file.display())]
    Authority {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The certificates of clients cannot be verified with these authorities.
    #[error("client certificates cannot be verified with {}", .file.display())]
    Verifier {
        /// The file of the authorities.
        file: PathBuf,
        /// The cause.
        source: VerifierBuilderError,
    },
}

/// The errors of files in PEM, by the key of the configuration that names the file.
#[derive(Debug, Default)]
pub(crate) struct PemErrors {
    pub(crate) certificate: Option<TlsError>,
    /// The error of the key, or of a pair that does not belong together.
    pub(crate) key: Option<TlsError>,
    pub(crate) authorities: Option<TlsError>,
}

impl PemErrors {
    /// Reads a certificate with its key, and authorities, as a listener does.
    pub(crate) fn of(pair: Option<(&Path, &Path)>, authorities: Option<&Path>) -> Self {
        let provider = Arc::new(ring::default_provider());
        let checked = |file| verifier(&read(file)?, file, &provider);
        let authorities = authorities.and_then(|file| checked(file).err());
        let mut errors = Self { authorities, ..Self::default() };
        let Some((certificate, key)) = pair else { return errors };
        let chain = read(certificate).and_then(|text| certificates(&text, certificate));
        match (chain, read(key).and_then(|text| private_key(&text, key))) {
            (Ok(chain), Ok(private)) => {
                let anyone = WebPkiClientVerifier::no_client_auth();
                let unusable = |source| pair_error(certificate, key, source);
                errors.key = server_config(provider, anyone, chain, private).map_err(unusable).err();
            }
            (chain, private) => (errors.certificate, errors.key) = (chain.err(), private.err()),
        }
        errors
    }
}

/// The TLS of a listener.
pub(super) struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The contents that were seen last. `None`: a file could not be read.
    seen: Mutex<Option<Contents>>,
}

/// The contents of the files.
#[derive(PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Loads the files.
    pub(super) fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let config = ArcSwap::from(contents.config(&files)?);
        Ok(Self { files, config, seen: Mutex::new(Some(contents)) })
    }

    /// Performs the handshake of a connection. Returns the name in the client's certificate, if it has shown
    /// one. A client that sends HTTP without TLS is answered with a problem, and fails.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Actor>)> {
        tokio::time::timeout(HANDSHAKE_LIMIT, self.handshake(stream)).await?
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Option<Actor>)> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && plain::is_http(first[0]) {
            plain::refuse(stream).await.map_err(io::Error::other)?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client sent HTTP without TLS"));
        }
        let stream = TlsAcceptor::from(self.config.load_full()).accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let subject = certificates.and_then(|chain| subject_of(chain.first()?));
        Ok((stream, subject))
    }

    /// Loads the files again whenever they change. A pair that cannot be used leaves the one before in place:
    /// the two files are often not replaced at the same moment.
    pub(super) async fn reload(self: Arc<Self>) {
        let mut due = tokio::time::interval(RELOAD_INTERVAL);
        loop {
            due.tick().await;
            let tls = self.clone();
            // Err: a panic, which is in the log already.
            if tokio::task::spawn_blocking(move || tls.load_changed()).await.is_err() {
                return;
            }
        }
    }

    /// Loads the files if they differ from those that were seen before.
    fn load_changed(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = match Contents::read(&self.files) {
            Ok(contents) => contents,
            Err(error) => {
                if seen.take().is_some() {
                    tracing::warn!(error = %Chain(&error), "failed to read a certificate; the old stays");
                }
                return;
            }
        };
        if seen.as_ref() == Some(&contents) {
            return;
        }
        match contents.config(&self.files) {
            Ok(config) => {
                self.config.store(config);
                tracing::info!("loaded the certificate; new connections get it");
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "failed to load the certificate; the old one stays");
            }
        }
        *seen = Some(contents);
    }
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn config(&self, files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = private_key(&self.key, &files.key)?;
        let clients = match (&self.client_ca, &files.client_ca) {
            (Some(authorities), Some(file)) => verifier(authorities, file, &provider)?,
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        let config = server_config(provider, clients, chain, key);
        config.map(Arc::new).map_err(|source| pair_error(&files.certificate, &files.key, source))
    }
}

/// Returns the TLS with a certificate. Fails if the key is another one's.
fn server_config(
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = [HTTP_2, HTTP_1].map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

fn pair_error(certificate: &Path, key: &Path, source: rustls::Error) -> TlsError {
    TlsError::Pair { certificate: certificate.to_owned(), key: key.to_owned(), source }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|source| TlsError::Read { file: file.to_owned(), source })
}

/// Reads the private key of a file.
fn private_key(text: &[u8], file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let no_pem = |source| TlsError::Pem { file: file.to_owned(), expected: "private key", source };
    PrivateKeyDer::from_pem_slice(text).map_err(no_pem)
}

/// Returns the check of client certificates. A client without one is let in: it may have a token.
fn verifier(
    authorities: &[u8],
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(authorities, file)? {
        roots.add(authority).map_err(|source| TlsError::Authority { file: file.to_owned(), source })?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let unusable = |source| TlsError::Verifier { file: file.to_owned(), source };
    verifier.allow_unauthenticated().build().map_err(unusable)
}

/// Reads the certificates of a file. Fails if there is none.
fn certificates(text: &[u8], file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let no_pem = |source| TlsError::Pem { file: file.to_owned(), expected: "certificate", source };
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>().map_err(no_pem)?;
    if found.is_empty() { Err(no_pem(pem::Error::NoItemsFound)) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;
    use crate::clock::Stopwatch;

    /// Writes a certificate and its key.
    fn write(folder: &TempDir) -> TlsFiles {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["shop.example".into()]).unwrap();
        let [certificate, key] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        fs::write(&certificate, cert.pem()).unwrap();
        fs::write(&key, signing_key.serialize_pem()).unwrap();
        TlsFiles { certificate, key, client_ca: None }
    }

    #[test]
    fn files_that_cannot_be_used_are_named_in_the_error() {
        let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (files, foreign) = (write(&folder), write(&other));
        Tls::load(files.clone()).unwrap();
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "").unwrap();
        for (files, reason) in [
            (TlsFiles { certificate: "/nowhere".into(), ..files.clone() }, "/nowhere cannot be read"),
            (TlsFiles { certificate: empty.clone(), ..files.clone() }, "empty.pem has no certificate in PEM"),
            (TlsFiles { key: files.certificate.clone(), ..files.clone() }, "has no private key in PEM"),
            (TlsFiles { key: foreign.key, ..files.clone() }, "cannot be used with the key"),
            (TlsFiles { client_ca: Some(empty), ..files.clone() }, "empty.pem has no certificate in PEM"),
        ] {
            let error = Tls::load(files).err().unwrap().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    /// The time is that of the test, so a limit is over as soon as nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_ends_no_handshake_and_no_request_is_dropped_in_time() {
        let folder = TempDir::new().unwrap();
        let tls = Tls::load(write(&folder)).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for begun in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\nhost: a"] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut client, begun).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let since = Stopwatch::start();
            assert_eq!(tls.accept(stream).await.err().unwrap().kind(), io::ErrorKind::TimedOut, "{begun:?}");
            assert_eq!(since.elapsed().as_secs(), HANDSHAKE_LIMIT.as_secs(), "{begun:?}");
        }
    }

    #[test]
    fn a_broken_pair_leaves_the_one_before_in_place() {
        let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let files = write(&folder);
        let tls = Tls::load(files.clone()).unwrap();
        let current = || Arc::as_ptr(&tls.config.load_full());
        let before = current();
        tls.load_changed();
        assert_eq!(current(), before, "nothing has changed");

        let new = write(&other);
        fs::copy(&new.certificate, &files.certificate).unwrap();
        tls.load_changed();
        assert_eq!(current(), before, "the key is still the old one");
        fs::copy(&new.key, &files.key).unwrap();
        tls.load_changed();
        let after = current();
        assert_ne!(after, before);

        fs::remove_file(&files.key).unwrap();
        tls.load_changed();
        assert!(tls.seen.lock().unwrap().is_none());
        assert_eq!(current(), after);
    }
}
