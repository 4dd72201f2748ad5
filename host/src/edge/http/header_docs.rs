//! The headers that clients send and get, with their documentation.

use serde_json::{Value, json};

/// A header of a request or of a reply.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    form: Form,
}

/// The form of a header's value.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// Texts that match a regular expression.
    Pattern(&'static str),
    /// Whole numbers, written with digits only.
    Number,
}

/// One entity tag or several, or any.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#;
/// One entity tag.
const TAG: &str = r#"^(W/)?"[!#-~]*"$"#;

impl Header {
    const fn text(name: &'static str, meaning: &'static str) -> Self {
        Self { name, meaning, form: Form::Text }
    }

    const fn pattern(name: &'static str, pattern: &'static str, meaning: &'static str) -> Self {
        Self { form: Form::Pattern(pattern), ..Self::text(name, meaning) }
    }

    const fn number(name: &'static str, meaning: &'static str) -> Self {
        Self { form: Form::Number, ..Self::text(name, meaning) }
    }

    /// Returns the JSON Schema of its value.
    pub(super) fn schema(&self) -> Value {
        match self.form {
            Form::Text => json!({"type": "string"}),
            Form::Pattern(pattern) => json!({"type": "string", "pattern": pattern}),
            Form::Number => {
                json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX})
            }
        }
    }
}

pub(super) const IDEMPOTENCY_KEY: Header = Header::pattern(
    "Idempotency-Key",
    r#"^([!#-~][!-~]{0,254}|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#,
    "The id of the command. A command repeated with its key takes effect once, and its first answer is its \
     answer: accepted forever, refused for a day. Equal JSON is the same payload. Up to 255 characters.",
);

pub(super) const IF_MATCH: Header = Header::pattern(
    "If-Match",
    TAGS,
    "The version that the aggregate must have: the `ETag` of an earlier reply.",
);

pub(super) const PREFER: Header = Header::text(
    "Prefer",
    "`wait=N`: the seconds to wait for the end of the saga, or for the position of `Kontor-Position`.",
);

pub(super) const KONTOR_POSITION: Header =
    Header::number("Kontor-Position", "The answer reflects at least this position of an earlier reply.");

pub(super) const IF_NONE_MATCH: Header = Header::text(
    "If-None-Match",
    "The `ETag` of a stored answer: 304 if it is still right. Other texts are ignored.",
);

/// The same header of commands.
pub(super) const EXCLUDED_VERSIONS: Header = Header::pattern(
    IF_NONE_MATCH.name,
    TAGS,
    "The versions that the aggregate must not have; with `*` it must not exist.",
);

pub(super) const KONTOR_ACTOR: Header = Header::pattern(
    "Kontor-Actor",
    "^[!-~]([ -~]{0,62}[!-~])?$",
    "The user on whose behalf the request is sent, up to 64 characters; others than ASCII in UTF-8. It stays \
     in the log, gives no rights, and is the name of an act only if nobody has signed in.",
);

#[cfg(test)]
pub(super) const AUTHORIZATION: Header =
    Header::text("Authorization", "`Bearer` and a token of Kontor's own, or a JWT of a configured issuer.");

#[cfg(test)]
pub(super) const KONTOR_CSRF: Header = Header::text(
    "Kontor-CSRF",
    "`csrf` of `GET /auth/me`, for requests with an effect and the cookie of a session.",
);

pub(super) const KONTOR_SIGNATURE: Header = Header::pattern(
    "Kontor-Signature",
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?(, ?([A-Za-z0-9+/]{4})*\
     ([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)*$",
    "The signed statement about the component in base64, as `kontor sign` writes it: a DSSE envelope. \
     Several in the order of the components, separated by commas.",
);

pub(super) const LAST_EVENT_ID: Header =
    Header::number("Last-Event-ID", "The position after which the stream of events continues.");

/// The headers that commands read.
pub(super) const COMMAND_HEADERS: [Header; 5] =
    [IDEMPOTENCY_KEY, IF_MATCH, EXCLUDED_VERSIONS, PREFER, KONTOR_POSITION];

/// The headers that queries read.
pub(super) const QUERY_HEADERS: [Header; 3] = [KONTOR_POSITION, PREFER, IF_NONE_MATCH];

pub(super) const X_REQUEST_ID: Header =
    Header::text("X-Request-Id", "The correlation id of everything that follows from the request.");

pub(super) const RETRY_AFTER: Header =
    Header::number("Retry-After", "The seconds after which a transient problem may have passed.");

/// Headers of replies.
pub(super) mod replies {
    use super::{Header, TAG};

    pub(in super::super) const ETAG: Header =
        Header::pattern("ETag", TAG, "The version of the aggregate, or of the stored answer.");

    pub(in super::super) const KONTOR_POSITION: Header =
        Header::number("Kontor-Position", "The position of the log that the reply reflects.");

    pub(in super::super) const LOCATION: Header = Header::text(
        "Location",
        "The path of the new aggregate, or of the saga that was started; where a browser goes on.",
    );

    pub(in super::super) const LINK: Header =
        Header::text("Link", "`rel=\"about\"`: the path of the aggregate that the saga is about.");

    pub(in super::super) const PREFERENCE_APPLIED: Header = Header::pattern(
        "Preference-Applied",
        "^wait=[0-9]+$",
        "The seconds that the host was ready to wait.",
    );

    pub(in super::super) const WWW_AUTHENTICATE: Header =
        Header::text("WWW-Authenticate", "How to identify the caller.");

    pub(in super::super) const ACCEPT_ENCODING: Header =
        Header::text("Accept-Encoding", "The encodings of a body that the host reads.");
}
