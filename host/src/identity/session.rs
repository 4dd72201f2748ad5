//! The cookies of browsers that signed in. Their content is sealed, so only hosts with the same key can read
//! and make them, and no host has to remember them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cookie::time::Duration;
use cookie::{Cookie, CookieJar, Key, SameSite};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha512};
use subtle::ConstantTimeEq as _;

use super::NotIdentified;
use super::token::{NoRandomness, random};
use crate::contract::Secret;
use crate::model::{Actor, Caller, Role};

/// The name of the file with the key in the data directory.
const FILE: &str = "session.key";
/// Only the user of the host may read it.
const MODE: u32 = 0o600;
/// The name of the cookie of a session. With `__Host-` it belongs to this host alone: browsers take it over
/// https only, without a domain.
pub(crate) const SESSION_COOKIE: &str = "__Host-kontor";
/// The bytes of a CSRF token: nobody guesses 128 bits.
const CSRF_BYTES: usize = 16;

/// Seals and opens cookies.
pub(super) struct Cookies {
    key: Key,
    /// True if the host is reached over https, as everywhere but on this machine.
    secure: bool,
}

/// The cookies that the host makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CookieName {
    /// A browser that signed in.
    Session,
    /// A browser that is signing in.
    SignIn,
}

/// A browser that signed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) subject: Actor,
    pub(super) roles: Vec<Role>,
    /// The text that each request with an effect must have in `Kontor-CSRF`.
    pub(super) csrf: String,
    /// The end of the session, in milliseconds since 1970-01-01 UTC.
    pub(super) until_ms: u64,
}

impl Session {
    pub(super) fn new(caller: Caller, until_ms: u64) -> Result<Self, NoRandomness> {
        let csrf = hex::encode(random::<CSRF_BYTES>()?);
        Ok(Self { subject: caller.actor(), roles: caller.roles.to_vec(), csrf, until_ms })
    }

    pub(super) fn caller(&self) -> Caller {
        Caller { roles: self.roles.clone().into(), ..Caller::named(self.subject.shared()) }
    }

    /// Fails if the header `Kontor-CSRF` is not that of the session: a page of another origin can make a
    /// browser send the cookie, but not the header.
    pub(super) fn check_csrf(&self, csrf: Option<&str>) -> Result<(), NotIdentified> {
        let same = csrf.is_some_and(|csrf| csrf.as_bytes().ct_eq(self.csrf.as_bytes()).into());
        if same { Ok(()) } else { Err(NotIdentified::Csrf) }
    }
}

impl Cookies {
    /// Opens the key: the configured one, or one of the data directory, which is made if it is not there.
    pub(super) fn open(data: &Path, configured: Option<&Secret>, secure: bool) -> io::Result<Self> {
        let key = match configured {
            // A secret of any length becomes a key of the right one.
            Some(secret) => Key::from(&Sha512::digest(secret.reveal())),
            None => Key::from(&own_key(&data.join(FILE))?),
        };
        Ok(Self { key, secure })
    }

    /// Returns `Set-Cookie` for a value.
    pub(super) fn seal(
        &self,
        name: CookieName,
        value: &impl Serialize,
        seconds: u64,
    ) -> serde_json::Result<String> {
        let age = Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
        let cookie = Cookie::build((self.name(name), serde_json::to_string(value)?))
            .path("/")
            .secure(self.secure)
            .http_only(true)
            // A link from the issuer brings the browser back, so `Strict` would lose it.
            .same_site(SameSite::Lax)
            .max_age(age)
            .build();
        let mut jar = CookieJar::new();
        jar.private_mut(&self.key).add(cookie);
        Ok(jar.get(self.name(name)).map(ToString::to_string).unwrap_or_default())
    }

    /// Returns `Set-Cookie` that removes a cookie.
    pub(super) fn remove(&self, name: CookieName) -> String {
        let cookie = Cookie::build((self.name(name), "")).path("/").secure(self.secure);
        cookie.http_only(true).same_site(SameSite::Lax).max_age(Duration::ZERO).build().to_string()
    }

    /// Returns the value of a cookie, if a host with the same key has made it. Anything else is not there.
    pub(super) fn read<T: DeserializeOwned>(&self, name: CookieName, headers: &[&str]) -> Option<T> {
        let name = self.name(name);
        let cookies = headers.iter().flat_map(|header| Cookie::split_parse(*header)).flatten();
        let mut jar = CookieJar::new();
        cookies.filter(|cookie| cookie.name() == name).for_each(|cookie| {
            jar.add_original(cookie.into_owned());
        });
        serde_json::from_str(jar.private(&self.key).get(name)?.value()).ok()
    }

