//! `kontor logout`: removes a profile with its token.

use std::io::Write;

use serde_json::json;

use super::client::ClientError;
use super::profiles::{self, DEFAULT_PROFILE, ProfileError, Profiles};
use super::target::TargetError;

const EXAMPLES: &str = "\
Examples:
  kontor logout
  kontor logout prod

The token stays valid: the host does not know that it is gone from here.";

/// Remove a profile that `kontor login` has stored, with its token
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Logout {
    /// The name of the profile
    #[arg(value_name = "NAME", default_value = DEFAULT_PROFILE)]
    name: String,
}

impl Logout {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let file = profiles::file().ok_or(ProfileError::NoHome)?;
        let mut profiles = Profiles::read(&file)?;
        if profiles.0.remove(&self.name).is_none() {
            return Err(ClientError::from(TargetError::no_profile(&self.name, &profiles)).into());
        }
        profiles.write(&file)?;
        match json {
            true => writeln!(out, "{}", json!({"profile": self.name}))?,
            false => writeln!(out, "the profile {} is removed; its token stays valid", self.name)?,
        }
        Ok(())
    }
}
