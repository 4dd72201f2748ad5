//! Banned words and phrases, found in one pass over a file.

use std::collections::HashMap;

use super::rules::{Ban, Check, Place, Rule};
use super::{File, Found};
use crate::rust_text::Part;

/// The bans of all rules by the first letters of their first words.
pub(super) struct Index {
    bans: HashMap<Vec<u8>, Vec<Entry>>,
}

struct Entry {
    rule: &'static Rule,
    places: &'static [Place],
    ban: &'static Ban,
    words: Vec<&'static str>,
    /// The separation between its words.
    gap: Gap,
}

/// The separation of a word from the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gap {
    /// Blanks, or the end of a line and the beginning of the next comment.
    Blank,
    /// The parts of one identifier: `carry_out`, `CarryOut`.
    Joined,
    Other,
}

struct Word<'a> {
    text: &'a str,
    offset: usize,
    gap: Gap,
}

/// The number of letters that the index uses as its key. With fewer, more banned words would share a key.
const KEY: usize = 4;

impl Index {
    pub(super) fn new(rules: &'static [Rule]) -> Self {
        let mut bans: HashMap<Vec<u8>, Vec<Entry>> = HashMap::new();
        for rule in rules {
            let Check::Words(places, list) = &rule.check else { continue };
            for ban in *list {
                let gap = if ban.found.contains('_') { Gap::Joined } else { Gap::Blank };
                let words: Vec<&str> = ban.found.split([' ', '_']).collect();
                bans.entry(key(words[0])).or_default().push(Entry { rule, places, ban, words, gap });
            }
        }
        Self { bans }
    }

    pub(super) fn search(&self, file: &File<'_>, add: &mut impl FnMut(&'static Rule, Found)) {
        let words = words(&file.source.text);
        let (mut line, mut counted) = (1, 0);
        for (at, word) in words.iter().enumerate() {
            for entry in self.bans.get(&key(word.text)).into_iter().flatten() {
                if entry.stands_at(&words[at..]) && entry.is_for(place(file, word.offset), word.gap) {
                    let passed = &file.source.text.as_bytes()[counted..word.offset];
                    line += passed.iter().filter(|byte| **byte == b'\n').count();
                    counted = word.offset;
                    let found = entry.ban.found.trim_end_matches('*');
                    add(entry.rule, (line, format!("`{found}`"), format!("use {}", entry.ban.instead)));
                }
            }
        }
    }
}

impl Entry {
    fn is_for(&self, place: Place, gap: Gap) -> bool {
        let starts = place == Place::Name && gap != Gap::Joined;
        self.places.contains(&place) || (starts && self.places.contains(&Place::NameStart))
    }

    fn stands_at(&self, words: &[Word<'_>]) -> bool {
        words.len() >= self.words.len()
            && self.words.iter().zip(words).enumerate().all(|(number, (banned, word))| {
                (number == 0 || word.gap == self.gap) && is(word.text, banned)
            })
    }
}

/// Returns whether a word is a banned one, or begins with one that ends in an asterisk.
fn is(word: &str, banned: &str) -> bool {
    match banned.strip_suffix('*') {
        Some(stem) => word.get(..stem.len()).is_some_and(|start| start.eq_ignore_ascii_case(stem)),
        None => word.eq_ignore_ascii_case(banned),
    }
}

fn key(word: &str) -> Vec<u8> {
    word.bytes().filter(|byte| *byte != b'*').take(KEY).map(|byte| byte.to_ascii_lowercase()).collect()
}

fn place(file: &File<'_>, offset: usize) -> Place {
    match file.rust.as_ref().map(|rust| rust.parts()[offset]) {
        None => Place::Prose,
        Some(Part::Comment | Part::Doc) => Place::Comment,
        Some(Part::String | Part::RawString) => Place::Text,
        Some(Part::Code) => Place::Name,
    }
}

/// Splits a text into its words, and identifiers into the words that they are made of.
fn words(text: &str) -> Vec<Word<'_>> {
    let bytes = text.as_bytes();
    let (mut words, mut at, mut end) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        if !is_letter(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        at += 1;
        while at < bytes.len() && is_letter(bytes[at]) && !is_hump(bytes, at) {
            at += 1;
        }
        words.push(Word { text: &text[start..at], offset: start, gap: gap(&bytes[end..start]) });
        end = at;
    }
    words
}

/// All that is not ASCII belongs to a word, so that it is split at ASCII only.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn is_hump(bytes: &[u8], at: usize) -> bool {
    bytes[at].is_ascii_uppercase() && bytes[at - 1].is_ascii_lowercase()
}

fn gap(between: &[u8]) -> Gap {
    let of_lines = |byte: &u8| byte.is_ascii_whitespace() || b"/!*#>\\".contains(byte);
    match between {
        b"" | b"_" => Gap::Joined,
        blank if blank.iter().all(u8::is_ascii_whitespace) => Gap::Blank,
        lines if lines.contains(&b'\n') && lines.iter().all(of_lines) => Gap::Blank,
        _ => Gap::Other,
    }
}
