//! The streams of the program. A terminal obeys control characters, and a text from a host may have some: the
//! message of a rejection, a name, a reason. They are shown as what they are.

use std::io::{self, IsTerminal, Write};

use kontor::error::escape_controls;

/// Returns standard output. On a terminal, control characters are escaped; a program that reads the output
/// gets each byte as it is.
pub(crate) fn output() -> Box<dyn Write> {
    for_reader(io::stdout())
}

/// Returns standard error in the same way.
pub(super) fn errors() -> Box<dyn Write> {
    for_reader(io::stderr())
}

fn for_reader<W: Write + IsTerminal + 'static>(stream: W) -> Box<dyn Write> {
    if stream.is_terminal() { Box::new(Escaped(stream)) } else { Box::new(stream) }
}

/// Escapes control characters, apart from line breaks, tabs and the program's own colors.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(escaped(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escaped(text: &str) -> String {
    escape_controls(text, |rest| rest.starts_with(['\n', '\t']) || is_color(rest))
}

/// Returns true for a text that begins with a color (SGR of ECMA-48): it changes nothing but the looks.
fn is_color(text: &str) -> bool {
    let parameters =
        text.strip_prefix("\x1b[").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    parameters.is_some_and(|rest| rest.starts_with('m'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_but_colors() {
        for (text, shown) in [
            ("a\tb\n", "a\tb\n"),
            ("\x1b[31mparked\x1b[0m", "\x1b[31mparked\x1b[0m"),
            ("\x1b[2J\x1b]0;evil\x07", "\\u{1b}[2J\\u{1b}]0;evil\\u{7}"),
            ("\u{9b}2J \x1b", "\\u{9b}2J \\u{1b}"),
            ("one\rtwo \u{e9}", "one\\rtwo \u{e9}"),
        ] {
            let mut out = Vec::new();
            Escaped(&mut out).write_all(text.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), shown, "{text:?}");
        }
    }
}
