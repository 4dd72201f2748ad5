//! `kontor login`: stores a host and its token under a name.

use std::io::Write;
use std::path::{Path, absolute};

use kontor::identity::SignedIn;
use kontor::model::Role;
use serde_json::json;

use super::client::{Client, ClientError};
use super::exit::Unusable;
use super::output::parse;
use super::profiles::{self, DEFAULT_PROFILE, Profile, ProfileError, Profiles};
use super::table::table;
use super::target::{Address, Reach, Target};

const EXAMPLES: &str = "\
Examples:
  kontor login --host https://shop.example --token-file -
  kontor login prod --host https://shop.example --token-file prod.token --ca ca.pem
  pass show kontor/prod | kontor login prod --host https://shop.example --token-file -
  kontor login --list
  kontor plugins --profile prod

The host is asked who signs in before anything is stored. The profile is kept in
$XDG_CONFIG_HOME/kontor/profiles.toml, or in ~/.config/kontor, which only its owner may read. The profile
`default` holds for every command that names no other profile or host.";

/// Sign in at a host: store its address and token as a profile
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Login {
    /// The name of the profile
    #[arg(value_name = "NAME", default_value = DEFAULT_PROFILE, value_parser = profile_name)]
    name: String,
    /// List the profiles, without their tokens
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Login {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let file = profiles::file().ok_or(ProfileError::NoHome)?;
        match self.list {
            true => list(&file, json, out),
            false => self.sign_in(&file, json, out),
        }
    }

    fn sign_in(self, file: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut profiles = Profiles::read(file)?;
        let Some(host) = &self.reach.host else {
            return Err(Unusable("name the host to sign in at with --host".to_owned()).into());
        };
        let target = self.reach.target(host).map_err(ClientError::from)?;
        // Paths are for every directory from which a command is run.
        let ca = target.ca.as_deref().map(absolute).transpose()?;
        let host = match &target.address {
            Address::Unix(socket) => Address::Unix(absolute(socket)?),
            url => url.clone(),
        };
        let profile = Profile { host: host.to_string(), ca, token: target.token.clone() };
        let me = who(target)?;
        profiles.0.insert(self.name.clone(), profile.clone());
        profiles.write(file)?;
        self.print(&profile, me, file, json, out)
    }

    fn print(
        &self,
        profile: &Profile,
        me: Option<SignedIn>,
        file: &Path,
        json: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let (name, host) = (&self.name, &profile.host);
        let (subject, roles) = me.map(|me| (me.subject, me.roles)).unwrap_or_default();
        if json {
            writeln!(out, "{}", json!({"profile": name, "host": host, "subject": subject, "roles": roles}))?;
            return Ok(());
        }
        let roles: Vec<_> = roles.iter().map(Role::as_str).collect();
        let signed_in = match subject {
            None => format!("{host} answers without asking who you are"),
            Some(subject) if roles.is_empty() => format!("{host} knows you as {subject}"),
            Some(subject) => format!("{host} knows you as {subject} ({})", roles.join(", ")),
        };
        let usage = match name == DEFAULT_PROFILE {
            true => "it holds for every command that names no other".to_owned(),
            false => format!("use it with --profile {name}"),
        };
        writeln!(out, "{signed_in}. The profile {name} is in {}; {usage}", file.display())?;
        Ok(())
    }
}

fn profile_name(text: &str) -> Result<String, &'static str> {
    let is_name =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_name { Ok(text.to_owned()) } else { Err("a name has letters, digits, - and _") }
}

/// Asks a host who the caller is. None: the host does not tell callers apart.
fn who(target: Target) -> anyhow::Result<Option<SignedIn>> {
    let client = Client::of_target(target)?;
    match client.find("/auth/me")? {
        Some(body) => parse(&body, "caller").map(Some),
        None => {
            client.get("/readyz", &[])?;
            Ok(None)
        }
    }
}

fn list(file: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let profiles = Profiles::read(file)?;
    if json {
        let item = |(name, profile): (&String, &Profile)| {
            let Profile { host, ca, token } = profile;
            json!({"name": name, "host": host, "ca": ca, "token": token.is_some()})
        };
        let items: Vec<_> = profiles.0.iter().map(item).collect();
        writeln!(out, "{}", json!({"items": items}))?;
        return Ok(());
    }
    let rows = profiles.0.iter().map(|(name, Profile { host, ca, token })| {
        let token = if token.is_some() { "yes" } else { "-" };
        let ca = ca.as_ref().map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        [name.clone(), host.clone(), token.to_owned(), ca]
    });
    write!(out, "{}", table(["profile", "host", "token", "authority"], rows.collect()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::scripted_host::{ok, recording_host};
    use super::*;

    fn login(name: &str, host: &str, file: &Path, json: bool) -> (String, Option<anyhow::Error>) {
        let reach = Reach { host: Some(host.to_owned()), ..Reach::default() };
        let mut out = Vec::new();
        let login = Login { name: name.to_owned(), list: false, reach };
        let outcome = login.sign_in(file, json, &mut out);
        (String::from_utf8(out).unwrap().replace(host, "HOST"), outcome.err())
    }

    #[test]
    fn a_profile_is_stored_once_the_host_has_said_who_signs_in() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("profiles.toml");
        let not_found = || "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n{}".to_owned();
        let denied = "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n{\"title\":\"No\"}".to_owned();
        let ada = r#"{"subject":"ada","roles":["operator","deployer"]}"#;
        let table = [
            (
                "prod",
                vec![ok(ada)],
                "HOST knows you as ada (operator, deployer). The profile prod is in",
                true,
            ),
            (
                "bare",
                vec![ok(r#"{"subject":"bo","roles":[]}"#)],
                "HOST knows you as bo. The profile bare is in",
                true,
            ),
            (
                "default",
                vec![ok(r#"{"subject":null,"roles":[]}"#)],
                "HOST answers without asking who you are. The profile default",
                true,
            ),
            ("old", vec![not_found(), ok("{}")], "HOST answers without asking who you are.", true),
            ("refused", vec![denied], "", false),
        ];
        for (name, responses, expected, stored) in table {
            let (host, answering) = recording_host(responses);
            let (printed, error) = login(name, &host, &file, false);
            answering.join().unwrap();
            assert_eq!(error.is_none(), stored, "{name}: {error:?}");
            assert!(printed.starts_with(expected), "{name}: {printed}");
            assert_eq!(Profiles::read(&file).unwrap().0.contains_key(name), stored, "{name}");
        }
        let mut listed = Vec::new();
        list(&file, true, &mut listed).unwrap();
        let listed: serde_json::Value = serde_json::from_slice(&listed).unwrap();
        assert_eq!(listed["items"][0]["name"], "bare");
        assert_eq!(listed["items"][0]["token"], false);
    }

    #[test]
    fn the_json_of_a_login_has_the_subject_and_its_roles() {
        let folder = tempfile::tempdir().unwrap();
        let (host, _) = recording_host(vec![ok(r#"{"subject":"ada","roles":["auditor"]}"#)]);
        let (printed, _) = login("prod", &host, &folder.path().join("profiles.toml"), true);
        let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert_eq!(
            printed,
            json!({"profile": "prod", "host": "HOST", "subject": "ada", "roles": ["auditor"]})
        );
    }
}
