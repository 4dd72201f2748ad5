//! A reader of server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::io::{self, BufRead};

/// The data of each event of a stream. Comments and all other fields are skipped.
pub(super) struct ServerSentEvents<R> {
    reader: R,
}

impl<R: BufRead> ServerSentEvents<R> {
    /// Reads the events from `reader`.
    pub(super) fn new(reader: R) -> Self {
        Self { reader }
    }

    /// Reads the next event. None: the end of the stream; an event without an empty line behind it is
    /// dropped.
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut data: Option<String> = None;
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let text = line.trim_end_matches(['\r', '\n']);
            if text.is_empty() && data.is_some() {
                return Ok(data);
            }
            if let Some(value) = text.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match &mut data {
                    Some(data) => *data = format!("{data}\n{value}"),
                    None => data = Some(value.to_owned()),
                }
            }
        }
    }
}

impl<R: BufRead> Iterator for ServerSentEvents<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_gives_its_data() {
        let table: [(&str, &[&str]); 6] = [
            ("", &[]),
            ("id: 1\nevent: order-created\ndata: {\"a\":1}\n\n", &["{\"a\":1}"]),
            ("data:1\r\n\r\ndata: 2\r\n\r\n", &["1", "2"]),
            (": still there\n\ndata: 1\n\n", &["1"]),
            ("data: 1\ndata: 2\n\n", &["1\n2"]),
            ("data: 1\n\ndata: cut off", &["1"]),
        ];
        for (stream, expected) in table {
            let read: Vec<String> = ServerSentEvents::new(stream.as_bytes()).map(Result::unwrap).collect();
            assert_eq!(read, expected, "{stream:?}");
        }
    }
}
