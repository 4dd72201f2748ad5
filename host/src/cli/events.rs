//! `kontor events`: the event log of a running host.

use std::io::Write;

use anyhow::{Context as _, bail};
use kontor::model::{Json, Position, StreamId, Version};
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, HostArgument};
use super::sse::ServerSentEvents;
use super::table::{Columns, shortened, terminal_width};

/// The events that one request asks for: few enough that the largest ones fit into the client's largest reply.
const PAGE: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  kontor events
  kontor events --stream order/A-1
  kontor events --after 1200 --limit 20
  kontor events --follow --json | jq .payload";

/// Print the events of the log, oldest first, one a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Events {
    /// Go on with new events as they are recorded
    #[arg(long)]
    follow: bool,
    /// Only events behind this position of the log
    #[arg(long, value_name = "POSITION", default_value_t = Position::START)]
    after: Position,
    /// Only events of this aggregate, such as order/A-1
    #[arg(long, value_name = "AGGREGATE/ID", value_parser = StreamId::parse)]
    stream: Option<StreamId>,
    /// At most so many events
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    host: HostArgument,
}

/// One page of GET /events or GET /streams/{aggregate}/{id}.
#[derive(Deserialize)]
struct Page {
    items: Vec<Json>,
    /// What the next request says as `after`, text or number; null on the last page.
    next: Value,
}

/// An event of the wire, as far as a line shows it.
#[derive(Deserialize)]
struct Event {
    position: Position,
    stream: String,
    version: Version,
    name: String,
    time: String,
    payload: Json,
}

impl Events {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let form = if json { Form::Json } else { Form::text(terminal_width()) };
        let mut printer = Printer {
            after: self.after,
            stream: self.stream.clone(),
            remaining: self.limit.unwrap_or(u64::MAX),
            form,
            out,
        };
        if self.follow { self.follow(&client, &mut printer) } else { self.pages(&client, &mut printer) }
    }

    /// Asks for pages until the last one.
    fn pages(&self, client: &Client, printer: &mut Printer<'_>) -> anyhow::Result<()> {
        // A stream is counted by its versions, so there the printer alone looks at the positions.
        let (path, mut after) = match &self.stream {
            Some(stream) => (format!("/streams/{stream}"), "0".to_owned()),
            None => ("/events".to_owned(), self.after.to_string()),
        };
        while printer.remaining > 0 {
            let limit = PAGE.min(printer.remaining).to_string();
            let body = client.get(&path, &[("after", after), ("limit", limit)])?;
            let page: Page =
                serde_json::from_str(&body).context("the host's page of events has another shape")?;
            printer.print(&page.items)?;
            after = match page.next {
                Value::Null => break,
                Value::String(next) => next,
                next => next.to_string(),
            };
        }
        Ok(())
    }

    /// Prints what the host sends until it is enough.
    fn follow(&self, client: &Client, printer: &mut Printer<'_>) -> anyhow::Result<()> {
        if printer.remaining == 0 {
            return Ok(());
        }
        let reader = client.follow("/events", &[("after", self.after.to_string())])?;
        for event in ServerSentEvents::new(reader) {
            let event = event.context("the connection to the host broke")?;
            let event = Json::parse(event).context("the host sent an event that is no JSON")?;
            printer.print(&[event])?;
            if printer.remaining == 0 {
                return Ok(());
            }
        }
        bail!("the host has ended the stream; go on with `--after {}`", printer.after)
    }
}

/// Prints the events that were asked for, in the order of the log.
struct Printer<'a> {
    /// The position of the last event printed; only later ones are.
    after: Position,
    stream: Option<StreamId>,
    remaining: u64,
    form: Form,
    out: &'a mut dyn Write,
}

