//! Rules about lines and files as a whole.

use super::{File, Found};
use crate::rust_text::{Part, is_of_name};
use crate::sources::line_at;

/// As in rustfmt.toml.
const WIDTH: usize = 110;
/// From style.md's habit: a file that is longer has more than one subject.
const LINES: usize = 500;
/// From this length on, a string without a blank is data that no line break may go through.
const UNBROKEN: usize = 60;

impl File<'_> {
    /// Returns each line with its number and the offset at which it begins.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str, usize)> {
        let mut offset = 0;
        self.source.text.split('\n').enumerate().map(move |(index, line)| {
            let start = offset;
            offset += line.len() + 1;
            (index + 1, line, start)
        })
    }

    /// Returns whether a part of a line is of one kind.
    fn has(&self, part: Part, start: usize, line: &str) -> bool {
        self.rust.as_ref().is_some_and(|rust| rust.parts()[start..start + line.len()].contains(&part))
    }
}

/// Finds lines that are too wide. Those with a URL, raw strings, tables and code blocks of Markdown may be as
/// wide as they are.
pub(super) fn width(file: &File<'_>) -> Vec<Found> {
    let markdown = file.source.extension() == "md";
    let (mut found, mut fenced) = (Vec::new(), false);
    for (number, line, start) in file.lines() {
        let fence = markdown && line.trim_start().starts_with("```");
        fenced ^= fence;
        let columns = line.chars().count();
        // Rustdoc has tables too.
        let is_table = line.trim_start_matches([' ', '/', '!']).starts_with('|');
        if columns <= WIDTH || fence || fenced || is_table {
            continue;
        }
        let unbroken = line.split_whitespace().any(|word| word.len() >= UNBROKEN);
        if line.contains("://") || file.has(Part::RawString, start, line) || unbroken {
            continue;
        }
        found.push((number, format!("{columns} columns"), format!("break the line, at {WIDTH} at most")));
    }
    found
}

/// Finds white space before the end of a line, and carriage returns with it.
pub(super) fn trailing_space(file: &File<'_>) -> Vec<Found> {
    let trailing = file.lines().filter(|(_, line, _)| line.ends_with([' ', '\t', '\r']));
    trailing
        .map(|(number, ..)| (number, "white space before the end of the line".into(), "remove it".into()))
        .collect()
}

/// Finds tabs in Rust and WIT.
pub(super) fn tabs(file: &File<'_>) -> Vec<Found> {
    let tabs = file.lines().filter(|(_, line, _)| file.rust.is_some() && line.contains('\t'));
    tabs.map(|(number, ..)| (number, "a tab".into(), "indent with blanks; write `\\t` in a string".into()))
        .collect()
}

/// Finds a file of code that is too long.
pub(super) fn length(file: &File<'_>) -> Vec<Found> {
    let lines = file.source.text.lines().count();
    if file.source.extension() == "md" || lines <= LINES {
        return Vec::new();
    }
    vec![(1, format!("{lines} lines"), format!("split the file, into {LINES} lines at most each"))]
}

/// Finds errors in log lines that are printed without their causes: `%error`, `error = %failure`, `&error as
/// &dyn Error`. A log in JSON shows no causes of the last.
pub(super) fn causes(file: &File<'_>) -> Vec<Found> {
    let code = &file.code;
    let values = code.match_indices('%').filter_map(|(offset, _)| {
        let value = code[offset + 1..].split(|c: char| !is_of_path(c)).next().unwrap_or_default();
        is_bare_error(&code[..offset], value).then(|| (offset, format!("%{value}")))
    });
    let casts = code.match_indices("as &dyn Error").filter_map(|(offset, cast)| {
        let statement = code[..offset].rsplit(';').next().unwrap_or_default();
        statement.contains("tracing::").then(|| (offset, cast.to_owned()))
    });
    let found = |(offset, found)| {
        (line_at(code, offset), format!("`{found}`"), "use `error = %Chain(&error)`".to_owned())
    };
    values.chain(casts).map(found).collect()
}

fn is_of_path(character: char) -> bool {
    character == '.' || u8::try_from(character).is_ok_and(is_of_name)
}

/// Returns whether a value after `%` is an error, by its own name or by that of its field.
fn is_bare_error(before: &str, value: &str) -> bool {
    const NAMES: [&str; 4] = ["error", "source", "cause", "err"];
    let before = before.trim_end();
    // Anything else before it is the left side of a remainder.
    let is_field = before.ends_with(['(', ',', '=', '{']);
    let field = before.trim_end_matches(['=', ' ']).rsplit(|c: char| !is_of_path(c)).next();
    let by_field = before.ends_with('=') && field == Some("error") && value != "Chain";
    is_field && (by_field || value.split('.').any(|part| NAMES.contains(&part)))
}
