use std::sync::LazyLock;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::contract::fuzz::{is_sentence, near_text};
use crate::error::with_causes;

/// Parts of a configuration.
const WORDS: &[&str] = &[
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    "\"",
    "'",
    "#",
    "\n",
    ".",
    ",",
    "0",
    "-1",
    "1e9",
    "18446744073709551616",
    "true",
    "nan",
    "1979-05-27",
    "services.payment",
    "grants.order",
    "auth",
    "tls",
    "limits",
    "\"\"",
    "0.0.0.0:1",
    "data = 1",
    "nats.replicas = 2",
    "retries.steps",
    "\u{e9}",
    "\u{0}",
];

/// The example in the documentation of the configuration.
static EXAMPLE: LazyLock<String> = LazyLock::new(|| {
    let lines = include_str!("../config.rs").lines().filter_map(|line| line.strip_prefix("//! "));
    let mut example = lines.skip_while(|line| *line != "```toml").skip(1).take_while(|line| *line != "```");
    let mut text = String::new();
    example.by_ref().for_each(|line| text.extend([line, "\n"]));
    text
});

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

/// Reads a file of this content.
fn read(text: &str) -> Result<(), ConfigError> {
    let file = FOLDER.path().join("kontor.toml");
    fs::write(&file, text).unwrap();
    let place = Place { config: Some(file), ..Place::default() };
    let config = Config::load(Overrides { place, ..Overrides::default() })?;
    config.service_configuration().map(drop)
}

#[test]
fn the_example_is_as_good_as_it_can_be_without_its_files() {
    let error = with_causes(&read(&EXAMPLE).unwrap_err());
    assert!(
        error.contains("kontor.toml:32:1: the secret secrets.payment.gateway-key cannot be read"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn a_file_of_any_content_is_read_or_refused_with_a_sentence(
        example in near_text(&[&*EXAMPLE], WORDS),
        text in r#"(\[{1,2}(services|grants|secrets|retries|limits|nats|deploy)[a-z.\"]{0,9}\]{1,2}
            |[a-z_-]{1,9} = ([0-9_.e-]{1,9}|true|'[^']{0,9}'|\{[a-z =1,]{0,9}\})
            |\PC{0,20}){0,6}"#
    ) {
        for text in [example, text] {
            if let Err(error) = read(&text) {
                is_sentence(&with_causes(&error))?;
            }
        }
    }
}
