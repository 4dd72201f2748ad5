//! The host that a command calls, and how the command signs in there.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kontor::contract::HttpOrigin;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::bearer::{Token, TokenError};
use super::profiles::{self, DEFAULT_PROFILE, Profile, ProfileError, Profiles};

const DEFAULT_HOST: &str = "http://127.0.0.1:7070";

/// The environment variable with the token itself.
const TOKEN: &str = "KONTOR_TOKEN";

/// The scheme of a host's Unix socket.
const UNIX: &str = "unix:";

/// An address, and what a command needs to sign in there.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Reach {
    /// The running host to call: http://127.0.0.1:7070, https://shop.example or unix:/run/kontor.sock
    #[arg(long, env = "KONTOR_HOST", value_name = "URL")]
    pub(super) host: Option<String>,
    /// The file with the token to sign in with, `-` for standard input. Only its owner may read it.
    /// KONTOR_TOKEN may have the token itself
    #[arg(long, env = "KONTOR_TOKEN_FILE", value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The certificate authorities (PEM) of the host's certificate, in place of those of this machine
    #[arg(long, env = "KONTOR_CA", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// The host that a command calls.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct HostArgument {
    #[command(flatten)]
    pub(super) reach: Reach,
    /// The profile of `kontor login` with the host and its token [default: default, if there is one]
    #[arg(long, env = "KONTOR_PROFILE", value_name = "NAME")]
    pub(super) profile: Option<String>,
}

/// A host to call.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) token: Option<Token>,
    pub(super) ca: Option<PathBuf>,
}

/// The place of a host.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Address {
    /// An HTTP URL without a slash at the end.
    Url(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// The reason why a command does not know which host to call, or how.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error(
        "{0} is not the address of a host; it looks like http://127.0.0.1:7070, https://shop.example or \
         unix:/run/kontor.sock"
    )]
    NotAnAddress(String),
    #[error("a token is sent to {0} only over TLS, where nobody else can read it: use https://")]
    PlainText(String),
    #[error("there is no profile {name}; {others}")]
    NoProfile { name: String, others: String },
    #[error("the profile {name} is for {of}, not for {host}: leave out --profile or --host (or KONTOR_HOST)")]
    OtherHost { name: String, of: String, host: String },
    #[error(transparent)]
    Profiles(#[from] ProfileError),
    #[error("the token cannot be used")]
    Token(#[from] TokenError),
    #[error("the certificate authorities in {} cannot be read", .file.display())]
    Ca { file: PathBuf, source: io::Error },
    #[error("there is no certificate in {}", .0.display())]
    NoCertificate(PathBuf),
}

impl HostArgument {
    /// Returns the flags of a further command for the same host: ` --host URL`, or nothing if it has none.
    pub(super) fn flag(&self) -> String {
        let flags = [("--host", &self.reach.host), ("--profile", &self.profile)];
        let given =
            flags.into_iter().filter_map(|(flag, value)| Some(format!(" {flag} {}", value.as_ref()?)));
        given.collect()
    }

    /// Returns the host to call. A flag goes before the environment, that before the profile, and that before
    /// the default.
    pub(super) fn target(&self) -> Result<Target, TargetError> {
        let profiles = match (profiles::file(), &self.profile) {
            (Some(file), _) => Profiles::read(&file)?,
            (None, None) => Profiles::default(),
            (None, Some(_)) => return Err(ProfileError::NoHome.into()),
        };
        self.resolve(env::var_os(TOKEN), &profiles)
    }

    /// Returns the host to call. `token` is the value of the environment variable.
    fn resolve(&self, token: Option<OsString>, profiles: &Profiles) -> Result<Target, TargetError> {
        let given = self.reach.host.as_deref().map(Address::parse).transpose()?;
        let profile = match (self.profile(profiles)?, &given) {
            (Some(profile), Some(host)) if Address::parse(&profile.host)? != *host => match &self.profile {
                // The token of a profile is for the profile's host alone.
                None => None,
                Some(name) => {
                    let (of, host) = (profile.host.clone(), host.to_string());
                    return Err(TargetError::OtherHost { name: name.clone(), of, host });
                }
            },
            (profile, _) => profile,
        };
        let address = match (given, profile) {
            (Some(host), _) => host,
            (None, Some(profile)) => Address::parse(&profile.host)?,
            (None, None) => Address::Url(DEFAULT_HOST.to_owned()),
        };
        let token = match self.reach.token(token)? {
            None => profile.and_then(|profile| profile.token.clone()),
            given => given,
        };
        let ca = self.reach.ca.clone().or_else(|| profile?.ca.clone());
        Target { address, token, ca }.checked()
    }

    /// Returns the profile that is named, or the one that holds if none is.
    fn profile<'p>(&self, profiles: &'p Profiles) -> Result<Option<&'p Profile>, TargetError> {
        let Some(name) = &self.profile else { return Ok(profiles.0.get(DEFAULT_PROFILE)) };
        let found = profiles.0.get(name).ok_or_else(|| TargetError::no_profile(name, profiles));
        found.map(Some)
    }
}

