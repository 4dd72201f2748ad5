//! Aligned text. Widths count visible characters, without the escapes that color them.

use std::cmp::Ordering;
use std::io::stdout;

use terminal_size::{Width, terminal_size_of};

/// The gap between two columns.
const GAP: &str = "  ";

/// The widths of columns. They grow with each row, so that rows printed one by one stay aligned. The last
/// column needs no width.
pub(super) struct Columns<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    /// Returns columns without a width.
    pub(super) fn new() -> Self {
        Self { widths: [0; N] }
    }

    /// Widens the columns to hold this row.
    pub(super) fn fit(&mut self, row: &[String; N]) {
        for (width, cell) in self.widths.iter_mut().zip(row).take(N - 1) {
            *width = (*width).max(visible(cell));
        }
    }

    /// Returns a row as one line, without a line end.
    pub(super) fn line(&self, row: &[String; N]) -> String {
        let padded = |(cell, width): (&String, usize)| {
            let blanks = width.saturating_sub(visible(cell));
            format!("{cell}{:blanks$}", "")
        };
        let cells: Vec<String> = row.iter().zip(self.widths).map(padded).collect();
        cells.join(GAP).trim_end().to_owned()
    }
}

/// Returns a table with a heading. Every line has an end.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut lines = vec![heading.map(str::to_uppercase)];
    lines.extend(rows);
    let mut columns = Columns::new();
    for line in &lines {
        columns.fit(line);
    }
    lines.iter().map(|line| columns.line(line) + "\n").collect()
}

/// Returns a table whose lines are not longer than `width`.
pub(super) fn fitted<const N: usize>(
    heading: [&str; N],
    rows: Vec<[String; N]>,
    width: Option<usize>,
) -> String {
    let width = width.unwrap_or(usize::MAX);
    table(heading, rows).lines().map(|line| shortened(line, width) + "\n").collect()
}

/// Returns the text, shortened to `width` with an ellipsis at its end. Escapes of colors are kept.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if visible(text) <= width {
        return text.to_owned();
    }
    let (mut seen, mut short) = (0, String::new());
    for (letter, escape) in letters(text) {
        seen += usize::from(!escape);
        match seen.cmp(&width) {
            _ if escape => short.push(letter),
            Ordering::Less => short.push(letter),
            Ordering::Equal => short.push('…'),
            Ordering::Greater => {}
        }
    }
    short
}

/// Returns the width of the terminal, or none if standard output is not a terminal.
pub(super) fn terminal_width() -> Option<usize> {
    terminal_size_of(stdout()).map(|(Width(columns), _)| columns.into())
}

/// Returns the number of visible characters.
fn visible(text: &str) -> usize {
    letters(text).filter(|(_, escape)| !escape).count()
}

/// Returns each character, with true if it belongs to the escape of a color, which ends with the letter m.
fn letters(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut inside = false;
    text.chars().map(move |letter| {
        let escape = inside || letter == '\x1b';
        inside = escape && letter != 'm';
        (letter, escape)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let rows = vec![
            ["order".to_owned(), "3".to_owned(), String::new()],
            ["größe".to_owned(), "12".to_owned(), "ä".to_owned()],
        ];
        let expected = "\
SERVICE  N   NOTE
order    3
größe    12  ä
";
        assert_eq!(table(["service", "n", "note"], rows), expected);
    }

    #[test]
    fn a_text_that_is_too_long_ends_with_an_ellipsis() {
        for (width, expected) in [(5, "größe"), (4, "grö…"), (1, "…")] {
            assert_eq!(shortened("größe", width), expected);
        }
        assert_eq!(shortened("a \x1b[31mred\x1b[0m word", 4), "a \x1b[31mr…\x1b[0m");
    }

    #[test]
    fn colors_have_no_width() {
        let rows =
            vec![["\x1b[31mred\x1b[0m".to_owned(), "1".to_owned()], ["green".to_owned(), "2".to_owned()]];
        assert_eq!(table(["c", "n"], rows), "C      N\n\x1b[31mred\x1b[0m    1\ngreen  2\n");
    }
}
