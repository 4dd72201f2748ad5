//! Holds `docs/reference/configuration.md` to the keys of [`Config`].

use std::collections::BTreeSet;

use super::Config;

const DOCUMENT: &str = include_str!("../../../docs/reference/configuration.md");

/// The sections whose names are chosen by the operator: the header of one entry in TOML, and its name in the
/// document.
const NAMED: [(&str, &str); 3] = [
    ("[grants.order]", "grants"),
    ("[[grants.order.http]]", "grants.http"),
    ("[[auth.issuers]]", "auth.issuers"),
];

/// The sections that have the same keys, which the document describes once.
const RETRY: [&str; 3] = ["retries.before_pivot", "retries.after_pivot", "retries.undo"];

/// Returns the keys that a table accepts, or none if it is not one with fixed keys. Serde lists them in its
/// error for an unknown one.
fn keys(header: &str) -> Option<Vec<String>> {
    let error = Config::parse(&format!("{header}\nunknown-key = 1")).err()?.to_string();
    let (_, expected) = error.split_once("unknown field `unknown-key`, expected ")?;
    Some(expected.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Adds the keys of a table and of the tables in it. `name` is the table's name in the document.
fn collect(header: &str, name: &str, found: &mut BTreeSet<String>) {
    for key in keys(header).unwrap() {
        let table = header.trim_matches(['[', ']']);
        let inner = format!("[{}]", format!("{table}.{key}").trim_start_matches('.'));
        let name = format!("{name}.{key}").trim_start_matches('.').to_owned();
        match keys(&inner) {
            Some(_) => collect(&inner, &name, found),
            None => {
                found.insert(name);
            }
        }
    }
}

/// Returns the key in the first cell of a row, without the name that the operator chooses for its last part.
fn documented_key(row: &str) -> Option<&str> {
    let (key, _) = row.strip_prefix("| `")?.split_once('`')?;
    Some(key.split_once(['<', '"']).map_or(key, |(fixed, _)| fixed.trim_end_matches('.')))
}

/// Returns the keys of the document: those in the first column of each table, below the section in the
/// heading.
fn documented() -> BTreeSet<String> {
    let (mut found, mut section) = (BTreeSet::new(), None);
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let name = heading.trim_matches(['`', '[', ']']).replace(".<name>", "");
            section = match heading.starts_with("`[") {
                true => Some(name + "."),
                false => (heading == "The host").then(String::new),
            };
        }
        if let (Some(section), Some(key)) = (&section, documented_key(line)) {
            found.insert(format!("{section}{key}").trim_end_matches('.').to_owned());
        }
    }
    found
}

#[test]
fn every_key_is_documented_and_no_other() {
    let mut found = BTreeSet::new();
    collect("", "", &mut found);
    for (header, name) in NAMED {
        collect(header, name, &mut found);
    }
    // The keys of a service are its own: the document has a sentence about them.
    found.remove("services");
    // Any key.
    found.remove("auth");
    // A list or a table of entries is documented by its entries.
    found.remove("grants");
    found.remove("auth.issuers");
    let retry = |key: &String| RETRY.iter().any(|entry| key.starts_with(entry));
    let (entries, mut found): (BTreeSet<String>, BTreeSet<String>) = found.into_iter().partition(retry);
    found.extend(RETRY.map(str::to_owned));
    found.extend(
        entries.iter().filter_map(|key| key.rsplit_once('.')).map(|(_, key)| format!("retries.{key}")),
    );
    assert_eq!(documented(), found);
}
