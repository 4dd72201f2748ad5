//! The arguments that name the user on whose behalf a command acts, and the reason.

use kontor::model::Actor;

/// Returns the caller of a command in words: `ann on behalf of bob via saga:01997a2b-3c4d`.
pub(super) fn caller(actor: &Actor, on_behalf_of: Option<&Actor>, via: Option<&Actor>) -> String {
    let on_behalf_of = on_behalf_of.map(|other| format!(" on behalf of {other}")).unwrap_or_default();
    let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
    format!("{actor}{on_behalf_of}{via}")
}

/// The user on whose behalf a command acts.
#[derive(Debug, clap::Args)]
pub(super) struct ActorArgument {
    /// The user on whose behalf the command acts. It stays in the log, and names the act if nobody has signed
    /// in
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    actor: String,
}

impl ActorArgument {
    /// Returns the header with the name.
    pub(super) fn header(&self) -> (&'static str, &str) {
        ("kontor-actor", &self.actor)
    }
}

/// The user on whose behalf a command acts, and the reason.
#[derive(Debug, clap::Args)]
pub(super) struct ActArguments {
    /// The reason. It stays in the log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) actor: ActorArgument,
}
