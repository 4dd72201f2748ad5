//! The links, the code spans and the headings of Markdown.

use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Link,
    /// A code span.
    Code,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mention {
    /// From 1 on.
    pub(super) line: usize,
    pub(super) kind: Kind,
    pub(super) target: String,
}

/// Returns links, definitions of links, and code spans, all outside of code blocks.
pub(super) fn mentions(text: &str) -> Vec<Mention> {
    let mut mentions = Vec::new();
    for (line, text) in prose(text) {
        let (spans, rest) = code_spans(text);
        let add =
            |(kind, target): (Kind, &str)| mentions.push(Mention { line, kind, target: target.to_owned() });
        let links = links(&rest).into_iter().map(|link| (Kind::Link, link));
        spans.into_iter().map(|span| (Kind::Code, span)).chain(links).for_each(add);
    }
    mentions
}

/// Returns the anchors that GitHub gives to the headings.
pub(super) fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=6).contains(&level) && line[level..].starts_with(' ') {
            let slug = slug(line[level..].trim().trim_end_matches('#').trim_end());
            let numbered = (1..).map(|number| format!("{slug}-{number}"));
            let free = std::iter::once(slug.clone()).chain(numbered).find(|slug| !anchors.contains(slug));
            anchors.extend(free);
        }
    }
    anchors
}

/// Returns the lines outside of fenced code blocks, with their numbers. In a comment a fence stands after its
/// marker.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start_matches([' ', '/', '!', '>']).starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// Returns the code spans of a line, and the line without them.
fn code_spans(line: &str) -> (Vec<&str>, String) {
    let (mut spans, mut rest, mut at) = (Vec::new(), String::new(), 0);
    while let Some(start) = line[at..].find('`').map(|start| at + start) {
        let ticks: String = line[start..].chars().take_while(|c| *c == '`').collect();
        let inside = start + ticks.len();
        rest.push_str(&line[at..start]);
        match line[inside..].find(&ticks) {
            Some(length) => {
                spans.push(line[inside..inside + length].trim());
                at = inside + length + ticks.len();
            }
            // The span goes on in the next line, and is no path.
            None => at = inside,
        }
    }
    rest.push_str(&line[at..]);
    (spans, rest)
}

/// Returns the targets of `[text](target)` and of `[label]: target`.
fn links(line: &str) -> Vec<&str> {
    let target = |text: &'_ str| -> Option<usize> { text.find([')', ' ']) };
    let mut links: Vec<&str> = Vec::new();
    for (at, opening) in line.match_indices("](") {
        let text = &line[at + opening.len()..];
        links.push(&text[..target(text).unwrap_or(text.len())]);
    }
    let definition = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    links.extend(definition.and_then(|(_, target)| target.split_whitespace().next()));
    links.iter().map(|link| link.trim_start_matches('<').trim_end_matches('>')).collect()
}

/// Returns the anchor of a heading: in lower case, without punctuation, with hyphens for blanks.
fn slug(heading: &str) -> String {
    let mut text = String::new();
    // Only the text of a link counts.
    for (number, part) in heading.split("](").enumerate() {
        text.push_str(if number == 0 { part } else { part.split_once(')').map_or("", |(_, after)| after) });
    }
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::{Kind, anchors, mentions};

    #[track_caller]
    fn check(text: &str, expected: &[(usize, Kind, &str)]) {
        let found = mentions(text);
        let found: Vec<_> =
            found.iter().map(|found| (found.line, found.kind, found.target.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn links_and_code_spans_are_found_outside_of_code() {
        check("[a](b.md) and\n![c](d.png \"title\")", &[(1, Kind::Link, "b.md"), (2, Kind::Link, "d.png")]);
        check("[a]: b.md\n[c](<d e.md>)", &[(1, Kind::Link, "b.md"), (2, Kind::Link, "d")]);
        check("`[a](b)` ``c`d``", &[(1, Kind::Code, "[a](b)"), (1, Kind::Code, "c`d")]);
        check("```\n[a](b)\n```\n[`c`](d)", &[(4, Kind::Code, "c"), (4, Kind::Link, "d")]);
        check("/// ```\n/// `a`\n/// ```\n/// `b", &[]);
    }

    #[test]
    fn anchors_are_those_of_github() {
        let text = "# The `run` command: 1, 2 & 3!\n## A_b-c ##\n## Same\n## Same\n#none\n\
                    ```\n# none\n```\n### [To](x) it";
        let found: Vec<String> = anchors(text).into_iter().collect();
        assert_eq!(found, ["a_b-c", "same", "same-1", "the-run-command-1-2--3", "to-it"]);
    }
}
