//! The arguments that name the operator of an act, and the reason.

use kontor::model::Actor;

/// Returns the caller of a command in words: `ann on behalf of bob via saga:01997a2b-3c4d`.
pub(super) fn caller(actor: &Actor, on_behalf_of: Option<&Actor>, via: Option<&Actor>) -> String {
    let on_behalf_of = on_behalf_of.map(|other| format!(" on behalf of {other}")).unwrap_or_default();
    let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
    format!("{actor}{on_behalf_of}{via}")
}

/// The operator who runs a command.
#[derive(Debug, clap::Args)]
pub(super) struct ActorArgument {
    /// The name of the operator. It stays in the log
    #[arg(long, env = "USER", value_name = "NAME", default_value = "operator")]
    actor: String,
}

impl ActorArgument {
    /// Returns the header that names the operator.
    pub(super) fn header(&self) -> (&'static str, &str) {
        ("kontor-actor", &self.actor)
    }
}

/// The operator who runs a command, and why.
#[derive(Debug, clap::Args)]
pub(super) struct ActArguments {
    /// The reason. It stays in the log
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) actor: ActorArgument,
}
