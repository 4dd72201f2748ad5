//! Rust source split into code, comments and strings. It serves WIT too, whose comments look the same.

use std::ops::Range;

/// The kind of text that a byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Code,
    Comment,
    Doc,
    /// A string or a character, with its quotes.
    String,
    RawString,
}

pub(crate) struct RustText<'a> {
    text: &'a str,
    /// One for each byte.
    parts: Vec<Part>,
}

impl<'a> RustText<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let mut parts = Vec::with_capacity(bytes.len());
        while parts.len() < bytes.len() {
            let (part, end) = part_at(bytes, parts.len());
            parts.resize(end.clamp(parts.len() + 1, bytes.len()), part);
        }
        Self { text, parts }
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the text of the same length with blanks in place of all other parts. Lines and offsets stay.
    pub(crate) fn only(&self, wanted: &[Part]) -> String {
        let kept = |(offset, character): (usize, char)| match wanted.contains(&self.parts[offset]) {
            true => (character, 1),
            false if character == '\n' => ('\n', 1),
            false => (' ', character.len_utf8()),
        };
        let mut only = String::with_capacity(self.text.len());
        for (character, times) in self.text.char_indices().map(kept) {
            only.extend(std::iter::repeat_n(character, times));
        }
        only
    }

    /// Returns the bytes of items under `#[cfg(test)]`, attribute included.
    pub(crate) fn tests(&self) -> Vec<Range<usize>> {
        const ATTRIBUTE: &str = "#[cfg(test)]";
        let code = self.only(&[Part::Code]);
        let mut tests: Vec<Range<usize>> = Vec::new();
        for (start, _) in code.match_indices(ATTRIBUTE) {
            if tests.last().is_none_or(|last| last.end <= start) {
                tests.push(start..item_end(&code, start + ATTRIBUTE.len()));
            }
        }
        tests
    }
}

/// Returns where an item ends: after its first block, or at a semicolon before any block.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return offset + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Returns the part that begins at `start`, and its end.
fn part_at(bytes: &[u8], start: usize) -> (Part, usize) {
    let rest = &bytes[start..];
    match rest[0] {
        b'/' if rest.starts_with(b"//") => {
            let doc = rest.starts_with(b"//!") || (rest.starts_with(b"///") && rest.get(3) != Some(&b'/'));
            let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            (if doc { Part::Doc } else { Part::Comment }, start + length)
        }
        b'/' if rest.starts_with(b"/*") => {
            let doc = rest.starts_with(b"/*!") || (rest.starts_with(b"/**") && rest.get(3) != Some(&b'*'));
            (if doc { Part::Doc } else { Part::Comment }, start + block_comment_length(rest))
        }
        b'"' => (Part::String, start + string_length(rest)),
        b'r' if !continues_name(bytes, start) => match raw_string_length(rest) {
            Some(length) => (Part::RawString, start + length),
            None => (Part::Code, start + 1),
        },
        b'\'' => match character_length(rest) {
            Some(length) => (Part::String, start + length),
            None => (Part::Code, start + 1),
        },
        _ => (Part::Code, start + 1),
    }
}

/// Returns whether an `r` is the end of a name and no prefix of a string. `br` and `cr` are prefixes.
fn continues_name(bytes: &[u8], start: usize) -> bool {
    let before = |count: usize| start.checked_sub(count).map(|at| bytes[at]).filter(|byte| is_of_name(*byte));
    match before(1) {
        None => false,
        Some(b'b' | b'c') => before(2).is_some(),
        Some(_) => true,
    }
}

/// Returns whether a byte can stand in an identifier.
pub(crate) fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// None: a name that begins with r, or a raw identifier.
fn raw_string_length(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let body = 2 + hashes;
    let length = rest[body..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(rest.len(), |length| body + length + close.len()))
}

/// None: a lifetime.
fn character_length(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        // The character after the backslash may be a quote.
        return rest[3.min(rest.len())..].iter().position(|byte| *byte == b'\'').map(|length| length + 4);
    }
    let length = match rest.get(1)? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::{Part, RustText};

    #[track_caller]
    fn check(text: &str, part: Part, expected: &str) {
        let only = RustText::new(text).only(&[part]);
        assert_eq!(only.len(), text.len());
        assert_eq!(only.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{part:?} of {text}");
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        check("let a = \"x // y\"; // z", Part::Code, "let a = ;");
        check("let a = \"x // y\"; // z", Part::Comment, "// z");
        check("a /* b /* c */ d */ e", Part::Code, "a e");
        check("/// doc\n//! doc\n//// none\n// none", Part::Doc, "/// doc //! doc");
        check(r#"a("\"b", c)"#, Part::Code, "a( , c)");
    }

    #[test]
    fn raw_strings_end_at_as_many_hashes_as_they_begin_with() {
        check("a(r#\"b \" c\"#, d)", Part::Code, "a( , d)");
        check("a(br\"b\\\", d)", Part::RawString, "r\"b\\\"");
        check("var\"b\"", Part::Code, "var");
        check("r#type r", Part::Code, "r#type r");
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        check("f::<'a>('b', '\\'', '\\\\', '\u{e9}', '\"')", Part::Code, "f::<'a>( , , , , )");
        check("'\\u{41}' 'static", Part::Code, "'static");
    }

    #[test]
    fn items_under_cfg_test_are_tests_to_their_end() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}\n#[cfg(test)]\nuse d;\nfn e() {}";
        let tests: Vec<&str> = RustText::new(text).tests().into_iter().map(|range| &text[range]).collect();
        assert_eq!(tests, ["#[cfg(test)]\nmod tests { fn b() {} }", "#[cfg(test)]\nuse d;"]);
    }
}
