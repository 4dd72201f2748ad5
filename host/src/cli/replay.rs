//! `kontor replay`: has a read model of a running host built anew.

use std::io::Write;

use kontor::projection::Overview;
use serde_json::json;

use super::client::Client;
use super::projections::{One, tell};

const EXAMPLES: &str = "\
Examples:
  kontor replay report
  kontor projections show report

The read model is built from the first event on, beside the live one, which queries go on asking until the new one is as
far. A restart does not end it. Streams that were parked get another try. There is no replay from a later time: what a
projection has made of an event cannot be told apart from the rest, so only an empty database is sure to come out right.";

/// Build a read model anew, without stopping the service
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    #[command(flatten)]
    one: One,
}

impl Replay {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let One { service, host } = self.one;
        let path = format!("/admin/projections/{service}/replay");
        let body = Client::new(&host)?.post(&path, &[], &json!({}))?;
        tell(&body, json, out, |_: Overview| {
            let flag = host.flag();
            format!(
                "the read model of {service} is being built anew; see how far: kontor projections show {service}{flag}\n"
            )
        })
    }
}
