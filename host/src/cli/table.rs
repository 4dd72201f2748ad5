//! Aligned text for people. Widths count characters.

/// What stands between two columns.
const GAP: &str = "  ";

/// The widths of columns; they grow with the rows they have seen, so that rows printed as they come stay aligned. The last
/// column has none: nothing stands behind it.
pub(super) struct Columns<const N: usize> {
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    pub(super) fn new() -> Self {
        Self { widths: [0; N] }
    }

    /// Makes the columns as wide as this row needs.
    pub(super) fn fit(&mut self, row: &[String; N]) {
        for (width, cell) in self.widths.iter_mut().zip(row).take(N - 1) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// One line without its end.
    pub(super) fn line(&self, row: &[String; N]) -> String {
        let cells: Vec<String> =
            row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join(GAP).trim_end().to_owned()
    }
}

/// A table with a heading, every line ended.
pub(super) fn table<const N: usize>(heading: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut lines = vec![heading.map(str::to_uppercase)];
    lines.extend(rows);
    let mut columns = Columns::new();
    for line in &lines {
        columns.fit(line);
    }
    lines.iter().map(|line| columns.line(line) + "\n").collect()
}

/// The text, or as much of it as `width` holds, ended by an ellipsis.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
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
    }
}
