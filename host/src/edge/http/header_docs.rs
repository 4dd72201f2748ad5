//! The headers that clients use, with their documentation.

/// A header of a request.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) name: &'static str,
    pub(super) example: &'static str,
    pub(super) meaning: &'static str,
}

pub(super) const IDEMPOTENCY_KEY: Header = Header {
    name: "Idempotency-Key",
    example: "cart-7",
    meaning: "The id of the command. A command repeated with its key takes effect once, and its first answer \
              is its answer: accepted forever, refused for a day. Equal JSON is the same payload. \
              Up to 255 characters.",
};

pub(super) const IF_MATCH: Header = Header {
    name: "If-Match",
    example: "\"7\"",
    meaning: "The version that the aggregate must have: the `ETag` of an earlier reply.",
};

pub(super) const PREFER: Header = Header {
    name: "Prefer",
    example: "wait=5",
    meaning: "`wait=N`: the seconds to wait for the end of the saga, or for the position of \
              `Kontor-Position`.",
};

pub(super) const KONTOR_POSITION: Header = Header {
    name: "Kontor-Position",
    example: "42",
    meaning: "The answer reflects at least this position of an earlier reply.",
};

pub(super) const IF_NONE_MATCH: Header = Header {
    name: "If-None-Match",
    example: "\"7-0123456789ab\"",
    meaning: "The `ETag` of a stored answer: 304 if it is still right.",
};

pub(super) const KONTOR_ACTOR: Header = Header {
    name: "Kontor-Actor",
    example: "ada",
    meaning: "The user on whose behalf the request is sent, up to 64 characters. It stays in the log, gives \
              no rights, and is the name of an act only if nobody has signed in.",
};

#[cfg(test)]
pub(super) const AUTHORIZATION: Header = Header {
    name: "Authorization",
    example: "Bearer kontor_5f0c9a3b7e21d846_…",
    meaning: "`Bearer` and a token of Kontor's own, or a JWT of a configured issuer.",
};

#[cfg(test)]
pub(super) const KONTOR_CSRF: Header = Header {
    name: "Kontor-CSRF",
    example: "9f86d081884c7d65",
    meaning: "`csrf` of `GET /auth/me`, for requests with an effect and the cookie of a session.",
};

pub(super) const KONTOR_SIGNATURE: Header = Header {
    name: "Kontor-Signature",
    example: "kX3v…==",
    meaning: "The signed statement about the component in base64, as `kontor sign` writes it: a DSSE \
              envelope. Several in the order of \
              the components, separated by commas.",
};

pub(super) const LAST_EVENT_ID: Header = Header {
    name: "Last-Event-ID",
    example: "42",
    meaning: "The position after which the stream of events continues.",
};

/// The headers that commands read.
pub(super) const COMMAND_HEADERS: [Header; 4] = [IDEMPOTENCY_KEY, IF_MATCH, PREFER, KONTOR_POSITION];

/// The headers that queries read.
pub(super) const QUERY_HEADERS: [Header; 3] = [KONTOR_POSITION, PREFER, IF_NONE_MATCH];
