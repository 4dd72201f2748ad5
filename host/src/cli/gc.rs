//! `kontor gc`: removes what nothing needs any more.

use std::io::Write;

use bytesize::ByteSize;
use kontor::api::{GcRequest, List};
use kontor::gc::Collected;
use serde_json::json;

use super::client::{ActArguments, Client, HostArgument};
use super::output::print;
use super::table::table;

/// The content of the replies.
const COLLECTED: &str = "list of what nothing needs any more";

const EXAMPLES: &str = "\
Examples:
  kontor gc --dry-run
  kontor gc --reason 'the disk is nearly full'
  kontor gc --json | jq '[.items[].bytes] | add'

The host does the same by itself, once a day unless gc.every_ms says otherwise. Nothing of the log is removed:
all of this can be made from it again. A database keeps its size on disk and uses the room again.";

/// Remove components, compiled code, snapshots, folds, and rows about ended sagas that nothing needs any more
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Gc {
    /// Only show what would be removed
    #[arg(long, conflicts_with = "reason")]
    dry_run: bool,
    #[command(flatten)]
    why: ActArguments,
    #[command(flatten)]
    host: HostArgument,
}

impl Gc {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        if self.dry_run {
            let body = client.get("/admin/gc", &[])?;
            let next = format!("\nTo remove it: kontor gc{}\n", self.host.flag());
            return print(&body, COLLECTED, json, out, |list| text(&list, "would be removed", &next));
        }
        let ActArguments { reason, actor } = self.why;
        let body = client.post("/admin/gc", &[actor.header()], &json!(GcRequest { reason }))?;
        print(&body, COLLECTED, json, out, |list| text(&list, "removed", ""))
    }
}

/// Returns one line for each kind that has garbage or failed.
fn text(List { items }: &List<Collected>, done: &str, next: &str) -> String {
    let found = items.iter().filter(|collected| collected.items > 0 || collected.failure.is_some());
    let row = |Collected { kind, items, bytes, failure }: &Collected| {
        let size = ByteSize(*bytes).display().iec().to_string();
        [kind.to_string(), items.to_string(), size, failure.clone().unwrap_or_default()]
    };
    let rows: Vec<_> = found.map(row).collect();
    if rows.is_empty() {
        return "Everything is needed.\n".to_owned();
    }
    table(["kind", done, "size", ""], rows) + next
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::scripted_host::{kontor, ok};

    const ITEMS: &str = r#"{"items":[{"kind":"ended-sagas","items":1200,"bytes":180000},
        {"kind":"snapshots","items":0,"bytes":0},
        {"kind":"components","items":0,"bytes":0,"failure":"Permission denied (os error 13)"}]}"#;

    #[test]
    fn snapshot_of_a_dry_run() {
        let ran = kontor(&["gc", "--dry-run"], vec![ok(ITEMS)]);
        assert_eq!(ran.requests, ["GET /admin/gc HTTP/1.1"]);
        expect![[r#"
            KIND         WOULD BE REMOVED  SIZE
            ended-sagas  1200              175.8 KiB
            components   0                 0 B        Permission denied (os error 13)

            To remove it: kontor gc --host HOST
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn a_collection_gives_the_reason_and_says_what_it_removed() {
        let ran = kontor(&["gc", "--actor", "ada", "--reason", "full"], vec![ok(r#"{"items":[]}"#)]);
        assert_eq!(ran.requests, [r#"POST /admin/gc HTTP/1.1 {"reason":"full"}"#]);
        assert_eq!(ran.printed, "Everything is needed.\n");
    }
}