    /// Without https there is no `__Host-`, see [`SESSION_COOKIE`].
    fn name(&self, name: CookieName) -> &'static str {
        match (name, self.secure) {
            (CookieName::Session, true) => SESSION_COOKIE,
            (CookieName::Session, false) => "kontor",
            (CookieName::SignIn, true) => "__Host-kontor-sign-in",
            (CookieName::SignIn, false) => "kontor-sign-in",
        }
    }
}

/// Reads the key of a data directory, and makes it if it is not there.
fn own_key(file: &Path) -> io::Result<[u8; 64]> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is no key of 64 bytes; delete it");
    match fs::read(file) {
        Ok(bytes) => bytes.try_into().map_err(|_| damaged()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random::<64>().map_err(io::Error::other)?;
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(file)?.write_all(&key)?;
            Ok(key)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::contract::SecretSource;

    fn session() -> Session {
        let caller = Caller { roles: ["clerk".into()].into(), ..Caller::named("ann") };
        Session::new(caller, 7).unwrap()
    }

    /// Returns `Set-Cookie` for a session, and the header `Cookie` with which a browser answers.
    fn sealed(cookies: &Cookies, session: &Session) -> (String, String) {
        let set = cookies.seal(CookieName::Session, session, 60).unwrap();
        let cookie = set.split(';').next().unwrap().to_owned();
        (set, cookie)
    }

    #[test]
    fn a_cookie_is_for_the_browser_and_the_host_alone() {
        let data = tempfile::tempdir().unwrap();
        for (secure, begin, more) in [(true, "__Host-kontor=", true), (false, "kontor=", false)] {
            let cookies = Cookies::open(data.path(), None, secure).unwrap();
            let (set, cookie) = sealed(&cookies, &session());
            assert!(set.starts_with(begin) && !set.contains("ann"), "{set}");
            for attribute in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Max-Age=60"] {
                assert!(set.contains(attribute), "{attribute} is missing in {set}");
            }
            assert_eq!(set.contains("; Secure"), more, "{set}");
            assert!(!set.contains("Domain"), "{set}");
            let read: Session = cookies.read(CookieName::Session, &[&cookie]).unwrap();
            assert_eq!(read.caller().actor(), "ann");
            let crumbs = ["a=b", &format!("c=d; {cookie}")];
            assert!(cookies.read::<Session>(CookieName::Session, &crumbs).is_some(), "as HTTP/2 sends it");
        }
        let mode = fs::metadata(data.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_cookie_that_no_host_with_the_key_has_made_is_nothing() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let open = |data: &Path| Cookies::open(data, None, false).unwrap();
        let (cookies, others) = (open(one.path()), open(other.path()));
        let (_, cookie) = sealed(&cookies, &session());
        let read = |cookies: &Cookies, cookie: &str| cookies.read::<Session>(CookieName::Session, &[cookie]);
        assert!(read(&cookies, &cookie).is_some() && read(&open(one.path()), &cookie).is_some());
        assert_eq!(read(&others, &cookie), None, "another key");
        let as_sign_in = cookie.replace("kontor=", "kontor-sign-in=");
        let moved: Option<Session> = cookies.read(CookieName::SignIn, &[&as_sign_in]);
        assert_eq!(moved, None, "a cookie is sealed with its name");
        for wrong in ["", "kontor", "kontor=", "kontor=AAAA", &cookie[..cookie.len() - 8], "=;=;;\u{1}"] {
            assert_eq!(read(&cookies, wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn hosts_with_the_same_secret_have_the_same_key() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("secret");
        fs::write(&file, "hush").unwrap();
        let secret = SecretSource::File(file).read().unwrap();
        let open = || Cookies::open(Path::new("/nowhere"), Some(&secret), false).unwrap();
        let (_, cookie) = sealed(&open(), &session());
        assert!(open().read::<Session>(CookieName::Session, &[&cookie]).is_some());
    }

    #[test]
    fn an_effect_takes_the_csrf_token_of_the_session() {
        let (one, other) = (session(), session());
        assert!(one.check_csrf(Some(&one.csrf)).is_ok());
        for wrong in [None, Some(""), Some("x"), Some(&*other.csrf)] {
            assert_eq!(one.check_csrf(wrong), Err(NotIdentified::Csrf), "{wrong:?}");
        }
    }
}
