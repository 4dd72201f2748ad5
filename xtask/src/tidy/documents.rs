//! The first words of doc comments.

use super::rules::Ban;
use super::{File, Found};
use crate::rust_text::Part;

/// Finds doc comments that begin with the text of a ban.
pub(super) fn starts(file: &File<'_>, bans: &[Ban]) -> Vec<Found> {
    let Some(rust) = &file.rust else { return Vec::new() };
    let (mut found, mut before) = (Vec::new(), false);
    for (number, line, offset) in file.lines() {
        let marker = line.len() - line.trim_start().len();
        let text = line.trim_start().strip_prefix("///").or_else(|| line.trim_start().strip_prefix("//!"));
        let Some(text) = text.filter(|_| rust.parts()[offset + marker] == Part::Doc) else {
            before = false;
            continue;
        };
        let first = !std::mem::replace(&mut before, true);
        let text = text.trim_start();
        if let Some(ban) = bans.iter().find(|ban| first && text.starts_with(ban.found)) {
            found.push((
                number,
                format!("a doc comment begins with `{}`", ban.found.trim_end()),
                ban.instead.to_owned(),
            ));
        }
    }
    found
}
