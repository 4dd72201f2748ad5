//! The listeners: an address that other machines can reach needs TLS and authentication.

use std::fmt;

use super::{Config, ConfigError};
use crate::edge::http::ListenOptions;

/// The sections of the configuration without which no other machine may reach the host. It is shown as the
/// lines to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// TLS, or a proxy that ends it.
    tls: bool,
    /// Authentication.
    auth: bool,
}

const TLS: &str = "

[tls]
certificate = \"certificate.pem\"
key = \"key.pem\"

or, if a proxy before the host ends TLS, its network:

[http]
trusted_proxies = [\"10.0.0.0/8\"]";

const AUTH: &str = "

[auth]";

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write into the configuration:")?;
        f.write_str(if self.tls { TLS } else { "" })?;
        f.write_str(if self.auth { AUTH } else { "" })?;
        f.write_str("\n\nor listen on a loopback address such as 127.0.0.1:7070")
    }
}

impl Config {
    /// Checks that no other machine can reach the host without TLS and authentication.
    pub(super) fn check_listeners(&self) -> Result<(), ConfigError> {
        let missing = Missing {
            tls: self.tls.is_none() && self.http.trusted_proxies.is_empty(),
            auth: self.auth.is_none(),
        };
        let exposed = [Some(self.listen), self.admin.listen].into_iter().flatten();
        match exposed.into_iter().find(|address| !address.ip().is_loopback()) {
            Some(address) if missing.tls || missing.auth => {
                Err(ConfigError::Unprotected { address, missing })
            }
            _ => Ok(()),
        }
    }

    /// Returns the sockets to listen on.
    pub(crate) fn listen_options(&self) -> ListenOptions {
        ListenOptions { address: self.listen, tls: self.tls.clone(), admin: self.admin.clone() }
    }
}
