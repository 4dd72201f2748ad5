//! The modules of the host that a file names: in `use` declarations and in paths, by `crate`, `kontor` or
//! `super`.

use crate::rust_text::{Part, RustText, is_of_name};
use crate::sources::Source;

/// The name by which the binary knows the library.
const LIBRARY: &str = "kontor";
/// The module and the file that belong to the binary.
const BINARY: [&str; 2] = ["host/src/cli/", "host/src/main.rs"];

/// A top-level module that a file names. `*` stands for all of them, `self` for the root.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Use {
    /// From 1 on.
    pub(super) line: usize,
    pub(super) module: String,
}

pub(super) fn uses(file: &Source) -> Vec<Use> {
    let code = RustText::new(&file.text).only(&[Part::Code]);
    let in_binary = BINARY.iter().any(|path| file.path.starts_with(path));
    let mut reader = Reader { tokens: tokens(&code), depth: depth(&file.path), in_binary, uses: Vec::new() };
    reader.read();
    reader.uses
}

/// Returns how many `super` lead from a file of the host to the root of its crate.
fn depth(path: &str) -> usize {
    let inside = path.trim_start_matches("host/src/");
    let folders = inside.matches('/').count();
    match inside.rsplit('/').next() {
        Some("mod.rs" | "lib.rs" | "main.rs") => folders,
        _ => folders + 1,
    }
}

/// A name, `::`, or a character of punctuation.
struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let length = match bytes[at] {
            b':' if bytes.get(at + 1) == Some(&b':') => 2,
            byte if is_of_name(byte) => bytes[at..].iter().take_while(|byte| is_of_name(**byte)).count(),
            _ => 1,
        };
        match bytes[at] {
            b'\n' => line += 1,
            byte if byte.is_ascii_whitespace() => {}
            _ => tokens.push(Token { text: &code[at..at + length], line }),
        }
        at += length;
    }
    tokens
}

struct Reader<'a> {
    tokens: Vec<Token<'a>>,
    depth: usize,
    in_binary: bool,
    uses: Vec<Use>,
}

impl Reader<'_> {
    fn read(&mut self) {
        let mut braces = 0;
        // The braces around each inline module that is open here.
        let mut inline = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            match self.text(at) {
                "{" => {
                    braces += 1;
                    if at >= 2 && self.text(at - 2) == "mod" {
                        inline.push(braces);
                    }
                }
                "}" => {
                    inline.pop_if(|depth| *depth == braces);
                    braces -= 1;
                }
                _ => {}
            }
            if let Some(next) = self.root(at, self.depth + inline.len()) {
                self.modules(next);
            }
            at += 1;
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// Returns the index after a path to the root of the crate, `::` included, if one begins at `at`.
    fn root(&self, at: usize, depth: usize) -> Option<usize> {
        let after_path = at >= 2 && self.text(at - 1) == "::" && is_name(self.text(at - 2));
        match self.text(at) {
            "crate" => {}
            LIBRARY if self.in_binary && !after_path => {}
            "super" if !after_path || self.text(at - 2) == "self" => {
                let next = at + 2 * depth;
                let is_chain =
                    (at..next).step_by(2).all(|at| self.text(at) == "super" && self.text(at + 1) == "::");
                return (depth > 0 && is_chain).then_some(next);
            }
            _ => return None,
        }
        (self.text(at + 1) == "::").then_some(at + 2)
    }

    /// Notes the module at `at`, or each of a group in braces.
    fn modules(&mut self, at: usize) {
        if self.text(at) != "{" {
            return self.note(at);
        }
        let mut depth = 0;
        for at in at..self.tokens.len() {
            match self.text(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ if depth == 1 && matches!(self.text(at - 1), "{" | ",") => self.note(at),
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn note(&mut self, at: usize) {
        if let Some(Token { text, line }) = self.tokens.get(at) {
            self.uses.push(Use { line: *line, module: (*text).to_owned() });
        }
    }
}

fn is_name(text: &str) -> bool {
    text.bytes().all(is_of_name)
}
