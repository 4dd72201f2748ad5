//! `kontor nodes`: the hosts that share a log, as one of them sees them.

use std::io::Write;

use clap::Args;
use kontor::cluster::{MemberState, ObservedMember};
use serde::Deserialize;

use super::client::{Client, HostArgument};
use super::projections::tell;
use super::style::{Colour, Style};
use super::table::table;

const EXAMPLES: &str = "\
Examples:
  kontor nodes
  kontor nodes --host http://127.0.0.1:7072
  kontor nodes --json | jq '.items[] | select(.state != \"up\")'

A host that is not heard for jetstream.silence_ms is silent: the others have taken over its sagas. What is told of another host
is what it said last, a second ago at most while it is up. A host whose log is its own is alone here.";

/// Show the hosts that share the log, and how they are
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Cluster {
    #[command(flatten)]
    host: HostArgument,
}

/// What GET /admin/nodes answers.
#[derive(Deserialize)]
struct List {
    items: Vec<ObservedMember>,
}

impl Cluster {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let body = Client::new(&self.host)?.get("/admin/nodes", &[])?;
        tell(&body, json, out, |list: List| list_text(&list.items, Style::of_output()))
    }
}

/// One line a host, then what is wrong with whom.
fn list_text(nodes: &[ObservedMember], style: Style) -> String {
    let row = |ObservedMember { node, state, heard_ms }: &ObservedMember| {
        let state = match state {
            MemberState::Up => style.paint(Colour::Green, "up"),
            MemberState::Silent => style.paint(Colour::Red, &format!("silent for {} s", heard_ms / 1_000)),
            MemberState::Left => "left".to_owned(),
        };
        [
            node.name.to_string(),
            node.address.to_string(),
            state,
            String::from(node.since),
            node.status.position.to_string(),
            node.status.deployment.to_string(),
            node.id.to_string(),
        ]
    };
    let heading = ["host", "address", "state", "since", "position", "deployment", "id"];
    let mut text = table(heading, nodes.iter().map(row).collect());
    for ObservedMember { node, .. } in nodes.iter().filter(|seen| seen.state == MemberState::Up) {
        text.extend(node.status.warnings.iter().map(|trouble| format!("{}: {trouble}\n", node.name)));
    }
    text
}

#[cfg(test)]
mod tests {
    use kontor::clock::Time;
    use kontor::cluster::{Member, Status};
    use kontor::model::{Position, Version};

    use super::*;

    fn seen(name: &str, state: MemberState, position: u64, troubles: &[&str]) -> ObservedMember {
        let troubles = troubles.iter().map(|trouble| (*trouble).to_owned()).collect();
        let node = Member {
            id: format!("id-{name}").into(),
            name: name.into(),
            address: ([127, 0, 0, 1], 7071).into(),
            version: "0.1.0".to_owned(),
            since: Time(0),
            status: Status {
                position: Position::new(position),
                deployment: Version::new(2),
                warnings: troubles,
            },
        };
        ObservedMember { node, state, heard_ms: 7_500 }
    }

    #[test]
    fn a_line_says_how_a_host_is_and_those_behind_them_what_is_wrong() {
        let nodes = [
            seen("a", MemberState::Up, 40, &[]),
            seen("b", MemberState::Up, 38, &["events are not published"]),
            seen("c", MemberState::Silent, 20, &["long ago"]),
        ];
        let expected = "\
HOST  ADDRESS         STATE           SINCE                     POSITION  DEPLOYMENT  ID
a     127.0.0.1:7071  up              1970-01-01T00:00:00.000Z  40        2           id-a
b     127.0.0.1:7071  up              1970-01-01T00:00:00.000Z  38        2           id-b
c     127.0.0.1:7071  silent for 7 s  1970-01-01T00:00:00.000Z  20        2           id-c
b: events are not published
";
        assert_eq!(list_text(&nodes, Style::PLAIN), expected);
    }
}