enum Form {
    Json,
    Text {
        columns: Columns<6>,
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
    fn print(&mut self, events: &[Json]) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for text in events {
            let event: Event = text.read().context("the host sent an event of another shape")?;
            let of_stream = self.stream.as_ref().is_none_or(|stream| stream.as_str() == event.stream);
            if self.remaining > 0 && event.position > self.after && of_stream {
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

/// One line an event, no longer than `width`.
fn text_lines(columns: &mut Columns<6>, width: Option<usize>, events: impl Iterator<Item = Event>) -> String {
    let rows: Vec<[String; 6]> = events
        .map(|event| {
            let (position, version) = (event.position.to_string(), event.version.to_string());
            let payload = event.payload.as_str().to_owned();
            [position, event.time, event.stream, version, event.name, payload]
        })
        .collect();
    rows.iter().for_each(|row| columns.fit(row));
    let width = width.unwrap_or(usize::MAX);
    rows.iter().map(|row| shortened(&columns.line(row), width) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::scripted_host;
    use super::*;

    const FIRST: &str = concat!(
        r#"{"position":1,"stream":"order/A-1","version":1,"name":"order-created","payload":{"total":5},"#,
        r#""id":"c1/0","command_id":"c1","time":"2026-11-22T03:18:01.250Z"}"#
    );
    const SECOND: &str = concat!(
        r#"{"position":2,"stream":"product/P","version":10,"name":"stock-reserved","payload":{},"#,
        r#""id":"c2/0","command_id":"c2","time":"2026-11-22T03:18:01.260Z"}"#
    );

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        events: Events,
    }

    /// What `kontor events` with these arguments asks a host that answers so, what it prints, and its error.
    fn run(json: bool, arguments: &[&str], answers: Vec<String>) -> (Vec<String>, String, Option<String>) {
        let (host, answering) = scripted_host(answers);
        let line = ["events", "--host", &host].into_iter().chain(arguments.iter().copied());
        let mut out = Vec::new();
        let outcome = Line::parse_from(line).events.run(json, &mut out);
        let asked = answering.join().unwrap();
        (asked, String::from_utf8(out).unwrap(), outcome.err().map(|error| format!("{error:#}")))
    }

    fn page(items: &[&str], next: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{{\"items\":[{}],\"next\":{next}}}",
            items.join(",")
        )
    }

    fn stream(events: &[&str]) -> String {
        let events: String = events.iter().map(|event| format!("id: 1\ndata: {event}\n\n")).collect();
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n: welcome\n\n{events}")
    }

    #[test]
    fn pages_are_asked_for_until_the_last_one_and_their_lines_are_aligned() {
        let answers = vec![page(&[FIRST, SECOND], "2"), page(&[], "null")];
        let (asked, printed, error) = run(false, &[], answers);
        assert_eq!(error, None);
        assert_eq!(
            asked,
            ["GET /events?after=0&limit=100 HTTP/1.1", "GET /events?after=2&limit=100 HTTP/1.1"]
        );
        let expected = "\
1  2026-11-22T03:18:01.250Z  order/A-1  1   order-created   {\"total\":5}
2  2026-11-22T03:18:01.260Z  product/P  10  stock-reserved  {}
";
        assert_eq!(printed, expected);
    }

    #[test]
    fn json_is_one_event_a_line_with_all_that_the_host_tells() {
        let (_, printed, error) = run(true, &[], vec![page(&[FIRST, SECOND], "null")]);
        assert_eq!((printed, error), (format!("{FIRST}\n{SECOND}\n"), None));
    }

    #[test]
    fn a_limit_ends_the_asking() {
        let (asked, printed, _) = run(true, &["--limit", "1", "--after", "0"], vec![page(&[FIRST], "\"1\"")]);
        assert_eq!((asked.len(), printed), (1, format!("{FIRST}\n")));
        assert_eq!(asked[0], "GET /events?after=0&limit=1 HTTP/1.1");
    }

    #[test]
    fn a_stream_is_asked_for_by_its_name_and_still_cut_by_position() {
        let arguments = ["--stream", "order/A-1", "--after", "1"];
        let (asked, printed, _) = run(true, &arguments, vec![page(&[FIRST], "null")]);
        assert_eq!(asked, ["GET /streams/order/A-1?after=0&limit=100 HTTP/1.1"]);
        assert_eq!(printed, "");
    }

    #[test]
    fn following_prints_events_as_they_come_and_tells_where_the_stream_ended() {
        let (asked, printed, error) = run(true, &["--follow"], vec![stream(&[FIRST, SECOND])]);
        assert_eq!(asked, ["GET /events?after=0 HTTP/1.1"]);
        assert_eq!(printed, format!("{FIRST}\n{SECOND}\n"));
        assert_eq!(error.unwrap(), "the host has ended the stream; go on with `--after 2`");
    }

    #[test]
    fn following_can_be_limited_and_can_look_at_one_stream() {
        let arguments = ["--follow", "--stream", "product/P", "--limit", "1"];
        let (_, printed, error) = run(true, &arguments, vec![stream(&[FIRST, SECOND, FIRST])]);
        assert_eq!((printed, error), (format!("{SECOND}\n"), None));
    }

    #[test]
    fn a_line_is_not_longer_than_the_terminal() {
        let event: Event = serde_json::from_str(FIRST).unwrap();
        let line = text_lines(&mut Columns::new(), Some(20), [event].into_iter());
        assert_eq!(line, "1  2026-11-22T03:18…\n");
    }
}
