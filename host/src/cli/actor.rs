//! The arguments that name the operator of an act, and the reason.

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
