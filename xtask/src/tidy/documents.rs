//! The beginnings of doc comments, and of the sentences in all comments.

use super::rules::Ban;
use super::{File, Found};
use crate::rust_text::Part;

/// A line that is a comment as a whole.
struct Line<'a> {
    number: usize,
    /// The text after the marker.
    text: &'a str,
    doc: bool,
    /// True if the line before is no comment with the same marker.
    first: bool,
}

/// Finds doc comments that begin with the text of a ban.
pub(super) fn starts(file: &File<'_>, bans: &[Ban]) -> Vec<Found> {
    let starts = lines(file).into_iter().filter(|line| line.doc && line.first);
    starts.filter_map(|line| found(&line, line.text, "a doc comment", bans)).collect()
}

/// Finds sentences of comments that begin with the text of a ban. Questions and the beginnings of doc
/// comments are left out.
pub(super) fn sentences(file: &File<'_>, bans: &[Ban]) -> Vec<Found> {
    const STOPS: [&str; 3] = [".", "!", "?"];
    let mut all = Vec::new();
    // True after an empty line of a comment too.
    let mut stopped = true;
    for line in lines(file) {
        let begins = if line.first { !line.doc } else { stopped };
        let within = line.text.match_indices(". ").map(|(stop, text)| &line.text[stop + text.len()..]);
        let sentences = begins.then_some(line.text).into_iter().chain(within);
        let statements = sentences.filter(|text| !text.split(". ").next().unwrap_or_default().contains('?'));
        all.extend(statements.filter_map(|text| found(&line, text, "a sentence", bans)));
        stopped = line.text.is_empty() || STOPS.iter().any(|stop| line.text.ends_with(stop));
    }
    all
}

fn found(line: &Line<'_>, text: &str, what: &str, bans: &[Ban]) -> Option<Found> {
    let ban = bans.iter().find(|ban| text.starts_with(ban.found))?;
    Some((line.number, format!("{what} begins with `{}`", ban.found.trim_end()), ban.instead.to_owned()))
}

fn lines<'a>(file: &'a File<'_>) -> Vec<Line<'a>> {
    let Some(rust) = &file.rust else { return Vec::new() };
    let (mut lines, mut before) = (Vec::new(), None);
    for (number, line, offset) in file.lines() {
        let text = line.trim_start();
        let marker = ["///", "//!", "//"].into_iter().find(|marker| text.starts_with(marker));
        let part = rust.parts().get(offset + line.len() - text.len());
        let marker = marker.filter(|_| matches!(part, Some(Part::Doc | Part::Comment)));
        if let Some(marker) = marker {
            let (first, doc) = (before != Some(marker), part == Some(&Part::Doc));
            lines.push(Line { number, text: text[marker.len()..].trim(), doc, first });
        }
        before = marker;
    }
    lines
}
