use super::rules::{Ban, Check, Place, RULES, Rule};
use super::{Breach, breaches, take_allowed};
use crate::sources::Source;

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// Returns the rules that a file breaks, each with its line.
fn broken(path: &str, text: &str) -> Vec<(&'static str, usize)> {
    let mut breaches = breaches(RULES, &[source(path, text)]);
    take_allowed(RULES, &mut breaches);
    breaches.iter().map(|breach| (breach.rule.name, breach.line)).collect()
}

#[track_caller]
fn red(rule: &str, path: &str, text: &str, line: usize) {
    assert_eq!(broken(path, text), [(rule, line)], "{path}: {text}");
}

#[track_caller]
fn green(path: &str, text: &str) {
    assert_eq!(broken(path, text), [], "{path}: {text}");
}

/// Returns a file in which the ban stands on the third line in one of the places, and nothing else is wrong.
fn sample(place: Place, found: &str) -> Source {
    let words = found.trim_end_matches('*');
    let name = words.replace(' ', "_");
    match place {
        Place::Comment => source("host/src/a.rs", &format!("\n\n// {words}\n")),
        Place::Text => source("host/src/a.rs", &format!("\n\nconst A: &str = \"{words}\";\n")),
        Place::Name | Place::NameStart => source("host/src/a.rs", &format!("\n\nfn {name}() {{}}\n")),
        Place::Prose => source("docs/a.md", &format!("\n\n{words}\n")),
    }
}

