//! `kontor replay`: has a read model of a running host built anew.

use std::io::Write;

use kontor::clock::Time;
use kontor::projection::Overview;
use serde_json::json;

use super::client::Client;
use super::projections::{One, tell};

const EXAMPLES: &str = "\
Examples:
  kontor replay report
  kontor replay report --from 2026-11-01T00:00:00Z
  kontor projections show report

The read model is built from an empty database, beside the live one, which queries go on asking until the new one is as
far. A restart does not end it. Streams that were parked get another try.

With --from it knows only what has happened since: what came before is not in it, not even of an aggregate that goes on. A
replay without --from, and the next version of the read model, have everything again.";

/// Build a read model anew, without stopping the service
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    /// Leave out what was recorded before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Time>,
    #[command(flatten)]
    one: One,
}

impl Replay {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let One { service, host } = self.one;
        let path = format!("/admin/projections/{service}/replay");
        let wanted = self.from.map_or_else(|| json!({}), |from| json!({ "from": from }));
        let body = Client::new(&host)?.post(&path, &[], &wanted)?;
        tell(&body, json, out, |_: Overview| {
            let since = self.from.map(|from| format!(", of what has happened since {}", String::from(from)));
            format!(
                "the read model of {service} is being built anew{}; see how far: kontor projections show {service}{}\n",
                since.unwrap_or_default(),
                host.flag()
            )
        })
    }
}

/// A time as people write it.
fn time(text: &str) -> Result<Time, String> {
    Time::try_from(text.to_owned()).map_err(|error| format!("{error}; write it like 2026-11-01T00:00:00Z"))
}
