//! `kontor events`: the event log of a running host.

use std::io::Write;

use anyhow::Context as _;
use kontor::api::{Event, Page};
use kontor::clock::rfc3339;
use kontor::error::Chain;
use kontor::model::{Actor, BY_SAGA, Json, Position, StreamId};

use super::actor::caller;
use super::client::{Client, ClientError, HostArgument};
use super::output::parse;
use super::sse::ServerSentEvents;
use super::table::{Columns, shortened, terminal_width};

/// The page size: few enough events that the largest ones fit into the client's largest response.
const PAGE_SIZE: u64 = 100;

/// The characters of a saga's id that hold the time of its start.
const ID_PREFIX: usize = 13;

const EXAMPLES: &str = "\
Examples:
  kontor events
  kontor events --stream order/A-1
  kontor events --follow --service inventory --event stock-reserved
  kontor events --after 1200 --limit 20
  kontor events --follow --json | jq .payload";

/// Print the events of the log, oldest first, one a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Events {
    /// Continue with new events as they are recorded
    #[arg(long)]
    follow: bool,
    /// Only events after this position of the log
    #[arg(long, value_name = "POSITION", default_value_t = Position::START)]
    after: Position,
    #[command(flatten)]
    filter: Filter,
    /// Maximum number of events to print
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    host: HostArgument,
}

/// The selection of events, which the host makes.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only events of this aggregate, such as order/A-1
    #[arg(long, value_name = "AGGREGATE/ID", value_parser = StreamId::parse)]
    stream: Option<StreamId>,
    /// Only events of this kind of aggregate, such as order
    #[arg(long, value_name = "AGGREGATE")]
    aggregate: Option<String>,
    /// Only events of the aggregates of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only events with this name, such as order-created
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Only events that follow from the request with this correlation id
    #[arg(long, value_name = "ID")]
    correlation: Option<String>,
}

impl Filter {
    /// Returns the parameters of a request for the events after a position.
    fn parameters(&self, after: Position) -> Vec<(&'static str, String)> {
        let stream = self.stream.as_ref().map(ToString::to_string);
        let Self { aggregate, service, event, correlation, .. } = self;
        let filters = [
            ("stream", &stream),
            ("aggregate", aggregate),
            ("service", service),
            ("event", event),
            ("correlation", correlation),
        ];
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        [("after", after.to_string())].into_iter().chain(filters).collect()
    }
}

impl Events {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let form = if json { Form::Json } else { Form::text(terminal_width()) };
        let mut printer = Printer { after: self.after, remaining: self.limit.unwrap_or(u64::MAX), form, out };
        if self.follow { self.follow(&client, &mut printer) } else { self.pages(&client, &mut printer) }
    }

    /// Prints all pages.
    fn pages(&self, client: &Client, printer: &mut Printer<'_>) -> anyhow::Result<()> {
        let mut next = Some(self.after);
        while let Some(after) = next.filter(|_| printer.remaining > 0) {
            let mut parameters = self.filter.parameters(after);
            parameters.push(("limit", PAGE_SIZE.min(printer.remaining).to_string()));
            let body = client.get("/events", &parameters)?;
            let page: Page<Json, Position> = parse(&body, "page of events")?;
            printer.print(&page.items)?;
            next = page.next;
        }
        if let Some(stream) = self.filter.stream.as_ref().filter(|_| printer.after == self.after) {
            // A stream that does not exist is most likely a slip, and the host says so.
            client.get(&format!("/streams/{stream}"), &[("limit", "1".to_owned())])?;
        }
        Ok(())
    }

    /// Prints the events that the host sends, up to the limit.
    fn follow(&self, client: &Client, printer: &mut Printer<'_>) -> anyhow::Result<()> {
        if printer.remaining == 0 {
            return Ok(());
        }
        let reader = client.follow("/events", &self.filter.parameters(self.after))?;
        for event in ServerSentEvents::new(reader) {
            let event = event.map_err(|error| {
                ClientError::Ended(format!("the connection to the host has failed: {}", Chain(&error)))
            })?;
            let event = Json::parse(event).context("the host has sent an event that is not JSON")?;
            printer.print(&[event])?;
            if printer.remaining == 0 {
                return Ok(());
            }
        }
        let after = printer.after;
        Err(ClientError::Ended(format!("the host has ended the stream; continue with `--after {after}`"))
            .into())
    }
}

/// Prints events, in the order of the log.
struct Printer<'a> {
    /// The position of the last printed event. Earlier ones are skipped.
    after: Position,
    /// The number of events until the limit.
    remaining: u64,
    form: Form,
    out: &'a mut dyn Write,
}

/// The form of the output.
enum Form {
    Json,
    Text {
        columns: Columns<7>,
        /// None: whole payloads.
        width: Option<usize>,
    },
}

impl Form {
    fn text(width: Option<usize>) -> Self {
        Self::Text { columns: Columns::new(), width }
    }
}

impl Printer<'_> {
    /// Prints events up to the limit.
    fn print(&mut self, events: &[Json]) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for text in events {
            let event: Event = parse(text.as_str(), "event")?;
            if self.remaining > 0 && event.position > self.after {
                self.remaining -= 1;
                self.after = event.position;
                wanted.push((text, event));
            }
        }
        let lines: String = match &mut self.form {
            Form::Json => wanted.iter().map(|(text, _)| format!("{}\n", text.as_str())).collect(),
            Form::Text { columns, width } => {
                text_lines(columns, *width, wanted.into_iter().map(|(_, event)| event))
            }
        };
        self.out.write_all(lines.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }
}

