//! `kontor nodes`: the members of a cluster, as one of them observes them.

use std::io::Write;

use clap::Args;
use kontor::api::List;
use kontor::cluster::{MemberState, ObservedMember};

use super::client::{Client, HostArgument};
use super::output::print;
use super::style::{Color, Style};
use super::table::table;

const EXAMPLES: &str = "\
Examples:
  kontor nodes
  kontor nodes --host http://127.0.0.1:7072
  kontor nodes --json | jq '.items[] | select(.state != \"up\")'

A member without a heartbeat for jetstream.silence_ms is silent: the others have taken over its sagas. The
status of another member is that of its last heartbeat. A host with an embedded log is the only member.";

/// List the members of the cluster, their state and their warnings
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Nodes {
    #[command(flatten)]
    host: HostArgument,
}

impl Nodes {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let body = Client::new(&self.host)?.get("/admin/nodes", &[])?;
        print(&body, "list of members", json, out, |list: List<ObservedMember>| {
            members_text(&list.items, Style::of_output())
        })
    }
}

/// Returns one line a member, then the warnings of those that are up.
fn members_text(members: &[ObservedMember], style: Style) -> String {
    let row = |ObservedMember { node, state, heard_ms }: &ObservedMember| {
        let state = match state {
            MemberState::Up => style.paint(Color::Green, "up"),
            MemberState::Silent => style.paint(Color::Red, &format!("silent for {} s", heard_ms / 1_000)),
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
    let mut text = table(heading, members.iter().map(row).collect());
    for ObservedMember { node, .. } in members.iter().filter(|member| member.state == MemberState::Up) {
        text.extend(node.status.warnings.iter().map(|warning| format!("{}: {warning}\n", node.name)));
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kontor::clock::Time;
    use kontor::cluster::{Member, Status};
    use kontor::model::{Position, Version};

    use super::*;

    fn observed(name: &str, state: MemberState, position: u64, warnings: &[&str]) -> ObservedMember {
        let warnings = warnings.iter().map(|warning| (*warning).to_owned()).collect();
        let node = Member {
            id: format!("id-{name}").into(),
            name: name.into(),
            address: ([127, 0, 0, 1], 7071).into(),
            version: "0.1.0".to_owned(),
            since: Time(0),
            status: Status { position: Position::new(position), deployment: Version::new(2), warnings },
        };
        ObservedMember { node, state, heard_ms: 7_500 }
    }

    #[test]
    fn snapshot_of_the_list_of_members() {
        let members = [
            observed("a", MemberState::Up, 40, &[]),
            observed("b", MemberState::Up, 38, &["events are not published"]),
            observed("c", MemberState::Silent, 20, &["long ago"]),
            observed("d", MemberState::Left, 20, &[]),
        ];
        expect![[r#"
            HOST  ADDRESS         STATE           SINCE                     POSITION  DEPLOYMENT  ID
            a     127.0.0.1:7071  up              1970-01-01T00:00:00.000Z  40        2           id-a
            b     127.0.0.1:7071  up              1970-01-01T00:00:00.000Z  38        2           id-b
            c     127.0.0.1:7071  silent for 7 s  1970-01-01T00:00:00.000Z  20        2           id-c
            d     127.0.0.1:7071  left            1970-01-01T00:00:00.000Z  20        2           id-d
            b: events are not published
        "#]]
        .assert_eq(&members_text(&members, Style::PLAIN));
    }
}
