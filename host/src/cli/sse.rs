//! A reader of server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::collections::VecDeque;
use std::io::{self, BufRead};

/// The data of each event of a stream. Comments and all other fields are skipped.
pub(super) struct ServerSentEvents<R> {
    reader: R,
    /// Lines that were read and are not processed yet.
    lines: VecDeque<String>,
}

impl<R: BufRead> ServerSentEvents<R> {
    /// Reads the events from `reader`.
    pub(super) fn new(reader: R) -> Self {
        Self { reader, lines: VecDeque::new() }
    }

    /// Reads the next event. None: the end of the stream; an event without an empty line behind it is
    /// dropped.
    fn read(&mut self) -> io::Result<Option<String>> {
        let mut data: Option<String> = None;
        while let Some(text) = self.line()? {
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
        Ok(None)
    }

    /// Reads the next line, which ends with CR, LF or both. None: the end of the stream.
    fn line(&mut self) -> io::Result<Option<String>> {
        if self.lines.is_empty() {
            let mut read = String::new();
            if self.reader.read_line(&mut read)? == 0 {
                return Ok(None);
            }
            let read = read.strip_suffix('\n').unwrap_or(&read);
            let read = read.strip_suffix('\r').unwrap_or(read);
            self.lines = read.split('\r').map(str::to_owned).collect();
        }
        Ok(self.lines.pop_front())
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
        let table: [(&str, &[&str]); 8] = [
            ("", &[]),
            ("id: 1\nevent: order-created\ndata: {\"a\":1}\n\n", &["{\"a\":1}"]),
            ("data:1\r\n\r\ndata: 2\r\n\r\n", &["1", "2"]),
            (": still there\n\ndata: 1\n\n", &["1"]),
            ("data: 1\rdata: 2\r\rdata: 3\r\r\n", &["1\n2", "3"]),
            ("retry: 2000\n\nid: 7\n\ndata: 1\n\n", &["1"]),
            ("data: 1\ndata: 2\n\n", &["1\n2"]),
            ("data: 1\n\ndata: cut off", &["1"]),
        ];
        for (stream, expected) in table {
            let read: Vec<String> = ServerSentEvents::new(stream.as_bytes()).map(Result::unwrap).collect();
            assert_eq!(read, expected, "{stream:?}");
        }
    }
}