fn bans(rule: &'static Rule) -> &'static [Ban] {
    match rule.check {
        Check::Words(_, bans) | Check::DocStart(bans) | Check::Sentence(bans) | Check::Code { bans, .. } => {
            bans
        }
        Check::File(_) => &[],
    }
}

#[test]
fn every_banned_word_is_found_in_every_place_of_its_rule() {
    for rule in RULES {
        let Check::Words(places, bans) = &rule.check else { continue };
        for (place, ban) in places.iter().flat_map(|place| bans.iter().map(move |ban| (*place, ban))) {
            // A phrase is no identifier.
            if place == Place::Name && ban.found.contains(' ') {
                continue;
            }
            let Source { path, text } = sample(place, ban.found);
            red(rule.name, &path, &text, 3);
        }
    }
}

#[test]
fn every_banned_beginning_of_a_doc_comment_is_found() {
    for ban in RULES.iter().filter(|rule| matches!(rule.check, Check::DocStart(_))).flat_map(bans) {
        red("doc-start", "host/src/a.rs", &format!("//! {}events.\n", ban.found), 1);
        red("doc-start", "wit/a.wit", &format!("    /// {}events.\n", ban.found), 1);
        green("host/src/a.rs", &format!("/// The events\n/// {}events.\n", ban.found));
    }
}

#[test]
fn every_banned_beginning_of_a_sentence_is_found() {
    for ban in RULES.iter().filter(|rule| matches!(rule.check, Check::Sentence(_))).flat_map(bans) {
        let begin = ban.found;
        red("sentence", "host/src/a.rs", &format!("// {begin}is.\n"), 1);
        red("sentence", "host/src/a.rs", &format!("/// It is.\n/// {begin}is.\n"), 2);
        red("sentence", "host/src/a.rs", &format!("//! It\n//!\n//! {begin}is.\n"), 3);
        red("sentence", "wit/a.wit", &format!("    /// It is. {begin}is.\n"), 1);
        green("host/src/a.rs", &format!("// {begin}it? It is, and\n// {begin}it.\n"));
        green("host/src/a.rs", &format!("f(\"\n// {begin}is\n\")"));
    }
}

#[test]
fn every_banned_code_is_found() {
    for rule in RULES.iter().filter(|rule| matches!(rule.check, Check::Code { .. })) {
        for ban in bans(rule) {
            red(rule.name, "host/src/a.rs", &format!("\nfn f() {{ a({}) }}\n", ban.found), 2);
            green("host/src/a.rs", &format!("// {}\n", ban.found));
        }
    }
}

#[test]
fn no_replacement_is_banned_itself() {
    for ban in RULES.iter().flat_map(bans) {
        green("docs/a.md", ban.instead);
        green("host/src/a.rs", &format!("// {}\n", ban.instead));
    }
}

#[test]
fn words_are_whole_and_their_case_does_not_matter() {
    green("docs/a.md", "personal tolder retold troubled");
    red("voice", "docs/a.md", "Told.", 1);
    red("voice", "host/src/a.rs", "fn is_told() {}\n", 1);
    red("spelling", "host/src/a.rs", "enum TextColours {}\n", 1);
    red("names", "host/src/a.rs", "fn take_in_all() {}\n", 1);
    green("host/src/a.rs", "fn orders_take_in_all() {}\n");
    green("docs/a.md", "carry out");
}

#[test]
fn phrases_are_found_across_lines() {
    red("phrases", "host/src/a.rs", "/// The log is\n/// looked at.\n", 1);
    red("phrases", "docs/a.md", "The log is\nlooked at.", 1);
    green("docs/a.md", "What it is. Looked at another way, none.");
}

#[test]
fn errors_are_logged_with_their_causes() {
    for field in [
        "%error",
        "id, %error",
        "error = %error.0",
        "%source",
        "error = %failure",
        "error = &error as &dyn Error",
    ] {
        red("causes", "host/src/a.rs", &format!("fn f() {{ tracing::warn!({field}, \"failed\") }}\n"), 1);
    }
    green("host/src/a.rs", "fn f() { tracing::warn!(error = %Chain(&error), %id, \"failed\") }\n");
    green("host/src/a.rs", "fn f() -> f64 { part % error }\n");
    green("host/src/a.rs", "fn f() { show(&error as &dyn Error) }\n");
}

#[test]
fn tests_may_ask_the_real_clock() {
    let ask = "fn f() { Instant::now(); }\n";
    red("clock", "host/src/a.rs", ask, 1);
    green("host/src/a.rs", &format!("#[cfg(test)]\nmod tests {{\n{ask}}}\n"));
    green("host/src/a/tests.rs", ask);
    green("host/tests/a.rs", ask);
    green("host/src/a.rs", "fn f() { clock.now(); }\n");
}

#[test]
fn lines_are_as_wide_as_rustfmt_makes_them() {
    let words = "word ".repeat(22);
    let (fits, wide) = (format!("// {words}d"), format!("// {words}wide"));
    assert_eq!((fits.len(), wide.len()), (114, 117));
    green("host/src/a.rs", &fits[4..]);
    red("width", "host/src/a.rs", &wide, 1);
    red("width", "docs/a.md", &wide, 1);
    green("docs/a.md", &format!("```\n{wide}\n```\n| {wide} |\n"));
    green("host/src/a.rs", &format!("/// | {wide} |\n"));
    green("docs/a.md", &format!("{wide} <https://example.com>"));
    green("host/src/a.rs", &format!("const A: &str = r\"{wide}\";\n"));
    green("host/src/a.rs", &format!("const A: &str = \"{}\";\n", "x".repeat(110)));
    green("host/src/a.rs", &"é".repeat(59));
}

#[test]
fn files_of_code_have_500_lines_at_most() {
    green("host/src/a.rs", &"\n".repeat(500));
    red("length", "host/src/a.rs", &"\n".repeat(501), 1);
    green("docs/a.md", &"\n".repeat(501));
}

#[test]
fn white_space_is_where_it_is_seen() {
    red("trailing-space", "docs/a.md", "a\nb \n", 2);
    red("trailing-space", "host/src/a.rs", "a\r\nb", 1);
    red("tab", "host/src/a.rs", "\ta\n", 1);
    green("docs/a.md", "\ta");
}

#[test]
fn ignored_tests_have_a_reason() {
    red("ignored-test", "host/tests/a.rs", "#[test]\n#[ignore]\n", 2);
    green("host/tests/a.rs", "#[test]\n#[ignore = \"needs an hour\"]\n");
}

#[test]
fn what_is_allowed_is_no_finding_and_an_entry_without_effect_is_one() {
    static RULE: &[Rule] = &[Rule {
        name: "word",
        reason: "a test",
        check: Check::Words(&[Place::Prose], &[Ban { found: "word", instead: "`term`" }]),
        allowed: &[("docs/", "a test"), ("wit/", "a test")],
    }];
    let mut found = breaches(RULE, &[source("docs/a.md", "word"), source("b.md", "term\nword")]);
    let stale = take_allowed(RULE, &mut found);
    let found: Vec<String> = found.iter().map(|breach| Breach::finding(breach).to_string()).collect();
    assert_eq!(found, ["b.md:2: word: `word`; use `term`"]);
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].text, "word: `wit/` is allowed, and nothing there needs it; remove the entry");
}
