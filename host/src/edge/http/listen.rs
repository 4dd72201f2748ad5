//! The sockets that the host listens on: the public listener, and those of the operators.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::host_routes::RouteSet;
use super::peer::Peer;
use super::tls::{Tls, TlsError, TlsFiles};

/// The mode of the Unix socket: only the user of the host, and root, can connect.
const SOCKET_MODE: u32 = 0o600;

/// The sockets to listen on.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// The address of the public listener.
    pub address: SocketAddr,
    /// The TLS of each listener that other machines can reach, and of the public one.
    pub tls: Option<TlsFiles>,
    /// The listeners of the operators.
    pub admin: AdminOptions,
}

/// The section `[admin]` of the configuration: the listeners of the operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminOptions {
    /// An address. With it, the public listener does not answer the operators' routes. Default: `None`.
    pub listen: Option<SocketAddr>,
    /// The path of a Unix socket. Default: `None`.
    pub socket: Option<PathBuf>,
}

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address is not this machine's, or is taken.
    #[error("cannot listen on {address}")]
    Address {
        /// The address of the configuration.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A Unix socket cannot be created.
    #[error("cannot listen on the socket {}", .path.display())]
    Socket {
        /// The path of the configuration.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The certificate of the host.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The open sockets of a host.
pub struct Listeners {
    pub(super) doors: Vec<Door>,
    pub(super) tls: Option<Arc<Tls>>,
    /// The address of the public listener, with the port that it got.
    pub address: SocketAddr,
    /// The address of the operators' listener, if there is one.
    pub admin: Option<SocketAddr>,
}

/// An open socket.
pub(super) struct Door {
    socket: Socket,
    /// `None`: the connections are not encrypted.
    pub(super) tls: Option<Arc<Tls>>,
    /// The host's own routes that are answered here.
    pub(super) routes: RouteSet,
    /// True if it is for operators, who must get in when clients have taken all connections.
    pub(super) is_admin: bool,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Removed with the listener.
        _file: SocketFile,
    },
}

/// A connection before its handshake.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a Unix socket, which is removed at the end.
struct SocketFile(PathBuf);

impl Listeners {
    /// Opens the sockets.
    pub async fn open(options: ListenOptions) -> Result<Self, ListenError> {
        let ListenOptions { address, tls, admin } = options;
        let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
        let routes = if admin.listen.is_some() { RouteSet::Public } else { RouteSet::All };
        let (public, address) = bind(address).await?;
        let mut doors = vec![Door { socket: public, tls: tls.clone(), routes, is_admin: false }];
        let mut admin_address = None;
        if let Some(address) = admin.listen {
            let (socket, address) = bind(address).await?;
            // A certificate is for the name of the host, which loopback does not have.
            let tls = tls.clone().filter(|_| !address.ip().is_loopback());
            doors.push(Door { socket, tls, routes: RouteSet::All, is_admin: true });
            admin_address = Some(address);
        }
        if let Some(path) = admin.socket {
            let socket = bind_socket(&path).map_err(|source| ListenError::Socket { path, source })?;
            doors.push(Door { socket, tls: None, routes: RouteSet::All, is_admin: true });
        }
        Ok(Self { doors, tls, address, admin: admin_address })
    }

    /// Returns if clients of the public listener speak TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

impl Door {
    /// Accepts a connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Connection, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Replies are written whole: waiting for more would only delay them.
                stream.set_nodelay(true)?;
                let peer = Peer::of_tcp(address.ip(), stream.local_addr()?.ip());
                Ok((Connection::Tcp(stream), peer))
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let peer = Peer::of_user(stream.peer_cred()?.uid());
                Ok((Connection::Unix(stream), peer))
            }
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(Socket, SocketAddr), ListenError> {
    let failed = |source| ListenError::Address { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((Socket::Tcp(listener), bound))
}

/// Creates a Unix socket for the user of the host alone. One that nobody listens on is left from a host that
/// was killed, and is removed.
fn bind_socket(path: &Path) -> io::Result<Socket> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "the file is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::new(ErrorKind::AddrInUse, "another program listens on it")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound in a directory of its own, so that nobody can connect before the mode is set.
    let folder = path.with_extension("new");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let bound = folder.join("socket");
    let listener = UnixListener::bind(&bound).and_then(|listener| {
        fs::set_permissions(&bound, fs::Permissions::from_mode(SOCKET_MODE))?;
        fs::rename(&bound, path)?;
        Ok(listener)
    });
    // Err: the next host removes it.
    let _ = fs::remove_dir_all(&folder);
    Ok(Socket::Unix { listener: listener?, _file: SocketFile(path.to_owned()) })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Err: somebody has removed it.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_user_and_replaces_one_that_nobody_listens_on() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("kontor.sock");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let first = bind_socket(&path).unwrap();
        assert_eq!(mode(), SOCKET_MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the socket is left");
        assert_eq!(bind_socket(&path).err().unwrap().kind(), ErrorKind::AddrInUse);

        // The host is killed: its file stays.
        let Socket::Unix { listener, _file } = first else { panic!() };
        drop(listener);
        std::mem::forget(_file);
        let second = bind_socket(&path).unwrap();
        assert_eq!(mode(), SOCKET_MODE);
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "mine").unwrap();
        assert_eq!(bind_socket(&path).err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
