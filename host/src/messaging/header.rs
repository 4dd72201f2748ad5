//! Text as the value of a header, by the rule of the CloudEvents bindings for HTTP and NATS: everything but
//! printable ASCII is percent-encoded, and so are the space, `"` and `%`. The client of NATS panics on a line
//! break in a header, and other clients stumble over more.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The ASCII characters that are encoded. All others are encoded in any case.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Returns a text as the value of a header.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Reverses [`encode`]. A value that nobody encoded is returned as it is, unless it has a `%`.
pub(super) fn decode(value: &str) -> Cow<'_, str> {
    percent_decode_str(value).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_printable_ascii_without_quotes_and_spaces() {
        for (text, expected) in [
            ("place-order/pay", "place-order/pay"),
            ("", ""),
            ("a b\"c%", "a%20b%22c%25"),
            ("Cup\r\nblue", "Cup%0D%0Ablue"),
            ("\u{0}\u{7f}~!", "%00%7F~!"),
            ("k\u{f6}ln \u{20ac}", "k%C3%B6ln%20%E2%82%AC"),
        ] {
            assert_eq!(encode(text), expected);
            assert_eq!(decode(expected), text);
        }
    }

    proptest! {
        #[test]
        fn every_text_is_a_value_and_comes_back(text in ".*") {
            let value = encode(&text);
            prop_assert!(value.bytes().all(|byte| matches!(byte, 0x21..=0x7e)), "{value}");
            prop_assert!(value.parse::<async_nats::HeaderValue>().is_ok());
            prop_assert_eq!(decode(&value), text);
        }
    }
}