/// Returns one line an event, no longer than `width`.
fn text_lines(columns: &mut Columns<7>, width: Option<usize>, events: impl Iterator<Item = Event>) -> String {
    let rows: Vec<[String; 7]> = events
        .map(|event| {
            let (position, version) = (event.position.to_string(), event.version.to_string());
            let payload = event.payload.as_str().to_owned();
            let via = event.via.as_ref().map(short);
            let by = caller(&event.actor, event.on_behalf_of.as_ref(), via.as_ref());
            let (time, stream, name) = (rfc3339(event.time.0), event.stream, event.name);
            [position, time, stream.to_string(), version, name.to_string(), by, payload]
        })
        .collect();
    rows.iter().for_each(|row| columns.fit(row));
    let width = width.unwrap_or(usize::MAX);
    rows.iter().map(|row| shortened(&columns.line(row), width) + "\n").collect()
}

/// Returns a saga by the beginning of its id, which is enough for `kontor saga show`, and anything else
/// whole.
fn short(via: &Actor) -> Actor {
    match via.as_str().strip_prefix(BY_SAGA) {
        Some(id) => format!("{BY_SAGA}{}", id.chars().take(ID_PREFIX).collect::<String>()).into(),
        None => via.clone(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::scripted_host::{Ran, kontor, ok};
    use super::*;

    const FIRST: &str = concat!(
        r#"{"position":1,"stream":"order/A-1","version":1,"name":"order-created","payload":{"total":5},"#,
        r#""id":"c1/0","command_id":"c1","command":"create","correlation_id":"c1","causation_id":null,"#,
        r#""digest":null,"time":"2026-11-22T03:18:01.250Z","actor":"ada"}"#
    );
    const SECOND: &str = concat!(
        r#"{"position":2,"stream":"product/P","version":10,"name":"stock-reserved","payload":{},"#,
        r#""id":"c2/0","command_id":"c2","command":"reserve","correlation_id":"c1","causation_id":"c1/0","#,
        r#""digest":null,"time":"2026-11-22T03:18:01.260Z","actor":"ada","on_behalf_of":"bob","#,
        r#""via":"saga:01997a2b-3c4d-7000-8000-00000000000a"}"#
    );

    fn page(items: &[&str], next: &str) -> String {
        ok(&format!("{{\"items\":[{}],\"next\":{next}}}", items.join(",")))
    }

    fn stream(events: &[&str]) -> String {
        let events: String = events.iter().map(|event| format!("id: 1\ndata: {event}\n\n")).collect();
        ok(&format!(": welcome\n\n{events}"))
    }

    #[test]
    fn snapshot_of_the_events_of_two_pages() {
        let pages = vec![page(&[FIRST], "1"), page(&[SECOND], "2"), page(&[], "null")];
        let ran = kontor(&["events"], pages);
        let requests = [0, 1, 2].map(|after| format!("GET /events?after={after}&limit=100 HTTP/1.1"));
        assert_eq!((ran.requests, ran.error), (requests.into(), None));
        expect![[r#"
            1  2026-11-22T03:18:01.250Z  order/A-1  1  order-created  ada  {"total":5}
            2  2026-11-22T03:18:01.260Z  product/P  10  stock-reserved  ada on behalf of bob via saga:01997a2b-3c4d  {}
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn json_is_one_event_a_line_as_the_host_sent_it() {
        let Ran { printed, error, .. } = kontor(&["events", "--json"], vec![page(&[FIRST, SECOND], "null")]);
        assert_eq!((printed, error), (format!("{FIRST}\n{SECOND}\n"), None));
    }

    #[test]
    fn no_page_is_read_beyond_the_limit() {
        let line = ["events", "--json", "--limit", "1", "--after", "0"];
        let Ran { requests, printed, .. } = kontor(&line, vec![page(&[FIRST], "1")]);
        assert_eq!(requests, ["GET /events?after=0&limit=1 HTTP/1.1"]);
        assert_eq!(printed, format!("{FIRST}\n"));
    }

    #[test]
    fn the_host_selects_the_events() {
        let line = "events --json --stream order/A-1 --aggregate order --service order --event order-created \
                    --correlation c1";
        let line: Vec<_> = line.split(' ').collect();
        let Ran { requests, printed, .. } = kontor(&line, vec![page(&[FIRST], "null")]);
        let filter = "stream=order%2FA-1&aggregate=order&service=order&event=order-created&correlation=c1";
        assert_eq!(requests, [format!("GET /events?after=0&{filter}&limit=100 HTTP/1.1")]);
        assert_eq!(printed, format!("{FIRST}\n"));
        let followed = kontor(&["events", "--json", "--follow", "--event", "x"], vec![stream(&[])]);
        assert_eq!(followed.requests, ["GET /events?after=0&event=x HTTP/1.1"]);
    }

    #[test]
    fn followed_events_are_printed_as_they_come_until_the_host_ends_the_stream() {
        let line = ["events", "--json", "--follow"];
        let Ran { requests, printed, error, .. } = kontor(&line, vec![stream(&[FIRST, SECOND])]);
        assert_eq!(requests, ["GET /events?after=0 HTTP/1.1"]);
        assert_eq!(printed, format!("{FIRST}\n{SECOND}\n"));
        assert_eq!(error.unwrap(), "the host has ended the stream; continue with `--after 2`");
    }

    #[test]
    fn followed_events_can_be_limited_to_a_number() {
        let line = ["events", "--json", "--follow", "--limit", "1"];
        let Ran { printed, error, .. } = kontor(&line, vec![stream(&[FIRST, SECOND, FIRST])]);
        assert_eq!((printed, error), (format!("{FIRST}\n"), None));
    }

    #[test]
    fn a_line_is_not_longer_than_the_terminal() {
        let event: Event = serde_json::from_str(FIRST).unwrap();
        let line = text_lines(&mut Columns::new(), Some(20), [event].into_iter());
        assert_eq!(line, "1  2026-11-22T03:18…\n");
    }
}
