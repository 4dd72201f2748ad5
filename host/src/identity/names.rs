//! The rules for the names of subjects and roles.

use crate::model::{ANONYMOUS, BY_SAGA, Role};

/// The largest number of roles of a caller: more than anybody has, and few enough to compare for a request.
pub(super) const MAX_ROLES: usize = 32;
/// Maximum length of a role, in bytes.
pub(super) const MAX_ROLE_LENGTH: usize = 64;
/// Maximum length of a subject, in characters. It is stored with every event that the subject causes.
pub(super) const MAX_SUBJECT_LENGTH: usize = 128;

/// The subject of callers over NATS that send no token.
pub(super) const NATS: &str = "nats";
/// The actor of the host itself.
pub(super) const HOST: &str = "kontor";
/// The beginning of the subjects of programs at the Unix socket.
pub(super) const SOCKET: &str = "unix:";
/// The beginnings of names that the host itself uses, also as the actors of sagas and of `kontor serve`.
const BEGINNINGS: [&str; 3] = [SOCKET, BY_SAGA, "kontor "];

/// Checks a subject. An error is the rest of a sentence that begins with the subject.
pub(super) fn check_subject(subject: &str) -> Result<(), &'static str> {
    let printable = !subject.chars().any(char::is_control) && subject.trim() == subject;
    match subject {
        ANONYMOUS | NATS | HOST => Err("is a name of the host's own"),
        _ if BEGINNINGS.iter().any(|beginning| subject.starts_with(beginning)) => {
            Err("begins like a name of the host's own")
        }
        _ if subject.is_empty() || subject.chars().count() > MAX_SUBJECT_LENGTH || !printable => {
            Err("must have 1 to 128 printable characters")
        }
        _ => Ok(()),
    }
}

/// Checks a role: words in kebab-case, with colons between them if there are several. An error is a sentence
/// without a full stop.
pub(super) fn check_role(role: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let word = |word: &str| !word.is_empty() && word.bytes().all(allowed);
    match role.len() <= MAX_ROLE_LENGTH && role.split(['-', ':']).all(word) {
        true => Ok(()),
        false => Err(format!(
            "{role:?} is no role: up to {MAX_ROLE_LENGTH} of a-z and 0-9, with - or : between words"
        )),
    }
}

/// Checks the roles of a token or of the configuration, like [`check_role`].
pub(super) fn check_roles(roles: &[Role]) -> Result<(), String> {
    if roles.len() > MAX_ROLES {
        return Err(format!("there are {} roles, and at most {MAX_ROLES} are allowed", roles.len()));
    }
    roles.iter().try_for_each(|role| check_role(role.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_words_in_kebab_case_with_colons() {
        for role in ["clerk", "shop-clerk", "shop:clerk", "eu1:shop-clerk", &"x".repeat(64)] {
            assert!(check_role(role).is_ok(), "{role}");
        }
        for text in ["", "Clerk", "shop clerk", "-clerk", "shop:", "shop--clerk", "a_b", "ü", &"x".repeat(65)]
        {
            assert!(check_role(text).is_err(), "{text}");
        }
        let many = |number| vec![Role::from("clerk"); number];
        assert!(check_roles(&many(32)).is_ok());
        assert_eq!(check_roles(&many(40)).unwrap_err(), "there are 40 roles, and at most 32 are allowed");
        assert!(check_roles(&["A".into()]).unwrap_err().starts_with("\"A\" is no role"));
    }

    #[test]
    fn subjects_are_printable_and_none_of_the_hosts_own() {
        for subject in ["ann", "Jürgen Müller", "corp:4711", "CN=probe,O=Shop", &"x".repeat(128)] {
            assert!(check_subject(subject).is_ok(), "{subject}");
        }
        for subject in ["", " ann", "a\nb", "anonymous", "nats", "kontor", &"x".repeat(129)] {
            assert!(check_subject(subject).is_err(), "{subject:?}");
        }
        for subject in ["unix:0", "saga:0199", "kontor serve"] {
            assert_eq!(check_subject(subject), Err("begins like a name of the host's own"), "{subject}");
        }
    }
}
