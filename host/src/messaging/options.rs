//! The settings of messaging.

use std::time::Duration;

use serde::Deserialize;

use crate::clock::milliseconds;

/// The section `[messaging]` of the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MessagingOptions {
    /// The beginning of the `source` of all events: a URI such as `https://shop.example`. Default: `None`, a
    /// URN with an id of the log.
    pub source: Option<String>,
    /// The beginning of the `type` of all events: a reversed domain such as `example.shop`. Default: `None`,
    /// the type begins with the service.
    pub type_prefix: Option<String>,
    /// The time for which the messages of a subscription are kept when no deployed version has it any more.
    #[serde(rename = "dropped_subscription_ms", deserialize_with = "milliseconds")]
    pub dropped_subscription: Duration,
}

impl Default for MessagingOptions {
    /// A version that dropped a subscription by mistake is usually noticed within a day.
    fn default() -> Self {
        let dropped_subscription = Duration::from_secs(24 * 60 * 60);
        Self { source: None, type_prefix: None, dropped_subscription }
    }
}

/// A setting of messaging cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MessagingOptionsError {
    /// The source is no URI.
    #[error("messaging.source must be a URI such as https://shop.example, without a query")]
    Source,
    /// The prefix of the types is no domain.
    #[error("messaging.type_prefix must be a reversed domain such as example.shop")]
    TypePrefix,
    /// There is no time to take a subscription back.
    #[error("messaging.dropped_subscription_ms must be at least 1")]
    DroppedSubscription,
}

impl MessagingOptionsError {
    /// Returns the key in the section.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::TypePrefix => "type_prefix",
            Self::DroppedSubscription => "dropped_subscription_ms",
        }
    }
}

impl MessagingOptions {
    /// Checks that messages can be sent with these settings.
    pub fn check(&self) -> Result<(), MessagingOptionsError> {
        if !self.source.as_deref().is_none_or(is_base) {
            return Err(MessagingOptionsError::Source);
        }
        if !self.type_prefix.as_deref().is_none_or(is_domain) {
            return Err(MessagingOptionsError::TypePrefix);
        }
        if self.dropped_subscription.is_zero() {
            return Err(MessagingOptionsError::DroppedSubscription);
        }
        Ok(())
    }
}

/// Returns whether a text is an absolute URI to which a path can be added (RFC 3986).
fn is_base(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let in_scheme = |char: char| char.is_ascii_alphanumeric() || "+-.".contains(char);
    let in_rest = |char: char| char.is_ascii_alphanumeric() || "-._~:/@!$&'()*+,;=[]%".contains(char);
    scheme.starts_with(|char: char| char.is_ascii_alphabetic())
        && scheme.chars().all(in_scheme)
        && !rest.trim_matches('/').is_empty()
        && rest.chars().all(in_rest)
}

fn is_domain(text: &str) -> bool {
    let in_label = |char: char| char.is_ascii_alphanumeric() || char == '-';
    text.split('.').all(|label| !label.is_empty() && label.chars().all(in_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_uri_and_a_prefix_a_domain() {
        let table = [
            (Some("https://shop.example"), None, true),
            (Some("urn:shop:berlin"), Some("example.shop"), true),
            (Some("https://shop.example/a/"), Some("com"), true),
            (Some("/streams"), None, false),
            (Some("shop.example"), None, false),
            (Some("https://"), None, false),
            (Some("https://shop.example?a=b"), None, false),
            (Some("https://shop.example/a b"), None, false),
            (Some("1:a"), None, false),
            (None, Some("example..shop"), false),
            (None, Some("example.shop."), false),
            (None, Some("exam ple"), false),
            (None, Some(""), false),
        ];
        for (source, prefix, expected) in table {
            let (source, type_prefix) = (source.map(str::to_owned), prefix.map(str::to_owned));
            let options = MessagingOptions { source, type_prefix, ..MessagingOptions::default() };
            assert_eq!(options.check().is_ok(), expected, "{options:?}");
        }
        let never = MessagingOptions { dropped_subscription: Duration::ZERO, ..MessagingOptions::default() };
        assert!(never.check().is_err());
    }
}