impl Reach {
    /// Returns the address to sign in at. `kontor login` calls it, without a profile.
    pub(super) fn target(&self, host: &str) -> Result<Target, TargetError> {
        let (address, token) = (Address::parse(host)?, self.token(env::var_os(TOKEN))?);
        Target { address, token, ca: self.ca.clone() }.checked()
    }

    fn token(&self, variable: Option<OsString>) -> Result<Option<Token>, TokenError> {
        match (&self.token_file, variable) {
            (Some(file), _) => Token::read(file).map(Some),
            (None, Some(text)) => Token::parse(&text.to_string_lossy(), TOKEN).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl TargetError {
    pub(super) fn no_profile(name: &str, profiles: &Profiles) -> Self {
        let names = profiles.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let others = match names.is_empty() {
            true => format!("`kontor login {name} --host URL` makes it"),
            false => format!("there are {names}"),
        };
        Self::NoProfile { name: name.to_owned(), others }
    }
}

impl Target {
    /// Fails if the token would go through a network without TLS.
    fn checked(self) -> Result<Self, TargetError> {
        match &self.address {
            Address::Url(url) if self.token.is_some() && !origin(url).is_some_and(|to| to.is_protected()) => {
                Err(TargetError::PlainText(url.clone()))
            }
            _ => Ok(self),
        }
    }

    /// Returns the authorities that certificates are checked against. They are not read unless there is one.
    pub(super) fn tls(&self) -> Result<TlsConfig, TargetError> {
        let roots = match (&self.address, &self.ca) {
            (Address::Url(url), Some(file)) if url.starts_with("https:") => certificates(file)?,
            (Address::Url(url), None) if url.starts_with("https:") => {
                // A certificate that cannot be read is left out; a host that needs it is not trusted.
                let found = rustls_native_certs::load_native_certs().certs;
                found.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
            }
            _ => Vec::new(),
        };
        Ok(TlsConfig::builder().root_certs(RootCerts::from(roots)).build())
    }
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, TargetError> {
    let pem = fs::read(file).map_err(|source| TargetError::Ca { file: file.to_owned(), source })?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let found: Vec<_> = parse_pem(&pem).filter_map(certificate).collect();
    if found.is_empty() { Err(TargetError::NoCertificate(file.to_owned())) } else { Ok(found) }
}

/// Returns the origin of a URL; none if it is no address of a host. A name and a password are not accepted:
/// they would be shown in errors, and are no way to sign in at a host.
fn origin(url: &str) -> Option<HttpOrigin> {
    let uri = url.parse::<Uri>().ok().filter(|uri| uri.query().is_none())?;
    HttpOrigin::of(&uri)
}

impl Address {
    /// Reads an address as an operator writes it.
    pub(super) fn parse(text: &str) -> Result<Self, TargetError> {
        if let Some(path) = text.strip_prefix(UNIX).filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let url = text.trim_end_matches('/');
        match origin(url).is_some() {
            true => Ok(Self::Url(url.to_owned())),
            false => Err(TargetError::NotAnAddress(text.to_owned())),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles() -> Profiles {
        let profile = |host: &str, token: &str| Profile {
            host: host.to_owned(),
            ca: None,
            token: Some(Token::parse(token, "x").unwrap()),
        };
        let default = profile("https://shop.example/", "of-default");
        let test = profile("https://test.example", "of-test");
        Profiles([("default".to_owned(), default), ("test".to_owned(), test)].into())
    }

    #[test]
    fn a_flag_goes_before_the_environment_that_before_the_profile_and_that_before_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let private = fs::set_permissions;
        fs::write(&file, "of-file").unwrap();
        private(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let none = Profiles::default();
        // The host, the profile, if there is a token file, the variable, the profiles; the result.
        let table = [
            (None, None, false, None, &none, ("http://127.0.0.1:7070", None)),
            (None, None, false, None, &profiles(), ("https://shop.example", Some("of-default"))),
            (None, Some("test"), false, None, &profiles(), ("https://test.example", Some("of-test"))),
            (None, None, false, Some("of-env"), &profiles(), ("https://shop.example", Some("of-env"))),
            (None, None, true, Some("of-env"), &profiles(), ("https://shop.example", Some("of-file"))),
            (
                Some("https://shop.example"),
                None,
                false,
                None,
                &profiles(),
                ("https://shop.example", Some("of-default")),
            ),
            // The token of a profile stays with the profile's host.
            (Some("https://evil.example"), None, false, None, &profiles(), ("https://evil.example", None)),
            (Some("unix:/k.sock"), None, true, None, &none, ("unix:/k.sock", Some("of-file"))),
        ];
        for (host, profile, token_file, variable, profiles, (address, token)) in table {
            let token_file = token_file.then(|| file.clone());
            let reach = Reach { host: host.map(str::to_owned), token_file, ca: None };
            let argument = HostArgument { reach, profile: profile.map(str::to_owned) };
            let target = argument.resolve(variable.map(OsString::from), profiles).unwrap();
            let expected = token.map(|token| format!("Bearer {token}"));
            let found = (target.address.to_string(), target.token.map(|token| token.header()));
            assert_eq!(found, (address.to_owned(), expected), "{argument:?}");
        }
    }

    #[test]
    fn a_profile_that_is_named_must_be_there_and_fit_the_host() {
        for (host, profile, expected) in [
            (None, "prod", "there is no profile prod; there are default, test"),
            (Some("http://127.0.0.1:7070"), "test", "the profile test is for https://test.example, not for"),
        ] {
            let reach = Reach { host: host.map(str::to_owned), ..Reach::default() };
            let argument = HostArgument { reach, profile: Some(profile.to_owned()) };
            let error = argument.resolve(None, &profiles()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_token_goes_through_a_network_with_tls_only() {
        let table = [
            ("http://127.0.0.1:7070", true),
            ("http://[::1]:7070", true),
            ("http://localhost:7070", true),
            ("https://shop.example", true),
            ("unix:/run/kontor.sock", true),
            ("http://shop.example", false),
            ("http://10.0.0.1:7070", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example", false),
        ];
        for (host, sent) in table {
            let argument = HostArgument {
                reach: Reach { host: Some(host.to_owned()), ..Reach::default() },
                profile: None,
            };
            let with_token = argument.resolve(Some("kt_abc".into()), &Profiles::default());
            match sent {
                true => assert!(with_token.is_ok(), "{host}"),
                false => assert!(matches!(with_token, Err(TargetError::PlainText(_))), "{host}"),
            }
            assert!(argument.resolve(None, &Profiles::default()).is_ok(), "{host}");
        }
    }

    #[test]
    fn a_text_that_is_no_address_is_refused() {
        for host in [
            "127.0.0.1:7070",
            "ftp://127.0.0.1:7070",
            "http://a b",
            "",
            "unix:",
            "http://ann:pw@h",
            "http://h?x",
        ] {
            assert!(matches!(Address::parse(host), Err(TargetError::NotAnAddress(_))), "{host:?}");
        }
    }
}
