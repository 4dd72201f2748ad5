//! `kontor replay`: rebuilds a read model of a running host.

use std::io::Write;

use kontor::api::ReplayRequest;
use kontor::clock::Time;
use kontor::projection::Overview;
use serde_json::json;

use super::client::{ActArguments, Client};
use super::output::print;
use super::projections::One;

const EXAMPLES: &str = "\
Examples:
  kontor replay report
  kontor replay report --from 2026-11-01T00:00:00Z --reason 'a new year'
  kontor projections show report

The read model is built in an empty database, beside the live one, which answers the queries until the new
one has caught up. A restart does not stop the build. Parked streams are retried.

With --from the read model has only the events since that time, even for aggregates with earlier events. A
replay without --from and the next version of the read model have all events again.";

/// Rebuild a read model from the log, without stopping the service
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    /// Skip the events recorded before this time, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Time>,
    #[command(flatten)]
    why: ActArguments,
    #[command(flatten)]
    one: One,
}

impl Replay {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let One { service, host } = self.one;
        let path = format!("/admin/projections/{service}/replay");
        let ActArguments { reason, actor } = self.why;
        let request = json!(ReplayRequest { from: self.from, reason });
        let body = Client::new(&host)?.post(&path, &[actor.header()], &request)?;
        print(&body, "read model", json, out, |_: Overview| {
            let since = self.from.map(|from| format!(" from the events since {}", String::from(from)));
            format!(
                "the read model of {service} is being rebuilt{}\n\
                 See its progress: kontor projections show {service}{}\n",
                since.unwrap_or_default(),
                host.flag()
            )
        })
    }
}

/// Parses a time of RFC 3339.
pub(super) fn time(text: &str) -> Result<Time, String> {
    Time::try_from(text.to_owned()).map_err(|error| format!("{error}; write it like 2026-11-01T00:00:00Z"))
}
