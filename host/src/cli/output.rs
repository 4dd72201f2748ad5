//! The output of the commands: a host's response as it came, or text made of it.

use std::io::Write;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

/// Prints a response as it came, or as the text that `text` makes of it. `content` names it in an error.
pub(super) fn print<T: DeserializeOwned>(
    body: &str,
    content: &str,
    json: bool,
    out: &mut dyn Write,
    text: impl FnOnce(T) -> String,
) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", body.trim_end())?;
    } else {
        write!(out, "{}", text(parse(body, content)?))?;
    }
    Ok(())
}

/// Parses a response. Fails with a sentence that names its content.
pub(super) fn parse<T: DeserializeOwned>(body: &str, content: &str) -> anyhow::Result<T> {
    serde_json::from_str(body).with_context(|| {
        format!("cannot parse the host's response ({content}); are the CLI and the host the same version?")
    })
}

/// Returns `1 event` or `2 events`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_cannot_be_parsed_is_named_with_its_content() {
        let error = parse::<Vec<u64>>("{}", "list of sagas").unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot parse the host's response (list of sagas); are the CLI and the host the same version?"
        );
        assert!(format!("{error:#}").contains("expected a sequence"), "{error:#}");
    }
}
